"""Arguments of the command for one file, and a start without anything heavy."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from bids_harmonize.cli import arguments
from bids_harmonize.cli import image as image_cli
from bids_harmonize.errors import UsageError
from bids_harmonize.options import ImageOptions
from bids_harmonize.version import version

ROOT = Path(__file__).parents[2]


def _parse(*arguments: str) -> ImageOptions:
    return image_cli.parse(["/in/sub-01_T1w.nii.gz", "/out/x.nii.gz", *arguments])


def test_defaults() -> None:
    options = _parse()
    assert (options.source, options.output) == (Path("/in/sub-01_T1w.nii.gz"), Path("/out/x.nii.gz"))
    assert (options.modality, options.models, options.device) == ("T1w", (), "auto")
    assert options.out_of_distribution == "fail"
    assert options.omp_nthreads == arguments.default_cpus({}) or options.omp_nthreads >= 1
    assert (options.save_transform, options.force) == (False, False)
    assert (options.verbosity, options.mem_bytes, options.seed) == (0, None, 0)


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--modality", "T2w"], "modality", "T2w"),
        (["--model", "prostate-T2w"], "models", ("prostate-T2w",)),
        (["--model", "/a/b.safetensors"], "models", ("/a/b.safetensors",)),
        (["--device", "cuda:1"], "device", "cuda:1"),
        (["--omp-nthreads", "3"], "omp_nthreads", 3),
        (["--omp_nthreads=3"], "omp_nthreads", 3),
        (["--save-transform"], "save_transform", True),
        (["--save_transform"], "save_transform", True),
        (["--out-of-distribution", "skip"], "out_of_distribution", "skip"),
        (["--force"], "force", True),
        (["-vv"], "verbosity", 2),
        (["-q"], "verbosity", -1),
    ],
)
def test_options(arguments: list[str], field: str, value: object) -> None:
    assert getattr(_parse(*arguments), field) == value


def test_options_may_stand_first() -> None:
    options = image_cli.parse(["--force", "--modality", "T2w", "a.nii", "b.nii"])
    assert (options.source.name, options.output.name, options.modality) == ("a.nii", "b.nii", "T2w")


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("sub-01_T1w.nii.gz", "T1w"),
        ("sub-01_acq-x_T2w.nii", "T2w"),
        ("sub-01_inplaneT2.nii.gz", "T2w"),
        ("T1w.nii.gz", "T1w"),
        ("scan_T2w.hdr.gz", None),
        ("sub-01_FLAIR.nii.gz", "FLAIR"),
        ("sub-01_T1w.mgz", "T1w"),
        ("sub-01_T1map.nii.gz", None),
        ("sub-01_T1w_brain.nii.gz", None),
        ("myT1w.nii.gz", None),
        ("T1.nii.gz", None),
    ],
)
def test_modality_of_name(name: str, modality: str | None) -> None:
    assert image_cli.modality_of_name(name) == modality


def test_a_model_stands_in_for_the_modality() -> None:
    options = image_cli.parse(["scan.nii", "out.nii", "--model", "T2w"])
    assert (options.modality, options.models) == (None, ("T2w",))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "IN, OUT"),
        (["x_T1w.nii"], "OUT"),
        (["x.nii", "y.nii"], "x.nii"),
        (["x_T1w.nii", "folder"], "folder"),
        (["x_T1w.nii", "y.mnc"], "y.mnc"),
        (["x_T1w.nii", ""], "OUT"),
        (["x_T1w.nii", "y.nii", "z.nii"], "z.nii"),
        (["x_T1w.nii", "y.nii", "--modality", "T1map"], "T1map"),
        (["x_T1w.nii", "y.nii", "--mod", "T1w"], "--mod"),
        (["x_T1w.nii", "y.nii", "--device", "gpu"], "--device"),
        (["x_T1w.nii", "y.nii", "--omp-nthreads", "0"], "--omp-nthreads"),
        (["x_T1w.nii", "y.nii", "--out-of-distribution", "ignore"], "ignore"),
        (["x_T1w.nii", "y.nii", "-q", "-v"], "--quiet"),
    ],
)
def test_bad_arguments_are_one_line_that_names_them_and_64(
    arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image_cli.main(arguments) == UsageError.exit_code == 64
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("bids-harmonize-image: error: ")
    assert printed.err.count("\n") == 1
    assert name in printed.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert image_cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bids-harmonize-image {version()}\n"


def test_help_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert image_cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for action in image_cli.parser().actions:
        if action.help != argparse.SUPPRESS:
            assert all(name in shown for name in action.option_strings or [str(action.metavar)])


def test_the_module_is_the_command_and_brings_nothing_heavy() -> None:
    code = (
        "import sys; import bids_harmonize; from bids_harmonize.cli.image import main; main(['--help']); "
        "heavy = {'torch', 'bids', 'nibabel', 'numpy', 'pandas', 'scipy', 'safetensors'}; "
        "print('loaded:', *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"
    module = [sys.executable, "-m", "bids_harmonize.cli.image", "--version"]
    done = subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"bids-harmonize-image {version()}\n"
