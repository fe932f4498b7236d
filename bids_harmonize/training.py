"""From a reference group to weights: pairs of altered and original scan, and one network."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from bids_harmonize.grid import Cells, slice_points, slice_volume, splat
from bids_harmonize.image import intensity_scale
from bids_harmonize.metrics import agreement_db
from bids_harmonize.network import CurveNetwork, global_features
from bids_harmonize.pairs import AIR, Example, Pair, Recipe, SimulatedHead, Source, draw_batch, draw_pair

# Slicing is pointwise, so the loss over some voxels is that over all, in expectation.
SAMPLES = {"region": 30_000, "surroundings": 20_000, "air": 6_000}
# Weight of neighbours whose order is all but lost, how much of their difference must remain, and by how much
# they must differ to be told from noise.
ORDER, REMAINDER, EDGE = 20.0, 0.1, 0.02
CHECKPOINT_STEPS = 250
PROGRESS = ("step", "seconds", "history", "best")
# The part of a stream of random numbers that training and validation, each by its own, draw from.
TRAINING, VALIDATION, DISTRIBUTION = 0, 1, 2
VALIDATION_PAIRS = 16
# Decibel; above it, rounding is the only difference.
UNCHANGED = 60.0
DISTRIBUTION_PAIRS = 150


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to learn.

    Attributes
    ----------
    steps
        Steps at most.
    patience
        Stop after so many checkpoints in which people left out came no nearer to themselves, and take the
        best; None goes on to the end and takes the last.
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
    average: float = 0.998


@dataclass
class State:
    """Everything that a checkpoint holds."""

    network: CurveNetwork
    averaged: CurveNetwork
    optimizer: torch.optim.Optimizer
    step: int
    seconds: float
    # One entry per checkpoint: step, loss, seconds, and the agreement (dB) of people left out.
    history: list[dict[str, float]]
    # Averaged weights of the checkpoint at which people left out agreed best with themselves.
    best: dict[str, Tensor]


def train(
    sources: Sequence[Source],
    left_out: Sequence[Example],
    folder: Path,
    schedule: Schedule,
    progress: Callable[[str], None] = print,
    start: CurveNetwork | None = None,
    recipe: Recipe | None = None,
    device: torch.device | str = "cpu",
) -> tuple[CurveNetwork, dict[str, Any]]:
    """Train a network on a device, from the weights of `start` if given.

    Resumes from the checkpoint in `folder` if it is of the same schedule, sources, recipe and start.

    Returns
    -------
    network, record
        The network, on the CPU, its weights averaged over the last steps, and what the model card says.
    """
    recipe = recipe or Recipe()
    key = {"schedule": asdict(schedule), "sources": _fingerprint(sources), "recipe": asdict(recipe)}
    if start is not None:
        key["start"] = hashlib.sha256(save(start.state_dict())).hexdigest()
    state = _resume(folder, schedule, key, start, device)
    validation = Validation.of(left_out, schedule.seed, recipe)
    losses: list[float] = []
    while state.step < schedule.steps and not _has_settled(state.history, schedule.patience):
        began = time.monotonic()
        rng = np.random.default_rng([schedule.seed, TRAINING, state.step])
        pairs = draw_batch(sources, rng, schedule.batch, recipe)
        with _no_denormals():
            losses.append(_step(state, pairs, schedule, rng))
        state.step += 1
        state.seconds += time.monotonic() - began
        if state.step % CHECKPOINT_STEPS == 0 or state.step == schedule.steps:
            _look_back(state, losses, validation)
            _save_checkpoint(folder, key, state)
            progress(_progress_line(state, schedule))
            losses.clear()
    if schedule.patience is not None and state.best:
        state.averaged.load_state_dict(state.best)
    state.averaged.cpu()
    record = {
        "Schedule": asdict(schedule),
        "Steps": state.step,
        "DurationSeconds": round(state.seconds),
        "Figures": validation.figures(state.averaged) if left_out else {},
        "History": state.history,
        "InputDistribution": input_distribution(sources, schedule.seed, recipe),
    }
    return state.averaged, record


@dataclass(frozen=True)
class Validation:
    """Pairs of people left out, the same at every checkpoint: unaltered, and altered as in training."""

    unaltered: Sequence[Pair]
    altered: Sequence[Pair]

    @classmethod
    def of(cls, left_out: Sequence[Example], seed: int, recipe: Recipe) -> Self:
        """Draw the pairs."""
        drawn = [
            draw_pair(left_out, np.random.default_rng([seed, VALIDATION, index]), recipe)
            for index in range(VALIDATION_PAIRS if left_out else 0)
        ]
        # Of a pair that was not altered the other half has to say enough.
        altered = [pair for pair in drawn if _rescaled_agreement(pair) < UNCHANGED]
        return cls([_unaltered(example) for example in left_out], altered)

    def figures(self, network: CurveNetwork) -> dict[str, float]:
        """Agreement (dB, inside the region): unaltered, altered, and altered but for a factor before."""
        return {
            "LeftOutUnalteredDecibel": _mean(_agreement(network, pair) for pair in self.unaltered),
            "LeftOutAlteredDecibel": _mean(_agreement(network, pair) for pair in self.altered),
            "LeftOutAlteredBeforeDecibel": _mean(_rescaled_agreement(pair) for pair in self.altered),
        }


def input_distribution(sources: Sequence[Source], seed: int, recipe: Recipe) -> dict[str, list[float]]:
    """Mean and standard deviation of the global features over altered inputs."""
    features = []
    for index in range(DISTRIBUTION_PAIRS):
        pair = draw_pair(sources, np.random.default_rng([seed, DISTRIBUTION, index]), recipe)
        histogram = splat(torch.from_numpy(pair.altered), Cells.of(pair.altered.shape, pair.zooms))
        features.append(global_features(histogram[None])[0].numpy())
    stacked = np.stack(features)
    return {
        "Mean": [round(float(value), 5) for value in stacked.mean(axis=0)],
        "StandardDeviation": [round(float(value), 5) for value in stacked.std(axis=0)],
    }


def harmonized(network: CurveNetwork, pair: Pair) -> NDArray[np.float32]:
    """The altered scan of a pair as the network brings it back, in the units of the original."""
    cells = Cells.of(pair.altered.shape, pair.zooms)
    volume = torch.from_numpy(pair.altered)
    with torch.no_grad():
        return np.asarray(slice_volume(network(splat(volume, cells)[None])[0], cells, volume).numpy())


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
    # All pairs of a batch are of one grid.
    cells = Cells.of(pairs[0].altered.shape, pairs[0].zooms)
    histograms = torch.stack([splat(torch.from_numpy(pair.altered), cells) for pair in pairs])
    device = next(network.parameters()).device
    losses = [
        _fidelity(curves, pair, cells, rng) + schedule.smoothness * _roughness(curves)
        for curves, pair in zip(network(histograms.to(device)), pairs, strict=True)
    ]
    return torch.stack(losses).mean()


def _fidelity(curves: Tensor, pair: Pair, cells: Cells, rng: np.random.Generator) -> Tensor:
    """How far the output is from the original, and how much of the order of neighbours is lost."""
    index, weight = _sample_voxels(pair, rng)
    output = _sliced(curves, cells, pair.altered, index)
    error = (output - torch.from_numpy(pair.original.ravel()[index]).to(curves.device)).abs()
    fidelity = ((error + error.square()) * torch.from_numpy(weight).to(curves.device)).mean()
    return fidelity + ORDER * _reversal(curves, pair, cells, index[::3], output[::3], rng)


def _reversal(
    curves: Tensor, pair: Pair, cells: Cells, index: np.ndarray, output: Tensor, rng: np.random.Generator
) -> Tensor:
    """How far neighbours along one axis are from keeping order and some of their difference, on average."""
    axis = int(rng.integers(3))
    position = np.unravel_index(index, pair.altered.shape)[axis]
    stride = int(np.prod(pair.altered.shape[axis + 1 :]))
    neighbour = np.where(position + 1 < pair.altered.shape[axis], index + stride, index)
    flat = pair.altered.ravel()
    change = torch.from_numpy(flat[neighbour] - flat[index]).to(curves.device)
    edge = change.abs() > EDGE
    after = _sliced(curves, cells, pair.altered, neighbour) - output
    lost = F.relu(REMAINDER * change.abs() - after * change.sign())
    return (lost * edge).sum() / edge.sum().clamp(min=1)


def _sliced(curves: Tensor, cells: Cells, volume: np.ndarray, index: np.ndarray) -> Tensor:
    """Harmonized intensities of the voxels at flat indices."""
    offsets = [torch.from_numpy(axis) for axis in np.unravel_index(index, volume.shape)]
    positions = torch.stack([cells.position(axis)[offset] for axis, offset in enumerate(offsets)])
    values = torch.from_numpy(volume.ravel()[index])
    return slice_points(curves, positions.to(curves.device), values.to(curves.device))


def _sample_voxels(pair: Pair, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    body = (pair.original > AIR).ravel()
    region = pair.region.ravel() & (pair.altered.ravel() > 0)
    parts = {
        "region": (region, 1.0),
        "surroundings": (body & ~region, pair.surroundings),
        "air": (~body & ~region, pair.air),
    }
    chosen, weights = [], []
    for name, (part, weight) in parts.items():
        voxels = np.flatnonzero(part) if weight else np.empty(0, dtype=np.intp)
        if voxels.size:
            chosen.append(voxels[rng.integers(voxels.size, size=SAMPLES[name])])
            weights.append(np.full(SAMPLES[name], weight, dtype=np.float32))
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
    return Pair(altered=scaled, original=example.volume, region=example.region, zooms=example.zooms)


def _agreement(network: CurveNetwork, pair: Pair) -> float:
    cells = Cells.of(pair.altered.shape, pair.zooms)
    histogram = splat(torch.from_numpy(pair.altered), cells)[None]
    with torch.no_grad():
        curves = network(histogram.to(next(network.parameters()).device))[0]
        output = _sliced(curves, cells, pair.altered, np.flatnonzero(pair.region))
    return agreement_db(output.cpu().numpy(), pair.original[pair.region])


def _rescaled_agreement(pair: Pair) -> float:
    """Agreement once the median is brought to the original's: the plainest harmonization."""
    altered, original = pair.altered[pair.region], pair.original[pair.region]
    factor = np.median(original) / max(float(np.median(altered)), 1e-6)
    return agreement_db(altered * np.float32(factor), original)


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 2)


def _look_back(state: State, losses: Sequence[float], validation: Validation) -> None:
    """Note how far the training is; keep the weights if they are the best so far."""
    entry: dict[str, float] = {
        "Step": state.step,
        "Seconds": round(state.seconds),
        "Loss": float(np.mean(losses)),
    }
    if validation.unaltered:
        entry |= validation.figures(state.averaged)
        if _merit(entry) > max((_merit(earlier) for earlier in state.history), default=-np.inf):
            state.best = {name: tensor.clone() for name, tensor in state.averaged.state_dict().items()}
    state.history.append(entry)


def _merit(entry: dict[str, float]) -> float:
    """What early stopping goes by: altered scans and unaltered ones weigh the same."""
    return entry.get("LeftOutUnalteredDecibel", 0.0) + entry.get("LeftOutAlteredDecibel", 0.0)


def _has_settled(history: Sequence[dict[str, float]], patience: int | None) -> bool:
    if patience is None or len(history) <= patience or "LeftOutAlteredDecibel" not in history[0]:
        return False
    merits = [_merit(entry) for entry in history]
    return max(merits[-patience:]) <= max(merits[:-patience])


def _progress_line(state: State, schedule: Schedule) -> str:
    entry = state.history[-1]
    left = state.seconds / state.step * (schedule.steps - state.step)
    people = (
        f"people left out {entry['LeftOutUnalteredDecibel']:.1f} dB unaltered and "
        f"{entry['LeftOutAlteredDecibel']:.1f} dB altered, "
        if "LeftOutAlteredDecibel" in entry
        else ""
    )
    return (
        f"step {state.step} of {schedule.steps}, loss {entry['Loss']:.4f}, {people}"
        f"{state.seconds / 60:.1f} min, at most {left / 60:.0f} min left"
    )


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Arithmetic on denormal numbers, which vanishing gradients bring, is many times slower on a CPU."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _fingerprint(sources: Sequence[Source]) -> str:
    """What tells sources from others: a checkpoint of another group must not be resumed."""
    digest = hashlib.sha256()
    for source in sources:
        content = source.head.fractions if isinstance(source, SimulatedHead) else source.inside
        digest.update(content.tobytes())
        if isinstance(source, Example):
            digest.update(source.volume.tobytes())
    return digest.hexdigest()


def _fresh(schedule: Schedule, start: CurveNetwork | None, device: torch.device | str) -> State:
    torch.manual_seed(schedule.seed)
    network, averaged = CurveNetwork().to(device), CurveNetwork().to(device)
    if start is not None:
        network.load_state_dict(start.state_dict())
    averaged.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=1e-4)
    return State(network, averaged, optimizer, 0, 0.0, [], {})


def _resume(
    folder: Path,
    schedule: Schedule,
    key: dict[str, Any],
    start: CurveNetwork | None,
    device: torch.device | str,
) -> State:
    folder.mkdir(parents=True, exist_ok=True)
    state = _fresh(schedule, start, device)
    path = folder / "checkpoint.pt"
    if not path.exists():
        return state
    saved = torch.load(path, weights_only=True, map_location=device)
    if saved.get("key") != key:
        return state
    for name in ("network", "averaged", "optimizer"):
        getattr(state, name).load_state_dict(saved[name])
    for name in PROGRESS:
        setattr(state, name, saved[name])
    return state


def _save_checkpoint(folder: Path, key: dict[str, Any], state: State) -> None:
    content = {name: getattr(state, name).state_dict() for name in ("network", "averaged", "optimizer")}
    content |= {name: getattr(state, name) for name in PROGRESS} | {"key": key}
    temporary = folder / ".checkpoint.pt"
    torch.save(content, temporary)
    os.replace(temporary, folder / "checkpoint.pt")
