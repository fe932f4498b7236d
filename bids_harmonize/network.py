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

from bids_harmonize.grid import KNOTS, STEP, curves_from_slopes

# softplus(UNIT_SLOPE) = 1: an untrained network changes nothing.
UNIT_SLOPE = math.log(math.e - 1)
# Flatter segments would hide a lesion, and let curves that differ from place to place reverse neighbours.
LEAST_SLOPE = 0.1
# The darkest knots are mostly air, whose amount depends on the field of view.
AIR_KNOTS = 3


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
    """

    def __init__(self, widths: tuple[int, ...] = (32, 96, 160), context: int = 96) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"widths": list(widths), "context": context}
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
        """Tone curves, float32, from the counts of `splat`; both ``(batch, KNOTS, X, Y, Z)``."""
        context = self.summary(global_features(histogram))
        x = cell_features(histogram).contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else _coarser(x), context)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            finer = _finer(self.project[level](x), skips[level])
            x = self.up[level](skips[level] + finer, context)
        logits = self.local(x) + self.overall(context)[:, :, None, None, None]
        return curves_from_slopes(LEAST_SLOPE + (1 - LEAST_SLOPE) * F.softplus(logits + UNIT_SLOPE))


def cell_features(histogram: Tensor) -> Tensor:
    """Square roots of each cell's intensity shares: rare intensities keep weight."""
    total = histogram.sum(dim=1, keepdim=True).clamp(min=1)
    return (histogram / total).sqrt().float()


def global_features(histogram: Tensor) -> Tensor:
    """Density and cumulative histogram of the whole foreground, ``(batch, 2 * KNOTS)``."""
    counts = histogram.sum(dim=(2, 3, 4)).clone()
    counts[:, :AIR_KNOTS] = 0
    density = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.cat([(density / STEP).sqrt() / 2, density.cumsum(dim=1)], dim=1).float()


def _coarser(x: Tensor) -> Tensor:
    """Halve the grid; axes of odd length keep their last cell."""
    kernel = [min(2, n) for n in x.shape[2:]]
    return F.avg_pool3d(x, kernel, ceil_mode=True, count_include_pad=False)


def _finer(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)
