"""What a source's sidecar says that the image is aligned to, as it reads in another dataset.

A BIDS URI names a dataset by what the ``DatasetLinks`` of the dataset it stands in call it. Copied as it is,
``bids::sub-01/...`` would be a file of the outputs, and ``bids:raw:...`` one of the source instead of one of
the source's source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.json_object import read_object

KEY = "SpatialReference"

_BIDS_URI = re.compile(r"bids:([^:]*):(.*)")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


def with_own_spatial_reference(
    metadata: Mapping[str, Any], dataset: Path, link_name: str = "raw"
) -> dict[str, Any]:
    """The metadata of a scan, with a ``SpatialReference`` that means the same in the output dataset.

    Parameters
    ----------
    metadata
        The scan's metadata.
    dataset
        The dataset of the scan.
    link_name
        What the output's ``DatasetLinks`` call that dataset.
    """
    stated = metadata.get(KEY)
    if isinstance(stated, str):
        return {**metadata, KEY: _rebased(stated, dataset, link_name)}
    if isinstance(stated, dict):
        parts = {
            name: _rebased(part, dataset, link_name) if isinstance(part, str) else part
            for name, part in stated.items()
        }
        return {**metadata, KEY: parts}
    return dict(metadata)


def _rebased(reference: str, dataset: Path, link_name: str) -> str:
    """One reference; what cannot be resolved stays as it is."""
    if uri := _BIDS_URI.fullmatch(reference):
        name, path = uri.groups()
        if not name:
            return f"bids:{link_name}:{path}"
        place = _as_uri(_links(dataset).get(name), dataset)
        return reference if place is None else f"{place.rstrip('/')}/{path}"
    # BIDS once had paths relative to the dataset here.
    inside = not os.path.isabs(reference) and ".." not in Path(reference).parts
    if reference and inside and os.path.isfile(dataset / reference):
        return f"bids:{link_name}:{quote(os.fsencode(reference))}"
    return reference


def _links(dataset: Path) -> Mapping[str, Any]:
    try:
        links = read_object(dataset / "dataset_description.json").get("DatasetLinks")
    except (BadData, NoInput):
        # A warning was logged, and --skip-bids-validation was given.
        return {}
    return links if isinstance(links, dict) else {}


def _as_uri(link: object, dataset: Path) -> str | None:
    """Where a link leads, be it a URI or a path from the dataset; None if it is neither."""
    if not isinstance(link, str):
        return None
    try:
        return link if _SCHEME.match(link) else Path(os.path.abspath(dataset / link)).as_uri()
    except ValueError:
        # It holds what no path can.
        return None
