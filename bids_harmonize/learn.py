"""The level `train`: from runs to a weight file and its model card."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import torch

from bids_harmonize.bids.derivatives import write_atomically, write_json
from bids_harmonize.bids.selection import Run
from bids_harmonize.errors import BadData
from bids_harmonize.image import as_magnitude, open_image, read_voxels, zooms
from bids_harmonize.model import Model
from bids_harmonize.pairs import FAMILIES, FREQUENCIES, MILD, MILD_STRENGTH, SCALE_JITTER, UNALTERED
from bids_harmonize.reference import ReferenceScan, choose_group, measure_scan
from bids_harmonize.training import Schedule, save_weights, train
from bids_harmonize.version import version

DEFAULT_STEPS = {"T1w": 2000, "T2w": 1600}
# A network that has learned already must not unlearn at full speed.
FIRST_RATE, LATER_RATE = 2e-3, 1e-3
# The median of the reference group's white matter in every output.
WHITE_MATTER = 1000.0
# Terms of DICOM for what these models are trained on.
HEAD = ["HEAD", "BRAIN", "SKULL", "HEADNECK"]


def learn(
    runs: Sequence[Run],
    modality: str,
    folder: Path,
    *,
    size: int,
    steps: int | None,
    seed: int,
    progress: Callable[[str], None],
    start: Model | None = None,
) -> Path:
    """Choose the reference group among the runs, train, and write weights and model card.

    Parameters
    ----------
    runs
        Candidates, all of one modality, heads.
    start
        A model whose training goes on; None starts anew.
    folder
        Gets ``<modality>.safetensors``, ``<modality>.json`` and a folder with the checkpoint.
    size
        Scans in the group; the others are left out and used to measure the model.

    Raises
    ------
    BadData
        A candidate cannot be read, or there are none.
    """
    progress(f"measuring {len(runs)} scans")
    scans = [load_scan(run, modality) for run in runs]
    group = choose_group(scans, size)
    left_out = [scan for scan in scans if all(scan is not chosen for chosen in group)]
    progress(f"reference group of {len(group)}; left out: {', '.join(s.name for s in left_out) or 'nobody'}")
    steps = steps or DEFAULT_STEPS.get(modality, 2000)
    schedule = Schedule(steps=steps, seed=seed, learning_rate=FIRST_RATE if start is None else LATER_RATE)
    checkpoint = folder / f"checkpoint-{modality}"
    network, record = train(group, left_out, checkpoint, schedule, progress, start.network if start else None)
    record["StartedFrom"] = None if start is None else _history(start)
    weights = folder / f"{modality}.safetensors"
    with write_atomically(weights) as temporary:
        save_weights(network, temporary)
    card = model_card(modality, group, left_out, record, source_of(runs[0].dataset))
    write_json(
        weights.with_suffix(".json"), card | {"SHA256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    )
    return weights


def load_scan(run: Run, modality: str) -> ReferenceScan:
    """Read a candidate in the orientation in which the network works (RAS)."""
    image = nib.as_closest_canonical(open_image(run.path))
    voxels = as_magnitude(read_voxels(image))[0]
    try:
        return measure_scan(run.path.name.split(".")[0], voxels, zooms(image, run.path), modality)
    except BadData as error:
        raise BadData(f"{run.path}: {error}") from error


def model_card(
    modality: str,
    group: Sequence[ReferenceScan],
    left_out: Sequence[ReferenceScan],
    record: dict[str, Any],
    source: dict[str, Any],
) -> dict[str, Any]:
    """What there is to know of a model, but for the checksum of its weights."""
    threads = torch.get_num_threads()
    return {
        "Name": f"{modality}-head",
        "Modality": modality,
        "BodyParts": HEAD,
        "OutputScale": {
            "Unit": WHITE_MATTER,
            "Description": "arbitrary; the median of white matter in a scan of the reference group is 1000",
        },
        "Created": datetime.now(UTC).date().isoformat(),
        "Version": version(),
        "Data": source
        | {
            "ReferenceGroup": [scan.name for scan in group],
            "LeftOut": [scan.name for scan in left_out],
            "WhiteMatterBefore": {scan.name: round(scan.white_matter, 2) for scan in group},
        },
        "Alterations": alterations(),
        "Hardware": f"CPU ({platform.machine()}), {threads} thread(s), torch {torch.__version__}",
        **record,
    }


def alterations() -> dict[str, Any]:
    """What the scans were altered by, how often, and how much."""
    return {
        "UnalteredShare": UNALTERED,
        "MildShare": MILD,
        "MildStrength": MILD_STRENGTH,
        "ScaleJitter": SCALE_JITTER,
        "Frequencies": FREQUENCIES,
        "Parameters": {family.__name__: inspect.getdoc(family.sample) for family in FAMILIES},
    }


def _history(model: Model) -> dict[str, Any]:
    """What is to be known of a model that another one starts from."""
    told = ("Schedule", "DurationSeconds", "Hardware", "Alterations", "Figures", "StartedFrom")
    return {"SHA256": model.sha256} | {key: model.card[key] for key in told if key in model.card}


def source_of(dataset: Path) -> dict[str, Any]:
    """Name, licence and links of the dataset that the scans came from."""
    description = json.loads((dataset / "dataset_description.json").read_text(encoding="utf-8"))
    keys = ("Name", "License", "Authors", "DatasetDOI", "ReferencesAndLinks")
    return {key: description[key] for key in keys if key in description}
