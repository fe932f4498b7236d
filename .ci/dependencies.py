"""What a runtime install brings along: checked for its licences, or listed for pip-audit.

Run by the Python of the install.

    dependencies.py licences    fails if one of them does not go with distribution under Apache-2.0
    dependencies.py pinned      prints them with their versions, as requirements
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# Names of permissive licences, and of those that bind only the licensed files (MPL), as metadata spell them.
COMPATIBLE = re.compile(
    r"(MIT|MIT-CMU|MIT License|HPND|ISC|ISC License \(ISCL\)|Zlib|0BSD|CC0-1\.0|BSL-1\.0|(The )?Unlicense.*|"
    r"BSD( License|[ -][23]-Clause)?|Apache(-2\.0| Software License| License.*2\.0)( WITH LLVM-exception)?|"
    r"PSF-2\.0|Python-2\.0|Python Software Foundation License|MPL-2\.0|Mozilla Public License 2\.0.*)"
)
# What may be there all the same, by the beginning of its name, and why.
ALLOWED = {
    "num2words": "LGPL; pybids imports it unchanged, as a package of its own that anybody can replace",
    "frozendict": "as num2words",
    "nvidia-": "NVIDIA's terms let CUDA's libraries be passed on; there with the CUDA build of PyTorch alone",
    "cuda-": "as nvidia-",
}


def runtime(requirements: Iterable[str]) -> dict[str, str]:
    """Names and versions of installed packages that these requirements bring along, themselves included.

    Raises
    ------
    SystemExit
        One of them is not installed.
    """
    found: dict[str, str] = {}
    left = [(Requirement(text), {""}) for text in requirements]
    while left:
        wanted, extras = left.pop()
        name, marker = canonicalize_name(wanted.name), wanted.marker
        if name in found or (marker and not any(marker.evaluate({"extra": extra}) for extra in extras)):
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed; install the project first")
        found[name] = Version(package.version).public
        left += [(Requirement(text), {"", *wanted.extras}) for text in package.requires or ()]
    return dict(sorted(found.items()))


def compatible(licence: str) -> bool:
    """Whether one of the alternatives (OR) of a licence is compatible in all of its parts (AND, or ;)."""
    alternatives = [re.split(r" AND |; ", text.strip("() ")) for text in licence.split(" OR ")]
    return any(all(COMPATIBLE.fullmatch(part.strip("() ")) for part in parts) for parts in alternatives)


def refused(licences: dict[str, str]) -> list[str]:
    """Of licences by package, those that are neither compatible nor allowed, a line each."""
    return [
        f"{name}: {licence}"
        for name, licence in licences.items()
        if not compatible(licence) and not name.startswith(tuple(ALLOWED))
    ]


def _licences(names: Iterable[str]) -> dict[str, str]:
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--from=mixed",
        "--with-system",
        "--format=json",
        "--packages",
        *names,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {canonicalize_name(line["Name"]): line["License"] for line in json.loads(done.stdout)}


def _main() -> None:
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))
    packages = runtime(project["project"]["dependencies"])
    if sys.argv[1:] == ["pinned"]:
        print(*(f"{name}=={version}" for name, version in packages.items()), sep="\n")
        return
    licences = _licences(packages)
    problems = refused(licences) + [f"{name}: not told" for name in packages if name not in licences]
    if problems:
        sys.exit("These do not go with distribution under Apache-2.0:\n" + "\n".join(problems))
    print(f"{len(packages)} packages of the runtime install go with Apache-2.0")


if __name__ == "__main__":
    _main()
