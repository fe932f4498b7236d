"""Tables of what the sidecars say, one row per scan."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from bids_harmonize.bids.atomic import write_json, write_text
from bids_harmonize.bids.jsonfile import read_object
from bids_harmonize.bids.runs import HARMONIZED, UNHARMONIZED
from bids_harmonize.errors import BadData

COLUMNS = {
    "scan": "Name of the image.",
    "model": "Model that was used.",
    "harmonized": "Whether it is harmonized (1), or passed through unchanged (0).",
    "out_of_distribution": "Whether it is unlike what the model is meant for (1) or not (0).",
    "out_of_distribution_score": "How unlike, from 0 to 1.",
    "gain_median": "Median over the foreground of harmonized / original intensity.",
    "gain_p1": "1st percentile of the same ratio, relative to the median.",
    "gain_p99": "99th percentile of the same ratio, relative to the median.",
    "order_violations": "Neighbouring voxels that differ by more than noise and whose order was reversed.",
    "edges": "Neighbouring voxels looked at for it.",
    "distance_to_training": "Deviation of the input from the training inputs, in standard deviations.",
    "seconds": "Time that harmonizing the scan took.",
    "warnings": "What to look at before the image is used.",
}


def write_group_tables(derivatives: Path, *, write: bool = True) -> dict[Path, int]:
    """Write ``group_<suffix>.tsv`` and its data dictionary for every suffix that has results.

    Returns
    -------
    dict
        The tables and how many scans each lists; empty where there are no results.
    """
    rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    found = (derivatives.glob(f"sub-*/**/sub-*_desc-{desc}_*.json") for desc in (HARMONIZED, UNHARMONIZED))
    for sidecar in sorted(chain.from_iterable(found)):
        suffix = sidecar.stem.rsplit("_", 1)[-1]
        rows[suffix].append(_row(sidecar))
    tables = {}
    for suffix, scans in sorted(rows.items()):
        path = derivatives / f"group_{suffix}.tsv"
        if write:
            write_text(path, _tsv(scans))
            write_json(
                path.with_suffix(".json"), {name: {"Description": text} for name, text in COLUMNS.items()}
            )
        tables[path] = len(scans)
    return tables


def _row(sidecar: Path) -> dict[str, Any]:
    record = read_object(sidecar).get("BidsHarmonize")
    if not isinstance(record, Mapping):
        raise BadData(f"{sidecar} was not written by this program; remove it or name another folder")
    edit = record.get("Edit", {})
    recognized = record.get("OutOfDistribution", {})
    gain, order = edit.get("Gain", {}), edit.get("OrderViolations", {})
    return {
        "scan": f"{sidecar.stem}.nii.gz",
        "model": record.get("Model"),
        "harmonized": _flag(record.get("Harmonized")),
        "out_of_distribution": _flag(recognized.get("Flagged")),
        "out_of_distribution_score": recognized.get("Score"),
        "gain_median": gain.get("Median"),
        "gain_p1": gain.get("Percentile1"),
        "gain_p99": gain.get("Percentile99"),
        "order_violations": order.get("Pairs"),
        "edges": order.get("Edges"),
        "distance_to_training": edit.get("DistanceToTrainingDistribution"),
        "seconds": record.get("ElapsedSeconds"),
        "warnings": "; ".join(record.get("Warnings", [])) or None,
    }


def _flag(value: bool | None) -> int | None:
    return None if value is None else int(value)


def _tsv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "n/a" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue()
