"""Whether a scan is like those that a model is meant for, by the grid of its histograms.

A small classifier, fitted to familiar scans against foreign ones (`bids_harmonize.foreign`), looks at which
intensities lie where in the head, how they vary within cells, and how far the foreground reaches. It needs no
weights of the curve network.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bids_harmonize.grid import CELL_MM, KNOTS
from bids_harmonize.network import AIR_KNOTS

# Cells with a smaller share of foreground do not count; those with a larger one are inside.
OCCUPIED, INSIDE = 0.15, 0.9
# Outer radii of shells around the centre, in standard deviations of the foreground along each axis.
SHELLS = (0.35, 0.7, 0.9, 1.05, 1.2, 1.4, 1.7, float("inf"))
# Classes of intensities in a shell.
BINS = 16
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
# A head, to which sizes are compared: along an axis, and in cells.
HEAD_MM, HEAD_CELLS = 150.0, 6000.0
# Deviations of features beyond this many standard deviations count no more.
LARGEST = 8.0


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """A score from 0 (familiar) to 1 (foreign), and the one up to which a scan is taken for familiar."""

    score: float
    threshold: float

    @property
    def flagged(self) -> bool:
        """Whether the scan is unlike those that the model is meant for."""
        return self.score > self.threshold


@dataclass(frozen=True, kw_only=True)
class Recognizer:
    """A classifier with one hidden layer.

    Attributes
    ----------
    centre, spread
        Of every feature in the fitting.
    layers
        Weights and biases: ``(hidden, features)``, ``(hidden,)``, ``(1, hidden)``, ``(1,)``.
    threshold
        Scores above it are flagged.
    """

    centre: Tensor
    spread: Tensor
    layers: tuple[Tensor, ...]
    threshold: float

    def recognize(self, histogram: Tensor) -> Recognition:
        """Judge a scan by the counts of `grid.splat`; axes are right, anterior, superior."""
        # On the CPU, so that all devices judge alike.
        score = torch.sigmoid(self.logits(describe(histogram.cpu())[None]))
        return Recognition(score=float(score), threshold=self.threshold)

    def logits(self, features: Tensor) -> Tensor:
        """Of ``(n, features)``: positive where foreign is likelier."""
        first, first_bias, second, second_bias = self.layers
        deviations = ((features - self.centre) / self.spread).clamp(-LARGEST, LARGEST)
        return F.linear(F.silu(F.linear(deviations, first, first_bias)), second, second_bias)[:, 0]

    def card(self) -> dict[str, Any]:
        """What the model card stores."""
        tensors = [self.centre, self.spread, *self.layers]
        return {"Threshold": self.threshold, "Tensors": [_encoded(tensor) for tensor in tensors]}

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self:
        """Read what `card` gave.

        Raises
        ------
        LookupError, TypeError, ValueError
            It is damaged.
        """
        centre, spread, *layers = (_decoded(tensor) for tensor in card["Tensors"])
        first, first_bias, second, second_bias = layers
        hidden = first_bias.numel()
        shapes = [tuple(tensor.shape) for tensor in (centre, spread, first, second, second_bias)]
        if shapes != [(FEATURES,), (FEATURES,), (hidden, FEATURES), (1, hidden), (1,)]:
            raise ValueError(f"tensors of shapes {shapes}")
        threshold = float(card["Threshold"])
        if not 0 <= threshold <= 1:
            raise ValueError(f"the threshold {threshold}")
        if not all(
            torch.isfinite(tensor).all() for tensor in (centre, spread, *layers, torch.tensor(threshold))
        ):
            raise ValueError("not all of it is finite")
        if not (spread > 0).all():
            raise ValueError("a feature without spread")
        return cls(centre=centre, spread=spread, layers=tuple(layers), threshold=threshold)


FEATURES = len(SHELLS) * (BINS + 1) + 5 + 2 * len(QUANTILES)


def describe(histogram: Tensor) -> Tensor:
    """The features of a scan, ``(FEATURES,)``, from the counts of `grid.splat`."""
    share = histogram[AIR_KNOTS:].sum(0) / histogram.sum(0).clamp(min=1)
    occupied = share * (share > OCCUPIED)
    radius = _radius(occupied)
    shells, low = [], 0.0
    for high in SHELLS:
        shells.append(_shell(histogram[:, (radius >= low) & (radius < high)]))
        low = high
    return torch.cat(
        [*shells, _extent(occupied), share.mean()[None], _within_cells(histogram, share)]
    ).float()


def _radius(occupied: Tensor) -> Tensor:
    """Distance of the cells from the foreground's centre, 1 at one standard deviation along every axis."""
    total = occupied.sum().clamp(min=1)
    square = torch.zeros_like(occupied)
    for axis, count in enumerate(occupied.shape):
        place = torch.arange(count, dtype=occupied.dtype).view([-1 if axis == k else 1 for k in range(3)])
        offset = place - (occupied * place).sum() / total
        deviation = ((occupied * offset.square()).sum() / total).sqrt()
        # A foreground one cell wide has no deviation.
        square = square + (offset / (deviation + 0.3)).square() / 3
    return square.sqrt()


def _shell(cells: Tensor) -> Tensor:
    """Square roots of the shares of intensities, and the share of foreground, of cells ``(KNOTS, n)``."""
    counts = cells[AIR_KNOTS:].sum(1)
    density = counts / counts.sum().clamp(min=1)
    shares = torch.stack([part.sum() for part in density.tensor_split(BINS)]).sqrt()
    return torch.cat([shares, (counts.sum() / cells.sum().clamp(min=1))[None]])


def _extent(occupied: Tensor) -> Tensor:
    """Logarithms of how far the foreground reaches along every axis and of its volume."""
    reach = [torch.nonzero(occupied.amax([k for k in range(3) if k != axis])).flatten() for axis in range(3)]
    cells = torch.tensor([float(places[-1] - places[0] + 1) if places.numel() else 1.0 for places in reach])
    volume = occupied.sum().clamp(min=1)[None] / HEAD_CELLS
    return torch.cat([(cells.to(volume) * CELL_MM / HEAD_MM).log(), volume.log()])


def _within_cells(histogram: Tensor, share: Tensor) -> Tensor:
    """Quantiles of the standard deviation and of the mean of intensities in the cells inside."""
    # Of a small part there may be no cell inside: then those with the most foreground.
    inside = share >= min(INSIDE, float(torch.quantile(share.flatten(), QUANTILES[-1])))
    shares = histogram[:, inside] / histogram[:, inside].sum(0).clamp(min=1)
    level = torch.linspace(0, 1, KNOTS, dtype=shares.dtype)[:, None]
    mean = (shares * level).sum(0)
    deviation = ((shares * level.square()).sum(0) - mean.square()).clamp(min=0).sqrt()
    wanted = torch.tensor(QUANTILES, dtype=shares.dtype)
    return torch.cat([torch.quantile(values, wanted) for values in (deviation, mean)])


def _encoded(tensor: Tensor) -> dict[str, Any]:
    values = tensor.numpy().astype("<f2")
    return {"Shape": list(values.shape), "Base64": base64.b64encode(values.tobytes()).decode("ascii")}


def _decoded(stored: Mapping[str, Any]) -> Tensor:
    values = np.frombuffer(base64.b64decode(stored["Base64"], validate=True), dtype="<f2")
    return torch.from_numpy(values.astype(np.float32).reshape(stored["Shape"]))
