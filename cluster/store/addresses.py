"""Addresses of stores, and the addresses by which a store remembers folders such as those of encoders.

A folder below the store's parent is remembered relative to the store, so both can be moved or copied
together. A shipped model is remembered relative to the repository, any other folder by its absolute path, and
a name that is not a local folder, such as a hub name, unchanged.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.errors import UserError
from cluster.profile import ROOT, repo_path

REMOTE = ("s3", "gs", "az")
SCHEME = re.compile(r"([A-Za-z][\w+.-]*):/")
LOCAL_URI = re.compile(r"file:(?://(?:localhost)?)?(/[^/].*)")


def store_address(uri: str) -> str:
    """The absolute path of a local store (a path or file://), or an s3://, gs:// or az:// address.

    Raises UserError for an address of another kind.
    """
    if local := LOCAL_URI.fullmatch(uri):
        uri = unquote(local[1])
    elif scheme := SCHEME.match(uri):
        if scheme[1] not in REMOTE or not urlsplit(uri).netloc:
            kinds = ", ".join(f"{name}://" for name in REMOTE)
            raise UserError(
                f"The store {uri!r} is neither a local folder nor an object store: give a folder, or "
                f"an address such as s3://bucket/store that begins with {kinds}."
            )
        return uri.rstrip("/")
    if not uri.strip() or "\0" in uri:
        raise UserError(f"The store {uri!r} has no usable name: give a folder, or s3://bucket/store.")
    return os.path.abspath(os.path.expanduser(uri))


def remembered(path: str, store: str) -> str:
    """The address by which the store at `store` remembers a folder."""
    local = Path(os.path.abspath(repo_path(path)))
    if not local.exists():
        return path
    if local.resolve().is_relative_to(ROOT / "models"):
        return str(local.resolve().relative_to(ROOT))
    for below, base in ((local, Path(store)), (local.resolve(), Path(store).resolve())):
        in_root = base.parent == Path(base.root)  # every folder is below the root
        if "://" not in store and not in_root and below.is_relative_to(base.parent):
            return os.path.join(".", os.path.relpath(below, base))
    return str(local)


def located(address: str, store: str) -> str:
    """The folder or name of a `remembered` address, for the store as it lies now."""
    if not address.startswith("./") or "://" in store:
        return address
    # A store that is itself a symbolic link has two parents.
    paths = [os.path.normpath(os.path.join(base, address)) for base in (store, os.path.realpath(store))]
    return next(filter(os.path.exists, paths), paths[0])
