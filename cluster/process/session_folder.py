"""The temporary folder of a Ray that Kallos starts: private, and removed however the driver ends.

Ray lets every user of the machine write to its own folder, which holds the sockets that control it. Here it
lies below a folder that only its owner can enter. So do the temporary files of libraries in the workers.

A small process, `reap.sh`, waits for the end of the driver, kills the rest of Ray and removes the folder.
Without it, Ray's agents live for another minute after the driver was killed.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from cluster.errors import UserError

PREFIX = "kallos-ray-"
# A socket's path has at most 107 characters. In /tmp HAProxy's, <node>/admin.<pid>.tmp, has 99.
LONGEST_PARENT = 12

REAPER = Path(__file__).with_name("reap.sh")
REAPER_TIMEOUT_S = 10.0

# Folders of this process -> the descriptor that locks each; the system unlocks it however the process ends.
_locked: dict[Path, int] = {}
_reapers: dict[Path, subprocess.Popen] = {}


def make() -> Path:
    """A new folder with subfolders `ray` and `tmp`, after removing the folders of processes that are gone.

    Raises:
        UserError: the temporary folder of the system is full or cannot be written.
    """
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > LONGEST_PARENT:
        parent = Path("/tmp")
    remove_abandoned(parent)
    folder = None
    try:
        new = Path(tempfile.mkdtemp(prefix=".kallos-", dir=parent))
        folder = parent / f"{PREFIX}{new.name[-8:]}"
        _locked[folder] = _lock(new)
        new.rename(folder)  # only a locked folder has the name that `remove_abandoned` looks for
        # A session of its own: Ctrl-C must not end it.
        _reapers[folder] = subprocess.Popen(
            ["/bin/sh", REAPER, folder], stdin=subprocess.PIPE, start_new_session=True
        )
        for name in ("ray", "tmp"):
            (folder / name).mkdir(mode=0o700)
        (folder / "tmp" / "probe").write_bytes(bytes(4096))
        (folder / "tmp" / "probe").unlink()
    except OSError as error:
        if folder:
            remove(folder)
        way_out = "free space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
        raise UserError(
            f"The temporary folder {parent} cannot be written ({error.strerror}): {way_out}, or set TMPDIR "
            f"to a folder whose path has at most {LONGEST_PARENT} characters: Ray's sockets lie below it."
        ) from None
    return folder


def remove(folder: Path) -> None:
    """Kill what still runs in a folder that `make` returned, and remove it. Does nothing the second time."""
    if reaper := _reapers.pop(folder, None):
        cast(IO[bytes], reaper.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            reaper.wait(REAPER_TIMEOUT_S)
    if (lock := _locked.pop(folder, None)) is not None:
        os.close(lock)


def remove_all() -> None:
    """Remove every folder of this process."""
    for folder in list(_locked):
        remove(folder)


def remove_abandoned(parent: Path) -> None:
    """Remove this user's folders below `parent` whose process is gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = _lock(folder)  # fails if it is a link, or if the process lives
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def for_temporary_files(folder: Path) -> Iterator[None]:
    """Make processes that are started inside put their temporary files into `folder`."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
