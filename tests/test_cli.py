"""Arguments, exit codes, and a start without anything heavy."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize import cli, console
from bids_harmonize.errors import BadLevel, HarmonizeError, NoInput, UsageError
from bids_harmonize.version import version

ROOT = Path(__file__).parent.parent
LABEL = st.text("abcXYZ019+", min_size=1)
# One value for every option that takes one.
VALUES = {
    "NAME": "ward",
    "LABEL": "01",
    "SUFFIX": "T2w",
    "MODEL": "mine",
    "N": "7",
    "SIZE": "2GB",
    "DEVICE": "cuda:1",
    "DIR": ".",
    "ACTION": "fail",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dataset")


def _call(*arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **settings)


def _parse(dataset: Path, *arguments: str | Path) -> cli.Options:
    return cli.parse([str(dataset), str(dataset.parent / "out"), "participant", *map(str, arguments)])


# The whole line


def test_defaults(dataset: Path) -> None:
    options = _parse(dataset)
    assert (options.bids_dir, options.output_dir) == (dataset, dataset.parent / "out")
    assert options.level == "participant"
    assert options.participants == options.excluded == options.sessions == options.models == ()
    assert options.modalities == ("T1w", "T2w")
    assert options.bids_filters == {}
    assert options.n_cpus == console.default_cpus(os.environ) >= 1
    assert (
        options.omp_nthreads
        is options.mem_bytes
        is options.work_dir
        is options.database_dir
        is options.steps
        is None
    )
    assert options.label_maps is None
    assert options.site_column is None
    assert options.out_of_distribution == "skip"
    assert (options.device, options.seed, options.reference_size, options.verbosity) == ("auto", 0, 13, 0)
    switches = (
        "skip_validation",
        "dry_run",
        "force",
        "stop_on_first_crash",
        "reports_only",
        "save_transform",
    )
    assert not any(getattr(options, name) for name in switches)


def test_the_command_is_recorded_as_typed(dataset: Path) -> None:
    arguments = [str(dataset), "out", "participant", "--mem", "4GB"]
    assert cli.parse(arguments).command == ("bids-harmonize", *arguments)
    assert cli.parse(arguments, program="./run.py").command == ("./run.py", *arguments)


@pytest.mark.parametrize("level", ["participant", "group", "train"])
def test_levels(dataset: Path, level: str) -> None:
    assert cli.parse([str(dataset), "out", level]).level == level


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--participant-label", "01", "sub-02", "sub-01"], "participants", ("01", "02")),
        (["--participant_label", "01", "--participant-label", "02"], "participants", ("01", "02")),
        (["--exclude-participant-label", "sub-03"], "excluded", ("03",)),
        (["--exclude_participant_label", "03"], "excluded", ("03",)),
        (["--session-label", "ses-pre", "post"], "sessions", ("pre", "post")),
        (["--session_label", "pre"], "sessions", ("pre",)),
        (["--modality", "T2w"], "modalities", ("T2w",)),
        (["--session-id", "pre"], "sessions", ("pre",)),
        (["--session_id", "ses-pre"], "sessions", ("pre",)),
        (["--modalities", "T2w", "inplaneT2"], "modalities", ("T2w", "inplaneT2")),
        (["--modalities", "T1w", "--modalities", "T1w"], "modalities", ("T1w",)),
        (["--skip-bids-validation"], "skip_validation", True),
        (["--skip_bids_validation"], "skip_validation", True),
        (["--skip_bids_validator"], "skip_validation", True),
        (["--bids-database-dir", "/db"], "database_dir", Path("/db")),
        (["--bids_database_dir", "/db"], "database_dir", Path("/db")),
        (["--n-cpus", "3"], "n_cpus", 3),
        (["--n_cpus", "3"], "n_cpus", 3),
        (["--nprocs", "3"], "n_cpus", 3),
        (["--n-cpus", "3", "--omp-nthreads", "2"], "omp_nthreads", 2),
        (["--omp_nthreads", "2"], "omp_nthreads", 2),
        (["--mem", "4GB"], "mem_bytes", 4 * 10**9),
        (["-w", "/w"], "work_dir", Path("/w")),
        (["--work-dir", "/w"], "work_dir", Path("/w")),
        (["--work_dir=/w"], "work_dir", Path("/w")),
        (["--device", "cuda:1"], "device", "cuda:1"),
        (["--dry-run"], "dry_run", True),
        (["--force"], "force", True),
        (["--stop-on-first-crash"], "stop_on_first_crash", True),
        (["--seed", "42"], "seed", 42),
        (["--reports-only"], "reports_only", True),
        (["--save-transform"], "save_transform", True),
        (["--model", "T1w", "/a/b.safetensors"], "models", ("T1w", "/a/b.safetensors")),
        (["--reference-size", "9"], "reference_size", 9),
        (["--steps", "100"], "steps", 100),
        (["--out-of-distribution", "fail"], "out_of_distribution", "fail"),
        (["--out_of_distribution=harmonize"], "out_of_distribution", "harmonize"),
        (["--site-column", "Scanner 2"], "site_column", "Scanner 2"),
        (["--site_column", "ward"], "site_column", "ward"),
        (["--label-maps", "/"], "label_maps", Path("/")),
        (["--label_maps", "/"], "label_maps", Path("/")),
        (["-v"], "verbosity", 1),
        (["-vv"], "verbosity", 2),
        (["--verbose", "-v"], "verbosity", 2),
        (["-q"], "verbosity", -1),
        (["--quiet"], "verbosity", -1),
    ],
)
def test_options(dataset: Path, arguments: list[str], field: str, value: object) -> None:
    assert getattr(_parse(dataset, *arguments), field) == value


def test_notrack_changes_nothing(dataset: Path) -> None:
    plain, untracked = _parse(dataset), _parse(dataset, "--notrack")
    assert {**vars(plain), "command": ()} == {**vars(untracked), "command": ()}


def test_every_spelling_fills_the_same_field(dataset: Path, tmp_path: Path) -> None:
    filters = tmp_path / "filters.json"
    filters.write_text('{"t2w": {}}')
    shown = [
        action for action in cli.parser()._actions if action.help != argparse.SUPPRESS and action.nargs != 0
    ]
    hidden = [action for action in cli.parser()._actions if action.help == argparse.SUPPRESS]
    assert len(hidden) >= 10
    for alias in hidden:
        original = next((action for action in shown if action.dest == alias.dest), None)
        value = [] if original is None else [{**VALUES, "FILE": str(filters)}[str(original.metavar)]]
        results = [
            {**vars(_parse(dataset, name, *value)), "command": ()}
            for name in (*alias.option_strings, f"--{alias.dest.replace('_', '-')}")
        ]
        assert all(result == results[0] for result in results)


def test_included_and_excluded_are_both_kept(dataset: Path) -> None:
    options = _parse(dataset, "--participant-label", "01", "--exclude-participant-label", "01")
    assert options.participants == options.excluded == ("01",)


def test_a_list_may_stand_first_if_two_hyphens_end_it(dataset: Path) -> None:
    options = cli.parse(["--participant-label", "01", "--", str(dataset), "out", "group"])
    assert (options.participants, options.level) == (("01",), "group")


# Refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "--nonsense"),
        (["--particip", "01"], "--particip"),
        (["extra"], "extra"),
        (["--participant-label"], "--participant-label"),
        (["--participant-label", ""], "is not a label"),
        (["--participant-label", "sub-"], "is not a label"),
        (["--participant-label", "../x"], "is not a label"),
        (["--participant-label", ".."], "is not a label"),
        (["--participant-label", "0*"], "is not a label"),
        (["--participant-label", "01 02"], "is not a label"),
        (["--participant-label", "01,02"], "is not a label"),
        (["--participant-label", "01\n"], "is not a label"),
        (["--session-label", "ses-a/b"], "is not a label"),
        (["--modalities", "bold"], "bold"),
        (["--n-cpus", "0"], "less than 1"),
        (["--n-cpus", "-2"], "'-2' is not a whole number"),
        (["--n-cpus", "two"], "'two' is not a whole number"),
        (["--n-cpus", "1_0"], "'1_0' is not a whole number"),
        (["--omp-nthreads", "0"], "less than 1"),
        (["--seed", "-1"], "is not a whole number"),
        (["--seed", "9" * 20], "is more than"),
        (["--seed", "9" * 5000], "is not a whole number"),
        (["--steps", "0"], "less than 1"),
        (["--mem", "0"], "no memory"),
        (["--mem", "-3"], "is not a size"),
        (["--mem", "4XB"], "is not a size"),
        (["--mem", "nan"], "is not a size"),
        (["--device", "gpu"], "none of auto, cpu, cuda"),
        (["--device", "cuda:"], "none of auto, cpu, cuda"),
        (["--device", "cuda:-1"], "none of auto, cpu, cuda"),
        (["--work-dir", ""], "empty"),
        (["-q", "-v"], "not allowed with"),
        (["--model", ""], "empty"),
    ],
)
def test_bad_options_are_usage_errors(dataset: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match="see bids-harmonize --help") as caught:
        _parse(dataset, *arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [[], ["in"], ["in", "out"], ["--participant-label", "01", "in", "out", "group"]]
)
def test_missing_positionals_say_the_order(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="BIDS_DIR OUTPUT_DIR ANALYSIS_LEVEL come first"):
        cli.parse(arguments)


def test_a_list_that_swallows_the_folders_says_the_order() -> None:
    with pytest.raises(UsageError, match="BIDS_DIR OUTPUT_DIR ANALYSIS_LEVEL come first"):
        cli.parse(["--participant-label", "01", "/data", "/out", "participant"])


def test_bad_level_names_the_levels(dataset: Path) -> None:
    with pytest.raises(BadLevel, match="'session' is none of participant, group, train"):
        cli.parse([str(dataset), "out", "session"])


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_dataset_that_is_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoInput, match=name):
        cli.parse([str(tmp_path / name), "out", "participant"])


@pytest.mark.parametrize("name", ["missing", "file"])
def test_label_maps_that_are_no_folder(dataset: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=f"the label maps .*{name} do not exist, or are not a folder"):
        _parse(dataset, "--label-maps", tmp_path / name)


def test_unknown_ways_to_deal_with_foreign_scans_are_refused(dataset: Path) -> None:
    with pytest.raises(UsageError, match="--out-of-distribution"):
        _parse(dataset, "--out-of-distribution", "ignore")


# Filter file


def test_filter_file(dataset: Path, tmp_path: Path) -> None:
    filters = {
        "t1w": {"acquisition": "mprage", "run": [1, 2], "session": None, "part": "*"},
        "bold": {"task": "x"},
    }
    path = tmp_path / "filters.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(filters).encode())
    assert _parse(dataset, "--bids-filter-file", path).bids_filters == filters
    assert _parse(dataset, "--bids_filter_file", path).bids_filters == filters


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, NoInput, "No such file"),
        (b"", UsageError, "not JSON"),
        (b"{", UsageError, "not JSON"),
        (b'{"t1w": {"acquisition": "\xe9"}}', UsageError, "not JSON"),
        (b"[" * 100_000, UsageError, "not JSON"),
        (b"[]", UsageError, "must hold a JSON object"),
        (b'{"t1w": "mprage"}', UsageError, "under the key 't1w'"),
        (b'{"t1w": null}', UsageError, "under the key 't1w'"),
    ],
)
def test_bad_filter_files(
    dataset: Path, tmp_path: Path, content: bytes | None, error: type[HarmonizeError], words: str
) -> None:
    path = tmp_path / "filters.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        _parse(dataset, "--bids-filter-file", path)
    assert str(path) in str(caught.value)


# Paths


def test_home_is_expanded_everywhere(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in").mkdir()
    (tmp_path / "f.json").write_text('{"t1w": {}}')
    typed = "~/in ~/out group -w ~/w --bids-database-dir ~/db --bids-filter-file ~/f.json"
    typed += " --model ~/m.safetensors T2w"
    options = cli.parse(typed.split())
    assert (options.bids_dir, options.output_dir) == (tmp_path / "in", tmp_path / "out")
    assert (options.work_dir, options.database_dir) == (tmp_path / "w", tmp_path / "db")
    assert options.models == (str(tmp_path / "m.safetensors"), "T2w")
    assert options.bids_filters == {"t1w": {}}


def test_an_unknown_home_is_no_folder_name(dataset: Path) -> None:
    with pytest.raises(UsageError, match="home folder"):
        _parse(dataset, "-w", "~nobody-of-this-name/work")


def test_paths_are_absolute_and_links_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    monkeypatch.chdir(tmp_path)
    options = cli.parse(["link", "link/../out", "group", "--model", "m.safetensors"])
    assert options.bids_dir == tmp_path / "link"
    # Behind the link, `..` is a/, and not tmp_path.
    assert str(options.output_dir) == f"{tmp_path}/link/../out"
    assert options.models == (f"{tmp_path}/m.safetensors",)


def test_a_deleted_current_folder(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = _call("in", "out", "group", cwd=gone, preexec_fn=gone.rmdir)
    assert (done.returncode, "folder that is gone" in done.stderr) == (64, True)


# Labels, memory


@given(labels=st.lists(LABEL, min_size=1), prefixed=st.booleans())
def test_labels_with_and_without_prefix_are_the_same(labels: list[str], prefixed: bool) -> None:
    typed = [f"sub-{label}" if prefixed else label for label in labels]
    options = cli.parse(["/", "/out", "participant", "--participant-label", *typed])
    assert options.participants == tuple(dict.fromkeys(labels))


@given(st.text(min_size=1))
def test_no_label_leaves_its_folder(text: str) -> None:
    try:
        label = cli._label("sub-")(text)
    except argparse.ArgumentTypeError:
        return
    assert label
    assert not set(label) & set("/\\.*?[]{}~_ \t\n\0")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("4gb", 4 * 10**9),
        ("4 G", 4 * 10**9),
        ("4000MB", 4 * 10**9),
        ("4000", 4 * 10**9),
        ("512M", 512 * 10**6),
        ("1.5GiB", 3 * 2**29),
        ("1Gi", 2**30),
        ("2TB", 2 * 10**12),
        ("64k", 64_000),
        ("100B", 100),
    ],
)
def test_memory(text: str, size: int) -> None:
    assert cli.parse_memory(text) == size


@given(st.integers(1, 10**12), st.sampled_from(["k", "M", "G", "T"]))
def test_memory_units_are_powers_of_1000_and_1024(number: int, unit: str) -> None:
    power = "kMGT".index(unit) + 1
    assert cli.parse_memory(f"{number}{unit}B") == cli.parse_memory(f"{number}{unit}") == number * 1000**power
    assert cli.parse_memory(f"{number}{unit}iB") == number * 1024**power


@given(st.text())
def test_memory_is_refused_or_positive(text: str) -> None:
    try:
        assert cli.parse_memory(text) > 0
    except argparse.ArgumentTypeError as error:
        assert repr(text) in str(error)


# The process


def test_version() -> None:
    done = _call("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bids-harmonize {version()}\n", "")


def test_module_and_script_are_one_program() -> None:
    module = [sys.executable, "-m", "bids_harmonize", "--help"]
    done = subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == _call("--help").stdout


def test_help_shows_every_option() -> None:
    done = _call("--help")
    assert done.returncode == 0
    for action in cli.parser()._actions:
        if action.help != argparse.SUPPRESS:
            assert all(name in done.stdout for name in action.option_strings or [str(action.metavar)])
    assert "--participant_label " not in done.stdout


@pytest.mark.parametrize("argument", ["--help", "--version", "--nonsense"])
def test_nothing_heavy_is_imported_before_work_starts(argument: str) -> None:
    code = (
        f"import sys; from bids_harmonize.cli import main; main([{argument!r}]); "
        "heavy = {'torch', 'bids', 'nibabel', 'numpy', 'pandas', 'scipy', 'safetensors'}; "
        "print('loaded:', *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_help_answers_in_under_a_second() -> None:
    # The best of three: another process may hold the machine up.
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        _call("--help")
        durations.append(time.perf_counter() - start)
    assert min(durations) < 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "required"),
        (["/", "/out", "participant", "--nonsense"], 64, "--nonsense"),
        (["/", "/out", "participant", "--n-cpus", "0"], 64, "less than 1"),
        (["/", "/out", "nonsense"], 17, "none of participant, group, train"),
        (["/no/such/dataset", "/out", "participant"], 66, "/no/such/dataset"),
        (["/", "/out", "participant", "--bids-filter-file", "/no/such/file"], 66, "/no/such/file"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, words: str) -> None:
    done = _call(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("bids-harmonize: error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_unknown_user_with_an_empty_environment() -> None:
    done = _call("~/in", "/out", "participant", env={})
    # Without HOME the password database is asked, which need not know the user.
    assert done.returncode in (64, 66)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_stdout_is_an_io_error() -> None:
    with open("/dev/full", "w") as full:
        done = _help_into(full.fileno())
    assert (done.returncode, done.stderr) == (74, "bids-harmonize: error: No space left on device\n")


def test_a_closed_pipe_is_an_io_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = _help_into(writer)
    os.close(writer)
    sentence = "bids-harmonize: error: standard output was closed before the end\n"
    assert (done.returncode, done.stderr) == (74, sentence)


def _help_into(stdout: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), "--help"]
    # argparse passes over errors of its own writing, which an unbuffered stdout would have.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=environ)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_end_it_with_one_sentence(tmp_path: Path, number: int, code: int, word: str) -> None:
    # The program waits for someone to write to the filter file.
    pipe = tmp_path / "filters.json"
    os.mkfifo(pipe)
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "/",
        "/out",
        "participant",
        "--bids-filter-file",
        str(pipe),
    ]
    # A shell's background job ignores SIGINT, and what it starts inherits that.
    heed = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        # Opening a pipe to write succeeds as soon as the program reads it; it then waits for content.
        writer = os.open(pipe, os.O_WRONLY)
        process.send_signal(number)
        try:
            _, printed = process.communicate(timeout=30)
        finally:
            process.kill()
            os.close(writer)
    assert (process.returncode, printed) == (code, f"bids-harmonize: error: {word}\n")
