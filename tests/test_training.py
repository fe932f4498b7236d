"""Training: it learns, it is the same each time, and a killed one goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from heads import MPRAGE, Tiny, ball_scan, label_map, write_label_map
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from bids_harmonize import training
from bids_harmonize.grid import KNOTS, Cells, curves_from_slopes, identity_curves
from bids_harmonize.heads import Head
from bids_harmonize.network import CurveNetwork
from bids_harmonize.pairs import Example, Pair, Recipe, SimulatedHead, examples
from bids_harmonize.reference import ReferenceScan
from bids_harmonize.training import (
    REMAINDER,
    Schedule,
    State,
    Validation,
    input_distribution,
    save_weights,
    train,
)

SCHEDULE = Schedule(steps=4, batch=1, warmup=1)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def group(small_group: list[ReferenceScan]) -> list[Example]:
    return [examples(scan)[0] for scan in small_group]


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(training, "CurveNetwork", Tiny)
    monkeypatch.setattr(training, "SAMPLES", {"region": 600, "surroundings": 400, "air": 100})
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


def test_same_seed_same_weights(group: list[Example], tmp_path: Path) -> None:
    first, record = train(group, [], tmp_path / "a", SCHEDULE, silent)
    second, again = train(group, [], tmp_path / "b", SCHEDULE, silent)
    assert same_weights(first, second)
    assert record["InputDistribution"] == again["InputDistribution"]
    other, _ = train(group, [], tmp_path / "c", replace(SCHEDULE, seed=1), silent)
    assert not same_weights(first, other)


def test_a_killed_training_goes_on_and_repeats_nothing(group: list[Example], tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, steps=6)
    whole, _ = train(group, [], tmp_path / "whole", schedule, silent)
    with pytest.raises(Killed):
        train(group, [], tmp_path / "killed", schedule, kill_at(4))
    lines: list[str] = []
    resumed, record = train(group, [], tmp_path / "killed", schedule, lines.append)
    assert [line.split(",")[0] for line in lines] == ["step 6 of 6"]
    assert same_weights(whole, resumed)
    assert record["Schedule"]["steps"] == 6


def test_a_finished_training_takes_no_further_step(group: list[Example], tmp_path: Path) -> None:
    first, _ = train(group, [], tmp_path, SCHEDULE, silent)
    lines: list[str] = []
    second, _ = train(group, [], tmp_path, SCHEDULE, lines.append)
    assert lines == []
    assert same_weights(first, second)


def test_training_leaves_the_arithmetic_of_the_process_alone(group: list[Example], tmp_path: Path) -> None:
    train(group, [], tmp_path, replace(SCHEDULE, steps=1), silent)
    denormal = np.full(8, 1e-38, np.float32) / np.float32(4)
    assert denormal.min() > 0


def test_another_schedule_starts_afresh(group: list[Example], tmp_path: Path) -> None:
    train(group, [], tmp_path / "a", SCHEDULE, silent)
    other = replace(SCHEDULE, learning_rate=1e-3)
    lines: list[str] = []
    after_another, _ = train(group, [], tmp_path / "a", other, lines.append)
    alone, _ = train(group, [], tmp_path / "b", other, silent)
    assert len(lines) == 2
    assert same_weights(after_another, alone)


def test_another_group_starts_afresh(group: list[Example], tmp_path: Path) -> None:
    train(group[:2], [], tmp_path / "a", SCHEDULE, silent)
    after_another, _ = train(group[2:], [], tmp_path / "a", SCHEDULE, silent)
    alone, _ = train(group[2:], [], tmp_path / "b", SCHEDULE, silent)
    assert same_weights(after_another, alone)


def test_another_recipe_starts_afresh(group: list[Example], tmp_path: Path) -> None:
    train(group, [], tmp_path / "a", SCHEDULE, silent)
    lines: list[str] = []
    train(group, [], tmp_path / "a", SCHEDULE, lines.append, recipe=Recipe(unaltered=0.5))
    assert len(lines) == 2


def test_training_brings_left_out_scans_closer(
    group: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_STEPS", 10)
    schedule = Schedule(steps=60, batch=1, warmup=4, learning_rate=1e-2, average=0.9)
    network, record = train(group[:3], group[3:], tmp_path, schedule, silent)
    losses = [entry["Loss"] for entry in record["History"]]
    assert [entry["Step"] for entry in record["History"]] == list(range(10, 61, 10))
    assert np.mean(losses[-2:]) < 0.8 * losses[0]
    validation = Validation.of(group[3:], schedule.seed, Recipe())
    untrained = validation.figures(Tiny())
    assert record["Figures"].keys() == untrained.keys()
    assert record["Figures"]["LeftOutAlteredDecibel"] > untrained["LeftOutAlteredDecibel"] + 1
    assert validation.figures(network) == record["Figures"]
    assert record["History"][-1].items() >= record["Figures"].items()


def test_training_goes_on_from_given_weights(group: list[Example], tmp_path: Path) -> None:
    start, _ = train(group, [], tmp_path / "a", SCHEDULE, silent)
    still = replace(SCHEDULE, learning_rate=0.0)
    unmoved, _ = train(group, [], tmp_path / "b", still, silent, start)
    moved, _ = train(group, [], tmp_path / "c", SCHEDULE, silent, start)
    assert same_weights(unmoved, start)
    assert not same_weights(moved, start)


def test_averaged_weights_are_those_of_the_last_steps(group: list[Example], tmp_path: Path) -> None:
    network, _ = train(group, [], tmp_path, replace(SCHEDULE, average=0.0), silent)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(
        torch.equal(checkpoint["network"][name], value) for name, value in network.state_dict().items()
    )
    assert checkpoint["step"] == SCHEDULE.steps


def test_scans_of_different_size_and_heads_share_a_training(group: list[Example], tmp_path: Path) -> None:
    head = Head.read(write_label_map(tmp_path / "sub-1_dseg.nii.gz", label_map()))
    simulated = SimulatedHead(
        head=head, inside=head.brain.astype(np.float32), modality="T1w", reference=MPRAGE.signals()
    )
    sources = [group[0], examples(ball_scan(9, (20, 30, 24)))[0], simulated]
    schedule = replace(SCHEDULE, batch=3)
    network, _ = train(sources, [], tmp_path / "a", schedule, silent, recipe=Recipe(simulated=0.5))
    assert all(bool(value.isfinite().all()) for value in network.state_dict().values())
    # Another head is another training.
    other = replace(simulated, head=replace(head, fractions=head.fractions[:, ::-1].copy()))
    lines: list[str] = []
    train([*sources[:2], other], [], tmp_path / "a", schedule, lines.append, recipe=Recipe(simulated=0.5))
    assert len(lines) == 2


def test_input_distribution_describes_both_halves_of_the_features(group: list[Example]) -> None:
    distribution = input_distribution(group, 0, Recipe())
    assert distribution == input_distribution(group, 0, Recipe())
    for values in distribution.values():
        assert len(values) == 2 * KNOTS
        assert np.all(np.isfinite(values))
    # The last knot of a cumulative histogram is always 1.
    assert distribution["Mean"][-1] == pytest.approx(1)
    assert distribution["StandardDeviation"][-1] == pytest.approx(0)


def test_validation_leaves_out_pairs_that_a_factor_undoes(group: list[Example]) -> None:
    validation = Validation.of(group, 0, Recipe(unaltered=1.0))
    assert len(validation.unaltered) == len(group)
    assert validation.altered == []
    assert len(Validation.of(group, 0, Recipe(unaltered=0.0)).altered) == training.VALIDATION_PAIRS
    assert Validation.of([], 0, Recipe()) == Validation([], [])


# Early stopping


@pytest.fixture
def merits(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Let people left out agree so well at checkpoint after checkpoint, whatever the network does."""

    def script(values: list[float]) -> None:
        monkeypatch.setattr(
            training, "_merit", lambda entry: values[int(entry["Step"]) // training.CHECKPOINT_STEPS - 1]
        )

    return script


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Averaged weights at every checkpoint."""
    weights: list[dict[str, torch.Tensor]] = []
    save = training._save_checkpoint

    def note(folder: Path, key: dict[str, object], state: State) -> None:
        weights.append({name: value.clone() for name, value in state.averaged.state_dict().items()})
        save(folder, key, state)

    monkeypatch.setattr(training, "_save_checkpoint", note)
    return weights


PATIENT = replace(SCHEDULE, steps=20, patience=3)


@pytest.mark.parametrize(
    ("values", "stop", "best"),
    [
        ([5, 4, 3, 2, 1], 4, 1),
        ([1, 5, 4, 4, 4, 9], 5, 2),
        ([1, 5, 4, 4, 6, 2, 6, 5, 9], 8, 5),
        ([1.0 * n for n in range(10)], 10, 10),
    ],
)
def test_training_stops_and_takes_the_best(
    group: list[Example],
    tmp_path: Path,
    merits: Callable[[list[float]], None],
    seen: list[dict[str, torch.Tensor]],
    values: list[float],
    stop: int,
    best: int,
) -> None:
    merits(values)
    network, record = train(group[:3], group[3:], tmp_path, PATIENT, silent)
    assert record["Steps"] == 2 * stop
    assert [entry["Step"] for entry in record["History"]] == list(range(2, 2 * stop + 1, 2))
    assert len(seen) == stop
    for name, value in network.state_dict().items():
        assert torch.equal(value, seen[best - 1][name])
    assert record["History"][best - 1].items() >= record["Figures"].items()


def test_without_patience_the_last_weights_are_taken(
    group: list[Example],
    tmp_path: Path,
    merits: Callable[[list[float]], None],
    seen: list[dict[str, torch.Tensor]],
) -> None:
    merits([5, 4, 3, 2])
    network, record = train(group[:3], group[3:], tmp_path, replace(SCHEDULE, steps=8), silent)
    assert record["Steps"] == 8
    for name, value in network.state_dict().items():
        assert torch.equal(value, seen[-1][name])


def test_with_nobody_left_out_patience_does_not_stop(group: list[Example], tmp_path: Path) -> None:
    _, record = train(group[:2], [], tmp_path, replace(SCHEDULE, steps=10, patience=1), silent)
    assert record["Steps"] == 10
    assert record["Figures"] == {}


@pytest.mark.parametrize("killed_at", [4, 10])
def test_a_killed_training_stops_where_it_would_have(
    group: list[Example], tmp_path: Path, merits: Callable[[list[float]], None], killed_at: int
) -> None:
    merits([1, 5, 4, 4, 4, 9])
    whole, record = train(group[:3], group[3:], tmp_path / "whole", PATIENT, silent)
    with pytest.raises(Killed):
        train(group[:3], group[3:], tmp_path / "killed", PATIENT, kill_at(killed_at))
    lines: list[str] = []
    resumed, again = train(group[:3], group[3:], tmp_path / "killed", PATIENT, lines.append)
    assert [line.split(",")[0] for line in lines] == [
        f"step {step} of 20" for step in range(killed_at + 2, 11, 2)
    ]
    assert same_weights(whole, resumed)
    for entry in (*record["History"], *again["History"]):
        del entry["Seconds"]
    assert again["History"] == record["History"]
    assert again["Figures"] == record["Figures"]


# Order of neighbours


def staircase() -> Pair:
    """Brighter by 0.03 from voxel to voxel along the first axis."""
    volume = np.broadcast_to(np.float32(0.4) + np.float32(0.03) * np.arange(16, dtype=np.float32), (4, 4, 16))
    volume = np.ascontiguousarray(volume.transpose(2, 0, 1))
    return Pair(
        altered=volume, original=volume, region=np.ones(volume.shape, dtype=bool), zooms=(1.0, 1.0, 1.0)
    )


def reversal(curves: torch.Tensor, pair: Pair, cells: Cells, seed: int) -> float:
    index = np.arange(pair.altered.size)
    output = training._sliced(curves, cells, pair.altered, index)
    rng = np.random.default_rng(seed)
    return float(training._reversal(curves, pair, cells, index, output, rng))


def along_first_axis(seed: int) -> bool:
    return int(np.random.default_rng(seed).integers(3)) == 0


CELLS = Cells.of((16, 4, 4), (1.0, 1.0, 1.0))
SEEDS = range(12)


def test_curves_that_change_nothing_reverse_nothing() -> None:
    assert all(reversal(identity_curves(CELLS), staircase(), CELLS, seed) == 0 for seed in SEEDS)


@settings(max_examples=20)
@given(st.lists(st.floats(1.1 * REMAINDER, 5), min_size=KNOTS - 1, max_size=KNOTS - 1), st.integers(0, 100))
def test_one_curve_that_is_steep_enough_everywhere_loses_no_order(slopes: list[float], seed: int) -> None:
    curves = curves_from_slopes(torch.tensor(slopes)[:, None, None, None].expand(-1, *CELLS.counts))
    # Interpolation rounds.
    assert reversal(curves, staircase(), CELLS, seed) < 1e-6


def test_curves_that_darken_along_an_edge_lose_the_order_of_neighbours() -> None:
    assert CELLS.counts == (2, 1, 1)
    pair = staircase()
    slopes = torch.ones(KNOTS - 1, *CELLS.counts)
    slopes[:, 1] = 0.1
    curves = curves_from_slopes(slopes)
    # By hand: every voxel times a gain that falls from 1 to 0.1 between the centres of the two cells.
    gain = np.interp((np.arange(16) + 0.5) / 8 - 0.5, [0, 1], [1, 0.1])
    before, after = np.diff(pair.altered[:, 0, 0]), np.diff(pair.altered[:, 0, 0] * gain)
    expected = np.maximum(REMAINDER * before - after, 0).mean()
    assert expected > 0.01
    for seed in SEEDS:
        found = reversal(curves, pair, CELLS, seed)
        assert found == pytest.approx(expected if along_first_axis(seed) else 0, rel=1e-4)
    assert any(along_first_axis(seed) for seed in SEEDS)


def test_steps_within_the_noise_may_be_reversed() -> None:
    pair = staircase()
    faint = replace(pair, altered=pair.altered * np.float32(0.5 * training.EDGE / 0.03))
    slopes = torch.ones(KNOTS - 1, *CELLS.counts)
    slopes[:, 1] = 0.1
    assert all(reversal(curves_from_slopes(slopes), faint, CELLS, seed) == 0 for seed in SEEDS)


def test_reversal_is_learned_from() -> None:
    pair = staircase()
    slopes = torch.ones(KNOTS - 1, *CELLS.counts)
    slopes[:, 1] = 0.1
    slopes.requires_grad_()
    seed = next(seed for seed in SEEDS if along_first_axis(seed))
    index = np.arange(pair.altered.size)
    curves = curves_from_slopes(slopes)
    output = training._sliced(curves, CELLS, pair.altered, index)
    training._reversal(curves, pair, CELLS, index, output, np.random.default_rng(seed)).backward()
    assert slopes.grad is not None
    # Less contrast on the near side, more on the far side.
    assert slopes.grad[:, 0].sum() > 0 > slopes.grad[:, 1].sum()


# Weights


def test_saved_weights_carry_their_network(tmp_path: Path) -> None:
    network = Tiny()
    save_weights(network, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"config": '{"widths": [4, 8], "context": 8}'}
    saved = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in network.state_dict().items())
    save_weights(network, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
