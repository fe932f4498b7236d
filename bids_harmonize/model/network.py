"""The CNN: a small 3-D U-Net over the grid of histograms, with a global branch.

It never sees or paints voxels. For every cell it predicts the slopes of a rising tone curve.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bids_harmonize.model.bilateral_grid import KNOT_STEP, KNOTS, curves_from_slopes

# softplus(UNIT_SLOPE) = 1: an untrained network changes nothing.
UNIT_SLOPE = math.log(math.e - 1)
# Flatter segments would hide a lesion, and let curves that differ from place to place reverse neighbours.
MIN_SLOPE = 0.1
# The darkest knots are mostly air, whose amount depends on the field of view.
AIR_KNOTS = 3
# The usual error of a predicted edit, as the root mean square of the logarithm of its gains: so large are the
# edits that networks predict for scans of the reference group, which need none.
EDIT_ERROR = 0.12
# How near to 1, the unit of the output, an intensity must come to count as such: the logarithm's deviation.
UNIT_SPREAD = 0.1
# How sharply edits that stay are parted from those that vanish.
SHARPNESS = 8
# Where nothing becomes 1, the mean over all tissue stands for it; elsewhere this weight of it is nothing.
NO_UNIT_WEIGHT = 1e-4
# A cell with a smaller share of tissue than this leans on its neighbours: air says nothing of contrast.
FULL_TRUST_SHARE = 0.1


class ChannelNorm(nn.Module):
    """Root-mean-square norm over the channels of each cell.

    Statistics over cells would change with the share of background in the field of view.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``(batch, channels, X, Y, Z)``."""
        scale = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-6)
        return x * scale * self.gain.view(1, -1, 1, 1, 1)


class Block(nn.Module):
    """Two 3x3x3 convolutions with a skip; the global features shift the channels in between."""

    def __init__(self, inputs: int, outputs: int, context: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.norm = ChannelNorm(outputs)
        self.shift = nn.Linear(context, outputs)
        self.second = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map ``(batch, inputs, X, Y, Z)`` to ``(batch, outputs, X, Y, Z)``."""
        hidden = self.norm(self.first(x)) + self.shift(context)[:, :, None, None, None]
        return self.skip(x) + self.second(F.silu(hidden))


class CurveNetwork(nn.Module):
    """Histograms of the cells to tone curves.

    Parameters
    ----------
    widths
        Channels at each level of the U-Net, finest (8 mm) first.
    context
        Width of the global branch.
    whole_volume
        Whether it was trained on the whole field of view, its air included, as the networks of version 0.1.0:
        they change with what surrounds a head. Others see the box of the foreground, in which all air is
        alike.
    edit_error
        The usual error of a predicted edit, see `restrained`; 0 for the networks of version 0.1.0, whose
        edits are applied as they are predicted.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 96, 160),
        context: int = 96,
        *,
        whole_volume: bool = False,
        edit_error: float = EDIT_ERROR,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "widths": list(widths),
            "context": context,
            "whole_volume": whole_volume,
            "edit_error": edit_error,
        }
        self.whole_volume = whole_volume
        self.edit_error = edit_error
        self.summary = nn.Sequential(
            nn.Linear(2 * KNOTS, context), nn.SiLU(), nn.Linear(context, context), nn.SiLU()
        )
        self.overall = nn.Linear(context, KNOTS - 1)
        channels = [KNOTS, *widths]
        self.down = nn.ModuleList(Block(a, b, context) for a, b in itertools.pairwise(channels))
        # Skips are added, not concatenated: at 8 mm that halves the cost of the whole network.
        self.project = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(Block(a, a, context) for a in widths[:-1])
        self.local = nn.Conv3d(widths[0], KNOTS - 1, 1)
        for parameter in (*self.overall.parameters(), *self.local.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, histogram: Tensor) -> Tensor:
        """Tone curves, float32, from the counts of `splat`; both ``(batch, KNOTS, X, Y, Z)``.

        Outside of training they are `restrained`: what is learned from must not hide behind that.
        """
        curves = self._predicted(histogram)
        return curves if self.training else restrained(curves, histogram, self.edit_error)

    def _predicted(self, histogram: Tensor) -> Tensor:
        context = self.summary(global_features(histogram))
        features = cell_features(histogram if self.whole_volume else _with_one_air(histogram))
        x = features.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else _coarser(x), context)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            finer = _finer(self.project[level](x), skips[level])
            x = self.up[level](skips[level] + finer, context)
        logits = (self.local(x) + self.overall(context)[:, :, None, None, None]).float()
        slopes = MIN_SLOPE + (1 - MIN_SLOPE) * F.softplus(logits + UNIT_SLOPE)
        if self.whole_volume:
            return curves_from_slopes(slopes)
        trust = (tissue_share(histogram, dim=1) / FULL_TRUST_SHARE).clamp(max=1).float()
        return curves_from_slopes(spread_from(slopes, trust))


def restrained(curves: Tensor, histogram: Tensor, error: float) -> Tensor:
    """Edits weakened where they are no larger than the usual error of their prediction.

    A scan that looks like the reference group needs no edit, and what is predicted for it is error. An edit
    is the logarithm of the gain of every intensity in every cell, less that of what becomes about 1: the unit
    of the output, which is white matter in heads, is kept as it is predicted. An edit is multiplied by
    ``d**8 / (d**8 + error**8)``, where ``d`` is the deviation of the logarithms over the tissue: large ones
    stay, small ones vanish. The curves still rise, as they become a geometric mean of two that do.

    Parameters
    ----------
    curves, histogram
        ``(batch, KNOTS, X, Y, Z)``; intensities count as often as they occur.
    error
        The usual error; 0 leaves the curves as they are.
    """
    if error == 0:
        return curves
    knots = (torch.arange(KNOTS, device=curves.device) * KNOT_STEP).view(1, -1, 1, 1, 1)
    # The first knot is 0, and so are all curves there.
    gains = (curves[:, 1:] / knots[:, 1:]).log()
    seen, counts = gains[:, AIR_KNOTS - 1 :], histogram[:, AIR_KNOTS:].float()
    deviation = _mean((seen - _mean(seen, counts)).square(), counts).sqrt()
    is_unit = torch.exp(-0.5 * (curves[:, AIR_KNOTS:].log() / UNIT_SPREAD).square())
    unit = _mean(seen, counts * (is_unit + NO_UNIT_WEIGHT))
    share = deviation**SHARPNESS / (deviation**SHARPNESS + error**SHARPNESS)
    kept = knots[:, 1:] * (unit + share * (gains - unit)).exp()
    return torch.cat([curves[:, :1], kept], dim=1)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean over all but the first axis, weighted; where nothing counts, the plain mean."""
    axes = tuple(range(1, values.dim()))
    total = counts.sum(dim=axes, keepdim=True)
    plain = values.mean(dim=axes, keepdim=True)
    return torch.where(
        total > 0, (counts * values).sum(dim=axes, keepdim=True) / total.clamp(min=1e-30), plain
    )


def spread_from(values: Tensor, trust: Tensor) -> Tensor:
    """Fill cells of little trust from those around them, at the finest level that knows anything.

    Parameters
    ----------
    values
        ``(batch, channels, X, Y, Z)``.
    trust
        ``(batch, 1, X, Y, Z)``, from 0 to 1: how much of a cell's own value it keeps.
    """
    if max(values.shape[2:]) == 1:
        return values
    weight = _coarser(trust)
    mean = _coarser(values * trust) / weight.clamp(min=torch.finfo(values.dtype).tiny)
    # Where nothing is trusted, the mean of the values is as good as any.
    mean = torch.where(weight > 0, mean, _coarser(values))
    around = _finer(spread_from(mean, (2 * weight).clamp(max=1)), values)
    return trust * values + (1 - trust) * around


def tissue_share(histogram: Tensor, dim: int = 0) -> Tensor:
    """The share of voxels brighter than air in every cell; `dim`, the knots, stays with length 1."""
    tissue = histogram.narrow(dim, AIR_KNOTS, KNOTS - AIR_KNOTS).sum(dim, keepdim=True)
    return tissue / histogram.sum(dim, keepdim=True).clamp(min=1)


def cell_features(histogram: Tensor) -> Tensor:
    """Square roots of each cell's intensity shares: rare intensities keep weight."""
    total = histogram.sum(dim=1, keepdim=True).clamp(min=1)
    return (histogram / total).sqrt().float()


def _with_one_air(histogram: Tensor) -> Tensor:
    """Counts in which everything as dark as air is 0: noise and zeros around a head look the same."""
    air = histogram[:, :AIR_KNOTS].sum(dim=1, keepdim=True)
    nothing = torch.zeros_like(histogram[:, 1:AIR_KNOTS])
    return torch.cat([air, nothing, histogram[:, AIR_KNOTS:]], dim=1)


def global_features(histogram: Tensor) -> Tensor:
    """Density and cumulative histogram of the whole foreground, ``(batch, 2 * KNOTS)``."""
    counts = histogram.sum(dim=(2, 3, 4)).clone()
    counts[:, :AIR_KNOTS] = 0
    density = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.cat([(density / KNOT_STEP).sqrt() / 2, density.cumsum(dim=1)], dim=1).float()


def _coarser(x: Tensor) -> Tensor:
    """Halve the grid; axes of odd length keep their last cell."""
    kernel = [min(2, n) for n in x.shape[2:]]
    return F.avg_pool3d(x, kernel, ceil_mode=True, count_include_pad=False)


def _finer(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)
