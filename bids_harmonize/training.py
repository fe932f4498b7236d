"""From a reference group to weights: pairs of altered and original scan, and one network."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from bids_harmonize.grid import Cells, slice_points, splat
from bids_harmonize.image import intensity_scale
from bids_harmonize.metrics import agreement_db
from bids_harmonize.network import CurveNetwork, global_features
from bids_harmonize.pairs import Example, Pair, draw_pair, examples
from bids_harmonize.reference import ReferenceScan

# Slicing is pointwise, so the loss over some voxels is that over all, in expectation.
SAMPLES = {"brain": 30_000, "surroundings": 20_000, "air": 6_000}
WEIGHTS = {"brain": 1.0, "surroundings": 0.5, "air": 0.5}
CHECKPOINT_STEPS = 250
# The part of a stream of random numbers that training and validation, each by its own, draw from.
TRAINING, VALIDATION, DISTRIBUTION = 0, 1, 2
VALIDATION_PAIRS = 16
# Decibel; above it, rounding is the only difference.
UNCHANGED = 60.0
DISTRIBUTION_PAIRS = 150


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to learn."""

    steps: int
    batch: int = 2
    seed: int = 0
    learning_rate: float = 2e-3
    warmup: int = 100
    smoothness: float = 0.02
    average: float = 0.998


@dataclass
class State:
    """Everything that a checkpoint holds."""

    network: CurveNetwork
    averaged: CurveNetwork
    optimizer: torch.optim.Optimizer
    step: int
    seconds: float


def train(
    group: Sequence[ReferenceScan],
    left_out: Sequence[ReferenceScan],
    folder: Path,
    schedule: Schedule,
    progress: Callable[[str], None] = print,
    start: CurveNetwork | None = None,
) -> tuple[CurveNetwork, dict[str, Any]]:
    """Train a network, from the weights of `start` if given.

    Resumes from the checkpoint in `folder` where there is one of the same schedule, scans and start.

    Returns
    -------
    network, record
        The network, its weights averaged over the last steps, and what the model card says of the training.
    """
    data = [example for scan in group for example in examples(scan)]
    key = {"schedule": asdict(schedule), "scans": [_fingerprint(scan) for scan in group]}
    if start is not None:
        key["start"] = hashlib.sha256(save(start.state_dict())).hexdigest()
    state = _resume(folder, schedule, key, start)
    losses: list[float] = []
    while state.step < schedule.steps:
        began = time.monotonic()
        rng = np.random.default_rng([schedule.seed, TRAINING, state.step])
        pairs = [draw_pair(data, rng) for _ in range(schedule.batch)]
        with _no_denormals():
            losses.append(_step(state, pairs, schedule, rng))
        state.step += 1
        state.seconds += time.monotonic() - began
        if state.step % CHECKPOINT_STEPS == 0 or state.step == schedule.steps:
            _save_checkpoint(folder, key, state)
            progress(_progress_line(state, schedule, losses))
            losses.clear()
    figures = validate(state.averaged, left_out, schedule.seed) if left_out else {}
    record = {
        "Schedule": asdict(schedule),
        "DurationSeconds": round(state.seconds),
        "Figures": figures,
        "InputDistribution": input_distribution(data, schedule.seed),
    }
    return state.averaged, record


def validate(network: CurveNetwork, left_out: Sequence[ReferenceScan], seed: int) -> dict[str, float]:
    """Agreement (dB, inside the brain) of people left out: unaltered with themselves, and altered."""
    data = [examples(scan)[0] for scan in left_out]
    unaltered = [_agreement(network, _unaltered(example)) for example in data]
    drawn = [
        draw_pair(data, np.random.default_rng([seed, VALIDATION, index])) for index in range(VALIDATION_PAIRS)
    ]
    rescaled = [agreement_db(_rescaled(pair), pair.original[pair.brain]) for pair in drawn]
    # Of a pair that was not altered there is nothing to say here.
    altered = [(pair, plain) for pair, plain in zip(drawn, rescaled, strict=True) if plain < UNCHANGED]
    before = [plain for _, plain in altered]
    after = [_agreement(network, pair) for pair, _ in altered]
    return {
        "LeftOutUnalteredDecibel": round(float(np.mean(unaltered)), 2),
        "LeftOutAlteredDecibel": round(float(np.mean(after)), 2),
        "LeftOutAlteredBeforeDecibel": round(float(np.mean(before)), 2),
    }


def input_distribution(data: Sequence[Example], seed: int) -> dict[str, list[float]]:
    """Mean and standard deviation of the global features over altered inputs."""
    features = []
    for index in range(DISTRIBUTION_PAIRS):
        pair = draw_pair(data, np.random.default_rng([seed, DISTRIBUTION, index]))
        histogram = splat(torch.from_numpy(pair.altered), Cells.of(pair.altered.shape, pair.zooms))
        features.append(global_features(histogram[None])[0].numpy())
    stacked = np.stack(features)
    return {
        "Mean": [round(float(value), 5) for value in stacked.mean(axis=0)],
        "StandardDeviation": [round(float(value), 5) for value in stacked.std(axis=0)],
    }


def save_weights(network: CurveNetwork, path: Path) -> None:
    """Write the weights as safetensors."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    path.write_bytes(save(tensors, metadata={"config": json.dumps(network.config)}))


def _step(state: State, pairs: Sequence[Pair], schedule: Schedule, rng: np.random.Generator) -> float:
    for parameters in state.optimizer.param_groups:
        parameters["lr"] = _learning_rate(schedule, state.step)
    loss = _loss(state.network, pairs, schedule, rng)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimizer.step()
    keep = min(schedule.average, state.step / (state.step + 10))
    with torch.no_grad():
        for slow, fast in zip(state.averaged.parameters(), state.network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)
    return float(loss.detach())


def _loss(
    network: CurveNetwork, pairs: Sequence[Pair], schedule: Schedule, rng: np.random.Generator
) -> Tensor:
    grids = [Cells.of(pair.altered.shape, pair.zooms) for pair in pairs]
    volumes = [torch.from_numpy(pair.altered) for pair in pairs]
    histograms = [splat(volume, cells) for volume, cells in zip(volumes, grids, strict=True)]
    losses = []
    for curves, pair, cells in zip(network(_stacked(histograms)), pairs, grids, strict=True):
        x, y, z = cells.counts
        own = curves[:, :x, :y, :z]
        losses.append(_fidelity(own, pair, cells, rng) + schedule.smoothness * _roughness(own))
    return torch.stack(losses).mean()


def _stacked(histograms: Sequence[Tensor]) -> Tensor:
    """Grids of several scans as one batch, with empty cells behind the smaller ones."""
    size = [max(n) for n in zip(*(histogram.shape for histogram in histograms), strict=True)]
    batch = torch.zeros(len(histograms), *size, dtype=histograms[0].dtype)
    for place, histogram in zip(batch, histograms, strict=True):
        _, x, y, z = histogram.shape
        place[:, :x, :y, :z] = histogram
    return batch


def _fidelity(curves: Tensor, pair: Pair, cells: Cells, rng: np.random.Generator) -> Tensor:
    index, weight = _sample_voxels(pair, rng)
    output = _sliced(curves, cells, pair.altered, index)
    error = (output - torch.from_numpy(pair.original.ravel()[index])).abs()
    return ((error + error.square()) * torch.from_numpy(weight)).mean()


def _sliced(curves: Tensor, cells: Cells, volume: np.ndarray, index: np.ndarray) -> Tensor:
    """Harmonized intensities of the voxels at flat indices."""
    offsets = [torch.from_numpy(axis) for axis in np.unravel_index(index, volume.shape)]
    positions = torch.stack([cells.position(axis)[offset] for axis, offset in enumerate(offsets)])
    return slice_points(curves, positions, torch.from_numpy(volume.ravel()[index]))


def _sample_voxels(pair: Pair, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    head = (pair.original > 0.15).ravel()
    brain = pair.brain.ravel() & (pair.altered.ravel() > 0)
    regions = {"brain": brain, "surroundings": head & ~brain, "air": ~head & ~brain}
    chosen, weights = [], []
    for name, region in regions.items():
        voxels = np.flatnonzero(region)
        if voxels.size:
            chosen.append(voxels[rng.integers(voxels.size, size=SAMPLES[name])])
            weights.append(np.full(SAMPLES[name], WEIGHTS[name], dtype=np.float32))
    return np.concatenate(chosen), np.concatenate(weights)


def _roughness(curves: Tensor) -> Tensor:
    """How much the curves change from cell to cell."""
    steps = [torch.diff(curves, dim=axis).abs() for axis in (1, 2, 3)]
    return torch.stack([step.mean() for step in steps if step.numel()]).sum()


def _learning_rate(schedule: Schedule, step: int) -> float:
    rise = min(1.0, (step + 1) / schedule.warmup)
    fall = 0.5 + 0.5 * np.cos(np.pi * step / schedule.steps)
    return float(schedule.learning_rate * rise * max(fall, 0.01))


def _unaltered(example: Example) -> Pair:
    scaled = example.volume / np.float32(intensity_scale(example.volume))
    return Pair(altered=scaled, original=example.volume, brain=example.brain, zooms=example.zooms)


def _agreement(network: CurveNetwork, pair: Pair) -> float:
    cells = Cells.of(pair.altered.shape, pair.zooms)
    with torch.no_grad():
        curves = network(splat(torch.from_numpy(pair.altered), cells)[None])[0]
    output = _sliced(curves, cells, pair.altered, np.flatnonzero(pair.brain))
    return agreement_db(output.numpy(), pair.original[pair.brain])


def _rescaled(pair: Pair) -> np.ndarray:
    """The altered brain with its median brought to the original's: the plainest harmonization."""
    altered, original = pair.altered[pair.brain], pair.original[pair.brain]
    return altered * (np.median(original) / max(float(np.median(altered)), 1e-6))


def _progress_line(state: State, schedule: Schedule, losses: Sequence[float]) -> str:
    left = state.seconds / state.step * (schedule.steps - state.step)
    return (
        f"step {state.step} of {schedule.steps}, loss {np.mean(losses):.4f}, "
        f"{state.seconds / 60:.1f} min, about {left / 60:.0f} min left"
    )


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Arithmetic on denormal numbers, which vanishing gradients bring, is many times slower on a CPU."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _fingerprint(scan: ReferenceScan) -> list[Any]:
    """What tells a scan from others: a checkpoint of another group must not be resumed."""
    return [scan.name, hashlib.sha256(scan.volume.tobytes()).hexdigest()]


def _fresh(schedule: Schedule, start: CurveNetwork | None) -> State:
    torch.manual_seed(schedule.seed)
    network, averaged = CurveNetwork(), CurveNetwork()
    if start is not None:
        network.load_state_dict(start.state_dict())
    averaged.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=1e-4)
    return State(network, averaged, optimizer, 0, 0.0)


def _resume(folder: Path, schedule: Schedule, key: dict[str, Any], start: CurveNetwork | None) -> State:
    folder.mkdir(parents=True, exist_ok=True)
    state = _fresh(schedule, start)
    path = folder / "checkpoint.pt"
    if not path.exists():
        return state
    saved = torch.load(path, weights_only=True)
    if saved.get("key") != key:
        return state
    for name in ("network", "averaged", "optimizer"):
        getattr(state, name).load_state_dict(saved[name])
    state.step, state.seconds = saved["step"], saved["seconds"]
    return state


def _save_checkpoint(folder: Path, key: dict[str, Any], state: State) -> None:
    content = {name: getattr(state, name).state_dict() for name in ("network", "averaged", "optimizer")}
    content |= {"step": state.step, "seconds": state.seconds, "key": key}
    temporary = folder / ".checkpoint.pt"
    torch.save(content, temporary)
    os.replace(temporary, folder / "checkpoint.pt")
