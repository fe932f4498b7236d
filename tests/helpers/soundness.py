"""What an output folder must be, whatever happened to the programs that wrote into it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from tests.helpers.toy_datasets import files

# No two runs take the same time, a scan may have been done by any of many commands, and figures know the
# sidecar that they were drawn for.
_TOLD = re.compile(r"(?<=<td>Time, s</td><td>)[^<]+|(?<=<td>Command</td><td>)[^<]+")
_RUN_DEPENDENT = ("Command", "ElapsedSeconds", "key")


def content(output: Path) -> dict[str, object]:
    """Every file but the logs: byte for byte, without what differs from run to run."""
    return {name: _content(output / name) for name in files(output) if not name.startswith("logs/")}


def assert_whole(output: Path, reference: Path, *, failed_before: bool = False) -> None:
    """The output is that of an undisturbed run: nothing is missing, different, or too much.

    Where a run failed before, its crash files are there as well.
    """
    found, expected = content(output), content(reference)
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    hidden = [path for path in output.rglob(".*") if path.name != ".bidsignore"]
    assert hidden == []
    for log in (output / "logs").iterdir():
        if not (failed_before and log.name.startswith("crash_")):
            assert log.name.startswith("run_"), log
            assert json.loads(log.read_text())["Command"]


def assert_sound(output: Path, reference: Path, *, pages: bool = True) -> None:
    """What is there under its own name is complete; what is not is hidden.

    A page is written also where a scan failed, and shows the others: then, `pages` are no part of it.
    """
    found, expected = content(output), content(reference)
    own = {name for name in found if not Path(name).name.startswith(".tmp-")}
    own -= set() if pages else {name for name in own if name.endswith(".html")}
    assert own <= set(expected)
    assert [name for name in own if found[name] != expected[name]] == []


def finished(output: Path) -> set[Path]:
    """Images that have their sidecar, and so are done."""
    sidecars = output.glob("sub-*/**/anat/sub-*_desc-*harmonized_*.json")
    return {path.with_name(f"{path.stem}.nii.gz") for path in sidecars}


def _content(path: Path) -> object:
    if path.suffix == ".json" and not path.name.startswith("."):
        return _without(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".html":
        return _TOLD.sub("", path.read_text(encoding="utf-8"))
    if path.suffix == ".tsv":
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), delimiter="\t")
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    return path.read_bytes()


def _without(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without(inner) for key, inner in value.items() if key not in _RUN_DEPENDENT}
