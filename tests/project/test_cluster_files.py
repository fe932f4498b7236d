"""The files for clusters: the script of a Slurm array, and the configuration of BABS."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bids_harmonize.cli import dataset as dataset_cli
from bids_harmonize.version import version

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "slurm-array.sh"
BABS = yaml.safe_load((ROOT / "cluster" / "babs.yaml").read_text(encoding="utf-8"))
# Sections that the documentation of BABS 0.5 lists; those of `cluster_resources` are for Slurm.
SECTIONS = {
    "input_datasets",
    "bids_app_args",
    "singularity_args",
    "all_results_in_one_zip",
    "zip_foldernames",
    "cluster_resources",
    "script_preamble",
    "job_compute_space",
    "imported_files",
}
INPUT = {"required_files", "is_zipped", "origin_url", "path_in_babs", "unzipped_path_containing_subject_dirs"}
RESOURCES = {
    "interpreting_shell",
    "hard_memory_limit",
    "temporary_disk_space",
    "number_of_cpus",
    "hard_runtime_limit",
    "customized_text",
}
# A stand-in for the program that writes down its arguments, one a line.
PROGRAM = """#!/bin/bash
printf '%s\\n' "$@" >"$CALLED"
exit "${CODE:-0}"
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "a dataset"
    for name in ("sub-10", "sub-B", "sub-a", "sub-02", "sub-1", "derivatives"):
        (folder / name).mkdir(parents=True)
    (folder / "sub-file").touch()
    return folder


def run(
    dataset: Path, *options: str, task: int = 1, of: str = "1-1", **variables: str
) -> tuple[int, Any, str]:
    """What a task of an array does: its exit code, the arguments of the program, and what it prints."""
    folder = dataset.parent
    program, called = folder / "the program", folder / "called"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    called.unlink(missing_ok=True)
    least, _, most = of.partition("-")
    environment = {
        "PATH": os.environ["PATH"],
        "CALLED": str(called),
        "HARMONIZE": f"'{program}' --before 'a b'",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_MIN": least,
        "SLURM_ARRAY_TASK_MAX": most,
        "SLURM_ARRAY_TASK_COUNT": str(int(most) - int(least) + 1),
        **variables,
    }
    command = ["bash", SCRIPT, dataset, folder / "an output", *options]
    done = subprocess.run(
        command, env={k: v for k, v in environment.items() if v}, capture_output=True, text=True, check=False
    )
    return done.returncode, called.read_text().splitlines() if called.exists() else None, done.stderr


def people(arguments: list[str]) -> list[str]:
    return arguments[arguments.index("--participant-label") + 1 :]


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
def test_every_participant_is_done_by_one_task(dataset: Path, tasks: int) -> None:
    shares = [people(run(dataset, task=n, of=f"1-{tasks}")[1]) for n in range(1, tasks + 1)]
    everybody = ["sub-02", "sub-1", "sub-10", "sub-B", "sub-a"]
    assert shares == [everybody[n::tasks] for n in range(tasks)]


def test_a_task_too_many_does_nothing_and_is_no_failure(dataset: Path) -> None:
    code, called, told = run(dataset, task=6, of="1-6")
    assert (code, called) == (0, None)
    assert "nothing to do" in told


def test_the_program_gets_what_the_user_gave(dataset: Path) -> None:
    options = ("--modalities", "T1w", "--model", "my models/a.safetensors")
    code, called, _ = run(dataset, *options, task=2, of="1-5", SLURM_CPUS_PER_TASK="3")
    assert code == 0
    places = [str(dataset), str(dataset.parent / "an output"), "participant"]
    told = ["--n-cpus", "3", *options, "--participant-label", "sub-1"]
    assert called == ["--before", "a b", *places, *told]
    given = dataset_cli.parser().parse_args(called[2:])
    assert (given.bids_dir, given.n_cpus, given.participants) == (dataset, 3, ("1",))
    assert "--n-cpus" not in run(dataset)[1]


def test_a_part_of_an_array_needs_to_know_the_whole(dataset: Path) -> None:
    code, called, told = run(dataset, task=3, of="3-3")
    assert (code, called) == (64, None)
    assert "HARMONIZE_TASKS" in told
    assert people(run(dataset, task=3, of="3-3", HARMONIZE_TASKS="4")[1]) == ["sub-10"]
    assert run(dataset, task=5, of="5-5", HARMONIZE_TASKS="4")[0] == 64
    assert run(dataset, HARMONIZE_TASKS="many")[0] == 64


def test_participants_are_chosen_by_a_variable(dataset: Path) -> None:
    assert people(run(dataset, task=2, of="1-2", HARMONIZE_PARTICIPANTS=" a  02\n10")[1]) == ["02"]
    for option in ("--participant-label", "--participant_label=02", "--exclude-participant-label"):
        code, called, told = run(dataset, option, "02")
        assert (code, called) == (64, None)
        assert "HARMONIZE_PARTICIPANTS" in told


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (18, 0), (65, 65), (143, 143)])
def test_the_exit_code_is_the_programs_but_for_people_without_such_scans(
    dataset: Path, code: int, expected: int
) -> None:
    assert run(dataset, CODE=str(code))[0] == expected


def test_wrong_usage_is_told(dataset: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "nowhere")[0] == 66
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty")[0] == 18
    code, called, told = run(dataset, SLURM_ARRAY_TASK_ID="")
    assert (code, called) == (64, None)
    assert "--array=1-N" in told
    done = subprocess.run(["bash", SCRIPT, dataset], capture_output=True, text=True, check=False)
    assert (done.returncode, "usage:" in done.stderr) == (64, True)


@pytest.fixture
def submitted(tmp_path: Path) -> Callable[..., tuple[int, list[list[str]], str]]:
    """Call the script that submits three jobs: its exit code, what sbatch was given, and its output."""
    stand_in = tmp_path / "bin" / "sbatch"
    stand_in.parent.mkdir()
    calls = tmp_path / "calls"
    stand_in.write_text('#!/bin/bash\nprintf "%s\\0" "$@" END >>"$CALLS"\ngrep -c -z END "$CALLS"\n')
    stand_in.chmod(0o755)

    def submit(*arguments: str) -> tuple[int, list[list[str]], str]:
        environment = {**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "CALLS": str(calls)}
        script = ROOT / "cluster" / "slurm-pools.sh"
        done = subprocess.run([script, *arguments], env=environment, capture_output=True, text=True)
        given = calls.read_text().split("END\0")[:-1] if calls.exists() else []
        return done.returncode, [one.split("\0")[:-1] for one in given], done.stdout + done.stderr

    return submit


def test_pools_are_formed_between_two_arrays(
    submitted: Callable[..., tuple[int, list[list[str]], str]],
) -> None:
    code, (first, pools, second), told = submitted("7", "protocol", "/a dataset", "/out", "--n-cpus", "2")
    assert (code, told) == (0, "1 2 3\n")
    assert first == ["--parsable", "--array=1-7", str(SCRIPT), "/a dataset", "/out", "--n-cpus", "2"]
    assert "--dependency=afterok:1" in pools
    level = shlex.split(pools[-1])[1:]
    assert level == ["/a dataset", "/out", "group", "--pool-by", "protocol"]
    assert "--dependency=afterok:2" in second
    assert second[-4:] == ["--n-cpus", "2", "--pool", "/out/pools"]


@pytest.mark.parametrize("arguments", [[], ["7", "protocol", "/in"], ["0", "protocol", "/in", "/out"]])
def test_wrong_usage_submits_nothing(
    submitted: Callable[..., tuple[int, list[list[str]], str]], arguments: list[str]
) -> None:
    code, calls, told = submitted(*arguments)
    assert (code, calls) == (64, [])
    assert told.startswith("slurm-pools.sh: ")


def test_the_script_can_be_submitted_as_it_is() -> None:
    assert os.access(SCRIPT, os.X_OK)
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    # Slurm reads them up to the first command.
    assert lines[1 : 1 + len(directives)] == directives
    assert len(directives) > 3


def test_babs_knows_every_key() -> None:
    assert set(BABS) <= SECTIONS
    assert {"input_datasets", "zip_foldernames", "cluster_resources", "script_preamble"} <= set(BABS)
    assert all(set(dataset) <= INPUT for dataset in BABS["input_datasets"].values())
    assert set(BABS["cluster_resources"]) <= RESOURCES
    assert all(option.startswith("-") for option in BABS["singularity_args"])


def test_the_program_takes_what_babs_passes() -> None:
    given = dict(BABS["bids_app_args"])
    selection = given.pop("$SUBJECT_SELECTION_FLAG")
    # The options are as BABS writes them to its script, where a shell reads them.
    words = [word for option, value in given.items() for word in (option, *([value] if value else []))]
    words = [word.replace("$SLURM_CPUS_PER_TASK", "2") for word in words]
    line = shlex.join(["in", "out", "participant", *words, selection, "sub-01"])
    arguments = dataset_cli.parser().parse_args(shlex.split(line))
    assert (arguments.participants, arguments.n_cpus) == (("01",), 2)


NIPOPPY = ROOT / "cluster" / "nipoppy"


def test_the_descriptor_of_nipoppy_is_that_of_boutiques() -> None:
    # nipoppy takes no link that leads out of its folder: to write it anew, copy boutiques.json.
    assert (NIPOPPY / "descriptor.json").read_bytes() == (ROOT / "boutiques.json").read_bytes()
    config = json.loads((NIPOPPY / "config.json").read_text(encoding="utf-8"))
    assert config["VERSION"] == version()
    (step,) = config["STEPS"]
    assert all((NIPOPPY / name).is_file() for key, name in step.items() if key.endswith("_FILE"))


def test_the_program_takes_what_nipoppy_passes(tmp_path: Path) -> None:
    text = (NIPOPPY / "invocation.json").read_text(encoding="utf-8")
    invocation = json.loads(text)
    known = {"NIPOPPY_DPATH_BIDS": str(tmp_path), "NIPOPPY_PARTICIPANT_ID": "01", "NIPOPPY_SESSION_ID": "a"}
    filled = {key: _filled(value, known) for key, value in invocation.items()}
    words = [filled.pop(key) for key in ("bids_dir", "output_dir", "analysis_level")]
    for key, value in filled.items():
        words += [f"--{key}", *(value if isinstance(value, list) else [str(value)])]
    options = dataset_cli.parse(words)
    assert (options.participants, options.sessions) == (("01",), ("a",))
    assert options.level == "participant"


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled(one, known) for one in value]
    return (
        re.sub(r"\[\[(\w+)\]\]", lambda match: known.get(match[1], "x"), value)
        if isinstance(value, str)
        else value
    )


def test_the_zip_has_the_version() -> None:
    # One folder, or BABS would find none to zip.
    assert BABS["all_results_in_one_zip"] is True
    assert BABS["zip_foldernames"] == {"bids-harmonize": version().replace(".", "-")}
