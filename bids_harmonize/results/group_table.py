"""The group's table, one row per scan."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_harmonize.files.atomic import write_json, write_text
from bids_harmonize.measures.scan_intensities import TISSUES
from bids_harmonize.results.group_analysis import Group

FLAG = {"1": "Yes.", "0": "No."}
UNIT = "Unit of the harmonized images: the model card says what it is."
COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "scan": {"Description": "Name of the image."},
    "participant_id": {"Description": "Whose scan it is."},
    "site": {"Description": "Where it comes from."},
    "model": {"Description": "Model that was used."},
    "harmonized": {
        "Description": "Whether the image is harmonized.",
        "Levels": {"1": "Harmonized.", "0": "Passed through unchanged."},
    },
    "out_of_distribution": {
        "Description": "Whether the scan is unlike what the model is meant for.",
        "Levels": FLAG,
    },
    "out_of_distribution_score": {"Description": "How unlike, from 0 to 1."},
    "gain_median": {"Description": "Median over the foreground of harmonized / original intensity."},
    "gain_p1": {"Description": "1st percentile of the same ratio, relative to the median."},
    "gain_p99": {"Description": "99th percentile of the same ratio, relative to the median."},
    "order_violations": {
        "Description": "Neighbouring voxels that differ by more than noise and whose order was reversed."
    },
    "edges": {"Description": "Neighbouring voxels looked at for it."},
    "distance_to_training": {
        "Description": "Deviation of the input from the training inputs.",
        "Units": "standard deviations",
    },
    "white_matter": {"Description": f"Median of white matter in the harmonized image. {UNIT}"},
    "grey_matter": {"Description": f"Median of grey matter in the harmonized image. {UNIT}"},
    "csf": {
        "Description": "Median of cerebrospinal fluid, and of what is as dark (T1w) or bright (T2w), in the "
        f"harmonized image. {UNIT}"
    },
    "grey_white_ratio": {"Description": "Grey over white matter in the harmonized image."},
    "grey_white_ratio_before": {"Description": "Grey over white matter in the original image."},
    "distance_before": {
        "Description": "Mean difference of the scan's quantile function (2 to 98 %), in units of its bright "
        "value, from the median of all scans, over the span of that; of the original image."
    },
    "distance_after": {"Description": "The same of the harmonized image, in its own unit."},
    "outlier": {
        "Description": "Whether the harmonized image is unlike the others of this table.",
        "Levels": FLAG,
    },
    "outlier_reasons": {"Description": "In what, with the deviation in robust standard deviations (z)."},
    "seconds": {"Description": "Time that harmonizing the scan took.", "Units": "s"},
    "warnings": {"Description": "What to look at before the image is used."},
}


def write_table(path: Path, group: Group) -> None:
    """Write the table and, beside it, its data dictionary."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for row in rows(group):
        writer.writerow({name: "n/a" if value is None else value for name, value in row.items()})
    write_text(path, text.getvalue())
    write_json(path.with_suffix(".json"), COLUMNS)


def rows(group: Group) -> list[dict[str, Any]]:
    """The table: per scan, `COLUMNS` and their values; None where there is none."""
    measured = {
        **dict(
            zip(
                ("white_matter", "grey_matter", "csf"),
                (group.medians(t, "After") for t in TISSUES),
                strict=True,
            )
        ),
        "grey_white_ratio": group.ratios("After"),
        "grey_white_ratio_before": group.ratios("Before"),
        "distance_before": group.distances["Before"],
        "distance_after": group.distances["After"],
    }
    return [
        _row(group, n, {name: _number(float(values[n])) for name, values in measured.items()})
        for n in range(len(group.results))
    ]


def _row(group: Group, n: int, measured: Mapping[str, float | None]) -> dict[str, Any]:
    result = group.results[n]
    provenance = result.provenance
    edit, ood = provenance.edit, provenance.out_of_distribution
    return {
        "scan": result.name,
        "participant_id": result.participant,
        "site": group.sites.labels[n],
        "model": provenance.model,
        "harmonized": _flag(provenance.harmonized),
        "out_of_distribution": _flag(ood.flagged),
        "out_of_distribution_score": ood.score,
        "gain_median": edit.gain.median,
        "gain_p1": edit.gain.percentile_1,
        "gain_p99": edit.gain.percentile_99,
        "order_violations": edit.order_violations.pairs,
        "edges": edit.order_violations.edges,
        "distance_to_training": edit.distance_to_training,
        **measured,
        "outlier": _flag(bool(group.outliers[n])) if result.after else None,
        "outlier_reasons": "; ".join(group.outliers[n]) or None,
        "seconds": provenance.elapsed_seconds,
        "warnings": "; ".join(result.warnings) or None,
    }


def _flag(value: bool | None) -> int | None:
    return None if value is None else int(value)


def _number(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
