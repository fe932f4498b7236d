"""Training: it learns, it is the same each time, and a killed one goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from heads import ball_scan
from safetensors import safe_open
from safetensors.torch import load_file

from bids_harmonize import training
from bids_harmonize.grid import KNOTS
from bids_harmonize.network import CurveNetwork
from bids_harmonize.reference import ReferenceScan
from bids_harmonize.training import Schedule, input_distribution, save_weights, train, validate

SCHEDULE = Schedule(steps=4, batch=1, warmup=1)


class Tiny(CurveNetwork):
    """The same network, small enough to learn in milliseconds."""

    def __init__(self) -> None:
        super().__init__(widths=(4, 8), context=8)


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(training, "CurveNetwork", Tiny)
    monkeypatch.setattr(training, "SAMPLES", {"brain": 600, "surroundings": 400, "air": 100})
    monkeypatch.setattr(training, "DISTRIBUTION_PAIRS", 4)
    monkeypatch.setattr(training, "VALIDATION_PAIRS", 3)
    monkeypatch.setattr(training, "CHECKPOINT_STEPS", 2)
    yield
    torch.set_flush_denormal(False)


def silent(_: str) -> None:
    pass


def same_weights(first: CurveNetwork, second: CurveNetwork) -> bool:
    states = first.state_dict(), second.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def kill_at(step: int) -> Callable[[str], None]:
    def progress(line: str) -> None:
        if line.startswith(f"step {step} "):
            raise Killed

    return progress


def test_same_seed_same_weights(small_group: list[ReferenceScan], tmp_path: Path) -> None:
    first, record = train(small_group, [], tmp_path / "a", SCHEDULE, silent)
    second, again = train(small_group, [], tmp_path / "b", SCHEDULE, silent)
    assert same_weights(first, second)
    assert record["InputDistribution"] == again["InputDistribution"]
    other, _ = train(small_group, [], tmp_path / "c", replace(SCHEDULE, seed=1), silent)
    assert not same_weights(first, other)


def test_a_killed_training_goes_on_and_repeats_nothing(
    small_group: list[ReferenceScan], tmp_path: Path
) -> None:
    schedule = replace(SCHEDULE, steps=6)
    whole, _ = train(small_group, [], tmp_path / "whole", schedule, silent)
    with pytest.raises(Killed):
        train(small_group, [], tmp_path / "killed", schedule, kill_at(4))
    lines: list[str] = []
    resumed, record = train(small_group, [], tmp_path / "killed", schedule, lines.append)
    assert [line.split(",")[0] for line in lines] == ["step 6 of 6"]
    assert same_weights(whole, resumed)
    assert record["Schedule"]["steps"] == 6


def test_a_finished_training_takes_no_further_step(small_group: list[ReferenceScan], tmp_path: Path) -> None:
    first, _ = train(small_group, [], tmp_path, SCHEDULE, silent)
    lines: list[str] = []
    second, _ = train(small_group, [], tmp_path, SCHEDULE, lines.append)
    assert lines == []
    assert same_weights(first, second)


def test_training_leaves_the_arithmetic_of_the_process_alone(
    small_group: list[ReferenceScan], tmp_path: Path
) -> None:
    train(small_group, [], tmp_path, replace(SCHEDULE, steps=1), silent)
    denormal = np.full(8, 1e-38, np.float32) / np.float32(4)
    assert denormal.min() > 0


def test_another_schedule_starts_afresh(small_group: list[ReferenceScan], tmp_path: Path) -> None:
    train(small_group, [], tmp_path / "a", SCHEDULE, silent)
    other = replace(SCHEDULE, learning_rate=1e-3)
    lines: list[str] = []
    after_another, _ = train(small_group, [], tmp_path / "a", other, lines.append)
    alone, _ = train(small_group, [], tmp_path / "b", other, silent)
    assert len(lines) == 2
    assert same_weights(after_another, alone)


def test_another_group_starts_afresh(small_group: list[ReferenceScan], tmp_path: Path) -> None:
    train(small_group[:2], [], tmp_path / "a", SCHEDULE, silent)
    after_another, _ = train(small_group[2:], [], tmp_path / "a", SCHEDULE, silent)
    alone, _ = train(small_group[2:], [], tmp_path / "b", SCHEDULE, silent)
    assert same_weights(after_another, alone)


def test_training_brings_left_out_scans_closer(small_group: list[ReferenceScan], tmp_path: Path) -> None:
    schedule = Schedule(steps=60, batch=1, warmup=4, learning_rate=1e-2, average=0.9)
    lines: list[str] = []
    network, record = train(small_group[:3], small_group[3:], tmp_path, schedule, lines.append)
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert len(losses) == 30
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:4])
    untrained = validate(Tiny(), small_group[3:], schedule.seed)
    assert record["Figures"].keys() == untrained.keys()
    assert record["Figures"]["LeftOutAlteredDecibel"] > untrained["LeftOutAlteredDecibel"] + 1
    assert validate(network, small_group[3:], schedule.seed) == record["Figures"]


def test_training_goes_on_from_given_weights(small_group: list[ReferenceScan], tmp_path: Path) -> None:
    start, _ = train(small_group, [], tmp_path / "a", SCHEDULE, silent)
    still = replace(SCHEDULE, learning_rate=0.0)
    unmoved, _ = train(small_group, [], tmp_path / "b", still, silent, start)
    moved, _ = train(small_group, [], tmp_path / "c", SCHEDULE, silent, start)
    assert same_weights(unmoved, start)
    assert not same_weights(moved, start)


def test_averaged_weights_are_those_of_the_last_steps(
    small_group: list[ReferenceScan], tmp_path: Path
) -> None:
    network, _ = train(small_group, [], tmp_path, replace(SCHEDULE, average=0.0), silent)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(
        torch.equal(checkpoint["network"][name], value) for name, value in network.state_dict().items()
    )
    assert checkpoint["step"] == SCHEDULE.steps


def test_scans_of_different_size_share_a_batch(small_group: list[ReferenceScan], tmp_path: Path) -> None:
    group = [small_group[0], ball_scan(9, (20, 30, 24))]
    network, _ = train(group, [], tmp_path, replace(SCHEDULE, batch=4), silent)
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values())


def test_input_distribution_describes_both_halves_of_the_features(small_group: list[ReferenceScan]) -> None:
    data = [example for scan in small_group for example in training.examples(scan)]
    distribution = input_distribution(data, 0)
    assert distribution == input_distribution(data, 0)
    for values in distribution.values():
        assert len(values) == 2 * KNOTS
        assert np.all(np.isfinite(values))
    # The last knot of a cumulative histogram is always 1.
    assert distribution["Mean"][-1] == pytest.approx(1)
    assert distribution["StandardDeviation"][-1] == pytest.approx(0)


def test_saved_weights_carry_their_network(tmp_path: Path) -> None:
    network = Tiny()
    save_weights(network, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"config": '{"widths": [4, 8], "context": 8}'}
    saved = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in network.state_dict().items())
    save_weights(network, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
