"""What an install brings along goes with Apache-2.0, and CI looks at all of it."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dependencies() -> ModuleType:
    """The script of CI."""
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / ".ci" / "dependencies.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "fits"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", True),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSL-1.0", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("GPL-3.0-or-later OR (MIT AND BSD-2-Clause)", True),
        ("BSD License; MIT License", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("GPL-3.0-only", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("MIT AND GPL-2.0-only", False),
        ("MIT License; GNU Affero General Public License v3", False),
        ("LGPL-3.0-only", False),
        ("EUPL-1.2", False),
        ("UNKNOWN", False),
        ("", False),
    ],
)
def test_licences_are_told_apart(dependencies: ModuleType, licence: str, fits: bool) -> None:
    assert dependencies.compatible(licence) is fits


def test_only_what_is_allowed_by_name_and_reason_passes(dependencies: ModuleType) -> None:
    licences = dict.fromkeys([*dependencies.ALLOWED, "other"], "LGPL-3.0-only")
    assert dependencies.refused(licences) == ["other: LGPL-3.0-only"]
    assert all(dependencies.ALLOWED.values())


def test_the_whole_runtime_install_is_looked_at(dependencies: ModuleType) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    packages = dependencies.runtime(declared)
    # Declared, and two of those that these bring along.
    assert {"torch", "pybids", "safetensors", "sqlalchemy", "num2words"} <= set(packages)
    assert not {"pytest", "simpleitk", "boutiques"} & set(packages)
    with pytest.raises(SystemExit, match="not installed"):
        dependencies.runtime(["no-such-package-of-this-name"])
