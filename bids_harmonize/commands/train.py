"""The level `train`: from runs to a weight file, its model card and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bids_harmonize.files.atomic import write_atomically, write_json
from bids_harmonize.model.contrast_detector import CONTRASTS, ContrastDetector
from bids_harmonize.model.loading import torch_device
from bids_harmonize.model.network import CurveNetwork
from bids_harmonize.report.training.page import write_training_report
from bids_harmonize.report.training.reference_group import contact_sheet_png, write_reference_group
from bids_harmonize.training.candidates import load_candidate, read_heads
from bids_harmonize.training.card_content import alteration_parameters, model_card
from bids_harmonize.training.ood_fit import fit_ood_detector
from bids_harmonize.training.pairs import draw_pair
from bids_harmonize.training.recipe import WITHOUT_BRAIN, Recipe
from bids_harmonize.training.reference_group import ReferenceSelection, select_group
from bids_harmonize.training.run import ExamplePair, TrainingRun, TrainRequest
from bids_harmonize.training.schedule import EXAMPLES, Schedule
from bids_harmonize.training.sources import (
    ReferenceExample,
    SimulatedHead,
    Source,
    at_echo_time,
    reference_examples,
    simulated_heads,
)
from bids_harmonize.training.trainer import harmonized, train, weights_content

DEFAULT_STEPS = {"T1w": 2000, "T2w": 1600}
# A network that was trained before must not lose what it learned by full speed.
FIRST_RATE, LATER_RATE = 2e-3, 1.5e-3
# Checkpoints without progress after which training stops: not few, as much of the progress comes at the end,
# when the learning rate falls.
PATIENCE = 6
EXAMPLE_PAIRS = 4


def train_model(request: TrainRequest, folder: Path, progress: Callable[[str], None]) -> Path:
    """Choose the reference group among the runs, train, and write weights, model card and report.

    Parameters
    ----------
    folder
        Gets ``<model>.safetensors``, ``<model>.json``, the report, the table and the contact sheet of the
        reference group, and a folder with the checkpoint.
    progress
        Gets a line at each step that takes time.

    Returns
    -------
    Path
        The weight file.

    Raises
    ------
    BadData
        A candidate cannot be read, or there are none.
    NoInput
        The folder of label maps holds none.
    """
    return write_training_run(run_training(request, folder, progress), folder)


@dataclass(frozen=True, kw_only=True)
class _Material:
    """What a network is trained on: scans of the group, simulated heads beside them, and held-out scans."""

    scans: Sequence[ReferenceExample]
    sources: Sequence[Source]
    held_out: Sequence[ReferenceExample]


def run_training(request: TrainRequest, folder: Path, progress: Callable[[str], None]) -> TrainingRun:
    """Train as `train_model` does; nothing is written but the checkpoint."""
    selection = _select(request, progress)
    material = _material(request, selection)
    schedule, recipe = _schedule(request, material), _recipe(request)
    trained = train(
        material.sources,
        material.held_out,
        folder / f"checkpoint-{request.name}",
        schedule,
        recipe=recipe,
        start=request.start.network if request.start else None,
        device=torch_device(request.device),
        progress=progress,
    )
    weights = weights_content(trained.network)
    card = model_card(
        request,
        selection,
        trained,
        weights=weights,
        simulated_heads=[
            source.head.name for source in material.sources if isinstance(source, SimulatedHead)
        ],
        ood_detector=_ood_detector(request, material, progress),
    )
    return TrainingRun(
        name=request.name,
        card=card,
        weights=weights,
        selection=selection,
        schedule=schedule,
        recipe=recipe,
        parameters=alteration_parameters(),
        examples=example_pairs(trained.network, material.held_out or material.scans, recipe, request.seed),
    )


def _ood_detector(
    request: TrainRequest, material: _Material, progress: Callable[[str], None]
) -> Mapping[str, Any]:
    """What the card says of telling scans that the model is not meant for."""
    if request.is_head and request.modality in CONTRASTS:
        return ContrastDetector(contrast=request.modality).card()
    progress(f"fitting to {request.effort.ood_scans} drawn scans what is out of distribution")
    return fit_ood_detector(material.scans, seed=request.seed, scans=request.effort.ood_scans)


def write_training_run(run: TrainingRun, folder: Path) -> Path:
    """Write the reference group, the weights, the model card and the report; the path of the weights."""
    weights = folder / f"{run.name}.safetensors"
    sheet = contact_sheet_png(run.selection, run.name)
    write_reference_group(run.selection, folder, run.name, sheet)
    with write_atomically(weights) as temporary:
        temporary.write_bytes(run.weights)
    write_json(weights.with_suffix(".json"), run.card.to_json())
    write_training_report(run, folder, sheet)
    return weights


def example_pairs(
    network: CurveNetwork, scans: Sequence[ReferenceExample], recipe: Recipe, seed: int
) -> list[ExamplePair]:
    """A few altered scans, what the network makes of them, and the originals."""
    always = replace(recipe, unaltered=0.0, mild=0.0)
    pairs = [
        draw_pair(scans, np.random.default_rng([seed, EXAMPLES, n]), always) for n in range(EXAMPLE_PAIRS)
    ]
    return [
        ExamplePair(
            name=f"pair {number}",
            augmented=pair.augmented,
            output=harmonized(network, pair),
            target=pair.target,
            region=pair.region,
            zooms=pair.zooms,
        )
        for number, pair in enumerate(pairs, start=1)
    ]


def _select(request: TrainRequest, progress: Callable[[str], None]) -> ReferenceSelection:
    progress(f"measuring {len(request.runs)} scans")
    candidates = [load_candidate(run, request.modality, request.body_part) for run in request.runs]
    selection = select_group(candidates, request.reference_size)
    names = ", ".join(scan.name for scan in selection.held_out) or "none"
    progress(f"reference group of {len(selection.group)}; held out: {names}")
    if not request.is_simulated:
        progress(
            f"no signal equation is known for {request.modality} of {request.body_part}: "
            "the model learns from k-space and tone curves"
        )
    if request.echo_times is None:
        return selection
    before, after = request.echo_times
    progress(f"bringing the group from an echo time of {before:g} ms to {after:g} ms")
    return replace(
        selection,
        group=[at_echo_time(scan, before, after) for scan in selection.group],
        held_out=[at_echo_time(scan, before, after) for scan in selection.held_out],
    )


def _material(request: TrainRequest, selection: ReferenceSelection) -> _Material:
    brain, modality = request.is_head, request.modality
    held_out = [reference_examples(scan, modality, brain=brain)[0] for scan in selection.held_out]
    scans = [
        example for scan in selection.group for example in reference_examples(scan, modality, brain=brain)
    ]
    heads = read_heads(request.label_maps, modality) if request.label_maps and request.is_simulated else []
    sources: list[Source] = [*scans, *simulated_heads(heads, scans, modality)]
    return _Material(scans=scans, sources=sources, held_out=held_out)


def _schedule(request: TrainRequest, material: _Material) -> Schedule:
    default = DEFAULT_STEPS.get(request.modality, max(DEFAULT_STEPS.values()))
    return Schedule(
        steps=request.steps or request.effort.max_steps or default,
        patience=PATIENCE if request.steps is None and material.held_out else None,
        seed=request.seed,
        learning_rate=FIRST_RATE if request.start is None else LATER_RATE,
        effort=request.effort,
    )


def _recipe(request: TrainRequest) -> Recipe:
    return Recipe() if request.is_head else Recipe(frequencies=WITHOUT_BRAIN)
