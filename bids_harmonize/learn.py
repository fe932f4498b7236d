"""The level `train`: from runs to a weight file and its model card."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from bids_harmonize.bids.derivatives import write_atomically, write_json
from bids_harmonize.bids.selection import Run
from bids_harmonize.bids.sidecars import read_metadata
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.foreign import SCANS, fit_recognizer
from bids_harmonize.heads import Head
from bids_harmonize.image import as_magnitude, open_image, read_voxels, zooms
from bids_harmonize.intensities import ReferenceIntensities
from bids_harmonize.model import Model, torch_device
from bids_harmonize.network import CurveNetwork
from bids_harmonize.pairs import (
    FAMILIES,
    WITHOUT_BRAIN,
    Example,
    Recipe,
    Source,
    draw_pair,
    examples,
    simulated_heads,
)
from bids_harmonize.reference import Choice, ReferenceScan, choose_group, measure_scan
from bids_harmonize.report.reference_group import write_reference_group
from bids_harmonize.report.training import Shown, write_training_report
from bids_harmonize.training import Schedule, harmonized, save_weights, train
from bids_harmonize.version import version

DEFAULT_STEPS = {"T1w": 2000, "T2w": 1600}
# A network that has learned already must not unlearn at full speed.
FIRST_RATE, LATER_RATE = 2e-3, 1.5e-3
# Voxels of simulated heads, mm.
SIMULATED_VOXELS = {"T1w": [(2, 2, 2)], "T2w": [(2, 2, 2), (2, 2, 5)]}
# The reference group's white matter, or what stands for it elsewhere, in every output.
LEVEL = 1000.0
# Checkpoints without progress after which training stops: not few, as much of the progress comes at the end,
# when the learning rate falls.
PATIENCE = 6
# Pairs in the training report, and the part of the stream of random numbers that they are drawn from.
SHOWN, SHOWING = 4, 3
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
    body_part: str = "HEAD",
    start: Model | None = None,
    label_maps: Path | None = None,
    device: str = "cpu",
) -> Path:
    """Choose the reference group among the runs, train, and write weights, model card and report.

    Parameters
    ----------
    runs
        Candidates, all of one modality and body part.
    folder
        Gets ``<model>.safetensors``, ``<model>.json``, the report and a folder with the checkpoint.
    size
        Scans in the group; the others are left out and used to measure the model.
    steps
        Train so many; None trains until people left out come no nearer to themselves, and takes the best.
    body_part
        DICOM's term for it.
    start
        A model whose training goes on; None starts anew.
    label_maps
        Folder of label maps of heads, for simulated acquisitions.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    BadData
        A candidate cannot be read, or there are none.
    NoInput
        The folder of label maps holds none.
    """
    name = model_name(modality, body_part)
    progress(f"measuring {len(runs)} scans")
    choice = choose_group([load_scan(run, modality, body_part) for run in runs], size)
    names = ", ".join(scan.name for scan in choice.left_out) or "nobody"
    progress(f"reference group of {len(choice.group)}; left out: {names}")
    write_reference_group(choice, folder, name)
    brain = body_part in HEAD
    left_out = [examples(scan, modality, brain=brain)[0] for scan in choice.left_out]
    scans = [example for scan in choice.group for example in examples(scan, modality, brain=brain)]
    heads = read_heads(label_maps, modality) if label_maps is not None and brain else []
    sources: list[Source] = [*scans, *simulated_heads(heads, scans, modality)]
    recipe = Recipe() if brain else Recipe(frequencies=WITHOUT_BRAIN)
    schedule = Schedule(
        steps=steps or DEFAULT_STEPS.get(modality, max(DEFAULT_STEPS.values())),
        patience=PATIENCE if steps is None and left_out else None,
        seed=seed,
        learning_rate=FIRST_RATE if start is None else LATER_RATE,
    )
    network, record = train(
        sources,
        left_out,
        folder / f"checkpoint-{name}",
        schedule,
        progress,
        start.network if start else None,
        recipe,
        device=torch_device(device),
    )
    progress(f"learning from {SCANS} drawn scans what the model is not meant for")
    recognizer = fit_recognizer(sources, modality, seed=seed, scans=SCANS)
    card = {
        **model_card(modality, body_part, choice, record, source_of(runs[0].dataset), recipe, device),
        "SimulatedHeads": sorted({head.name for head in heads}),
        "StartedFrom": None if start is None else _history(start),
        "Recognizer": recognizer,
        "ReferenceIntensities": ReferenceIntensities.of_group(choice.group, LEVEL).card(),
    }
    weights = folder / f"{name}.safetensors"
    with write_atomically(weights) as temporary:
        save_weights(network, temporary)
    card["SHA256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    write_json(weights.with_suffix(".json"), card)
    write_training_report(folder, name, card, choice, shown_pairs(network, left_out or scans, recipe, seed))
    return weights


def shown_pairs(network: CurveNetwork, scans: Sequence[Example], recipe: Recipe, seed: int) -> list[Shown]:
    """A few altered scans, what the network makes of them, and the originals."""
    always = replace(recipe, unaltered=0.0, mild=0.0)
    pairs = [draw_pair(scans, np.random.default_rng([seed, SHOWING, n]), always) for n in range(SHOWN)]
    return [
        Shown(
            name=f"pair {number}",
            altered=pair.altered,
            output=harmonized(network, pair),
            original=pair.original,
            region=pair.region,
            zooms=pair.zooms,
        )
        for number, pair in enumerate(pairs, start=1)
    ]


def model_name(modality: str, body_part: str) -> str:
    """Name of the weight file: the modality alone for heads."""
    return modality if body_part in HEAD else f"{body_part.lower()}-{modality}"


def body_part_of(run: Run) -> str:
    """DICOM's term in the sidecar; the same for all terms of the head, and where it says nothing."""
    part = read_metadata(run).get("BodyPart")
    known = part.strip().upper() if isinstance(part, str) else ""
    return HEAD[0] if not known or known in HEAD else known


def read_heads(folder: Path, modality: str) -> list[Head]:
    """Heads of all label maps in a folder, at 2 mm, and in thick slices too where scans often have them.

    Raises
    ------
    NoInput
        There is no label map.
    """
    paths = sorted(folder.glob("*_dseg.nii.gz"))
    if not paths:
        raise NoInput(f"{folder} holds no label maps (*_dseg.nii.gz)")
    return [Head.read(path, factors) for path in paths for factors in SIMULATED_VOXELS[modality]]


def load_scan(run: Run, modality: str, body_part: str = "HEAD") -> ReferenceScan:
    """Read a candidate in the orientation in which the network works (RAS)."""
    image = nib.as_closest_canonical(open_image(run.path))
    voxels = as_magnitude(read_voxels(image))[0]
    try:
        return measure_scan(run.path.name.split(".")[0], voxels, zooms(image, run.path), modality, body_part)
    except BadData as error:
        raise BadData(f"{run.path}: {error}") from error


def model_card(
    modality: str,
    body_part: str,
    choice: Choice,
    record: dict[str, Any],
    source: dict[str, Any],
    recipe: Recipe,
    device: str,
) -> dict[str, Any]:
    """What there is to know of a model, but for the checksum of its weights."""
    head = body_part in HEAD
    level = "white matter" if head else "the tissue in the middle of the field of view"
    hardware = (
        f"CPU ({platform.machine()}), {torch.get_num_threads()} thread(s)"
        if torch_device(device).type == "cpu"
        else torch.cuda.get_device_name(torch_device(device))
    )
    return {
        "Name": f"{modality}-{'head' if head else body_part.lower()}",
        "Modality": modality,
        "BodyParts": HEAD if head else [body_part],
        "OutputScale": {
            "Unit": LEVEL,
            "Description": f"arbitrary; in the reference group the median of {level} is {LEVEL:.0f}",
        },
        "Created": datetime.now(UTC).date().isoformat(),
        "Version": version(),
        "Data": source
        | {
            "ReferenceGroup": [scan.name for scan in choice.group],
            "LeftOut": [scan.name for scan in choice.left_out],
            "LevelBefore": {scan.name: round(scan.level, 2) for scan in choice.group},
        },
        "Alterations": alterations(recipe),
        "Hardware": f"{hardware}, torch {torch.__version__}",
        **record,
    }


def alterations(recipe: Recipe) -> dict[str, Any]:
    """What the scans were altered by, how often, and how much."""
    return asdict(recipe) | {
        "Parameters": {family.__name__: inspect.getdoc(family.sample) for family in FAMILIES}
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
