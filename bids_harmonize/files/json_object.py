"""Read a JSON object, with one clear sentence for each way in which a file can be something else."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.fetched import require_fetched

_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that must hold one JSON object in UTF-8 (RFC 8259).

    A byte-order mark is refused in every file: the BIDS validator calls such a dataset invalid
    (``INVALID_JSON_ENCODING``), and pybids cannot open one whose description begins with it.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    NoInput
        If it does not exist, was not fetched or cannot be read.
    BadData
        If it is empty, starts with a byte-order mark, is not UTF-8, is not JSON, or holds something other
        than an object.
    """
    require_fetched(path)
    try:
        text = _decode(path, path.read_bytes())
    except OSError as error:
        raise NoInput(f"{path} cannot be read: {error.strerror}") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{path} is not valid JSON ({error}); correct it") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise BadData(f"{path} holds a JSON {kind} instead of an object {{...}}; correct it")
    return content


def _decode(path: Path, content: bytes) -> str:
    if content.startswith(_BYTE_ORDER_MARKS):
        raise BadData(f"{path} starts with a byte-order mark; save it as UTF-8 without BOM")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not UTF-8, perhaps Latin-1; save it as UTF-8") from error
    if not text.strip():
        raise BadData(f"{path} is empty; write a JSON object into it, at least {{}}, or delete it")
    return text
