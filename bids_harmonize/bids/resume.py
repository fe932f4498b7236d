"""Which runs are done already, and how to undo one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_harmonize.bids.atomic import output_error
from bids_harmonize.bids.jsonfile import read_object
from bids_harmonize.bids.outputs import sidecar_path, transform_path
from bids_harmonize.errors import BadData


def completed(output: Path, *, input_sha256: str, model_sha256: str, options_hash: str) -> bool:
    """Whether a run's image is there, made from the same input with the same model and options.

    Parameters
    ----------
    output
        The harmonized image.
    input_sha256, model_sha256, options_hash
        What its sidecar must say in ``BidsHarmonize`` under ``InputSHA256``, ``ModelSHA256``,
        ``OptionsSHA256``.
    """
    if not output.is_file() or not sidecar_path(output).is_file():
        return False
    try:
        recorded = read_object(sidecar_path(output)).get("BidsHarmonize")
    except BadData:
        return False
    wanted = {"InputSHA256": input_sha256, "ModelSHA256": model_sha256, "OptionsSHA256": options_hash}
    return isinstance(recorded, dict) and wanted.items() <= {key: recorded.get(key) for key in wanted}.items()


def remove_output(output: Path) -> None:
    """Remove a run's sidecar, image and curves, the sidecar first: without it, a run is not complete.

    Raises
    ------
    CannotCreate, InputOutputError
        If a file cannot be removed.
    """
    for path in (sidecar_path(output), output, transform_path(output)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(path, error) from error


def options_hash(options: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of options, whatever their order; lists and tuples are the same."""
    canonical = json.dumps(options, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's content.

    Raises
    ------
    BadData
        If the file was not fetched or cannot be read.
    """
    if path.is_symlink() and not path.exists():
        raise BadData(f"{path} was not fetched; run: datalad get {path}")
    # Opening a pipe would block for ever.
    if path.exists() and not path.is_file():
        raise BadData(f"{path} is not a file; replace or remove it.")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}.") from error
