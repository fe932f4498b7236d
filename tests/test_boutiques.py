"""The Boutiques descriptor says what the argument parser says."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from bids_harmonize import cli, console, errors
from bids_harmonize.version import version

DESCRIPTOR = Path(__file__).parent.parent / "boutiques.json"
# They print a text and process nothing.
INFORMATION = ("help", "version")
# Boutiques' File is for what exists before the program runs.
CREATED = ("output_dir", "work_dir")
WHOLE_NUMBERS = {console.positive: 1, cli._seed: 0}


def described() -> dict[str, Any]:
    """The descriptor that follows from the parser."""
    inputs = [_input(action) for action in _actions()]
    return {
        "name": cli.PROGRAM,
        "description": cli.parser().description,
        "author": "The bids-harmonize developers",
        "tool-version": version(),
        "schema-version": "0.5",
        "command-line": " ".join([cli.PROGRAM, *(entry["value-key"] for entry in inputs)]),
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
    return [a for a in cli.parser()._actions if a.help != hidden and a.dest not in INFORMATION]


def _input(action: argparse.Action) -> dict[str, Any]:
    entry = {
        "id": action.dest,
        "name": action.dest.replace("_", " "),
        "description": action.help,
        "value-key": f"[{action.dest.upper()}]",
        "optional": bool(action.option_strings),
        **_type(action),
    }
    if action.option_strings:
        entry["command-line-flag"] = next(name for name in action.option_strings if name.startswith("--"))
    if action.nargs == "+":
        entry |= {"list": True, "min-list-entries": 1}
    if action.choices:
        entry["value-choices"] = list(action.choices)
    if action.default not in (None, []) and entry["type"] != "Flag":
        entry["default-value"] = action.default
    return entry


def _type(action: argparse.Action) -> dict[str, Any]:
    if action.nargs == 0:
        return {"type": "Flag"}
    if action.type in WHOLE_NUMBERS:
        return {"type": "Number", "integer": True, "minimum": WHOLE_NUMBERS[action.type]}
    if action.type is console.path and action.dest not in CREATED:
        return {"type": "File"}
    return {"type": "String"}


def test_descriptor_says_what_the_parser_says() -> None:
    # To write it anew: python tests/test_boutiques.py > boutiques.json
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
        "reference_size": 5,
    }
    call = tmp_path / "call.json"
    call.write_text(json.dumps(wanted))
    options = cli.parse(_command_line(call)[1:])
    assert options.bids_dir == tmp_path
    assert options.output_dir == tmp_path / "out"
    assert options.participants == ("01", "02")
    assert options.excluded == ()
    assert options.sessions == ("pre",)
    assert options.modalities == ("T2w",)
    assert options.bids_filters == {"t1w": {"run": 1}}
    assert (options.n_cpus, options.mem_bytes, options.work_dir) == (3, 4 * 10**9, tmp_path / "work")
    assert (options.dry_run, options.force, options.verbosity) == (True, False, 1)
    assert (options.device, options.seed, options.reference_size) == ("auto", 0, 5)


def _command_line(call: Path) -> list[str]:
    from boutiques.bosh import bosh

    return shlex.split(bosh(["exec", "simulate", str(DESCRIPTOR), "-i", str(call)]).stdout)


if __name__ == "__main__":
    print(json.dumps(described(), indent=4))
