"""What the BIDS validator says of a dataset."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlparse

BESIDE = Path(sys.executable).with_name("bids-validator-deno")
# The validator's own schema may be older than the version of BIDS that is written.
SCHEMA = Path(str(resources.files("bidsschematools"))) / "data" / "schema.json"
VALIDATOR = str(BESIDE) if BESIDE.exists() else shutil.which("bids-validator-deno")


def problems(dataset: Path, scratch: Path, *, warnings: bool = True) -> list[str]:
    """Errors, and warnings unless they do not count: what counts, the validator is told to fail on."""
    assert VALIDATOR, "bids-validator-deno is not installed"
    config = scratch / "validator.json"
    config.write_text('{"error": [{"severity": "warning"}]}' if warnings else "{}")
    # The validator keeps its cache in the home folder otherwise, which may be read-only.
    environment = os.environ | {"DENO_DIR": str(scratch / "deno")}
    command = [VALIDATOR, str(dataset), "--format", "json", "-c", str(config), "--schema", SCHEMA.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    issues = json.loads(done.stdout)["issues"]["issues"]
    found = [str(issue) for issue in issues if issue["severity"] == "error"]
    assert (done.returncode == 0) == (not found), done.stderr
    return found


def source_files(derivatives: Path, uris: list[str]) -> list[Path]:
    """The files that BIDS URIs in a derivatives folder lead to, by its ``DatasetLinks``."""
    links = json.loads((derivatives / "dataset_description.json").read_text())["DatasetLinks"]
    found = []
    for uri in uris:
        scheme, name, relative = uri.split(":", 2)
        assert scheme == "bids"
        link = urlparse(links[name])
        assert link.scheme in ("", "file")
        found.append(derivatives / unquote(link.path) / unquote(relative))
    return found
