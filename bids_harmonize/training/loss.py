"""The loss that the network is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bids_harmonize.model.bilateral_grid import slice_points, splat
from bids_harmonize.model.network import AIR_KNOTS, CurveNetwork
from bids_harmonize.training.pairs import Pair
from bids_harmonize.training.schedule import Effort, Schedule
from bids_harmonize.training.sources import AIR_INTENSITY

# Weight of neighbours whose order is all but lost, how much of their difference must remain, and by how much
# they must differ to be told from noise.
ORDER, REMAINDER, MIN_EDGE = 20.0, 0.1, 0.02
# Original intensities whose mean errors count: so many bins up to the last, and what is brighter with it.
BIAS_BINS, BRIGHTEST = 16, 1.6
# Rounds in which one curve and the gains of all cells are fitted to an edit.
FITS = 3


def pair_loss(
    network: CurveNetwork, pairs: Sequence[Pair], schedule: Schedule, rng: np.random.Generator
) -> Tensor:
    """The training loss over a sample of the voxels of all pairs of a batch."""
    histograms = torch.stack([splat(torch.from_numpy(pair.augmented), pair.cells) for pair in pairs])
    histograms = histograms.to(next(network.parameters()).device)
    with half_precision(histograms.device):
        predicted = network(histograms)
    losses = [
        _fidelity(curves, pair, schedule, rng)
        + schedule.smoothness * _roughness(curves)
        + schedule.locality * departure(curves, histogram)
        for curves, histogram, pair in zip(predicted, histograms, pairs, strict=True)
    ]
    return torch.stack(losses).mean()


def half_precision(device: torch.device) -> torch.autocast:
    """Convolutions in bfloat16 where the processor computes with it, which halves the time of a step.

    Weights, curves and the loss stay float32, and so does everything when a scan is harmonized.
    """
    able = device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)


def departure(curves: Tensor, histogram: Tensor) -> Tensor:
    """How far an edit is from one curve times a gain per cell, as a mean absolute difference of logarithms.

    Parameters
    ----------
    curves, histogram
        ``(KNOTS, X, Y, Z)``; intensities count as often as they occur.
    """
    weight = histogram[AIR_KNOTS:].float()
    weight = weight / weight.sum().clamp(min=1)
    rest = curves[AIR_KNOTS:].clamp(min=1e-6).log()
    # Curve and gains are fitted in turn: in cells of different tissues, neither is the plain mean.
    for _ in range(FITS):
        for axes in ((1, 2, 3), (0,)):
            share = weight.sum(dim=axes, keepdim=True)
            rest = rest - (weight * rest).sum(dim=axes, keepdim=True) / share.clamp(min=1e-12)
    return (weight * rest.abs()).sum()


def _fidelity(curves: Tensor, pair: Pair, schedule: Schedule, rng: np.random.Generator) -> Tensor:
    """How far the output is from the original, and how much of the order of neighbours is lost."""
    index, weight = _sample_voxels(pair, schedule.effort, rng)
    output = slice_at(curves, pair, index)
    target = torch.from_numpy(pair.target.ravel()[index]).to(curves.device)
    weights = torch.from_numpy(weight).to(curves.device)
    error = (output - target).abs()
    fidelity = ((error + error.square()) * weights).mean()
    fidelity = fidelity + schedule.bias * bias(output, target, (weights == 1).float())
    return fidelity + ORDER * reversal_loss(curves, pair, index[::3], output[::3], rng)


def bias(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """How far the mean output of voxels of about one original intensity is from that, on average.

    Voxel by voxel, the best guess that can be made of a noisy scan lies between its tissues, so that noise
    would cost contrast. The mean of many voxels is not so.

    Parameters
    ----------
    output, target, weight
        ``(n,)``; intensities in units of white matter.
    """
    bins = (target * (BIAS_BINS / BRIGHTEST)).long().clamp(0, BIAS_BINS - 1)
    error = torch.zeros(BIAS_BINS, device=output.device).index_add(0, bins, (output - target) * weight)
    return error.abs().sum() / weight.sum().clamp(min=1)


def reversal_loss(
    curves: Tensor, pair: Pair, index: np.ndarray, output: Tensor, rng: np.random.Generator
) -> Tensor:
    """How far neighbours along one axis are from keeping order and some of their difference, on average."""
    axis = int(rng.integers(3))
    position = np.unravel_index(index, pair.augmented.shape)[axis]
    stride = int(np.prod(pair.augmented.shape[axis + 1 :]))
    neighbour = np.where(position + 1 < pair.augmented.shape[axis], index + stride, index)
    flat = pair.augmented.ravel()
    change = torch.from_numpy(flat[neighbour] - flat[index]).to(curves.device)
    edge = change.abs() > MIN_EDGE
    after = slice_at(curves, pair, neighbour) - output
    lost = F.relu(REMAINDER * change.abs() - after * change.sign())
    return (lost * edge).sum() / edge.sum().clamp(min=1)


def slice_at(curves: Tensor, pair: Pair, index: np.ndarray) -> Tensor:
    """Harmonized intensities of the altered scan's voxels at flat indices."""
    offsets = [torch.from_numpy(axis) for axis in np.unravel_index(index, pair.augmented.shape)]
    positions = torch.stack([pair.cells.position(axis)[offset] for axis, offset in enumerate(offsets)])
    values = torch.from_numpy(pair.augmented.ravel()[index])
    return slice_points(curves, positions.to(curves.device), values.to(curves.device))


def _sample_voxels(pair: Pair, effort: Effort, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    body = (pair.target > AIR_INTENSITY).ravel()
    region = pair.region.ravel() & (pair.augmented.ravel() > 0)
    parts = [
        (region, 1.0, effort.region_voxels),
        (body & ~region, pair.surroundings, effort.surroundings_voxels),
        (~body & ~region, pair.air, effort.air_voxels),
    ]
    chosen, weights = [], []
    for part, weight, count in parts:
        voxels = np.flatnonzero(part) if weight else np.empty(0, dtype=np.intp)
        if voxels.size:
            chosen.append(voxels[rng.integers(voxels.size, size=count)])
            weights.append(np.full(count, weight, dtype=np.float32))
    return np.concatenate(chosen), np.concatenate(weights)


def _roughness(curves: Tensor) -> Tensor:
    """How much the curves change from cell to cell."""
    steps = [torch.diff(curves, dim=axis).abs() for axis in (1, 2, 3)]
    return torch.stack([step.mean() for step in steps if step.numel()]).sum()
