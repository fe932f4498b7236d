"""The training of one network on pairs of altered and original scans."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from bids_harmonize.model.bilateral_grid import slice_volume, splat
from bids_harmonize.model.card_entries import CheckpointRecord, HeldOutAgreement, InputDistribution
from bids_harmonize.model.network import CurveNetwork, global_features
from bids_harmonize.training.checkpoint import TrainingState, fingerprint, resume_training, save_checkpoint
from bids_harmonize.training.loss import half_precision, pair_loss
from bids_harmonize.training.pairs import Pair, draw_batch, draw_pair, with_boxes_alike
from bids_harmonize.training.recipe import Recipe
from bids_harmonize.training.schedule import DISTRIBUTION, TRAINING, Schedule
from bids_harmonize.training.sources import ReferenceExample, Source
from bids_harmonize.training.validation import Validation


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A network and how it was trained.

    Attributes
    ----------
    network
        The network on the CPU; its weights are averaged over the last steps.
    steps
        Number of steps that were done.
    seconds
        Time spent on them.
    agreement
        Agreement measured on held-out scans; None if there are none.
    """

    network: CurveNetwork
    schedule: Schedule
    recipe: Recipe
    steps: int
    seconds: float
    agreement: HeldOutAgreement | None
    history: Sequence[CheckpointRecord]
    input_distribution: InputDistribution


def train(
    sources: Sequence[Source],
    held_out: Sequence[ReferenceExample],
    folder: Path,
    schedule: Schedule,
    *,
    recipe: Recipe | None = None,
    start: CurveNetwork | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] = print,
) -> TrainedNetwork:
    """Train a network on a device, from the weights of `start` if given.

    Resumes from the checkpoint in `folder` if it is of the same schedule, sources, recipe and start.
    """
    recipe = recipe or Recipe()
    key = {"schedule": schedule.key(), "sources": fingerprint(sources), "recipe": asdict(recipe)}
    if start is not None:
        key["start"] = hashlib.sha256(save(start.state_dict())).hexdigest()
    state = resume_training(folder, schedule, key, start, device)
    validation = Validation.of(held_out, schedule, recipe)
    losses: list[float] = []
    batches = _drawn_ahead(sources, schedule, recipe, state.step)
    while state.step < schedule.steps and not _has_settled(state.history, schedule.patience):
        began = time.monotonic()
        rng, pairs = next(batches)
        with _no_denormals():
            if rng.random() < recipe.second_pass:
                pairs = with_boxes_alike([_harmonized_once(state.averaged, pair) for pair in pairs])
            losses.append(_step(state, pairs, schedule, rng))
        state.step += 1
        state.seconds += time.monotonic() - began
        if state.step % schedule.effort.checkpoint_steps == 0 or state.step == schedule.steps:
            _look_back(state, losses, validation)
            save_checkpoint(folder, key, state)
            progress(_progress_line(state, schedule))
            losses.clear()
    batches.close()
    if schedule.patience is not None and state.best:
        state.averaged.load_state_dict(state.best)
    network = state.averaged.cpu()
    return TrainedNetwork(
        network=network,
        schedule=schedule,
        recipe=recipe,
        steps=state.step,
        seconds=state.seconds,
        agreement=validation.measure(network) if held_out else None,
        history=state.history,
        input_distribution=input_distribution(sources, schedule, recipe),
    )


def _drawn_ahead(
    sources: Sequence[Source], schedule: Schedule, recipe: Recipe, first: int
) -> Generator[tuple[np.random.Generator, list[Pair]]]:
    """The pairs of every step, drawn by another thread while the step before is learned from.

    Each step has random numbers of its own, so that it makes no difference where a training was resumed.
    """

    def draw(step: int) -> tuple[np.random.Generator, list[Pair]]:
        rng = np.random.default_rng([schedule.seed, TRAINING, step])
        return rng, draw_batch(sources, rng, schedule.batch, recipe)

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(draw, first)
        for step in itertools.count(first + 1):
            drawn = waiting.result()
            waiting = thread.submit(draw, step)
            yield drawn


def input_distribution(sources: Sequence[Source], schedule: Schedule, recipe: Recipe) -> InputDistribution:
    """Mean and standard deviation of the global features over altered inputs."""
    features = []
    for index in range(schedule.effort.distribution_pairs):
        pair = draw_pair(sources, np.random.default_rng([schedule.seed, DISTRIBUTION, index]), recipe)
        histogram = splat(torch.from_numpy(pair.augmented), pair.cells)
        features.append(global_features(histogram[None])[0].numpy())
    stacked = np.stack(features)
    return InputDistribution(
        mean=[round(float(value), 5) for value in stacked.mean(axis=0)],
        standard_deviation=[round(float(value), 5) for value in stacked.std(axis=0)],
    )


def harmonized(network: CurveNetwork, pair: Pair) -> NDArray[np.float32]:
    """The altered scan of a pair as the network brings it back, in the units of the original."""
    volume = torch.from_numpy(pair.augmented)
    with torch.no_grad():
        curves = network(splat(volume, pair.cells)[None].to(next(network.parameters()).device))[0]
        return np.asarray(slice_volume(curves, pair.cells, volume).numpy())


def _harmonized_once(network: CurveNetwork, pair: Pair) -> Pair:
    """The pair with the network's own output as the altered scan: a second pass is to change nothing."""
    with half_precision(next(network.parameters()).device):
        return pair.with_augmented(harmonized(network, pair))


def weights_content(network: CurveNetwork) -> bytes:
    """What a weight file holds: the weights, and the size of the network, as safetensors."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, metadata={"config": json.dumps(network.config)})


def _step(state: TrainingState, pairs: Sequence[Pair], schedule: Schedule, rng: np.random.Generator) -> float:
    for parameters in state.optimizer.param_groups:
        parameters["lr"] = _learning_rate(schedule, state.step)
    loss = pair_loss(state.network, pairs, schedule, rng)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimizer.step()
    keep = min(schedule.average, state.step / (state.step + 10))
    with torch.no_grad():
        for slow, fast in zip(state.averaged.parameters(), state.network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)
    return float(loss.detach())


def _learning_rate(schedule: Schedule, step: int) -> float:
    rise = min(1.0, (step + 1) / schedule.warmup)
    fall = 0.5 + 0.5 * np.cos(np.pi * step / schedule.steps)
    return float(schedule.learning_rate * rise * max(fall, 0.01))


def _look_back(state: TrainingState, losses: Sequence[float], validation: Validation) -> None:
    """Note how far the training is; keep the weights if they are the best so far."""
    agreement = validation.measure(state.averaged) if validation.unaltered else None
    if agreement and agreement.merit > max(_merits(state.history), default=-np.inf):
        state.best = {name: tensor.clone() for name, tensor in state.averaged.state_dict().items()}
    state.history.append(
        CheckpointRecord(
            step=state.step,
            seconds=round(state.seconds),
            loss=float(np.mean(losses)),
            agreement=agreement,
        )
    )


def _merits(history: Sequence[CheckpointRecord]) -> list[float]:
    return [record.agreement.merit for record in history if record.agreement]


def _has_settled(history: Sequence[CheckpointRecord], patience: int | None) -> bool:
    merits = _merits(history)
    if patience is None or len(merits) <= patience:
        return False
    return max(merits[-patience:]) <= max(merits[:-patience])


def _progress_line(state: TrainingState, schedule: Schedule) -> str:
    record = state.history[-1]
    seconds_left = state.seconds / state.step * (schedule.steps - state.step)
    held_out = (
        f"held-out scans {record.agreement.unaltered:.1f} dB unaltered and "
        f"{record.agreement.augmented:.1f} dB altered, "
        if record.agreement
        else ""
    )
    return (
        f"step {state.step} of {schedule.steps}, loss {record.loss:.4f}, {held_out}"
        f"{state.seconds / 60:.1f} min, at most {seconds_left / 60:.0f} min left"
    )


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero: vanishing gradients bring them, and they slow a CPU down many times."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
