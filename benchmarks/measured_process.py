"""A command in a process of its own: seconds, processor time, peak of memory.

    python benchmarks/measured_process.py SECONDS COMMAND...

runs it for at most that long, and prints what it took as JSON. Only the standard library is imported: a
process that is started from a large one inherits its peak, so there must be a small one in between.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

if TYPE_CHECKING:
    import argparse

RESULTS = Path(__file__).parent / "results"
#: Bytes of a megabyte.
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a command took.

    Attributes
    ----------
    seconds, processor_seconds
        Time on the clock, and processor time of all its threads.
    megabytes
        Peak of resident memory.
    code
        Exit code; None where it was stopped for taking too long.
    output, error
        The ends of what it wrote to standard output and standard error.
    """

    seconds: float
    processor_seconds: float
    megabytes: float
    code: int | None
    output: str = ""
    error: str = ""


Run: TypeAlias = Callable[[Sequence[str | Path]], Measured]
"""A function that runs a command, such as `run_measured`."""


def run_measured(
    command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, limit: float = 3600
) -> Measured:
    """Run a command for at most `limit` seconds; `environment` is added to that of this process."""
    completed = subprocess.run(
        [sys.executable, "-S", __file__, str(limit), *map(str, command)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **(environment or {})},
    )
    return Measured(**json.loads(completed.stdout))


def require_success(run: Run, command: Sequence[str | Path]) -> Measured:
    """Run a command that must not fail.

    Raises
    ------
    RuntimeError
        It failed.
    """
    measured = run(command)
    if measured.code != 0:
        raise RuntimeError(
            f"{' '.join(map(str, command))} ended with exit code {measured.code}: {measured.error}"
        )
    return measured


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a benchmark works and where it writes."""
    parser.add_argument("--work-dir", type=Path, help="folder in which the temporary folder is made")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of the output (default: benchmarks/results)"
    )


def describe_machine() -> dict[str, str | int | float]:
    """What timings depend on: processor, cores that may be used, memory, and how busy it is."""
    return {
        "Processor": _processor(),
        "Cores": len(os.sched_getaffinity(0)),
        "MemoryGB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "LoadAverage": round(os.getloadavg()[0], 1),
        "Python": platform.python_version(),
    }


def machine_line() -> str:
    """The same as a phrase."""
    machine = describe_machine()
    return (
        f"{machine['Processor']}, {machine['Cores']} cores, {machine['MemoryGB']} GB of memory, "
        f"load average {machine['LoadAverage']}, Python {machine['Python']}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _measure(command: Sequence[str], limit: float) -> Measured:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=error)
        timer = threading.Timer(limit, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        return Measured(
            seconds=seconds,
            processor_seconds=usage.ru_utime + usage.ru_stime,
            # Linux counts in KiB, macOS in bytes.
            megabytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MB,
            code=process.returncode if seconds < limit else None,
            output=_end(output),
            error=_end(error),
        )


def _end(file: BinaryIO, size: int = 2000) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - size))
    return file.read().decode("utf-8", "replace")


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(sys.argv[2:], float(sys.argv[1])))))
