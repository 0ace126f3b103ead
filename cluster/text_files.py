"""Users' texts: opening and decoding their files, and putting a text on one line."""

import codecs
import re
from pathlib import Path
from typing import BinaryIO, cast

from pyarrow import fs

from cluster.errors import UserError, shown
from cluster.files import open_file

# The BOM of UTF-32 begins with that of UTF-16, so it is tried first.
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
SURROGATES = re.compile("[\ud800-\udfff]")
NO_TEXT = re.compile("[\0\ud800-\udfff]")
BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ufeff]+")
NOT_UNICODE = "is not Unicode text (a byte that is not UTF-8, or half of a surrogate pair)"


def decode(data: bytes) -> str:
    """The text: UTF-8 unless a byte-order mark, or zero bytes among the first letters, show another encoding.

    Never raises: bytes that do not fit become lone surrogates, which `is_unicode` finds.
    """
    bom, encoding = next((known for known in BOMS if data.startswith(known[0])), (b"", _without_bom(data)))
    if encoding != "utf-8":
        try:
            return data[len(bom) :].decode(encoding, "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "surrogateescape")
    return data[len(bom) :].decode("utf-8", "surrogateescape")


def _without_bom(data: bytes) -> str:
    high, low = data[:64:2], data[1:64:2]
    if 2 * low.count(0) > len(low) and not high.count(0):
        return "utf-16-le"
    return "utf-16-be" if 2 * high.count(0) > len(high) and not low.count(0) else "utf-8"


def is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogate: no table or file can hold one."""
    return not SURROGATES.search(text)


def one_line(text: str) -> str:
    """The text with each run of white space and control characters as one blank."""
    return BLANKS.sub(" ", text).strip()


def read_text_file(path: str | Path) -> str:
    """The text of a file. Raises UserError when it cannot be read, or is not text."""
    with open_user_file(path) as file:
        text = decode(file.read())
    if bad := NO_TEXT.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise UserError(f"{shown(str(path))}, line {line} is not text: give a text file, saved as UTF-8")
    return text


def open_user_file(path: str | Path) -> BinaryIO:
    """The file, opened to read its bytes. Raises UserError when it cannot be, or is a folder or a FIFO."""
    name = shown(str(path))
    try:
        return cast(BinaryIO, open_file(fs.LocalFileSystem(), str(path)))
    except FileNotFoundError:
        raise UserError(f"the file {name} does not exist: give the path of an existing one") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"the file {name} cannot be read ({reason}): give the path of another file") from None
