"""Records of what was run and what failed, under ``logs/``; many processes may write there at once."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from bids_harmonize.bids.output_paths import check_inside
from bids_harmonize.bids.run import Run, output_stem
from bids_harmonize.errors import escape_unprintable
from bids_harmonize.files.atomic import write_json, write_text

_RECORDED = re.compile(
    r"(?:OMP|MKL|OPENBLAS)_NUM_THREADS|CUDA_VISIBLE_DEVICES|SLURM_\w+|IS_DOCKER|BIDS_HARMONIZE_\w+"
)
_SECRET = re.compile(r"JWT|TOKEN|SECRET|KEY|PASS|CRED|AUTH", re.IGNORECASE)


def write_run_log(
    output_dir: Path,
    command: Sequence[str],
    environment: Mapping[str, str],
    versions: Mapping[str, str | None] | None = None,
) -> Path:
    """Record one start of the program.

    Parameters
    ----------
    output_dir
        Folder of the outputs.
    command
        The full command line.
    environment
        Environment variables. Only those that bear on the result are kept (threads, devices, SLURM), and none
        whose name speaks of a secret.
    versions
        Versions of Python, packages and the platform.

    Returns
    -------
    Path
        The log, a JSON file.
    """
    kept = {
        name: environment[name]
        for name in sorted(environment)
        if _RECORDED.fullmatch(name) and not _SECRET.search(name)
    }
    path = output_dir / "logs" / f"run_{_unique()}.json"
    started = datetime.now(UTC).isoformat(timespec="seconds")
    check_inside(path.parent, output_dir)
    record = {
        "Started": started,
        "Command": [*command],
        "Environment": kept,
        "Versions": dict(versions or {}),
    }
    write_json(path, record)
    return path


def write_crash(output_dir: Path, run: Run, error_text: str) -> Path:
    """Record why a run failed.

    Parameters
    ----------
    output_dir
        Folder of the outputs.
    run
        The run.
    error_text
        The sentence that the user sees, and the traceback if there is one.

    Returns
    -------
    Path
        The crash file.
    """
    path = output_dir / "logs" / f"crash_{_unique()}_{escape_unprintable(output_stem(run))[-120:]}.txt"
    check_inside(path.parent, output_dir)
    write_text(path, f"{escape_unprintable(str(run.relative))}\n\n{error_text.rstrip()}\n")
    return path


@dataclass(frozen=True, kw_only=True)
class Crash:
    """A scan that failed: its path in the dataset, and the sentence that the user saw."""

    scan: PurePosixPath
    sentence: str

    @property
    def stem(self) -> str:
        """The scan's file name without its extension."""
        return self.scan.name.split(".")[0]


def read_crashes(output_dir: Path) -> list[Crash]:
    """Read the last failure of every scan that ever failed, as `write_crash` recorded it."""
    last: dict[PurePosixPath, Crash] = {}
    for path in sorted((output_dir / "logs").glob("crash_*.txt")):
        try:
            scan, _, sentence = (path.read_text(encoding="utf-8").splitlines() + 3 * [""])[:3]
        except (OSError, UnicodeDecodeError):
            continue
        if scan:
            last[PurePosixPath(scan)] = Crash(scan=PurePosixPath(scan), sentence=sentence)
    return list(last.values())


def _unique() -> str:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{now}-{os.getpid()}-{secrets.token_hex(4)}"
