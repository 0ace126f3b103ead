"""API keys: the file that names them, who holds which, and where the endpoint may listen without any."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import UserError
from cluster.profile import Serve

MIN_KEY_CHARS = 16
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
KEY = re.compile(r"[\x21-\x7e]+")  # what a header carries as it is: printable ASCII, no blanks
_FORM = "a line is `name:key`, the name of at most 100 letters, digits and ._-"


class Keyring:
    """The keys that are known. It holds their sha256 digests only."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys`: name -> key."""
        self._digests = {name: _digest(key) for name, key in keys.items()}

    def name_of(self, key: str) -> str:
        """Whose key it is, "" for nobody's. Takes the same time whichever key matches, and for none."""
        given, found = _digest(key), ""
        for name, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found


def read_keys(path: str) -> dict[str, str]:
    """The keys of a file, name -> key: `name:key` a line, blank lines and `#` comments left out.

    Raises:
        UserError: no such file, a line of another form, a key that is too short, a name or key given twice,
            or no key at all. The sentence names file and line, never the key.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The keys file {path} cannot be read ({error}): correct serve.keys_file.") from None
    keys: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        name, colon, key = (part.strip() for part in line.partition(":"))
        if fault := _fault(name, key, keys) if colon else _FORM:
            raise UserError(f"Keys file {path}, line {number}: {fault}.")
        keys[name] = key
    if not keys:
        raise UserError(f"The keys file {path} holds no key: add a line `name:key`.")
    return keys


def check_exposure(host: str, config: Serve) -> None:
    """Refuse to listen beyond this machine without keys, and a keys file that is wrong.

    Raises:
        UserError: `host` is no loopback address and there is no keys file, or the file is wrong.
    """
    if config.keys_file:
        read_keys(config.keys_file)
    elif not is_loopback(host):
        raise UserError(
            f"The search would listen on {host}, where others reach it, and asks for no key: give "
            "--keys-file (`name:key` a line), or --host 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host: `localhost`, 127.0.0.0/8 or ::1."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _fault(name: str, key: str, known: Mapping[str, str]) -> str:
    """What is wrong with a line, or "". Shows neither part of it: either may be a key."""
    if not NAME.fullmatch(name):
        return _FORM
    if len(key) < MIN_KEY_CHARS or not KEY.fullmatch(key):
        return f"the key needs at least {MIN_KEY_CHARS} printable ASCII characters without blanks"
    if name in known:
        return "the name stands there twice"
    if key in known.values():
        return "the key is that of another name"
    return ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
