"""Which scans are done already, and how to undo one."""

from __future__ import annotations

from pathlib import Path

from bids_harmonize.bids.output_paths import sidecar_path, transform_path
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.atomic import output_error
from bids_harmonize.files.json_object import read_object
from bids_harmonize.results.provenance import provenance_of


def is_up_to_date(output: Path, *, input_sha256: str, model_sha256: str, options_sha256: str) -> bool:
    """Whether a scan's image is there, made from the same input with the same model and options.

    Parameters
    ----------
    output
        The image.
    input_sha256, model_sha256, options_sha256
        What the provenance in its sidecar must say.
    """
    sidecar = sidecar_path(output)
    if not output.is_file() or not sidecar.is_file():
        return False
    try:
        provenance = provenance_of(sidecar, read_object(sidecar))
    except (BadData, NoInput):
        return False
    recorded = (provenance.input_sha256, provenance.model_sha256, provenance.options_sha256)
    return recorded == (input_sha256, model_sha256, options_sha256)


def remove_output(output: Path) -> None:
    """Remove a scan's sidecar, image and curves, the sidecar first: without it, a scan is not done.

    Raises
    ------
    CannotCreate, InputOutputError
        A file cannot be removed.
    """
    for path in (sidecar_path(output), output, transform_path(output)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(path, error) from error
