"""How long and how fast a network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

# The part of a stream of random numbers that training, validation and others, each by its own, draw from.
TRAINING, VALIDATION, DISTRIBUTION, EXAMPLES = 0, 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is drawn and measured; less than this is only good for trying the training out.

    Attributes
    ----------
    widths, context
        The size of the network, as for `CurveNetwork`; a network that is trained further keeps its own.
    max_steps
        Steps at most where the request does not say how many; None for the default of the modality.
    checkpoint_steps
        Steps from one checkpoint to the next.
    region_voxels, surroundings_voxels, air_voxels
        How many voxels of a pair the loss is taken over. Slicing is pointwise, so the loss over some voxels
        is that over all, in expectation.
    validation_pairs, distribution_pairs
        Altered pairs that the held-out scans are measured by, and that the global features are described by.
    ood_scans
        Scans that the detector of those that are out of distribution is fitted to, half of them in
        distribution. With 900 it detected a tenth fewer.
    """

    widths: tuple[int, ...] = (32, 96, 160)
    context: int = 96
    max_steps: int | None = None
    checkpoint_steps: int = 250
    region_voxels: int = 30_000
    surroundings_voxels: int = 20_000
    air_voxels: int = 6_000
    validation_pairs: int = 16
    distribution_pairs: int = 150
    ood_scans: int = 800

    @property
    def network(self) -> dict[str, Any]:
        """What `CurveNetwork` takes."""
        return {"widths": self.widths, "context": self.context}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to learn.

    Attributes
    ----------
    steps
        Steps at most.
    patience
        Number of checkpoints without better agreement on held-out scans after which training stops and takes
        the best; None goes on to the end and takes the last.
    batch
        Pairs per step.
    warmup
        Steps in which the learning rate rises.
    smoothness
        Weight of the roughness of curves in space.
    bias
        Weight of the mean error at every original intensity.
    locality
        Price of curves that differ from place to place by more than a gain, so that they do so where it pays.
    average
        Share of the averaged weights that each step keeps.
    """

    steps: int
    patience: int | None = None
    batch: int = 2
    seed: int = 0
    learning_rate: float = 2e-3
    warmup: int = 100
    smoothness: float = 0.02
    bias: float = 2.0
    locality: float = 0.15
    average: float = 0.998
    effort: Effort = field(default_factory=Effort)

    def to_json(self) -> dict[str, Any]:
        """What a model card says of it: the effort is always the same there."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "effort"}

    def key(self) -> Mapping[str, Any]:
        """Identifies checkpoints of this schedule; the values of earlier releases stay valid."""
        return self.to_json() | ({} if self.effort == Effort() else {"effort": asdict(self.effort)})
