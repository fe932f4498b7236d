"""What a model card says of a training."""

from __future__ import annotations

import hashlib
import inspect
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.json_object import read_object
from bids_harmonize.imaging.body_part import HEAD_TERMS
from bids_harmonize.measures.histogram import ReferenceIntensities
from bids_harmonize.model.card import ModelCard
from bids_harmonize.model.card_entries import OutputScale, TrainingData, describe_alterations
from bids_harmonize.model.loading import torch_device
from bids_harmonize.training.pairs import FAMILIES
from bids_harmonize.training.reference_group import ReferenceSelection
from bids_harmonize.training.run import TrainRequest
from bids_harmonize.training.trainer import TrainedNetwork
from bids_harmonize.version import version

# The intensity in every output of the reference group's white matter, or of what stands for it elsewhere.
OUTPUT_UNIT = 1000.0


def model_card(
    request: TrainRequest,
    selection: ReferenceSelection,
    trained: TrainedNetwork,
    *,
    weights: bytes,
    simulated_heads: Sequence[str],
    ood_detector: Mapping[str, Any],
) -> ModelCard:
    """The card of a trained network.

    Parameters
    ----------
    weights
        Content of the weight file.
    simulated_heads
        Names of the label maps that acquisitions were simulated from.
    ood_detector
        What tells scans that the model is not meant for, as detectors store it.
    """
    head = request.is_head
    bright = "white matter" if head else "the tissue in the middle of the field of view"
    return ModelCard(
        name=f"{request.modality}-{'head' if head else request.body_part.lower()}",
        modality=request.modality,
        body_parts=list(HEAD_TERMS) if head else [request.body_part],
        output_scale=OutputScale(
            unit=OUTPUT_UNIT,
            description=f"arbitrary; in the reference group the median of {bright} is {OUTPUT_UNIT:.0f}",
        ),
        created=datetime.now(UTC).date().isoformat(),
        version=version(),
        data=replace(
            training_data(request.runs[0].dataset, selection),
            echo_times=None if request.echo_times is None else list(request.echo_times),
        ),
        alterations=describe_alterations(asdict(trained.recipe), alteration_parameters()),
        hardware=f"{_hardware(request.device)}, torch {torch.__version__}",
        schedule=trained.schedule.to_json(),
        steps=trained.steps,
        duration_seconds=round(trained.seconds),
        agreement=trained.agreement,
        history=trained.history,
        input_distribution=trained.input_distribution,
        simulated_heads=sorted(set(simulated_heads)),
        started_from=None if request.start is None else request.start.card.as_start(),
        ood_detector=ood_detector,
        reference_intensities=ReferenceIntensities.of_group(
            [scan.tissue(OUTPUT_UNIT) for scan in selection.group]
        ).card(),
        sha256=hashlib.sha256(weights).hexdigest(),
    )


def alteration_parameters() -> dict[str, str | None]:
    """By family of alterations, in words, how much it changes."""
    return {family.__name__: inspect.getdoc(family.sample) for family in FAMILIES}


def training_data(dataset: Path, selection: ReferenceSelection) -> TrainingData:
    """Name, licence and links of the dataset that the scans came from, and what became of the scans."""
    try:
        description = read_object(dataset / "dataset_description.json")
    except (BadData, NoInput):
        # A warning was logged, and --skip-bids-validation was given.
        description = {}
    return replace(
        TrainingData.of_description(description),
        reference_group=[scan.name for scan in selection.group],
        held_out=[scan.name for scan in selection.held_out],
        reference_intensities={scan.name: round(scan.reference_intensity, 2) for scan in selection.group},
    )


def _hardware(device: str) -> str:
    where = torch_device(device)
    if where.type == "cpu":
        return f"CPU ({platform.machine()}), {torch.get_num_threads()} thread(s)"
    return torch.cuda.get_device_name(where)
