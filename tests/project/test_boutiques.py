"""The Boutiques descriptor says what the argument parser says."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from bids_harmonize import errors
from bids_harmonize.cli import arguments
from bids_harmonize.cli import dataset as dataset_cli
from bids_harmonize.version import version

DESCRIPTOR = Path(__file__).parents[2] / "boutiques.json"
# They print a text and process nothing.
INFORMATION = ("help", "version")
# Boutiques' File is for what exists before the program runs.
CREATED = ("output_dir", "work_dir")
WHOLE_NUMBERS = {arguments.positive_int: 1, dataset_cli.seed: 0}


def described() -> dict[str, Any]:
    """The descriptor that follows from the parser."""
    inputs = [_input(action) for action in _actions()]
    return {
        "name": dataset_cli.PROGRAM,
        "description": dataset_cli.parser().description,
        "author": "The bids-harmonize developers",
        "tool-version": version(),
        "schema-version": "0.5",
        "command-line": " ".join([dataset_cli.PROGRAM, *(entry["value-key"] for entry in inputs)]),
        "container-image": {"type": "docker", "image": "bids/harmonize", "entrypoint": True},
        "inputs": inputs,
        "output-files": [
            {
                "id": "derivatives",
                "name": "derivatives",
                "description": "BIDS derivatives: the harmonized scans, their sidecars and reports",
                "path-template": "[OUTPUT_DIR]",
            }
        ],
        "error-codes": [
            {"code": error.exit_code, "description": (error.__doc__ or "").splitlines()[0]}
            for error in sorted(errors.HarmonizeError.__subclasses__(), key=lambda error: error.exit_code)
        ],
        "tags": {"domain": ["neuroinformatics", "mri"]},
    }


def _actions() -> list[argparse.Action]:
    hidden = argparse.SUPPRESS
    return [a for a in dataset_cli.parser().actions if a.help != hidden and a.dest not in INFORMATION]


def _input(action: argparse.Action) -> dict[str, Any]:
    identifier = _flag(action).removeprefix("--").replace("-", "_")
    entry = {
        "id": identifier,
        "name": identifier.replace("_", " "),
        "description": action.help,
        "value-key": f"[{identifier.upper()}]",
        "optional": bool(action.option_strings),
        **_type(action),
    }
    if action.option_strings:
        entry["command-line-flag"] = _flag(action)
    if action.nargs == "+":
        entry |= {"list": True, "min-list-entries": 1}
    if isinstance(action.nargs, int) and action.nargs > 1:
        entry |= {"list": True, "min-list-entries": action.nargs, "max-list-entries": action.nargs}
    if action.choices:
        entry["value-choices"] = list(action.choices)
    # Boutiques types defaults on the command line, and not every level takes every option.
    takes_all_levels = action.dest not in dataset_cli.LEVELS_OF_OPTION
    if takes_all_levels and action.default not in (None, ()) and entry["type"] != "Flag":
        entry["default-value"] = action.default
    return entry


def _flag(action: argparse.Action) -> str:
    """The option in its long form, or the name of a positional argument."""
    return next(
        (name for name in action.option_strings if name.startswith("--")), str(action.metavar).lower()
    )


def _type(action: argparse.Action) -> dict[str, Any]:
    if action.nargs == 0:
        return {"type": "Flag"}
    if action.type in WHOLE_NUMBERS:
        return {"type": "Number", "integer": True, "minimum": WHOLE_NUMBERS[action.type]}
    if action.type is arguments.path and action.dest not in CREATED:
        return {"type": "File"}
    return {"type": "String"}


def test_descriptor_says_what_the_parser_says() -> None:
    # To write it anew: python -m tests.project.test_boutiques > boutiques.json
    assert json.loads(DESCRIPTOR.read_text(encoding="utf-8")) == described()


def test_descriptor_has_every_option_once() -> None:
    ids = [entry["id"] for entry in described()["inputs"]]
    assert len(ids) == len(set(ids))
    assert {"bids_dir", "participant_label", "work_dir", "mem", "notrack", "steps"} < set(ids)


def test_boutiques_accepts_the_descriptor(tmp_path: Path) -> None:
    pytest.importorskip("boutiques")
    from boutiques.bosh import bosh
    from boutiques.validator import DescriptorValidationError

    bosh(["validate", str(DESCRIPTOR)])
    broken = tmp_path / "broken.json"
    broken.write_text(DESCRIPTOR.read_text(encoding="utf-8").replace('"Flag"', '"Banner"'))
    with pytest.raises(DescriptorValidationError):
        bosh(["validate", str(broken)])


@pytest.mark.parametrize("level", dataset_cli.ANALYSIS_LEVELS)
def test_a_call_without_options_made_by_boutiques_is_understood(tmp_path: Path, level: str) -> None:
    pytest.importorskip("boutiques")
    call = tmp_path / "call.json"
    call.write_text(
        json.dumps({"bids_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), "analysis_level": level})
    )
    typed = _command_line(call)[1:]
    plain = dataset_cli.parse([str(tmp_path), str(tmp_path / "out"), level])
    assert vars(dataset_cli.parse(typed)) | {"command": ()} == vars(plain) | {"command": ()}


def test_a_call_made_by_boutiques_is_understood(tmp_path: Path) -> None:
    pytest.importorskip("boutiques")
    filters = tmp_path / "filters.json"
    filters.write_text('{"t1w": {"run": 1}}')
    wanted: dict[str, Any] = {
        "bids_dir": str(tmp_path),
        "output_dir": str(tmp_path / "out"),
        "analysis_level": "participant",
        "participant_label": ["01", "02"],
        "session_label": ["pre"],
        "modalities": ["T2w"],
        "bids_filter_file": str(filters),
        "n_cpus": 3,
        "mem": "4GB",
        "work_dir": str(tmp_path / "work"),
        "dry_run": True,
        "verbose": True,
        "seed": 5,
    }
    call = tmp_path / "call.json"
    call.write_text(json.dumps(wanted))
    options = dataset_cli.parse(_command_line(call)[1:])
    assert options.bids_dir == tmp_path
    assert options.output_dir == tmp_path / "out"
    assert options.participants == ("01", "02")
    assert options.excluded == ()
    assert options.sessions == ("pre",)
    assert options.modalities == ("T2w",)
    assert options.bids_filters == {"t1w": {"run": 1}}
    assert (options.n_cpus, options.mem_bytes, options.work_dir) == (3, 4 * 10**9, tmp_path / "work")
    assert (options.dry_run, options.force, options.verbosity) == (True, False, 1)
    assert (options.device, options.seed, options.reference_size) == ("auto", 5, 13)


def _command_line(call: Path) -> list[str]:
    from boutiques.bosh import bosh

    return shlex.split(bosh(["exec", "simulate", str(DESCRIPTOR), "-i", str(call)]).stdout)


if __name__ == "__main__":
    print(json.dumps(described(), indent=4))
