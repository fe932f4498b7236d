"""A training as a whole: what is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_harmonize.bids.run import Run
from bids_harmonize.imaging.body_part import HEAD_TERMS, shows_brain
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.measures.agreement import agreement_db
from bids_harmonize.model.card import ModelCard
from bids_harmonize.model.card_entries import CheckpointRecord
from bids_harmonize.simulation.protocols import REFERENCE_PROTOCOLS
from bids_harmonize.training.recipe import Recipe
from bids_harmonize.training.reference_group import ReferenceSelection
from bids_harmonize.training.schedule import Effort, Schedule

if TYPE_CHECKING:
    from bids_harmonize.model.harmonizer import Model


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A model to be trained.

    Attributes
    ----------
    runs
        Candidates for the reference group, all of one modality and body part.
    body_part
        DICOM's term for it.
    reference_size
        Scans in the group; the others are held out and used to measure the model.
    steps
        Number of training steps; None stops when agreement on held-out scans stops improving, and takes
        the best checkpoint.
    start
        A model whose training goes on; None starts anew.
    label_maps
        Folder of label maps of heads, for simulated acquisitions.
    echo_times
        Echo times (ms) from which, and to which, a T2w group is brought before training; None leaves it.
    device
        ``auto``, ``cpu`` or ``cuda``.
    """

    runs: Sequence[Run]
    modality: str
    body_part: str = HEAD_TERMS[0]
    reference_size: int
    steps: int | None = None
    seed: int = 0
    start: Model | None = None
    label_maps: Path | None = None
    echo_times: Sequence[float] | None = None
    device: str = "cpu"
    effort: Effort = field(default_factory=Effort)

    @property
    def name(self) -> str:
        """Name of the weight file, without extension: the modality alone for heads."""
        return self.modality if self.is_head else f"{self.body_part.lower()}-{self.modality}"

    @property
    def is_head(self) -> bool:
        """Whether the scans show a brain."""
        return shows_brain([self.body_part])

    @property
    def is_simulated(self) -> bool:
        """Whether other protocols can be simulated: there is a signal equation, and tissues are known."""
        return self.is_head and self.modality in REFERENCE_PROTOCOLS


@dataclass(frozen=True, kw_only=True)
class ExamplePair:
    """A pair to show: a scan altered, what the model makes of it, and the original.

    Attributes
    ----------
    name
        Name of the scan on the page.
    augmented, output, target
        Volumes of one shape, 2-D or 3-D (x, y, z), not negative; `augmented` in any unit, the others in one.
    region
        The voxels that are compared, as in training: the brain of a head.
    zooms
        Voxel size in mm, one per axis.
    alterations
        Families by which it was altered, as the model card names them, or in words; empty if unknown.
    """

    name: str
    augmented: Volume
    output: Volume
    target: Volume
    region: Mask
    zooms: tuple[float, ...]
    alterations: Sequence[str] = ()

    @property
    def rescaled(self) -> Volume:
        """The altered scan, multiplied so that its median in the region is the original's."""
        median = max(float(np.median(self.augmented[self.region])), 1e-6)
        return self.augmented * np.float32(np.median(self.target[self.region]) / median)

    def agreement(self, volume: Volume) -> float:
        """How well a volume agrees with the original in the region, dB."""
        return agreement_db(volume[self.region], self.target[self.region])


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A finished training: all that is written of it.

    Attributes
    ----------
    name
        Name of the weight file, without extension.
    card
        The model card, with the checksum of the weights.
    weights
        Content of the weight file (safetensors).
    selection
        The reference group and those held out.
    schedule, recipe
        The schedule and recipe that the network was trained with.
    parameters
        For each family of alterations, how much it changes, in words.
    examples
        Pairs to show as pictures; there may be none.
    """

    name: str
    card: ModelCard
    weights: bytes
    selection: ReferenceSelection
    schedule: Schedule
    recipe: Recipe
    parameters: Mapping[str, str | None]
    examples: Sequence[ExamplePair] = ()

    @property
    def history(self) -> Sequence[CheckpointRecord]:
        """The checkpoints, of which there is one at least."""
        return self.card.history or ()

    @property
    def kept_checkpoint(self) -> CheckpointRecord:
        """The checkpoint whose weights the model has: with patience, that of the model's own agreement."""
        final = self.card.agreement
        measured = [(record, record.agreement) for record in self.history if record.agreement]
        if self.schedule.patience is None or final is None or not measured:
            return self.history[-1]
        return min(
            measured,
            key=lambda pair: (
                abs(pair[1].unaltered - final.unaltered) + abs(pair[1].augmented - final.augmented)
            ),
        )[0]

    @property
    def participants_on_both_sides(self) -> list[str]:
        """Participants who have scans in the reference group and scans that were held out."""
        group, held_out = (
            {scan.name.split("_")[0] for scan in scans if scan.name.startswith("sub-")}
            for scans in (self.selection.group, self.selection.held_out)
        )
        return sorted(group & held_out)
