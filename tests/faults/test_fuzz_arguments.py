"""Whatever is typed is understood, or refused in one sentence."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bids_harmonize.bids.logs import write_run_log
from bids_harmonize.cli import arguments as cli_arguments
from bids_harmonize.cli import dataset as dataset_cli
from bids_harmonize.cli import image as image_cli
from bids_harmonize.errors import BadData
from bids_harmonize.files.json_object import read_object
from tests.helpers.fuzzing import called, check_sentence, check_told, done_or_refused, fuzz
from tests.helpers.toy_datasets import COMMON, FOR_ONE, write_dataset, write_scan

# Bytes that are not UTF-8 arrive as lone surrogates; a zero byte cannot arrive.
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.integers(
    0xDC80, 0xDCFF
).map(chr)
WORDS = st.text(CHARACTERS, max_size=8) | st.sampled_from(
    [
        *(
            "",
            " ",
            "-",
            "--",
            "=",
            "~",
            "~nobody/x",
            "~\udcff",
            "/",
            ".",
            "..",
            "*",
            "0",
            "-1",
            "1e3",
            "٣",
            "²",
        ),
        *(
            "a" * 300,
            "a" * 5000,
            "9" * 5000,
            "/x" * 3000,
            "\udce9",
            "é",
            "\n",
            "\r",
            "\x1b[2J",
            "%s",
            "{}",
            "@x",
        ),
        *("8GB", "1kib", "0.0000001k", "999999999999999TB", "cuda:999", "cpu", "auto", "T1w", "T2w", "skip"),
        *("sub-01", "ses-", "01", "participant", "group", "train", "x.nii", "x.nii.gz", "x.safetensors"),
    ]
)


def argument_lists(parser: cli_arguments.Parser, *first: str) -> st.SearchStrategy[list[str]]:
    """Options and values of all kinds, in any order, often after those that must be there."""
    # Options that only print a text are left out: they end the command.
    names = {name for action in parser.actions for name in action.option_strings}
    names -= {"-h", "--help", "--version"}
    option = st.sampled_from(sorted(names))
    part = (
        option | WORDS | st.builds("{}={}".format, option, WORDS) | st.sampled_from(["--help", "--version"])
    )
    rest = st.lists(part, max_size=6)
    return rest | rest.map(lambda parts: [*first, *parts])


@contextmanager
def only_help_exits(arguments: list[str]) -> Iterator[None]:
    with redirect_stdout(io.StringIO()):
        try:
            yield
        except SystemExit as stop:
            assert not stop.code
            assert any(argument.startswith(("-", "--help", "--version")) for argument in arguments)


def test_arguments_of_the_app(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    dataset = str(write_dataset(tmp_path / "data"))
    lists = argument_lists(dataset_cli.parser(), dataset, str(tmp_path / "out"), "participant")

    @fuzz(tally, long, 600)
    @given(lists)
    @example([dataset, "--", "out", "--", "participant"])
    @example([dataset, "out", "participant", "--mem=--"])
    def understood_or_refused(arguments: list[str]) -> None:
        with done_or_refused(), only_help_exits(arguments):
            options = dataset_cli.parse(arguments)
            assert options.command == ("bids-harmonize", *arguments)


def test_arguments_of_the_command_for_one_file(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    lists = argument_lists(image_cli.parser(), str(tmp_path / "a_T1w.nii"), str(tmp_path / "b.nii"))

    @fuzz(tally, long, 400)
    @given(lists)
    @example(["a_T1w.nii", "--", "--"])
    @example(["a_T1w.nii", "b.nii", "--device=--"])
    def understood_or_refused(arguments: list[str]) -> None:
        with done_or_refused(), only_help_exits(arguments):
            options = image_cli.parse(arguments)
            assert options.command == ("bids-harmonize-image", *arguments)


def test_whole_commands(
    tmp_path: Path, tally: Counter[str], long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No scan is there, so nothing takes long; what is written goes to a folder of this test."""
    monkeypatch.chdir(tmp_path)
    dataset = str(write_dataset(tmp_path / "data"))
    (tmp_path / "data" / "sub-01").mkdir()

    @fuzz(tally, long, 150)
    @given(
        st.sampled_from([dataset_cli.main, image_cli.main]),
        argument_lists(dataset_cli.parser(), dataset, "out", "participant"),
    )
    @example(dataset_cli.main, [dataset, "a" * 300, "participant"])
    @example(image_cli.main, ["a" * 300 + "_T1w.nii", "b.nii"])
    @example(image_cli.main, ["a_T1w.nii\udcff_T1w.nii", "b\udcff.nii"])
    @example(dataset_cli.main, [dataset, "out", "participant", "--site-column", "\udcff"])
    def code_and_one_sentence(main: Any, arguments: list[str]) -> None:
        result = called(main, arguments)
        check_told(result)
        assert result.code in (0, 16, 17, 18, 64, 65, 66, 73, 74)
        if result.code:
            (*_, last) = result.err.splitlines()
            check_sentence(last)


def test_names_that_are_not_unicode(tmp_path: Path, tally: Counter[str], random_model: Path) -> None:
    """As files of old archives have them."""
    name = os.fsdecode(b"Zur\xe9ch")
    dataset = write_dataset(tmp_path / "data")
    scan = write_scan(dataset, "sub-01_T1w.nii.gz")
    output = tmp_path / f"out-{name}"
    arguments = [str(dataset), str(output), "participant", *COMMON, "--model", str(random_model)]
    for options in ([], ["--dry-run"], ["--reports-only"], ["--force", "--save-transform"]):
        tally["inputs fuzzed"] += 1
        result = called(dataset_cli.main, [*arguments, *options])
        check_told(result)
        assert result.code == 0, result.err
    (sidecar,) = output.rglob("*_desc-harmonized_T1w.json")
    assert read_object(sidecar)["BidsHarmonize"]["Command"][1:] == [*arguments, "--force", "--save-transform"]
    check_told(called(dataset_cli.main, [str(dataset), str(output), "group"]))
    one = [str(scan), str(tmp_path / f"{name}.nii.gz"), "--model", str(random_model), *FOR_ONE]
    assert called(image_cli.main, one).code == 0
    # A dataset refuses it as the name of a scan, and the others go on.
    misnamed = write_scan(dataset, f"sub-{name}_T1w.nii.gz")
    result = called(dataset_cli.main, arguments)
    assert result.code == BadData.exit_code
    told = misnamed.name.encode(errors="backslashreplace").decode()
    (line,) = (line for line in result.err.splitlines() if told in line)
    check_sentence(line)


def test_memory_sizes(tally: Counter[str], long: bool) -> None:
    @fuzz(tally, long, 200)
    @given(WORDS | st.from_regex(r"[0-9]{1,20}(\.[0-9]{0,20})? ?[kmgtKMGT]?i?b?", fullmatch=True))
    def bytes_or_refused(text: str) -> None:
        with done_or_refused():
            arguments = ["/", "out", "participant", f"--mem={text}"]
            mem = dataset_cli.parse(arguments).mem_bytes
            assert mem is not None and mem > 0


def test_records_of_any_command(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    @fuzz(tally, long, 100)
    @given(st.lists(WORDS), WORDS)
    def read_again(command: list[str], value: str) -> None:
        path = write_run_log(tmp_path, command, {"SLURM_JOB_NAME": value})
        told = read_object(path)
        assert (told["Command"], told["Environment"]) == (command, {"SLURM_JOB_NAME": value})
        path.unlink()
