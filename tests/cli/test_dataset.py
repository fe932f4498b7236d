"""Arguments, exit codes, and a start without anything heavy.

It is one file because tests mirror the package, and `cli.dataset` is one module with all options.
"""

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

from bids_harmonize import options
from bids_harmonize.bids.run import MODALITY_OF_SUFFIX
from bids_harmonize.cli import arguments
from bids_harmonize.cli import dataset as dataset_cli
from bids_harmonize.errors import BadLevel, HarmonizeError, NoInput, UsageError
from bids_harmonize.version import version

ROOT = Path(__file__).parents[2]
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
    "FROM": "60",
    "TO": "100",
    "WHAT": "site",
    "PATH": "pool",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dataset")


def _call(*arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **settings)


def _parse(dataset: Path, *arguments: str | Path) -> options.Options:
    """Parse options at the first level at which they do something."""
    names = {str(argument).split("=")[0] for argument in arguments}
    fields = {action.dest for action in dataset_cli.parser().actions if names & {*action.option_strings}}
    level = next(
        level
        for level in dataset_cli.ANALYSIS_LEVELS
        if all(level in dataset_cli.LEVELS_OF_OPTION.get(field, (level,)) for field in fields)
    )
    return dataset_cli.parse([str(dataset), str(dataset.parent / "out"), level, *map(str, arguments)])


# The whole line


def test_defaults(dataset: Path) -> None:
    options = _parse(dataset)
    assert (options.bids_dir, options.output_dir) == (dataset, dataset.parent / "out")
    assert options.level == "participant"
    assert options.participants == options.excluded == options.sessions == options.models == ()
    assert options.modalities == ("T1w", "T2w")
    assert options.bids_filters == {}
    assert options.n_cpus == arguments.default_cpus(os.environ) >= 1
    assert (
        options.omp_nthreads
        is options.mem_bytes
        is options.work_dir
        is options.database_dir
        is options.steps
        is None
    )
    assert options.label_maps is None
    assert options.site_column is options.pool_by is options.pool is None
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
    assert dataset_cli.parse(arguments).command == ("bids-harmonize", *arguments)
    assert dataset_cli.parse(arguments, program="./run.py").command == ("./run.py", *arguments)


@pytest.mark.parametrize("level", ["participant", "group", "train"])
def test_levels(dataset: Path, level: str) -> None:
    assert dataset_cli.parse([str(dataset), "out", level]).level == level


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
        (["--pool-by", "protocol"], "pool_by", "protocol"),
        (["--pool_by", "Scanner 2"], "pool_by", "Scanner 2"),
        (["--pool", "/p"], "pool", Path("/p")),
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


def test_pools_are_formed_or_taken_not_both(dataset: Path) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        _parse(dataset, "--pool-by", "site", "--pool", "/p")


def test_notrack_changes_nothing(dataset: Path) -> None:
    plain, untracked = _parse(dataset), _parse(dataset, "--notrack")
    assert {**vars(plain), "command": ()} == {**vars(untracked), "command": ()}


def test_every_spelling_fills_the_same_field(dataset: Path, tmp_path: Path) -> None:
    filters = tmp_path / "filters.json"
    filters.write_text('{"t2w": {}}')
    hidden = [action for action in dataset_cli.parser().actions if action.help == argparse.SUPPRESS]
    assert len(hidden) >= 10
    for alias in hidden:
        shown = next(
            action
            for action in dataset_cli.parser().actions
            if action.dest == alias.dest and action.help != argparse.SUPPRESS
        )
        names = shown.metavar if isinstance(shown.metavar, tuple) else (str(shown.metavar),)
        value = [] if shown.nargs == 0 else [{**VALUES, "FILE": str(filters)}[name] for name in names]
        results = [
            {**vars(_parse(dataset, name, *value)), "command": ()}
            for name in (*alias.option_strings, *shown.option_strings)
        ]
        assert all(result == results[0] for result in results)


@pytest.mark.parametrize("level", dataset_cli.ANALYSIS_LEVELS)
def test_every_option_is_obeyed_or_refused_at_every_level(dataset: Path, tmp_path: Path, level: str) -> None:
    filters = tmp_path / "filters.json"
    filters.write_text('{"t2w": {}}')
    answers = {}
    for action in dataset_cli.parser().actions:
        if not action.option_strings or isinstance(action, argparse._HelpAction | argparse._VersionAction):
            continue
        names = action.metavar if isinstance(action.metavar, tuple) else (str(action.metavar),)
        value = (
            []
            if action.nargs == 0
            else [{**VALUES, "FILE": str(filters), "ADDRESS": "local"}[n] for n in names]
        )
        for name in action.option_strings:
            try:
                dataset_cli.parse([str(dataset), "out", level, name, *value])
                answers[name] = True
            except UsageError as error:
                levels = " and ".join(dataset_cli.LEVELS_OF_OPTION[action.dest])
                assert str(error).endswith(f" does nothing at the {level} level, only at {levels}")
                answers[name] = False
    assert answers["--participant_label"]
    assert answers["--force"] == (level == "participant")
    assert answers["--site_column"] == (level == "group")
    assert answers["--model"] == (level != "group")


def test_the_levels_of_options_name_options_and_levels() -> None:
    fields = {action.dest for action in dataset_cli.parser().actions}
    for field, levels in dataset_cli.LEVELS_OF_OPTION.items():
        assert field in fields
        assert {*levels} < {*dataset_cli.ANALYSIS_LEVELS}


def test_a_report_is_on_all_modalities_unless_some_are_named(dataset: Path) -> None:
    group = [str(dataset), "out", "group"]
    assert dataset_cli.parse(group).modalities == tuple(MODALITY_OF_SUFFIX)
    assert dataset_cli.parse([*group, "--modalities", "T2w"]).modalities == ("T2w",)


def test_included_and_excluded_are_both_kept(dataset: Path) -> None:
    options = _parse(dataset, "--participant-label", "01", "--exclude-participant-label", "01")
    assert options.participants == options.excluded == ("01",)


def test_a_list_may_stand_first_if_two_hyphens_end_it(dataset: Path) -> None:
    options = dataset_cli.parse(["--participant-label", "01", "--", str(dataset), "out", "group"])
    assert (options.participants, options.level) == (("01",), "group")


# Refusals


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["--particip", "01"],
        ["extra"],
        ["--participant-label"],
        *(
            ["--participant-label", label]
            for label in ("", "sub-", "../x", "..", "0*", "01 02", "01,02", "01\n")
        ),
        ["--session-label", "ses-a/b"],
        ["--modalities", "bold"],
        *(["--n-cpus", number] for number in ("0", "-2", "two", "1_0")),
        ["--omp-nthreads", "0"],
        *(["--seed", number] for number in ("-1", "9" * 20, "9" * 5000)),
        ["--steps", "0"],
        *(["--mem", size] for size in ("0", "-3", "4XB", "nan")),
        *(["--device", device] for device in ("gpu", "cuda:", "cuda:-1")),
        *(["--scheduler", scheduler] for scheduler in ("", "sge", "node1:8786")),
        ["--work-dir", ""],
        ["-q", "-v"],
        ["--model", ""],
        ["--out-of-distribution", "ignore"],
    ],
)
def test_bad_options_are_usage_errors_that_name_them(dataset: Path, arguments: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        _parse(dataset, *arguments)
    assert arguments[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (
            ["--session-label", "ses-a b"],
            "argument --session-label: 'ses-a b' is not a label (letters, digits, + and -)",
        ),
        (["--n-cpus", "two"], "argument --n-cpus: 'two' is not a whole number from 0 up"),
        (["--n-cpus", "0"], "argument --n-cpus: '0' is less than 1"),
        (["--seed", "9" * 20], f"argument --seed: '{'9' * 20}' is more than {2**63 - 1}"),
        (["--mem", "nan"], "argument --mem: 'nan' is not a size such as 8GB, 8000MB or 7.5GiB"),
        (["--mem", "0"], "argument --mem: '0' is less than a byte"),
        (["--device", "gpu"], "argument --device: 'gpu' is none of auto, cpu, cuda, cuda:N"),
        (
            ["--scheduler", "sge"],
            "argument --scheduler: 'sge' is none of local, slurm, kubernetes, nor an address such as tcp://node1:8786",
        ),
        (["--work-dir", ""], "argument -w/--work-dir: the path is empty"),
    ],
)
def test_each_kind_of_refusal(dataset: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        _parse(dataset, *arguments)
    assert str(caught.value) == f"{message}; see bids-harmonize --help"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["in"],
        ["in", "out"],
        ["--participant-label", "01", "in", "out", "group"],
        # The list takes the folders too.
        ["--participant-label", "01", "/data", "/out", "participant"],
    ],
)
def test_missing_positionals_say_the_order(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="BIDS_DIR OUTPUT_DIR ANALYSIS_LEVEL come first"):
        dataset_cli.parse(arguments)


def test_bad_level_names_the_levels(dataset: Path) -> None:
    with pytest.raises(BadLevel, match="'session' is none of participant, group, train"):
        dataset_cli.parse([str(dataset), "out", "session"])


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_dataset_that_is_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoInput, match=name):
        dataset_cli.parse([str(tmp_path / name), "out", "participant"])


@pytest.mark.parametrize("name", ["missing", "file"])
def test_label_maps_that_are_no_folder(dataset: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=name):
        _parse(dataset, "--label-maps", tmp_path / name)


# Filter file


def test_filter_file(dataset: Path, tmp_path: Path) -> None:
    filters = {
        "t1w": {"acquisition": "mprage", "run": [1, 2], "session": None, "part": "*"},
        "bold": {"task": "x"},
    }
    path = tmp_path / "filters.json"
    path.write_text(json.dumps(filters))
    assert _parse(dataset, "--bids-filter-file", path).bids_filters == filters
    assert _parse(dataset, "--bids_filter_file", path).bids_filters == filters


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, NoInput),
        (b"", UsageError),
        (b'\xef\xbb\xbf{"t1w": {}}', UsageError),
        (b"{", UsageError),
        (b'{"t1w": {"acquisition": "\xe9"}}', UsageError),
        (b"[" * 100_000, UsageError),
        (b"[]", UsageError),
        (b'{"t1w": "mprage"}', UsageError),
        (b'{"t1w": null}', UsageError),
    ],
)
def test_bad_filter_files(
    dataset: Path, tmp_path: Path, content: bytes | None, error: type[HarmonizeError]
) -> None:
    path = tmp_path / "filters.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=str(path)):
        _parse(dataset, "--bids-filter-file", path)


# Paths


def test_home_is_expanded_everywhere(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in").mkdir()
    (tmp_path / "f.json").write_text('{"t1w": {}}')
    typed = "~/in ~/out participant -w ~/w --bids-database-dir ~/db --bids-filter-file ~/f.json"
    typed += " --model ~/m.safetensors T2w"
    options = dataset_cli.parse(typed.split())
    assert (options.bids_dir, options.output_dir) == (tmp_path / "in", tmp_path / "out")
    assert (options.work_dir, options.database_dir) == (tmp_path / "w", tmp_path / "db")
    assert options.models == (str(tmp_path / "m.safetensors"), "T2w")
    assert options.bids_filters == {"t1w": {}}


def test_an_unknown_home_is_no_folder_name(dataset: Path) -> None:
    with pytest.raises(UsageError, match="~nobody-of-this-name/work"):
        _parse(dataset, "-w", "~nobody-of-this-name/work")


def test_paths_are_absolute_and_links_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    monkeypatch.chdir(tmp_path)
    options = dataset_cli.parse(["link", "link/../out", "participant", "--model", "m.safetensors"])
    assert options.bids_dir == tmp_path / "link"
    # Behind the link, `..` is a/, and not tmp_path.
    assert str(options.output_dir) == f"{tmp_path}/link/../out"
    assert options.models == (f"{tmp_path}/m.safetensors",)


def test_a_deleted_current_folder(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = _call("in", "out", "group", cwd=gone, preexec_fn=gone.rmdir)
    assert done.returncode == 64
    assert "'in'" in done.stderr


# Labels, memory


@given(labels=st.lists(LABEL, min_size=1), prefixed=st.booleans())
def test_labels_with_and_without_prefix_are_the_same(labels: list[str], prefixed: bool) -> None:
    typed = [f"sub-{label}" if prefixed else label for label in labels]
    options = dataset_cli.parse(["/", "/out", "participant", "--participant-label", *typed])
    assert options.participants == tuple(dict.fromkeys(labels))


@given(st.text(min_size=1))
def test_no_label_leaves_its_folder(text: str) -> None:
    try:
        label = dataset_cli.label_type("sub-")(text)
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
    assert dataset_cli.parse_memory(text) == size


@given(st.integers(1, 10**12), st.sampled_from(["k", "M", "G", "T"]))
def test_memory_units_are_powers_of_1000_and_1024(number: int, unit: str) -> None:
    power = "kMGT".index(unit) + 1
    assert (
        dataset_cli.parse_memory(f"{number}{unit}B")
        == dataset_cli.parse_memory(f"{number}{unit}")
        == number * 1000**power
    )
    assert dataset_cli.parse_memory(f"{number}{unit}iB") == number * 1024**power


@given(st.text())
def test_memory_is_refused_or_positive(text: str) -> None:
    try:
        assert dataset_cli.parse_memory(text) > 0
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
    for action in dataset_cli.parser().actions:
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
    ("arguments", "code", "name"),
    [
        ([], 64, "BIDS_DIR"),
        (["/", "/out", "participant", "--nonsense"], 64, "--nonsense"),
        (["/", "/out", "participant", "--n-cpus", "0"], 64, "--n-cpus"),
        (["/", "/out", "nonsense"], 17, "nonsense"),
        (["/no/such/dataset", "/out", "participant"], 66, "/no/such/dataset"),
        (["/", "/out", "participant", "--bids-filter-file", "/no/such/file"], 66, "/no/such/file"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, name: str) -> None:
    done = _call(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("bids-harmonize: error: ")
    assert done.stderr.count("\n") == 1
    assert name in done.stderr


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
