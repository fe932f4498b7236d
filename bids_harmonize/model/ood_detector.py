"""Whether a scan is like those that a model is meant for, judged by the grid of its histograms.

A small classifier, fitted to scans in distribution against others (`bids_harmonize.training.ood_scans`),
looks at which intensities lie where in the head, how they vary within cells, and how far the foreground
reaches. It needs no weights of the curve network.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from bids_harmonize.model.bilateral_grid import CELL_MM, KNOTS
from bids_harmonize.model.network import AIR_KNOTS, tissue_share

# Cells with a share of foreground below the first are ignored; cells above the second lie inside the object.
OCCUPIED, INSIDE = 0.15, 0.9
# Outer radii of shells around the centre, in standard deviations of the foreground along each axis.
SHELLS = (0.35, 0.7, 0.9, 1.05, 1.2, 1.4, 1.7, float("inf"))
# Bins of intensities in a shell.
OOD_BINS = 16
OOD_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
# Size of a head, to which others are compared: along an axis, and in cells.
HEAD_MM, HEAD_CELLS = 150.0, 6000.0
# Deviations of features are clipped at this many standard deviations.
MAX_DEVIATION = 8.0


@dataclass(frozen=True, kw_only=True)
class OODScore:
    """A score from 0 (in distribution) to 1 (out of distribution), and the threshold between both.

    Attributes
    ----------
    taken_for
        The contrast that the scan shows, or what else it was taken for; None if the detector cannot tell.
    """

    score: float
    threshold: float
    taken_for: str | None = None

    @property
    def is_ood(self) -> bool:
        """Whether the scan is out of distribution."""
        return self.score > self.threshold


@dataclass(frozen=True, kw_only=True)
class OODDetector:
    """A classifier with one hidden layer.

    Attributes
    ----------
    centre, spread
        Mean and deviation by which every feature is standardized.
    classifier
        The network, as the function `classifier` makes it.
    threshold
        Scores above it are flagged.
    """

    centre: Tensor
    spread: Tensor
    classifier: nn.Sequential
    threshold: float

    def score_ood(self, histogram: Tensor) -> OODScore:
        """Judge a scan by the counts of `bilateral_grid.splat`; axes are right, anterior, superior."""
        # The score is computed on the CPU, so that it does not depend on the device.
        score = torch.sigmoid(self.logits(describe(histogram.cpu())[None]))
        return OODScore(score=float(score), threshold=self.threshold)

    def logits(self, features: Tensor) -> Tensor:
        """Log-odds of being out of distribution, ``(n,)``, from features, ``(n, FEATURES)``."""
        deviations = ((features - self.centre) / self.spread).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        with torch.no_grad():
            return self.classifier(deviations)[:, 0]

    def card(self, held_out: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What the model card stores, with how many held-out scans of each kind were flagged in the fit."""
        tensors = [self.centre, self.spread, *self.classifier.state_dict().values()]
        content = {"Threshold": self.threshold, "Tensors": [_encoded(tensor) for tensor in tensors]}
        return content | ({} if held_out is None else {"HeldOut": dict(held_out)})

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
        return cls(centre=centre, spread=spread, classifier=classifier(*layers), threshold=threshold)


def classifier(first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor) -> nn.Sequential:
    """A network with one hidden layer, of given weights.

    Parameters
    ----------
    first, first_bias, second, second_bias
        ``(hidden, features)``, ``(hidden,)``, ``(1, hidden)``, ``(1,)``.
    """
    hidden, features = first.shape
    # The layers get no random weights of their own, so that the generator of the process stays as it is; they
    # get none by `skip_init` either, which takes half a second to load what it needs.
    layers = [nn.Linear(*sizes, device="meta") for sizes in ((features, hidden), (hidden, 1))]
    network = nn.Sequential(layers[0], nn.SiLU(), layers[1])
    weights = zip(network.state_dict(), (first, first_bias, second, second_bias), strict=True)
    network.load_state_dict({name: values.clone() for name, values in weights}, assign=True)
    return network


FEATURES = len(SHELLS) * (OOD_BINS + 1) + 5 + 2 * len(OOD_QUANTILES)


def describe(histogram: Tensor) -> Tensor:
    """The features of a scan, ``(FEATURES,)``, from the counts of `bilateral_grid.splat`."""
    share = tissue_share(histogram)[0]
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
    shares = torch.stack([part.sum() for part in density.tensor_split(OOD_BINS)]).sqrt()
    return torch.cat([shares, (counts.sum() / cells.sum().clamp(min=1))[None]])


def _extent(occupied: Tensor) -> Tensor:
    """Logarithms of how far the foreground reaches along every axis and of its volume."""
    reach = [torch.nonzero(occupied.amax([k for k in range(3) if k != axis])).flatten() for axis in range(3)]
    cells = torch.tensor([float(places[-1] - places[0] + 1) if places.numel() else 1.0 for places in reach])
    volume = occupied.sum().clamp(min=1)[None] / HEAD_CELLS
    return torch.cat([(cells.to(volume) * CELL_MM / HEAD_MM).log(), volume.log()])


def _within_cells(histogram: Tensor, share: Tensor) -> Tensor:
    """Quantiles of the standard deviation and of the mean of intensities in the cells inside."""
    # A small part of a head may have no cell inside; then the cells with the most foreground count as such.
    inside = share >= min(INSIDE, float(torch.quantile(share.flatten(), OOD_QUANTILES[-1])))
    shares = histogram[:, inside] / histogram[:, inside].sum(0).clamp(min=1)
    level = torch.linspace(0, 1, KNOTS, dtype=shares.dtype)[:, None]
    mean = (shares * level).sum(0)
    deviation = ((shares * level.square()).sum(0) - mean.square()).clamp(min=0).sqrt()
    wanted = torch.tensor(OOD_QUANTILES, dtype=shares.dtype)
    return torch.cat([torch.quantile(values, wanted) for values in (deviation, mean)])


def _encoded(tensor: Tensor) -> dict[str, Any]:
    values = tensor.numpy().astype("<f2")
    return {"Shape": list(values.shape), "Base64": base64.b64encode(values.tobytes()).decode("ascii")}


def _decoded(stored: Mapping[str, Any]) -> Tensor:
    values = np.frombuffer(base64.b64decode(stored["Base64"], validate=True), dtype="<f2")
    return torch.from_numpy(values.astype(np.float32).reshape(stored["Shape"]))
