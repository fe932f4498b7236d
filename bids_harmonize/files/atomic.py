"""Write files that are either complete or not there, whatever stops the program.

What is not complete has a hidden name, and the process that writes it holds its lock (flock). A process that
is killed leaves such files behind, without their lock; the next one removes them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from bids_harmonize.errors import CannotCreate, HarmonizeError, InputOutputError

_CANNOT_CREATE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    }
)
_HIDDEN, _DIGIT = ".tmp-", "[0-9a-f]"
# With what is put in front, this keeps the temporary name below the 255 bytes that file systems take.
_MAX_NAME_LENGTH = 200
# A file that another machine may still be writing, with a lock that cannot be seen here, is kept this long.
_STALE_SECONDS = 24 * 3600
# No string of a JSON text holds a line break, so this is never part of one.
_NUMBERS = re.compile(r"\[\n([\s0-9.,eE+-]+)\n\s*\]")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name, and give it its own name at the end.

    The temporary file lies in the same folder, which is made if need be; its leading dot hides it from BIDS,
    and it keeps the extensions. It is there and empty; the block must write into it, and should do nothing
    else that may raise an OSError. On any exception it is removed, and ``path`` is as it was.

    Parameters
    ----------
    path
        The file to write.

    Yields
    ------
    Path
        The temporary file.

    Raises
    ------
    CannotCreate
        If the folder or the file cannot be created.
    InputOutputError
        If writing fails half-way, for example because the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_temp_file(path) as temporary:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
    except OSError as error:
        raise output_error(path, error) from error


@contextmanager
def locked_temp_file(path: Path) -> Iterator[Path]:
    """An empty file beside ``path``, hidden and locked, that is removed at the end if it is still there.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    hidden = path.with_name(f"{_HIDDEN}{_machine()}-{secrets.token_hex(8)}-{path.name[-_MAX_NAME_LENGTH:]}")
    descriptor = None
    try:
        descriptor = _create_locked(hidden)
        yield hidden
    finally:
        # Its folder may be gone or never have been made; an earlier error is the one worth telling.
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def locked_temp_folder(parent: Path) -> Iterator[Path]:
    """An empty folder for scratch files, hidden, that is removed at the end with all that is in it.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    with locked_temp_file(parent / "scratch") as owner:
        folder = _owned(owner)
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_stale_temp_files(folder: Path, names: str = "*", *, deep: bool = False) -> None:
    """Remove what processes that were killed left half-written; never what a running process still writes.

    Whatever cannot be removed stays: it does no harm.

    Parameters
    ----------
    folder
        The folder to look in; it need not exist.
    names
        Pattern of the names that the files were to get.
    deep
        Whether to look in the folders below too.
    """
    # The pattern is narrow, so that no file of another program matches.
    pattern = f"{_HIDDEN}{8 * _DIGIT}-{16 * _DIGIT}-{names}"
    with suppress(OSError):
        for path in folder.rglob(pattern) if deep else folder.glob(pattern):
            with suppress(OSError):
                _remove_if_stale(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; see `write_atomically` for the errors."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; see `write_atomically` for the errors."""
    write_bytes(path, _encoded(text))


def update_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, unless it is there and holds the same already."""
    if not path.is_file() or path.read_bytes() != _encoded(text):
        write_text(path, text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, in the order of its keys.

    Raises
    ------
    ValueError
        If a number is not finite: JSON has no NaN.
    CannotCreate, InputOutputError
        As `write_atomically` does.
    """
    write_text(path, as_json(content))


def as_json(content: Mapping[str, Any]) -> str:
    """The text of a JSON file as this package writes them; a list of numbers takes one line."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    return _NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


def output_error(path: Path, error: OSError) -> HarmonizeError:
    """The named error for a failure to write ``path``."""
    why = error.strerror or str(error)
    if error.errno in _CANNOT_CREATE:
        return CannotCreate(f"{path} cannot be created: {why}")
    return InputOutputError(f"{path} could not be written: {why}")


def _encoded(text: str) -> bytes:
    # A lone surrogate, as in a file name that is not UTF-8, becomes an escape, which JSON reads as the same.
    return text.encode("utf-8", "backslashreplace")


def _flush(temporary: Path) -> None:
    # Network file systems report a full disk or quota only here; and the sidecar that marks a run as complete
    # must not reach the disk before the image.
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_locked(path: Path) -> int:
    """Make a file and take its lock; the descriptor holds it until it is closed, by whatever end."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with suppress(OSError):
            # Some network file systems have no locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        # Another process took it for stale before it was locked, and removed it.
        os.close(descriptor)


def _remove_if_stale(path: Path) -> None:
    # It is opened for writing, since network file systems lock nothing else.
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _unlocked(descriptor, path) or _old(descriptor):
            shutil.rmtree(_owned(path), ignore_errors=True)
            path.unlink()
    except BlockingIOError:
        # The file is not stale: a process is writing it.
        return
    finally:
        os.close(descriptor)


def _unlocked(descriptor: int, path: Path) -> bool:
    """Whether no process holds the lock of a file, as far as this machine can know.

    Raises
    ------
    BlockingIOError
        A process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    # Some network file systems tell no other machine of their locks.
    return path.name.startswith(f"{_HIDDEN}{_machine()}-")


def _old(descriptor: int) -> bool:
    return time.time() - os.fstat(descriptor).st_mtime > _STALE_SECONDS


def _owned(owner: Path) -> Path:
    """The scratch folder that goes with a hidden file."""
    return owner.with_name(f"{owner.name}.d")


@cache
def _machine() -> str:
    """A name of this machine since it was started; all containers on it have the same."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        name = platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:8]
