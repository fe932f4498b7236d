"""The files around the package agree with it and with each other."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from bids_harmonize.version import version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# Packages whose name on import differs from the one that they are installed under.
MODULES = {"pillow": "PIL", "pybids": "bids"}
FILES = sorted((ROOT / "bids_harmonize").rglob("*.py"))


def _instructions() -> list[str]:
    """The Dockerfile's instructions, one string each, comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.lstrip().startswith("#")]
    return [part for part in "\n".join(lines).replace("\\\n", " ").split("\n") if part]


def test_the_version_is_that_of_the_file() -> None:
    assert version() == (ROOT / "version").read_text().strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", version())
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"] == {"version": {"file": "version"}}


def test_citation_changes_and_image_have_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version()
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    changes = (ROOT / "CHANGES.md").read_text(encoding="utf-8")
    assert re.search(r"^## (?!Unreleased$)(\S+)", changes, re.MULTILINE)[1] == version()
    assert f'org.opencontainers.image.version="{version()}"' in DOCKERFILE


def test_an_installed_package_has_the_version() -> None:
    try:
        installed = metadata.version("bids-harmonize")
    except metadata.PackageNotFoundError:
        pytest.skip("bids-harmonize is not installed here")
    assert installed == version()


def test_a_package_away_from_its_checkout_asks_its_metadata(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bids_harmonize", tmp_path / "bids_harmonize")
    info = tmp_path / "bids_harmonize-9.8.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bids-harmonize\nVersion: 9.8.7\n")
    command = [sys.executable, "-m", "bids_harmonize", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "bids-harmonize 9.8.7\n"


def test_run_py_works_from_a_checkout_and_any_folder(tmp_path: Path) -> None:
    assert os.access(ROOT / "run.py", os.X_OK)
    # -S leaves out site-packages, and with it every installed package.
    command = [sys.executable, "-S", str(ROOT / "run.py"), "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"bids-harmonize {version()}\n"


def test_the_console_scripts_are_the_two_commands() -> None:
    assert PROJECT["project"]["scripts"] == {
        "bids-harmonize": "bids_harmonize.cli:program",
        "bids-harmonize-image": "bids_harmonize.cli.image:program",
    }


def test_dependencies_are_what_is_imported() -> None:
    names = [re.match(r"[\w-]+", line)[0] for line in PROJECT["project"]["dependencies"]]
    declared = {MODULES.get(name, name) for name in names}
    imported = {module for file in FILES for module in _imports(file)}
    extra = {"dask", "dask_jobqueue", "dask_kubernetes", "distributed"}
    assert imported - {"bids_harmonize"} - set(sys.stdlib_module_names) == declared | extra
    optional = PROJECT["project"]["optional-dependencies"]
    listed = " ".join(optional["cluster"] + optional["kubernetes"]).replace("-", "_")
    assert all(name in listed for name in extra)


def _imports(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_bytes())))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    origins = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) if node.level == 0}
    return {name.partition(".")[0] for name in plain | origins}


def test_torch_is_one_release() -> None:
    assert "torch==2.13.0" in PROJECT["project"]["dependencies"]


def test_every_file_of_the_package_is_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["bids_harmonize"]
    package = ROOT / "bids_harmonize"
    there = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    data = {path for pattern in patterns for path in package.glob(pattern)}
    assert there - data - set(FILES) == set()
    assert all((path.parent / "__init__.py").is_file() for path in FILES)


def test_the_licence_is_whole() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_the_base_image_can_be_chosen() -> None:
    first = _instructions()[0]
    assert first == "ARG BASE_IMAGE=debian:bookworm-slim"
    assert {line.split()[1] for line in _instructions() if line.startswith("FROM")} == {"${BASE_IMAGE}"}


@pytest.mark.parametrize("refused", ["syntax=", "<<", "--link", "--mount", "--break-system-packages"])
def test_older_builders_can_read_the_dockerfile(refused: str) -> None:
    assert refused not in DOCKERFILE


def test_what_the_image_is_built_from_is_in_its_context() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copies = [
        line.split()[1:-1] for line in _instructions() if line.startswith("COPY") and "--from" not in line
    ]
    assert {source for sources in copies for source in sources} == allowed
    assert all((ROOT / name).exists() for name in allowed)


@pytest.mark.skipif(
    shutil.which("hadolint", path=Path(sys.executable).parent) is None, reason="no hadolint here"
)
def test_hadolint_finds_nothing() -> None:
    command = [Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
