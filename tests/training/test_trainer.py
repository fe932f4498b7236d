"""Training: it learns, it is the same each time, and a killed one goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from bids_harmonize.model.bilateral_grid import KNOTS
from bids_harmonize.model.card_entries import HeldOutAgreement
from bids_harmonize.model.network import EDIT_ERROR, CurveNetwork
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.training.checkpoint import CHECKPOINT
from bids_harmonize.training.recipe import Recipe
from bids_harmonize.training.reference_group import ReferenceScan
from bids_harmonize.training.schedule import Schedule
from bids_harmonize.training.sources import ReferenceExample, SimulatedHead, reference_examples
from bids_harmonize.training.trainer import TrainedNetwork, input_distribution, train, weights_content
from bids_harmonize.training.validation import Validation
from tests.helpers.toy_heads import MPRAGE, TINY, ball_scan, label_map, tiny_network, write_label_map

pytestmark = pytest.mark.process

EFFORT = replace(TINY, region_voxels=600, surroundings_voxels=400, distribution_pairs=4, validation_pairs=3)
SCHEDULE = Schedule(steps=4, batch=1, warmup=1, effort=EFFORT)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def group(small_group: list[ReferenceScan]) -> list[ReferenceExample]:
    return [reference_examples(scan)[0] for scan in small_group]


@pytest.fixture(autouse=True)
def restored_arithmetic() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


def silent(_: str) -> None:
    pass


def same_weights(first: TrainedNetwork, second: TrainedNetwork) -> bool:
    states = first.network.state_dict(), second.network.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def kill_at(step: int) -> Callable[[str], None]:
    def progress(line: str) -> None:
        if line.startswith(f"step {step} "):
            raise Killed

    return progress


def test_same_seed_same_weights(group: list[ReferenceExample], tmp_path: Path) -> None:
    first = train(group, [], tmp_path / "a", SCHEDULE, progress=silent)
    second = train(group, [], tmp_path / "b", SCHEDULE, progress=silent)
    assert same_weights(first, second)
    assert first.input_distribution == second.input_distribution
    other = train(group, [], tmp_path / "c", replace(SCHEDULE, seed=1), progress=silent)
    assert not same_weights(first, other)


def test_a_killed_training_goes_on_and_repeats_nothing(group: list[ReferenceExample], tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, steps=6)
    whole = train(group, [], tmp_path / "whole", schedule, progress=silent)
    with pytest.raises(Killed):
        train(group, [], tmp_path / "killed", schedule, progress=kill_at(4))
    lines: list[str] = []
    resumed = train(group, [], tmp_path / "killed", schedule, progress=lines.append)
    assert [line.split(",")[0] for line in lines] == ["step 6 of 6"]
    assert same_weights(whole, resumed)
    assert resumed.steps == resumed.schedule.steps == 6


def test_a_finished_training_takes_no_further_step(group: list[ReferenceExample], tmp_path: Path) -> None:
    first = train(group, [], tmp_path, SCHEDULE, progress=silent)
    lines: list[str] = []
    second = train(group, [], tmp_path, SCHEDULE, progress=lines.append)
    assert lines == []
    assert same_weights(first, second)


def test_training_leaves_the_arithmetic_of_the_process_alone(
    group: list[ReferenceExample], tmp_path: Path
) -> None:
    train(group, [], tmp_path, replace(SCHEDULE, steps=1), progress=silent)
    denormal = np.full(8, 1e-38, np.float32) / np.float32(4)
    assert denormal.min() > 0


def test_another_schedule_starts_afresh(group: list[ReferenceExample], tmp_path: Path) -> None:
    train(group, [], tmp_path / "a", SCHEDULE, progress=silent)
    other = replace(SCHEDULE, learning_rate=1e-3)
    lines: list[str] = []
    after_another = train(group, [], tmp_path / "a", other, progress=lines.append)
    alone = train(group, [], tmp_path / "b", other, progress=silent)
    assert len(lines) == 2
    assert same_weights(after_another, alone)


def test_only_less_than_the_usual_effort_marks_a_checkpoint() -> None:
    usual = Schedule(steps=3)
    assert usual.key() == usual.to_json()
    names = "steps patience batch seed learning_rate warmup smoothness bias locality average"
    assert list(usual.to_json()) == names.split()
    assert replace(usual, effort=TINY).to_json() == usual.to_json()
    assert replace(usual, effort=TINY).key() != usual.key()


def test_another_group_starts_afresh(group: list[ReferenceExample], tmp_path: Path) -> None:
    train(group[:2], [], tmp_path / "a", SCHEDULE, progress=silent)
    after_another = train(group[2:], [], tmp_path / "a", SCHEDULE, progress=silent)
    alone = train(group[2:], [], tmp_path / "b", SCHEDULE, progress=silent)
    assert same_weights(after_another, alone)


def test_another_recipe_starts_afresh(group: list[ReferenceExample], tmp_path: Path) -> None:
    train(group, [], tmp_path / "a", SCHEDULE, progress=silent)
    lines: list[str] = []
    train(group, [], tmp_path / "a", SCHEDULE, recipe=Recipe(unaltered=0.5), progress=lines.append)
    assert len(lines) == 2


def test_training_brings_held_out_scans_closer(group: list[ReferenceExample], tmp_path: Path) -> None:
    effort = replace(EFFORT, checkpoint_steps=12)
    schedule = Schedule(steps=48, batch=1, warmup=2, learning_rate=1e-2, average=0.7, effort=effort)
    # What a network makes that has learned next to nothing is no second pass worth learning from.
    recipe = Recipe(second_pass=0.0)
    trained = train(group[:3], group[3:], tmp_path, schedule, recipe=recipe, progress=silent)
    assert [record.step for record in trained.history] == [12, 24, 36, 48]
    validation = Validation.of(group[3:], schedule, recipe)
    assert trained.agreement is not None
    assert trained.agreement.augmented > validation.measure(tiny_network()).augmented + 1
    assert validation.measure(trained.network) == trained.agreement == trained.history[-1].agreement


def test_training_goes_on_from_given_weights(group: list[ReferenceExample], tmp_path: Path) -> None:
    start = train(group, [], tmp_path / "a", SCHEDULE, progress=silent)
    still = replace(SCHEDULE, learning_rate=0.0)
    unmoved = train(group, [], tmp_path / "b", still, start=start.network, progress=silent)
    moved = train(group, [], tmp_path / "c", SCHEDULE, start=start.network, progress=silent)
    assert same_weights(unmoved, start)
    assert not same_weights(moved, start)


def test_averaged_weights_are_those_of_the_last_steps(group: list[ReferenceExample], tmp_path: Path) -> None:
    trained = train(group, [], tmp_path, replace(SCHEDULE, average=0.0), progress=silent)
    checkpoint = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state = trained.network.state_dict()
    assert all(torch.equal(checkpoint["network"][name], value) for name, value in state.items())
    assert checkpoint["step"] == SCHEDULE.steps


def test_scans_of_different_size_and_heads_share_a_training(
    group: list[ReferenceExample], tmp_path: Path
) -> None:
    head = Head.read(write_label_map(tmp_path / "sub-1_dseg.nii.gz", label_map()))
    simulated = SimulatedHead(
        head=head, inside=head.brain.astype(np.float32), modality="T1w", reference=MPRAGE.signals()
    )
    sources = [group[0], reference_examples(ball_scan(9, (20, 30, 24)))[0], simulated]
    schedule = replace(SCHEDULE, batch=3)
    recipe = Recipe(simulated=0.5)
    trained = train(sources, [], tmp_path / "a", schedule, recipe=recipe, progress=silent)
    assert all(bool(value.isfinite().all()) for value in trained.network.state_dict().values())
    # Another head is another training.
    other = replace(simulated, head=replace(head, fractions=head.fractions[:, ::-1].copy()))
    lines: list[str] = []
    train([*sources[:2], other], [], tmp_path / "a", schedule, recipe=recipe, progress=lines.append)
    assert len(lines) == 2


def test_input_distribution_describes_both_halves_of_the_features(group: list[ReferenceExample]) -> None:
    distribution = input_distribution(group, SCHEDULE, Recipe())
    assert distribution == input_distribution(group, SCHEDULE, Recipe())
    for values in (distribution.mean, distribution.standard_deviation):
        assert len(values) == 2 * KNOTS
        assert np.all(np.isfinite(values))
    # The last knot of a cumulative histogram is always 1.
    assert distribution.mean[-1] == pytest.approx(1)
    assert distribution.standard_deviation[-1] == pytest.approx(0)


def test_validation_skips_pairs_that_a_factor_undoes(group: list[ReferenceExample]) -> None:
    validation = Validation.of(group, SCHEDULE, Recipe(unaltered=1.0))
    assert len(validation.unaltered) == len(group)
    assert validation.augmented == []
    assert len(Validation.of(group, SCHEDULE, Recipe(unaltered=0.0)).augmented) == 3
    assert Validation.of([], SCHEDULE, Recipe()) == Validation([], [])


# Early stopping


class Script:
    """Agreement of the held-out scans at checkpoint after checkpoint, whatever the network does.

    Weights that were seen before, in another training or at its end, agree as they did then.
    """

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)
        self.known: dict[bytes, HeldOutAgreement] = {}

    @property
    def checkpoints(self) -> list[bytes]:
        return list(self.known)

    def measure(self, network: CurveNetwork) -> HeldOutAgreement:
        weights = weights_content(network)
        if weights not in self.known:
            value = next(self.values)
            self.known[weights] = HeldOutAgreement(unaltered=value, augmented=value, rescaled=0.0)
        return self.known[weights]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], Script]:
    def use(values: list[float]) -> Script:
        script = Script(values)
        monkeypatch.setattr(Validation, "measure", lambda validation, network: script.measure(network))
        return script

    return use


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
    group: list[ReferenceExample],
    tmp_path: Path,
    scripted: Callable[[list[float]], Script],
    values: list[float],
    stop: int,
    best: int,
) -> None:
    script = scripted(values)
    trained = train(group[:3], group[3:], tmp_path, PATIENT, progress=silent)
    assert trained.steps == 2 * stop
    assert [record.step for record in trained.history] == list(range(2, 2 * stop + 1, 2))
    assert len(script.checkpoints) == stop
    assert weights_content(trained.network) == script.checkpoints[best - 1]
    assert trained.history[best - 1].agreement == trained.agreement


def test_without_patience_the_last_weights_are_taken(
    group: list[ReferenceExample], tmp_path: Path, scripted: Callable[[list[float]], Script]
) -> None:
    script = scripted([5, 4, 3, 2])
    trained = train(group[:3], group[3:], tmp_path, replace(SCHEDULE, steps=8), progress=silent)
    assert trained.steps == 8
    assert weights_content(trained.network) == script.checkpoints[-1]


def test_if_no_scan_is_held_out_patience_does_not_stop(group: list[ReferenceExample], tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, steps=10, patience=1)
    trained = train(group[:2], [], tmp_path, schedule, progress=silent)
    assert trained.steps == 10
    assert trained.agreement is None


@pytest.mark.parametrize("killed_at", [4, 10])
def test_a_killed_training_stops_where_it_would_have(
    group: list[ReferenceExample],
    tmp_path: Path,
    scripted: Callable[[list[float]], Script],
    killed_at: int,
) -> None:
    scripted([1, 5, 4, 4, 4, 9])
    whole = train(group[:3], group[3:], tmp_path / "whole", PATIENT, progress=silent)
    with pytest.raises(Killed):
        train(group[:3], group[3:], tmp_path / "killed", PATIENT, progress=kill_at(killed_at))
    lines: list[str] = []
    resumed = train(group[:3], group[3:], tmp_path / "killed", PATIENT, progress=lines.append)
    assert [line.split(",")[0] for line in lines] == [
        f"step {step} of 20" for step in range(killed_at + 2, 11, 2)
    ]
    assert same_weights(whole, resumed)
    histories = [[replace(record, seconds=0) for record in trained.history] for trained in (whole, resumed)]
    assert histories[0] == histories[1]
    assert resumed.agreement == whole.agreement


# Weights


def test_saved_weights_carry_their_network(tmp_path: Path) -> None:
    network = tiny_network()
    path = tmp_path / "a.safetensors"
    path.write_bytes(weights_content(network))
    with safe_open(path, framework="pt") as file:
        (config,) = (file.metadata() or {}).values()
    assert json.loads(config) == network.config
    assert network.config["edit_error"] == EDIT_ERROR
    saved = load_file(path)
    assert all(torch.equal(saved[name], value) for name, value in network.state_dict().items())
    assert weights_content(network) == path.read_bytes()
