"""Read a JSON object, with one clear sentence for each way in which a file can be something else."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from bids_harmonize.errors import BadData

_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that must hold one JSON object in UTF-8 (RFC 8259).

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    BadData
        If it is a dangling link, cannot be read, is empty, starts with a byte-order mark, is not UTF-8, is
        not JSON, or holds something other than an object.
    """
    text = _decode(path, _read(path))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{path} is not valid JSON ({error}); correct it.") from error
    if not isinstance(content, dict):
        raise BadData(f"{path} holds a JSON {type(content).__name__} instead of an object {{...}}.")
    return content


def _read(path: Path) -> bytes:
    if path.is_symlink() and not path.exists():
        raise BadData(f"{path} was not fetched; run: datalad get {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}.") from error


def _decode(path: Path, content: bytes) -> str:
    if content.startswith(_BYTE_ORDER_MARKS):
        raise BadData(f"{path} starts with a byte-order mark; save it as UTF-8 without BOM.")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not UTF-8, perhaps Latin-1; save it as UTF-8.") from error
    if not text.strip():
        raise BadData(f"{path} is empty; write a JSON object into it, at least {{}}, or delete it.")
    return text
