"""The program is killed, at any moment, and started again.

Moments are drawn with a seed: just before a file is touched, in the middle of writing one, and at any time.
"""

from __future__ import annotations

import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import warm_processes
from tests.helpers.soundness import assert_sound, assert_whole, finished
from tests.helpers.toy_datasets import counts, head, image_of, snapshot, write_dataset, write_scan

NAMES = ("sub-01_T1w.nii.gz", "sub-02_ses-a_T1w.nii.gz", "sub-02_ses-b_T2w.nii.gz")
PARTICIPANT = ("participant", "--save-transform")
TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Undisturbed:
    """Runs that nothing happened to: the outputs of the level participant, and of both."""

    dataset: Path
    participants: Path
    output: Path
    # Number of times they touched a file of the output, and seconds that the first took from its start.
    touches: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class InsideWriting:
    """The end by the system, in the middle of writing, of what writes more into a file than so many bytes."""

    limit: int

    def __call__(self) -> None:
        # Python would make an error of it.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    dataset, output = write_dataset(folder / "data"), folder / "out"
    for seed, name in enumerate(NAMES):
        write_scan(dataset, name, image_of(head(seed, (12, 14, 12)), 14))
    # Kills are spread over the time that the program takes as users start it, with all that it loads.
    start = time.monotonic()
    apart = warm_processes.apart(folder, dataset, "out", *PARTICIPANT)
    said = apart.communicate()[1]
    seconds = time.monotonic() - start
    assert apart.returncode == 0, said
    participants = output.rename(folder / "participants")
    touches = {}
    for level in (PARTICIPANT, ("group",)):
        lines = folder / f"touches-{level[0]}"
        result = warm_processes.run(
            folder, dataset, "out", *level, fault=warm_processes.Counted(output, lines)
        )
        assert result.code == 0, result.err
        touches[level[0]] = len(lines.read_text().splitlines())
    return Undisturbed(
        dataset=dataset, participants=participants, output=output, touches=touches, seconds=seconds
    )


def _spread(generator: random.Random, count: int, end: float) -> Iterator[float]:
    """Moments from 0 to the end, one in each of so many equal parts."""
    for part in range(count):
        yield (part + generator.random()) * end / count


def _finish(undisturbed: Undisturbed, folder: Path) -> tuple[int, int]:
    """Start again after a fault; how many scans were done before, and how many now."""
    output = folder / "out"
    done = finished(output)
    before = snapshot(output) if output.is_dir() else {}
    result = warm_processes.run(folder, undisturbed.dataset, "out", *PARTICIPANT)
    assert (result.code, "Traceback" in result.err) == (0, False), result.err
    assert_whole(output, undisturbed.participants)
    after = snapshot(output)
    for image in done:
        name = image.relative_to(output).as_posix()
        sidecar = name.replace(".nii.gz", ".json")
        assert (after[name], after[sidecar]) == (before[name], before[sidecar])
    expected = {"up to date": len(done), "harmonized": len(NAMES) - len(done)}
    assert counts(result) == {state: count for state, count in expected.items() if count}
    return len(done), len(NAMES) - len(done)


def test_killed_before_any_touch_of_a_file(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str]
) -> None:
    """kill -9 before a file is opened, renamed, removed or made: the next run completes what is there."""
    generator = random.Random(1)
    done = again = 0
    for n, moment in enumerate(_spread(generator, 50 if long else 4, undisturbed.touches["participant"])):
        folder = tmp_path / str(n)
        folder.mkdir()
        fault = warm_processes.AtTouch(1 + int(moment), folder / "out", signal.SIGKILL)
        result = warm_processes.run(folder, undisturbed.dataset, "out", *PARTICIPANT, fault=fault)
        assert result.code == -signal.SIGKILL
        assert_sound(folder / "out", undisturbed.participants)
        counted = _finish(undisturbed, folder)
        done, again = done + counted[0], again + counted[1]
        tally["kills survived"] += 1
    # Otherwise nothing was tried.
    assert min(done, again) > 0


def test_killed_inside_writing(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str]
) -> None:
    """A process that ends half-way through a file leaves no file that is half there under its name."""
    generator = random.Random(2)
    largest = max(path.stat().st_size for path in undisturbed.participants.rglob("*.*"))
    for n, limit in enumerate(_spread(generator, 20 if long else 2, largest)):
        folder = tmp_path / str(n)
        folder.mkdir()
        result = warm_processes.run(
            folder, undisturbed.dataset, "out", *PARTICIPANT, fault=InsideWriting(1 + int(limit))
        )
        assert result.code == -signal.SIGXFSZ
        (half,) = folder.rglob(".tmp-*")
        assert half.stat().st_size == 1 + int(limit)
        assert_sound(folder / "out", undisturbed.participants)
        _finish(undisturbed, folder)
        tally["kills survived"] += 1


@pytest.mark.parametrize(
    ("seed", "ending", "codes"),
    [
        (3, signal.SIGKILL, (-signal.SIGKILL, 0)),
        # Python itself starts before the program can handle signals.
        (7, signal.SIGTERM, (-signal.SIGTERM, TERMINATED, 0)),
    ],
    ids=["killed", "terminated"],
)
def test_ended_at_any_time(
    undisturbed: Undisturbed,
    tmp_path: Path,
    long: bool,
    tally: Counter[str],
    seed: int,
    ending: signal.Signals,
    codes: tuple[int, ...],
) -> None:
    """A signal at any time, also while the program starts: no traceback, and nothing half-written."""
    generator = random.Random(seed)
    for n, seconds in enumerate(_spread(generator, 20 if long else 2, undisturbed.seconds)):
        folder = tmp_path / str(n)
        folder.mkdir()
        process = warm_processes.apart(folder, undisturbed.dataset, "out", *PARTICIPANT)
        time.sleep(seconds)
        process.send_signal(ending)
        printed = process.communicate()[1]
        # The process may have come to its end, if the machine is faster now than before.
        assert process.returncode in codes, printed
        assert "Traceback" not in printed
        if ending is signal.SIGTERM:
            assert list(folder.rglob(".tmp-*")) == []
        if (folder / "out").exists():
            assert_sound(folder / "out", undisturbed.participants)
        _finish(undisturbed, folder)
        tally["kills survived" if ending is signal.SIGKILL else "terminations survived"] += (
            process.returncode != 0
        )


def test_killed_again_and_again(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str]
) -> None:
    """Kills in a row, of runs that complete what others left: every one gets further or leaves as much."""
    generator = random.Random(4)
    done: set[Path] = set()
    for _ in range(10 if long else 2):
        moment = 1 + int(generator.random() * undisturbed.touches["participant"] / 2)
        fault = warm_processes.AtTouch(moment, tmp_path / "out", signal.SIGKILL)
        result = warm_processes.run(tmp_path, undisturbed.dataset, "out", *PARTICIPANT, fault=fault)
        assert result.code in (-signal.SIGKILL, 0), result.err
        assert_sound(tmp_path / "out", undisturbed.participants)
        assert done <= finished(tmp_path / "out")
        done = finished(tmp_path / "out")
        tally["kills survived"] += result.code == -signal.SIGKILL
    _finish(undisturbed, tmp_path)


def test_killed_while_the_group_is_reported(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str]
) -> None:
    """The level group, killed: what is there under its name is complete, and the next run completes it."""
    assert warm_processes.run(tmp_path, undisturbed.dataset, "out", *PARTICIPANT).code == 0
    generator = random.Random(5)
    for moment in _spread(generator, 20 if long else 4, undisturbed.touches["group"]):
        for path in (tmp_path / "out").glob("group_*"):
            path.unlink()
        fault = warm_processes.AtTouch(1 + int(moment), tmp_path / "out", signal.SIGKILL)
        result = warm_processes.run(tmp_path, undisturbed.dataset, "out", "group", fault=fault)
        assert result.code == -signal.SIGKILL
        assert_sound(tmp_path / "out", undisturbed.output)
        result = warm_processes.run(tmp_path, undisturbed.dataset, "out", "group")
        assert result.code == 0, result.err
        assert_whole(tmp_path / "out", undisturbed.output)
        tally["kills survived"] += 1


@pytest.mark.parametrize("level", [PARTICIPANT, ("group",)], ids=["participant", "group"])
def test_terminated_before_any_touch_of_a_file(
    undisturbed: Undisturbed,
    tmp_path: Path,
    long: bool,
    tally: Counter[str],
    level: tuple[str, ...],
) -> None:
    """SIGTERM, as schedulers send it, ends the program with a sentence, and nothing half-written is left."""
    generator = random.Random(6)
    group = level == ("group",)
    reference = undisturbed.output if group else undisturbed.participants
    for n, moment in enumerate(_spread(generator, 30 if long else 3, undisturbed.touches[level[0]])):
        folder = tmp_path / str(n)
        folder.mkdir()
        if group:
            assert warm_processes.run(folder, undisturbed.dataset, "out", *PARTICIPANT).code == 0
        fault = warm_processes.AtTouch(1 + int(moment), folder / "out", signal.SIGTERM)
        result = warm_processes.run(folder, undisturbed.dataset, "out", *level, fault=fault)
        assert result.code == TERMINATED, (moment, result.err)
        assert result.err.splitlines()[-1] == "bids-harmonize: error: terminated"
        assert "Traceback" not in result.err
        assert list(folder.rglob(".tmp-*")) == []
        assert_sound(folder / "out", reference)
        assert warm_processes.run(folder, undisturbed.dataset, "out", *level).code == 0
        assert_whole(folder / "out", reference)
        tally["terminations survived"] += 1
