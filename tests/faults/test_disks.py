"""Disks that are full, read-only, slow, broken or gone, and other limits of the system.

It is one file because nearly all of its tests compare with one undisturbed output, which is made once.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bids_harmonize.errors import BadData, CannotCreate, InputOutputError
from tests.helpers import warm_processes
from tests.helpers.soundness import assert_sound, assert_whole, finished
from tests.helpers.toy_datasets import Result, head, image_of, write_dataset, write_scan

NAMES = ("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz", "sub-02_T2w.nii.gz")
ARGUMENTS = ("out", "participant", "--save-transform")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount file systems")
needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc, which compiles the disk's faults")

# A library that replaces the system's functions and simulates a disk: slow, or failing on the n-th flush.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int number(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }
ssize_t write(int file, const void *bytes, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (file > 2) usleep(1000 * number("DISK_SLOW_MS"));
    return real(file, bytes, size);
}
int fsync(int file) {
    static int flushes;
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    usleep(1000 * number("DISK_SLOW_MS"));
    if (++flushes == number("DISK_BROKEN_AT")) { errno = EIO; return -1; }
    return real(file);
}
"""


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to, and how often it touched a file of the output."""

    dataset: Path
    output: Path
    touches: int

    @property
    def size(self) -> int:
        """Bytes of all files, in whole pages, as tmpfs counts."""
        page = resource.getpagesize()
        sizes = (path.stat().st_size for path in self.output.rglob("*") if path.is_file())
        return sum(-(-size // page) * page for size in sizes)


@dataclass(frozen=True)
class FewFiles:
    """At most so many more files may be open at once than are when the program starts."""

    more: int

    def __call__(self) -> None:
        highest = max(map(int, os.listdir("/proc/self/fd")))
        while os.dup(0) < highest:
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + self.more,) * 2)


@dataclass(frozen=True)
class LittleMemory:
    """At most so many more bytes of memory may be asked for than are taken when the program starts."""

    more: int

    def __call__(self) -> None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + self.more,) * 2)


@dataclass(frozen=True)
class InGroup:
    """The process is one of a control group."""

    group: Path

    def __call__(self) -> None:
        (self.group / "cgroup.procs").write_text(str(os.getpid()))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    dataset, output = write_dataset(folder / "data"), folder / "out"
    for seed, name in enumerate(NAMES):
        write_scan(dataset, name, image_of(head(seed, (12, 14, 12)), 14))
    fault = warm_processes.Counted(output, folder / "touches")
    result = warm_processes.run(folder, dataset, *ARGUMENTS, fault=fault)
    assert result.code == 0, result.err
    touches = len((folder / "touches").read_text().splitlines())
    return Undisturbed(dataset=dataset, output=output, touches=touches)


@contextmanager
def _disk(folder: Path, options: str) -> Iterator[Path]:
    """A disk of its own at ``out``, in memory."""
    folder.mkdir(exist_ok=True)
    place = folder / "out"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "bids-harmonize-test", str(place)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"nothing can be mounted here, not even by root: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _remount(place: Path, options: str) -> bool:
    command = ["mount", "-o", f"remount,{options}", str(place)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _refused(result: Result, code: int, words: str) -> list[str]:
    """The lines that say why; there must be some, and no traceback."""
    assert (result.code, "Traceback" in result.err) == (code, False), result.err
    lines = [line for line in result.err.splitlines() if words in line]
    assert lines, result.err
    return lines


def _finish(undisturbed: Undisturbed, folder: Path) -> None:
    result = warm_processes.run(folder, undisturbed.dataset, *ARGUMENTS)
    assert result.code == 0, result.err
    assert_whole(folder / "out", undisturbed.output, failed_before=True)


# Full


@needs_root
def test_a_full_disk(undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str]) -> None:
    """Whatever is written when no byte is left: named, exit code 74, nothing half-written; then completed."""
    generator, count = random.Random(11), 12 if long else 3
    done = 0
    for n in range(count):
        size = int((n + generator.random()) / count * 0.95 * undisturbed.size)
        with _disk(tmp_path / str(n), f"size={max(size, resource.getpagesize())}") as place:
            result = warm_processes.run(tmp_path / str(n), undisturbed.dataset, *ARGUMENTS)
            lines = _refused(result, InputOutputError.exit_code, "No space left on device")
            assert all(str(place) in line for line in lines)
            assert list(place.rglob(".tmp-*")) == []
            assert_sound(place, undisturbed.output, pages=False)
            done += len(finished(place))
            assert _remount(place, "size=64m")
            _finish(undisturbed, tmp_path / str(n))
        tally["full disks survived"] += 1
    # Otherwise the disk was always full before the first scan, and little was tried.
    assert done > 0


@needs_root
def test_a_disk_that_takes_no_more_files(
    undisturbed: Undisturbed, tmp_path: Path, tally: Counter[str]
) -> None:
    """No space for the names of files, though there is for bytes: as a full disk."""
    with _disk(tmp_path, "size=64m,nr_inodes=12") as place:
        result = warm_processes.run(tmp_path, undisturbed.dataset, *ARGUMENTS)
        _refused(result, InputOutputError.exit_code, "No space left on device")
        assert list(place.rglob(".tmp-*")) == []
        assert_sound(place, undisturbed.output, pages=False)
        assert _remount(place, "nr_inodes=10000")
        _finish(undisturbed, tmp_path)
    tally["full disks survived"] += 1


# Read-only


@needs_root
@pytest.mark.parametrize("done", [False, True], ids=["empty", "done"])
def test_a_read_only_disk(undisturbed: Undisturbed, tmp_path: Path, tally: Counter[str], done: bool) -> None:
    """One sentence that names the folder, and 73, before anything is computed."""
    with _disk(tmp_path, "size=64m") as place:
        if done:
            _finish(undisturbed, tmp_path)
        assert _remount(place, "ro")
        result = warm_processes.run(tmp_path, undisturbed.dataset, *ARGUMENTS)
        (line,) = _refused(result, CannotCreate.exit_code, "Read-only file system")
        assert (str(place) in line, result.err.count("\n")) == (True, 1)
        assert _remount(place, "rw")
        _finish(undisturbed, tmp_path)
    tally["read-only disks survived"] += 1


@needs_root
def test_a_disk_that_becomes_read_only(undisturbed: Undisturbed, tmp_path: Path, tally: Counter[str]) -> None:
    """As the system does to a disk with errors, half-way through the run."""
    with _disk(tmp_path, "size=64m") as place:
        moment, remounted = undisturbed.touches // 2, False
        while not remounted:
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            # The system refuses while a file is being written; soon after it is not.
            fault = warm_processes.AtTouch(moment, place, signal.SIGSTOP)
            running = warm_processes.start(tmp_path, undisturbed.dataset, *ARGUMENTS, fault=fault)
            warm_processes.hold(running)
            remounted = _remount(place, "ro")
            result = warm_processes.go_on(running)
            moment += 1
        _refused(result, CannotCreate.exit_code, "Read-only file system")
        assert_sound(place, undisturbed.output, pages=False)
        assert _remount(place, "rw")
        _finish(undisturbed, tmp_path)
    tally["read-only disks survived"] += 1


@needs_user
def test_a_folder_that_may_not_be_written_to(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """One sentence that names the folder, and 73."""
    (tmp_path / "out").mkdir(mode=0o555)
    result = warm_processes.run(tmp_path, undisturbed.dataset, *ARGUMENTS)
    (line,) = _refused(result, CannotCreate.exit_code, "Permission denied")
    assert str(tmp_path / "out") in line
    (tmp_path / "out").chmod(0o755)
    _finish(undisturbed, tmp_path)


# Gone


def _vanish(folder: Path, running: warm_processes.Running) -> Result:
    """Move the output away while the program stands still, and let it go on."""
    warm_processes.hold(running)
    if (folder / "out").exists():
        (folder / "out").rename(folder / "moved")
    return warm_processes.go_on(running)


def _come_back(folder: Path) -> None:
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "moved").rename(folder / "out")


def test_an_output_folder_that_vanishes(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str]
) -> None:
    """Either told, with 74, or everything is there in the end: never 0 with results that are lost."""
    generator, count = random.Random(12), 30 if long else 3
    told = 0
    for n in range(count):
        folder = tmp_path / str(n)
        folder.mkdir()
        moment = 1 + int((n + generator.random()) / count * (undisturbed.touches - 1))
        fault = warm_processes.AtTouch(moment, folder / "out", signal.SIGSTOP)
        result = _vanish(folder, warm_processes.start(folder, undisturbed.dataset, *ARGUMENTS, fault=fault))
        if result.code == 0:
            assert_whole(folder / "out", undisturbed.output)
        else:
            _refused(result, InputOutputError.exit_code, str(folder / "out"))
            told += 1
            _come_back(folder)
            _finish(undisturbed, folder)
        tally["vanished folders survived"] += 1
    assert told > 0


@pytest.mark.parametrize("arguments", [("out", "group"), ("out", "participant", "--reports-only")])
def test_an_output_folder_that_vanishes_while_it_is_reported_on(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str], arguments: tuple[str, ...]
) -> None:
    """Told, whenever it happens; done again, the reports are those of an undisturbed run."""
    reference = tmp_path / "reference"
    shutil.copytree(undisturbed.output, reference / "out")
    fault = warm_processes.Counted(reference / "out", tmp_path / "touches")
    assert warm_processes.run(reference, undisturbed.dataset, *arguments, fault=fault).code == 0
    touches = len((tmp_path / "touches").read_text().splitlines())
    generator, count = random.Random(13), 15 if long else 2
    for n in range(count):
        folder = tmp_path / str(n)
        shutil.copytree(undisturbed.output, folder / "out")
        moment = 1 + int((n + generator.random()) / count * (touches - 1))
        fault = warm_processes.AtTouch(moment, folder / "out", signal.SIGSTOP)
        result = _vanish(folder, warm_processes.start(folder, undisturbed.dataset, *arguments, fault=fault))
        assert result.code != 0
        assert f"{folder}/out" in result.err
        assert "Traceback" not in result.err
        _come_back(folder)
        assert warm_processes.run(folder, undisturbed.dataset, *arguments).code == 0
        assert_whole(folder / "out", reference / "out")
        tally["vanished folders survived"] += 1


# Slow and broken


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    (folder / "disk.c").write_text(SHIM)
    library = folder / "disk.so"
    command = ["gcc", "-shared", "-fPIC", "-o", str(library), str(folder / "disk.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


@needs_gcc
def test_a_slow_disk(undisturbed: Undisturbed, tmp_path: Path, shim: Path, tally: Counter[str]) -> None:
    """Every writing and flushing takes a while: another process in the meantime disturbs neither."""
    process = warm_processes.apart(
        tmp_path, undisturbed.dataset, *ARGUMENTS, LD_PRELOAD=str(shim), DISK_SLOW_MS="3"
    )
    between = warm_processes.run(tmp_path, undisturbed.dataset, *ARGUMENTS)
    said = process.communicate()[1]
    assert (process.returncode, between.code) == (0, 0), said + between.err
    assert_whole(tmp_path / "out", undisturbed.output)
    tally["slow disks survived"] += 1


@needs_gcc
def test_a_disk_that_reports_its_errors_late(
    undisturbed: Undisturbed, tmp_path: Path, shim: Path, long: bool, tally: Counter[str]
) -> None:
    """An error that comes only when a file is flushed, as of network disks: told, 74, never taken as done."""
    for n, broken in enumerate(range(1, 40, 5) if long else [5]):
        folder = tmp_path / str(n)
        folder.mkdir()
        process = warm_processes.apart(
            folder, undisturbed.dataset, *ARGUMENTS, LD_PRELOAD=str(shim), DISK_BROKEN_AT=str(broken)
        )
        said = process.communicate()[1]
        result = Result(code=process.returncode, out="", err=said)
        _refused(result, InputOutputError.exit_code, "Input/output error")
        assert list(folder.rglob(".tmp-*")) == []
        assert_sound(folder / "out", undisturbed.output, pages=False)
        _finish(undisturbed, folder)
        tally["broken disks survived"] += 1


# Limits


def test_few_open_files(undisturbed: Undisturbed, tmp_path: Path, tally: Counter[str]) -> None:
    """From no open file up: told, 74, and completed as soon as there are enough."""
    folder, codes = tmp_path, []
    while 0 not in codes:
        result = warm_processes.run(folder, undisturbed.dataset, *ARGUMENTS, fault=FewFiles(len(codes)))
        codes.append(result.code)
        if result.code:
            _refused(result, InputOutputError.exit_code, "Too many open files")
            assert list(folder.rglob(".tmp-*")) == []
            tally["limits survived"] += 1
    assert len(codes) > 1
    assert_whole(folder / "out", undisturbed.output, failed_before=True)


def _with_a_large_scan(undisturbed: Undisturbed, folder: Path, name: str) -> Path:
    """A dataset that has one; what is made of it when nothing happens is ``reference``."""
    dataset = folder / "data"
    shutil.copytree(undisturbed.dataset, dataset)
    write_scan(dataset, name, image_of(head(9, (116, 116, 116)), 1.65))
    assert warm_processes.run(folder, dataset, *ARGUMENTS).code == 0
    (folder / "out").rename(folder / "reference")
    return dataset


def test_little_memory(undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str]) -> None:
    """Memory that runs out, whoever asks for it: told as such, 65; the next run, with more, completes."""
    dataset = _with_a_large_scan(undisturbed, tmp_path, "sub-00_T1w.nii.gz")
    done = set()
    for megabytes in (*range(1, 230, 12),) if long else (2, 60, 110, 140, 150, 160, 170, 190, 230):
        result = warm_processes.run(tmp_path, dataset, *ARGUMENTS, fault=LittleMemory(megabytes * 10**6))
        if result.code:
            _refused(result, BadData.exit_code, "memory")
            tally["limits survived"] += 1
        assert list(tmp_path.rglob(".tmp-*")) == []
        done.add(len(finished(tmp_path / "out")))
    # Some limits stop everything, some the largest scan alone.
    assert {0, len(NAMES)} <= done
    # Where little was enough, the sidecar says how, and the voxels are the same.
    for image in finished(tmp_path / "out"):
        sidecar = image.with_name(f"{image.name.removesuffix('.nii.gz')}.json")
        if "in smaller parts" in sidecar.read_text():
            same = tmp_path / "reference" / image.relative_to(tmp_path / "out")
            assert image.read_bytes() == same.read_bytes()
            sidecar.unlink()
    result = warm_processes.run(tmp_path, dataset, *ARGUMENTS)
    assert result.code == 0, result.err
    assert_whole(tmp_path / "out", tmp_path / "reference", failed_before=True)


@contextmanager
def _group_with(megabytes: int) -> Iterator[Path]:
    """A control group, whose processes the kernel kills when all of them take more memory than that."""
    root = Path("/sys/fs/cgroup")
    parent, limit = (
        (root / "memory", "memory.limit_in_bytes") if (root / "memory").is_dir() else (root, "memory.max")
    )
    group = parent / f"bids-harmonize-test-{os.getpid()}"
    try:
        group.mkdir()
        try:
            (group / limit).write_text(f"{megabytes * 10**6}")
            yield group
        finally:
            group.rmdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")


@needs_root
def test_the_kernel_kills_it_for_memory(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str]
) -> None:
    """As in a job with too little: what is finished is whole, and the next run, with more, completes."""
    dataset = _with_a_large_scan(undisturbed, tmp_path, "sub-03_T1w.nii.gz")
    codes = set()
    for megabytes in (*range(4, 100, 6),) if long else (10, 30, 60):
        with _group_with(megabytes) as group:
            result = warm_processes.run(tmp_path, dataset, *ARGUMENTS, fault=InGroup(group))
        assert result.code in (0, -signal.SIGKILL), result.err
        codes.add(result.code)
        if result.code:
            tally["kills for memory survived"] += 1
        if (tmp_path / "out").is_dir():
            assert_sound(tmp_path / "out", tmp_path / "reference")
    assert -signal.SIGKILL in codes
    result = warm_processes.run(tmp_path, dataset, *ARGUMENTS)
    assert result.code == 0, result.err
    assert_whole(tmp_path / "out", tmp_path / "reference")
