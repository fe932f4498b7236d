"""Sidecars of scans that were never made, for the tests of the group level."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bids_harmonize.measures.quantiles import QUANTILES
from bids_harmonize.measures.scan_intensities import QUANTILE_LEVELS, TISSUES

# Intensities of white matter, grey matter and fluid: in the reference group, and before harmonization.
REFERENCE = np.array([1000.0, 700.0, 300.0])
SITES = {
    "north": np.array([0.8, 0.6, 0.3]),
    "south": np.array([0.9, 0.5, 0.2]),
    "west": np.array([0.7, 0.6, 0.2]),
}


def quantiles(tissues: np.ndarray, rng: np.random.Generator) -> list[float]:
    """The quantile function of a brain with tissues of these medians."""
    values = [rng.normal(middle, 0.08 * middle, 800) for middle in tissues]
    return [float(f"{value:.4g}") for value in np.quantile(np.concatenate(values), QUANTILES)]


def intensities(before: np.ndarray, after: np.ndarray | None, seed: int, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    images = {"Before": before} | ({} if after is None else {"After": after})
    curves = {when: quantiles(tissues, rng) for when, tissues in images.items()}
    return {
        "Levels": QUANTILE_LEVELS,
        "SkullStripped": False,
        "Foreground": curves,
        "Brain": curves,
        "Tissues": {
            when: dict(zip(TISSUES, tissues.tolist(), strict=True)) for when, tissues in images.items()
        },
    } | changes


def record(described: Mapping[str, Any] | None, *, harmonized: bool = True, **changes: Any) -> dict[str, Any]:
    """Provenance as the participant level writes it, without what the group level does not look at."""
    return {
        "Model": "T1w",
        "Harmonized": harmonized,
        "OutputScale": {"Unit": 1000.0} if harmonized else None,
        "OutOfDistribution": {"Checked": True, "Flagged": not harmonized, "Score": 0.1},
        "Warnings": [] if harmonized else ["it is unlike what the model T1w is meant for"],
        "ElapsedSeconds": 3.2,
        "Edit": {
            "Gain": {"Median": 2.1, "Percentile1": 0.7, "Percentile99": 1.3},
            "OrderViolations": {"Pairs": 3, "Edges": 100},
            "DistanceToTrainingDistribution": 1.1,
        },
        "Intensities": described,
    } | changes


def write_sidecar(derivatives: Path, name: str, content: Mapping[str, Any], **metadata: Any) -> Path:
    """Write a sidecar under the name of a scan, such as ``sub-01_T1w``."""
    entities, suffix = name.rsplit("_", 1)
    desc = "harmonized" if content["Harmonized"] else "unharmonized"
    path = derivatives / name.split("_")[0] / "anat" / f"{entities}_desc-{desc}_{suffix}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**metadata, "BidsHarmonize": content}), encoding="utf-8")
    return path


def write_group(folder: Path, people: int, *, left: float = 0.1, sites: Mapping[str, Any] = SITES) -> Path:
    """Derivatives and ``participants.tsv`` of this many participants, scanned at one site after the other.

    After harmonization the share `left` of what a site differs by is left.
    """
    derivatives = folder / "out"
    rng = np.random.default_rng(0)
    rows = ["participant_id\tsite"]
    for n in range(people):
        site = list(sites)[n % len(sites)]
        typical = np.mean(list(sites.values()), axis=0)
        before = sites[site] * rng.normal(1, 0.01, 3)
        after = REFERENCE * (1 + left * (sites[site] / typical - 1)) * rng.normal(1, 0.01, 3)
        write_sidecar(derivatives, f"sub-{n:04d}_T1w", record(intensities(before, after, n)))
        rows.append(f"sub-{n:04d}\t{site}")
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return derivatives
