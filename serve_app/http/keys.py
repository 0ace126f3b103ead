"""API keys: the keys file, the check of a key, and where the server may listen without keys."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping

from cluster.errors import UserError
from cluster.profile import Serve
from cluster.text_files import read_text_file

MIN_KEY_CHARS = 16
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
KEY = re.compile(r"[\x21-\x7e]+")  # printable ASCII without blanks: a header carries it unchanged
_FORM = "a line must be `name:key`, the name of at most 100 letters, digits and ._-"


class Keyring:
    """The valid keys. It stores only their sha256 digests."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys`: name -> key."""
        self._digests = {name: _digest(key) for name, key in keys.items()}

    def name_of(self, key: str) -> str:
        """The name of a key, "" for an invalid one. Takes the same time for every key, valid or not."""
        given, found = _digest(key), ""
        for name, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found


def read_keys(path: str) -> dict[str, str]:
    """The keys in a file, name -> key. Each line is `name:key`; blank lines and `#` comments are skipped.

    Raises:
        UserError: no such file, a malformed line, a short key, a repeated name or key, or no key at all. The
            message names file and line, never the key.
    """
    try:
        lines = read_text_file(path).split("\n")
    except UserError as error:
        raise UserError(f"The keys file cannot be used, correct serve.keys_file: {error}") from None
    keys: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        name, colon, key = (part.strip() for part in line.partition(":"))
        if fault := _fault(name, key, keys) if colon else _FORM:
            raise UserError(f"Keys file {path}, line {number}: {fault}.")
        keys[name] = key
    if not keys:
        raise UserError(f"The keys file {path} has no keys: add a line `name:key`.")
    return keys


def check_exposure(host: str, config: Serve) -> None:
    """Refuse to listen beyond this machine without keys, or with an invalid keys file.

    Raises:
        UserError: `host` is not a loopback address and there is no keys file, or the file is invalid.
    """
    if config.keys_file:
        read_keys(config.keys_file)
    elif not is_loopback(host):
        raise UserError(
            f"Listening on {host} would give other machines access to the search without a key: give "
            "--keys-file (a file of `name:key` lines), or --host 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host: `localhost`, 127.0.0.0/8 or ::1."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _fault(name: str, key: str, known: Mapping[str, str]) -> str:
    """What is wrong with a line, or "". Quotes neither name nor key: either may be the secret."""
    if not NAME.fullmatch(name):
        return _FORM
    if len(key) < MIN_KEY_CHARS or not KEY.fullmatch(key):
        return f"the key needs at least {MIN_KEY_CHARS} printable ASCII characters without blanks"
    if name in known:
        return "this name was used before"
    if key in known.values():
        return "this key belongs to another name"
    return ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
