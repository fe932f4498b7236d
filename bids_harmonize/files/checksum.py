"""Checksums of files and of options."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.fetched import require_fetched


def options_hash(options: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of options, whatever their order; lists and tuples are the same."""
    canonical = json.dumps(options, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's content.

    Raises
    ------
    NoInput
        If the file does not exist, was not fetched or cannot be read.
    BadData
        If it is no regular file.
    """
    require_fetched(path)
    # Opening a pipe would block for ever.
    if os.path.exists(path) and not os.path.isfile(path):
        raise BadData(f"{path} is not a file; replace or remove it")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NoInput(f"{path} cannot be read: {error.strerror}") from error
