"""Folders and tars as nobody should make them: what a source may hold besides good images."""

import io
import os
import pickle
import socket
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

from pictures import encoded, gradient

from cluster.profile import Stage
from jobs.ingest.config import IngestConfig
from jobs.ingest.prepare import SourceRow
from jobs.ingest.sources.opening import open_source
from jobs.ingest.sources.source import Source

STRANGE_NAMES = (
    "new\nline.jpg", "tab\t.jpg", "cr\r.jpg", " leading.jpg", "a%20b.jpg", "%2e%2e.jpg", "a#b.jpg",
    "a?b=c.jpg", "*.jpg", "[a].jpg", "{a}.jpg", "~.jpg", "~root.jpg", "s3:a.jpg", "C:a.jpg", "file:.jpg",
    "local:x.jpg", "a\\b.jpg", "'\".jpg", "$HOME.jpg", "-rf.jpg", "a b .jpg", "\u202egpj.jpg", "e\u0301.jpg",
    "é.jpg", "\x7f.jpg", "\u2028.jpg", "a" * 250 + ".jpg",
)  # fmt: skip


def photo(seed: int = 0) -> bytes:
    """A small photograph that depends on the seed."""
    return encoded(gradient(40, 30, seed=seed))


def write_special_files(folder: Path) -> dict[str, str]:
    """Write what has an image's name but is no readable file; returns name -> pattern of the reason."""
    os.mkfifo(folder / "fifo.jpg")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder.parent / "elsewhere").mkdir()
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder / "cycle.jpg").symlink_to(folder)
    here = os.getcwd()
    os.chdir(folder)  # a socket's address may have 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.jpg")
    finally:
        os.chdir(here)
    return {
        "fifo.jpg": "is a FIFO",
        "broken.jpg": "is a broken link",
        "loop.jpg": "levels of symbolic links",
        "device.jpg": "^it is a device",
        "linked": "link to a folder is not followed",
        "cycle.jpg": "link to a folder is not followed",
        "socket.jpg": "is a socket",
    }


def pictures_without_reader() -> dict[str, tuple[bytes, str]]:
    """name -> (bytes, pattern of the reason) of pictures in other formats or without an image's extension."""
    return {
        "raw.dng": (b"II*\0" + bytes(100), r"format \.dng"),
        "raw.CR2": (b"II*\0" + bytes(100), r"format \.cr2"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"format \.svg"),
        "layers.psd": (b"8BPS\0\1", r"format \.psd"),
        "no_suffix": (photo(901), r"content of a picture \(JPEG\)"),
        "photo.jpg~": (photo(902), r"content of a picture \(JPEG\)"),
        "photo.jpg ": (photo(903), r"content of a picture \(JPEG\)"),
        "shot.dat": (encoded(gradient(), "PNG"), r"content of a picture \(PNG\)"),
        "web.bin": (encoded(gradient(), "WEBP"), r"content of a picture \(WebP\)"),
        "scan.001": (encoded(gradient(), "TIFF"), r"content of a picture \(TIFF"),
        "icon.x": (encoded(gradient(), "BMP"), r"content of a picture \(BMP\)"),
        "page.xml": (b"<?xml version='1.0'?>\n<!-- x -->\n<svg>", r"content of a picture \(SVG\)"),
    }


def not_pictures() -> dict[str, bytes]:
    """Files that are no pictures at all, although some begin like one."""
    return {
        "README": b"# Photos", "notes.md": b"BMW and GIF", "page.html": b"<html><svg/></html>",
        "a.pdf": b"%PDF-1.7", "clip.mp4": b"\0\0\0\x20ftypisom", "empty.dat": b"", "P1.log": b"P1 is me",
        "data.npy": b"\x93NUMPY", "II": b"II. Chapter", "list.csv": b"a,b\n1,2\n",
    }  # fmt: skip


def write_tar(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]], mode: str = "w") -> None:
    """Write a tar; a member is its name, or its header, and its content."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def read_source(source: Path, **options) -> tuple[Source, list[SourceRow]]:
    """A folder or tars, opened, and the rows that its tasks would read, here without Ray."""
    opened = open_source(IngestConfig(source=str(source), **options), Stage(batch_size=4))
    with mock.patch("ray.data.read_datasource", lambda reader, **_: reader):
        reader: Any = opened.dataset()
    tables = pickle.loads(pickle.dumps(reader.part(reader.files))).read_all()
    return opened, [row for table in tables for row in opened.rows(table)]


def outcomes(source: Path, **options) -> dict[str, str]:
    """Address relative to the source -> the reason of a reject, "ignored", or the caption of an image."""
    opened, rows = read_source(source, **options)
    found = {row.uri: row.error or ("ignored" if row.ignored else row.text.caption) for row in rows}
    assert len(found) == len(rows)
    found |= opened.rejects
    return {uri.removeprefix(f"{source}/"): outcome for uri, outcome in found.items()}
