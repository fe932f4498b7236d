"""What the sidecars of derivatives hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from bids_harmonize.bids.input_metadata import inherited_metadata
from bids_harmonize.bids.run import Run, label_in_name

PROVENANCE_KEY = "BidsHarmonize"
DESCRIPTION = "{suffix} image with the intensities of a reference group, on the source's voxel grid."
UNHARMONIZED = (
    "{suffix} image with the intensities of its source: it was not harmonized, because it is unlike what the "
    "model is meant for."
)
RESOLUTION = "The resolution of the source."


def sidecar(
    metadata: Mapping[str, Any],
    *,
    name: str,
    suffix: str,
    source: str,
    harmonized: bool,
    skull_stripped: bool,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of the JSON file of a harmonized image, or of one that was passed through.

    ``Description`` and ``Sources`` are the derivative's own. Every other field has the source's value, where
    that has one that stays true; else what was found; else what BIDS says where nothing is known.

    Parameters
    ----------
    metadata
        The source's metadata.
    name
        The source's file name, whose ``space`` and ``res`` are the derivative's too.
    suffix
        The source's suffix, such as ``T1w``.
    source
        URI of the source.
    harmonized
        False if the image was passed through.
    skull_stripped
        Whether nothing but a brain was found in it.
    provenance
        How the image was made (`results.provenance.Provenance`), as JSON.
    """
    description = DESCRIPTION if harmonized else UNHARMONIZED
    return {
        "Description": description.format(suffix=suffix),
        "Sources": [source],
        **_found(name, source, skull_stripped=skull_stripped),
        **inherited_metadata(metadata, same_intensities=not harmonized),
        PROVENANCE_KEY: dict(provenance),
    }


def source_uri(run: Run, dataset_link_name: str = "raw") -> str:
    """BIDS URI of a run's image; the name is that of its dataset in ``DatasetLinks``."""
    return f"bids:{dataset_link_name}:{quote(str(run.relative))}"


def _found(name: str, source: str, *, skull_stripped: bool) -> dict[str, Any]:
    """What is true of the derivative of a source whose sidecar says nothing."""
    # An image in another space is not in its original one; it is aligned to its source all the same.
    in_own_space = label_in_name(name, "space") in (None, "orig")
    found = {"SpatialReference": "orig" if in_own_space else source, "SkullStripped": skull_stripped}
    return found | ({"Resolution": RESOLUTION} if label_in_name(name, "res") else {})
