"""The documentation builds without a warning, has every page in its menu, and shows what the results say."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
import tomllib
from argparse import SUPPRESS
from pathlib import Path

import pytest

from bids_harmonize import errors
from bids_harmonize.cli import dataset

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bids_harmonize"
DOCS = ROOT / "docs"
SOURCES = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
PAGES = {str(path.relative_to(DOCS).with_suffix("")) for path in SOURCES}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def linked_pages(page: str) -> set[str]:
    """Pages in the tables of contents of a page."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    entries = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    return {str(Path(page).parent / entry) for entry in entries}


def test_every_page_is_reached_from_the_index() -> None:
    reached, waiting = set(), ["index"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting.extend(linked_pages(page))
    assert reached == PAGES


def test_files_that_are_named_exist() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*SOURCES, ROOT / "CONTRIBUTING.md")]
    named = {name for text in texts for name in re.findall(r"`([\w./-]+/[\w-]+\.(?:py|md|sh|yaml))`", text)}
    assert len(named) > 10
    assert {name for name in named if not ((ROOT / name).exists() or (PACKAGE / name).exists())} == set()


def test_modules_and_objects_that_the_architecture_names_exist() -> None:
    text = (DOCS / "developer" / "architecture.md").read_text(encoding="utf-8")
    names = {
        name for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", text) if not name.endswith((".py", ".toml"))
    }
    assert len(names) > 10
    for name in names:
        pkgutil.resolve_name(f"bids_harmonize.{name}")


def test_every_exit_code_is_explained() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| `(\w+)` \|$", (DOCS / "exit-codes.md").read_text(), re.MULTILINE)
    documented = {name: int(code) for code, name in rows}
    kinds = errors.HarmonizeError.__subclasses__()
    assert documented == {kind.__name__: kind.exit_code for kind in kinds}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as HTML."""
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    out = tmp_path_factory.mktemp("docs")
    # Warnings are errors, and nothing that another build has kept can hide one.
    options = ["-q", "-W", "--keep-going", "-b", "html", "-d", out / "doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, DOCS, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return out


@pytest.mark.process
def test_it_builds_without_a_warning(built: Path) -> None:
    assert {str(path.relative_to(built).with_suffix("")) for path in built.rglob("*.html")} >= PAGES


@pytest.mark.process
def test_the_floors_are_those_of_the_contract(built: Path) -> None:
    page = (built / "developer" / "architecture.html").read_text(encoding="utf-8")
    (contract,) = (one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    packages = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    drawn = re.findall(r'font-weight="bold"[^>]*>(\w+)', page)
    assert set(drawn) == packages
    assert len(drawn) == len(packages)


@pytest.mark.process
@pytest.mark.parametrize(
    ("page", "option"),
    [("usage/dataset", "--out-of-distribution"), ("usage/single-image", "--save-transform")],
)
def test_option_pages_come_from_the_parsers(built: Path, page: str, option: str) -> None:
    assert f"<kbd>{option}</kbd>" in (built / f"{page}.html").read_text(encoding="utf-8")


@pytest.mark.process
def test_the_table_of_levels_is_that_of_the_parser(built: Path) -> None:
    page = (built / "usage/dataset.html").read_text(encoding="utf-8")
    rows = re.findall(
        r"<tr[^>]*><td><p><code[^>]*><span class=\"pre\">(--[a-z-]+)</span></code></p></td>(.*?)</tr>",
        page,
        re.DOTALL,
    )
    said = {name: re.findall("obeyed|refused", rest) for name, rest in rows}
    for action in dataset.parser().actions:
        if action.help == SUPPRESS or not action.option_strings:
            continue
        name = next(name for name in action.option_strings if name.startswith("--"))
        levels = dataset.LEVELS_OF_OPTION.get(action.dest, dataset.ANALYSIS_LEVELS)
        assert said[name] == ["obeyed" if level in levels else "refused" for level in dataset.ANALYSIS_LEVELS]
