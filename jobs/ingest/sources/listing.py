"""Lists the files at a path or filesystem URI, and recognises the kind of source."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import quote

from pyarrow import fs

from actors.images.files import SUFFIXES
from cluster.errors import UserError, shown
from cluster.files import MAX_FILE_BYTES, require_regular, too_large

# Formats of pictures that are not decoded: each file is rejected by name. Camera raw files come last.
UNREAD_EXTENSIONS = frozenset((
    "jxl", "svg", "svgz", "psd", "psb", "xcf", "kra", "ai", "eps", "ico", "icns", "cur", "tga", "exr", "hdr",
    "dds", "pcx", "qoi", "wmf", "emf", "sgi", "ras", "xbm", "xpm", "jxr", "wdp", "flif", "bpg", "cdr",
    "3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "gpr", "iiq", "kdc", "mef", "mos", "mrw", "nef",
    "nrw", "orf", "pef", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "x3f",
)) - SUFFIXES  # fmt: skip
PICTURE_EXTENSIONS = SUFFIXES | UNREAD_EXTENSIONS
# How the bytes of a picture begin.
PICTURE_CONTENT = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("GIF", rb"GIF8[79]a"),
    ("WebP", rb"RIFF....WEBP"),
    ("BMP", rb"BM....\0\0\0\0.\0\0\0[\x0c-\x7c]\0\0\0"),
    ("TIFF or camera raw", rb"II[*+]\0|MM\0[*+]|IIRO|IIRS|IIU\0|FUJIFILMCCD-RAW|\0MRM"),
    ("HEIF or AVIF", rb"....ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1|avif|avis|crx )"),
    ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),
    ("Photoshop", rb"8BPS\0[\1\2]"),
    ("portable map", rb"P[1-6][ \t\r\n]+(#[^\n]*\n|\d+\s)|P[fF]\n\d+ "),
    ("SVG", rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]"),
)
HEAD_BYTES = 512
# Folders of thumbnails, deleted files and snapshots, in lower case: Synology, QNAP, Windows, macOS, Linux.
HIDDEN_FOLDERS = frozenset((
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin",
    "recycler", "recycled", "system volume information", "__macosx", "network trash folder",
    "temporary items", "~snapshot", "lost+found",
))  # fmt: skip
PARQUET_EXTENSIONS = frozenset(("parquet", "pq"))
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
WORD_EXTENSIONS = frozenset(("txt", "text", "caption", "json"))
METADATA_NAMES = ("metadata.parquet", "metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class Location:
    """A path on a filesystem; `prefix` begins the addresses stored in the tables, "" on this machine."""

    filesystem: fs.FileSystem
    path: str
    prefix: str
    is_file: bool

    def uri(self, path: str) -> str:
        """The address of a path on the same filesystem."""
        return self.prefix + quote(path) if self.prefix else path


def locate(source: str) -> Location:
    """Resolve a local path or filesystem URI. Raises UserError when it is missing or unreachable."""
    try:
        if "://" in source:
            filesystem, path = fs.FileSystem.from_uri(source)
        else:
            filesystem, path = fs.LocalFileSystem(), os.path.abspath(source)
        found = filesystem.get_file_info(path)
    except Exception as error:  # a filesystem's client raises what it likes, such as errors of HTTP
        raise UserError(f"source {shown(source)} cannot be reached: {error}") from error
    if found.type == fs.FileType.NotFound:
        raise UserError(
            f"source {shown(source)} does not exist; give a folder of images, Parquet files, WebDataset tars "
            "or a Lance table, as a path or a URI such as s3://bucket/folder."
        )
    if found.type == fs.FileType.Unknown:
        raise UserError(f"source {shown(source)} is neither a file nor a folder; give one of these.")
    local = isinstance(filesystem, fs.LocalFileSystem)
    prefix = "" if local else source.partition("://")[0] + "://"
    return Location(filesystem, path.rstrip("/") or "/", prefix, found.type == fs.FileType.File)


@dataclass(frozen=True)
class Listing:
    """What is at or below a location: files to read, inputs that cannot be read, and hidden files.

    rejects: (path, reason). ignored: how many files are hidden, by the name that hides them.
    """

    files: list[tuple[str, int]]
    rejects: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def list_files(location: Location, include_hidden: bool = False) -> Listing:
    """List the files at or below the location, sorted by path. Raises UserError when it is unreachable."""
    if location.is_file:
        return Listing([(location.path, location.filesystem.get_file_info(location.path).size)])
    listing = Listing([])
    local = isinstance(location.filesystem, fs.LocalFileSystem)
    for path, size, problem in _local_files(location.path) if local else _remote_files(location):
        hidden = "" if include_hidden else hidden_by(path[len(location.path) :])
        if hidden:
            listing.ignored[printable(hidden)] += 1
        elif problem:
            listing.rejects.append((path, problem))
        else:
            listing.files.append((path, size))
    listing.files.sort()
    return listing


def _local_files(root: str) -> Iterator[tuple[str, int, str]]:
    """(path, bytes, why it cannot be read or "") of all entries but folders, and of unreadable folders.

    Arrow's own listing fails at a name that is not UTF-8, and `os.walk` fails in deep folders.
    """
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        yield (entry.path, *_size_of(entry))
        except OSError as error:
            yield folder, 0, f"the folder cannot be entered: {error.strerror}"


def _size_of(entry: os.DirEntry) -> tuple[int, str]:
    """The size of a file, or why it cannot be read."""
    try:
        status = os.stat(entry.path)
        if stat.S_ISDIR(status.st_mode):
            return 0, "a link to a folder is not followed: give that folder as another --source"
        require_regular(status)
    except OSError as error:
        broken = "it is a broken link: " if error.errno and entry.is_symlink() else ""
        return 0, f"{broken}{error.strerror or error}"
    return status.st_size, ""


def _remote_files(location: Location) -> Iterator[tuple[str, int, str]]:
    try:
        infos = location.filesystem.get_file_info(fs.FileSelector(location.path, recursive=True))
    except OSError as error:
        raise UserError(
            f"the files of source {shown(location.uri(location.path))} cannot be listed ({error}): check its "
            "address and your access to it."
        ) from error
    for info in infos:
        if info.type == fs.FileType.File:
            yield info.path, info.size, ""


def hidden_by(path: str) -> str:
    """What hides a file: the name of a hidden folder above it, `.*` for its own name, "" if nothing."""
    *folders, name = [part for part in path.split("/") if part not in ("", ".", "..")] or [""]
    for folder in folders:
        if folder.startswith(".") or folder.lower() in HIDDEN_FOLDERS:
            return f"{folder}/"
    return ".*" if name.startswith(".") else ""


def kind_of(location: Location, files: list[tuple[str, int]], source: str) -> str:
    """`folder`, `parquet`, `webdataset` or `lance`. Raises UserError when the files are none of these.

    Files with images are a folder, unless the images are few beside a dataset: at most ten for each tar or
    Parquet file, fewer bytes in total, and not all with words beside them.
    """
    if any(f"{location.path}/_versions/" in path for path, _ in files):
        return "lance"
    images, tars, tables = images_of(files), tars_of(files), parquet_of(files)
    dataset = tars or tables
    few = len(images) <= 10 * len(dataset) and _bytes(images) < _bytes(dataset)
    worded = {stem(path) for path, _ in files if extension(path) in WORD_EXTENSIONS}
    few = few and not all(stem(path) in worded for path, _ in images)
    if images and not few:
        return "folder"
    if dataset:
        return "webdataset" if tars else "parquet"
    if pictures_of(files):
        return "folder"
    raise UserError(
        f"source {shown(source)} has no images: none of its files ends in tar, parquet or an image's "
        f"extension ({', '.join(sorted(SUFFIXES))})."
    )


def _bytes(files: list[tuple[str, int]]) -> int:
    return sum(size for _, size in files)


def images_of(files: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The files with the extension of an image that can be read."""
    return [(path, size) for path, size in files if extension(path) in SUFFIXES]


def pictures_of(files: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The files with the extension of an image, also of one whose format is not read."""
    return [(path, size) for path, size in files if extension(path) in PICTURE_EXTENSIONS]


def tars_of(files: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The files with the ending of a tar."""
    return [(path, size) for path, size in files if path.lower().endswith(TAR_SUFFIXES)]


def parquet_of(files: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The Parquet files, except metadata tables of a folder."""
    parquet = [file for file in files if extension(file[0]) in PARQUET_EXTENSIONS]
    return [file for file in parquet if os.path.basename(file[0]) not in METADATA_NAMES]


def problem(path: str, size: int) -> str:
    """Why an image file is rejected unread; "" if it is not."""
    if extension(path) in UNREAD_EXTENSIONS:
        return f"images of the format .{extension(path)} are not read: convert it to JPEG or PNG"
    if size > MAX_FILE_BYTES:
        return too_large()
    return "" if printable(path) == path else "the file's name is not UTF-8"


def picture_content(head: bytes) -> str:
    """Why a file without an image's extension is rejected: it begins like a picture; "" if it does not."""
    form = next((form for form, pattern in PICTURE_CONTENT if re.match(pattern, head, re.DOTALL)), "")
    return f"it has the content of a picture ({form}), but no image extension: rename it" if form else ""


def ending(path: str) -> str:
    """What the report groups files by: `*.txt`, or `no extension`."""
    suffix = extension(path)
    return f"*.{suffix}" if suffix else "no extension"


def extension(path: str) -> str:
    """The last suffix in lower case without its dot: `jpg` for `a/b.JPG`."""
    return PurePosixPath(path).suffix.lower().removeprefix(".")


def stem(name: str) -> str:
    """The name without its last suffix: `a/b.c` for `a/b.c.jpg`."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + (file.rpartition(".")[0] or file)


def printable(path: str) -> str:
    """The path as valid text: bytes that are not UTF-8 become `\\xff` and the like."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return path.encode("utf-8", "backslashreplace").decode()
