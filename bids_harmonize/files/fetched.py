"""Whether the content of a file of a DataLad dataset is on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from bids_harmonize.errors import NoInput

# An unlocked file of git-annex begins with this while its content is elsewhere; a locked one is then a
# dangling link.
ANNEX_POINTER = b"/annex/objects/"


def require_fetched(path: Path) -> None:
    """Refuse a file whose content was not fetched; whether there is a file at all is not checked.

    Raises
    ------
    NoInput
        The file is a dangling link, or stands for content that DataLad can fetch.
    """
    # The functions of `os.path` answer False where the methods of a path raise: on names that are too long.
    is_missing = os.path.islink(path) and not os.path.exists(path)
    if is_missing or _is_annex_pointer(path):
        raise NoInput(f"{path} was not fetched; run: datalad get {path}")


def _is_annex_pointer(path: Path) -> bool:
    # Only a regular file is opened: a pipe would block for ever. Whoever reads the file next reports why it
    # cannot be opened.
    if os.path.isfile(path):
        with suppress(OSError), path.open("rb") as file:
            return file.read(len(ANNEX_POINTER)) == ANNEX_POINTER
    return False
