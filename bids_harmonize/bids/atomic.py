"""Write files that are either complete or not there, whatever stops the program."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
# With the random part, this keeps the temporary name below the 255 bytes that file systems take.
_LONGEST_NAME = 200
# No string of a JSON text holds a line break, so this is never part of one.
_NUMBERS = re.compile(r"\[\n([\s0-9.,eE+-]+)\n\s*\]")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name, and give it its own name at the end.

    The temporary file lies in the same folder, which is made if need be; its leading dot hides it from BIDS,
    and it keeps the extensions. The block must create it, and should do nothing else that may raise an
    OSError. On any exception it is removed, and ``path`` is as it was.

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
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}-{path.name[-_LONGEST_NAME:]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        _discard(temporary)
        raise output_error(path, error) from error
    except BaseException:
        _discard(temporary)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; see `write_atomically` for the errors."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(_encoded(text))


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
        return CannotCreate(f"{path} cannot be created: {why}.")
    return InputOutputError(f"{path} could not be written: {why}.")


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


def _discard(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        # Its folder is gone or was never made; the first error is the one worth telling.
        return
