"""Write the outputs; the face of all that knows what BIDS derivatives look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from bids_harmonize.bids.atomic import remove_abandoned, write_atomically, write_json
from bids_harmonize.bids.description import (
    DATASET_FILES,
    check_there,
    container,
    refuse_foreign,
    staying,
    write_dataset_files,
)
from bids_harmonize.bids.logs import write_crash, write_run_log
from bids_harmonize.bids.outputs import (
    check_inside,
    check_locations,
    output_path,
    prepare_output,
    report_path,
    sidecar_path,
    transform_path,
    unharmonized_path,
)
from bids_harmonize.bids.resume import completed, file_sha256, options_hash, remove_output
from bids_harmonize.bids.runs import Run
from bids_harmonize.bids.sidecars import inherited_metadata

__all__ = [
    "DATASET_FILES",
    "check_inside",
    "check_locations",
    "check_there",
    "completed",
    "container",
    "file_sha256",
    "options_hash",
    "output_path",
    "prepare_output",
    "refuse_foreign",
    "remove_abandoned",
    "remove_output",
    "report_path",
    "sidecar",
    "sidecar_path",
    "source_uri",
    "staying",
    "transform_path",
    "unharmonized_path",
    "write_atomically",
    "write_crash",
    "write_dataset_files",
    "write_json",
    "write_run_log",
]

DESCRIPTION = "{suffix} image with the intensities of a reference group, on the source's voxel grid."
UNHARMONIZED = (
    "{suffix} image with the intensities of its source: it was not harmonized, because it is unlike what the "
    "model is meant for."
)


def sidecar(
    metadata: Mapping[str, Any], *, suffix: str, source: str, harmonize: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of an image's JSON file, of a harmonized one or one that was passed through.

    Parameters
    ----------
    metadata
        The source's metadata; what stays true is passed on.
    suffix
        The source's suffix, such as ``T1w``.
    source
        URI of the source.
    harmonize
        How the image was made: the ``BidsHarmonize`` object. For a later run to see that this one is done, it
        must have ``InputSHA256``, ``ModelSHA256`` and ``OptionsSHA256``; where ``Harmonized`` is false, the
        image was passed through.
    """
    description = DESCRIPTION if harmonize.get("Harmonized", True) else UNHARMONIZED
    return {
        "Description": description.format(suffix=suffix),
        "Sources": [source],
        "SpatialReference": "orig",
        **inherited_metadata(metadata),
        "BidsHarmonize": dict(harmonize),
    }


def source_uri(run: Run, dataset_link_name: str = "raw") -> str:
    """BIDS URI of a run's image; the name is that of its dataset in ``DatasetLinks``."""
    return f"bids:{dataset_link_name}:{quote(str(run.relative))}"
