"""Where the program runs: as nobody, without home, environment, network or folders for temporary files.

Mounts are made in a mount namespace of the program's own, and end with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import join, quote
from typing import Any

import pytest

from tests.helpers.html_page import Page
from tests.helpers.toy_datasets import (
    FOR_ONE,
    ROOT,
    expected_files,
    files,
    harmonize,
    head,
    image_of,
    output_of,
    scan_files,
    sha256,
    snapshot,
    write_dataset,
    write_scan,
)

NAMES = ("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
# A user who is in no password database.
NOBODY = 54321
# Folders in which Python looks for room for temporary files, besides $TMPDIR and the current folder.
TEMPORARY = tuple(Path(name) for name in ("/tmp", "/var/tmp", "/usr/tmp", "/dev/shm"))
MISSING = "/nowhere"
# Name of the mounts that these tests make.
MARK = "bids-harmonize-test"
# Reports the environment, then runs both levels and the command for one file by their entry points.
DRIVER = """
import json, os, pwd, socket, sys, tempfile
from contextlib import suppress
from pathlib import Path

root, raw, out, single, temporary, *options = sys.argv[1:]
sys.path.insert(0, root)
asked, asking = [], {"socket.connect", "socket.getaddrinfo", "socket.sendto"}
# Worker processes are reached by a socket of this machine, whose address is a name.
local = lambda given: len(given) > 1 and isinstance(given[1], str | bytes)
sys.addaudithook(lambda event, given: asked.append(event) if event in asking and not local(given) else None)
from bids_harmonize.cli import dataset as cli, image as image_cli

def writable(folder):
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
            file.flush()
    except OSError:
        return False
    return True

def known(user):
    with suppress(KeyError):
        return bool(pwd.getpwuid(user))
    return False

print("FOUND", json.dumps({
    "user": os.getuid(),
    "known": known(os.getuid()),
    "home": os.path.isdir(os.path.expanduser("~")),
    "environment": sorted(set(os.environ) - {"LC_CTYPE"}),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "writable": [folder for folder in ("/", os.getcwd(), *temporary.split(":")) if writable(folder)],
}))
scan = str(next(Path(raw).rglob("sub-01_T1w.nii.gz")))
for name, main, arguments in (
    ("participant", cli.main, [raw, out, "participant", *options]),
    ("group", cli.main, [raw, out, "group"]),
    ("image", image_cli.main, [scan, single + "/harmonized.nii.gz", *options]),
):
    print("BEGIN", name, file=sys.stderr, flush=True)
    code = main(arguments)
    print("EXIT", name, code, flush=True)
print("ASKED", json.dumps(asked))
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is around the program; the usual, where nothing else is said.

    Attributes
    ----------
    environment
        All of the environment variables.
    user
        Number of the user; None: who runs the tests.
    network
        False: not even the loopback device is up.
    read_only
        Folders in which nothing can be written but the outputs; their content is there.
    empty
        Folders that hold nothing, and take nothing either.
    full
        The same, because their file system is full.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    network: bool = True
    read_only: tuple[Path, ...] = ()
    empty: tuple[Path, ...] = ()
    full: tuple[Path, ...] = ()

    @property
    def mounts(self) -> bool:
        """Whether it takes a mount namespace."""
        return bool(self.user is not None or self.read_only or self.empty or self.full)


PLACES = {
    "without environment": Place(),
    "without home": Place(environment={"HOME": MISSING, "TMPDIR": MISSING, "XDG_CACHE_HOME": MISSING}),
    "without letters": Place(environment={"PYTHONIOENCODING": "ascii", "HOME": MISSING}),
    "without network": Place(network=False),
    "unknown user": Place(user=NOBODY),
    "all is read-only": Place(read_only=(Path("/"), *TEMPORARY), network=False),
    "empty folders for temporary files": Place(empty=TEMPORARY, environment={"HOME": MISSING}),
    "full folders for temporary files": Place(full=TEMPORARY, environment={"HOME": "/tmp"}),
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the commands gave back in a place, what they found there, and whom they asked on a network."""

    found: Mapping[str, Any]
    asked: Sequence[str]
    codes: Mapping[str, int]
    err: str

    def of(self, command: str) -> list[str]:
        """Lines on standard error."""
        return self.err.split(f"BEGIN {command}\n")[1].split("BEGIN ")[0].splitlines()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every user may read, with a dataset."""
    folder = tmp_path_factory.mktemp("places")
    folder.chmod(0o755)
    raw = write_dataset(folder / "raw")
    for seed, name in enumerate(NAMES):
        write_scan(raw, name, image_of(head(seed)))
    (raw / "participants.tsv").write_text("participant_id\tsite\nsub-01\tA\nsub-02\tB\n")
    return folder


@pytest.fixture(scope="module")
def plain(work: Path) -> dict[str, str]:
    """Checksums of what comes out in the usual place."""
    assert harmonize(work / "raw", work / "plain", "participant").code == 0
    return {name: sha256(output_of(work / "plain", name)) for name in NAMES}


@pytest.fixture(autouse=True)
def no_mount_is_left(work: Path) -> Iterator[None]:
    yield
    table = Path("/proc/self/mounts")
    mounts = table.read_text().splitlines() if table.exists() else []
    assert not [line for line in mounts if line.startswith(f"{MARK}-") or f" {work}/" in line]


@pytest.mark.parametrize("name", PLACES)
def test_it_works_as_anywhere_else(work: Path, plain: dict[str, str], tally: Counter[str], name: str) -> None:
    """docs, Containers: it asks nobody, needs no home and no file but in OUTPUT_DIR, runs as any user."""
    place = PLACES[name]
    raw, out, single = work / "raw", work / f"out {name}", work / f"single {name}"
    before = snapshot(raw)
    told = _go(work, place, out, single)
    tally["environments"] += 1
    assert told.codes == {"participant": 0, "group": 0, "image": 0}, told.err
    _check_place(place, told.found, work)
    assert told.asked == []
    assert {name: sha256(output_of(out, name)) for name in NAMES} == plain
    assert sha256(single / "harmonized.nii.gz") == plain[NAMES[0]]
    assert scan_files(out) == expected_files(*NAMES) | {"group_T1w.tsv", "group_T1w.json"}
    for page in ("sub-01.html", "sub-02.html", "group_T1w.html"):
        assert "T1w" in Page((out / page).read_text(encoding="utf-8")).text
    assert not [name for name in files(out) if ".tmp-" in name]
    assert files(single) == {"harmonized.nii.gz", "harmonized.json"}
    assert snapshot(raw) == before


UNWRITABLE = {
    "another user's output": (Place(user=NOBODY), 73),
    "read-only output": (Place(read_only=(Path("/"),)), 73),
    "full output": (Place(), 74),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_an_output_that_takes_nothing_is_told_in_one_sentence(
    work: Path, plain: dict[str, str], tally: Counter[str], name: str
) -> None:
    """docs, Exit codes: 73 and 74 where the output cannot be created or writing fails, in one sentence."""
    place, expected = UNWRITABLE[name]
    out, single = work / f"out {name}", work / f"single {name}"
    if name == "full output":
        place = Place(full=(out, single))
    told = _go(work, place, out, single, writable=False)
    tally["environments"] += 1
    # The level group looks for results first, and there are none.
    assert told.codes == {"participant": expected, "group": 18, "image": expected}, told.err
    for command, folder in (("participant", out), ("image", single)):
        (line,) = [line for line in told.of(command) if "unlike what the model" not in line]
        assert line.startswith("bids-harmonize")
        assert str(folder) in line
    assert "Traceback" not in told.err
    assert files(out) | files(single) == set()


def _check_place(place: Place, found: Mapping[str, Any], work: Path) -> None:
    """Whether the place was what it should be; else, to work there would be nothing."""
    assert found["environment"] == sorted(place.environment)
    if place.user is not None:
        assert (found["user"], found["known"], found["home"]) == (place.user, False, False)
    if not place.network:
        assert found["interfaces"] in ([], ["lo"])
    if MISSING in place.environment.values():
        assert not found["home"]
    unwritable = {str(folder) for folder in (*place.read_only, *place.empty, *place.full) if folder.is_dir()}
    assert not unwritable & set(found["writable"])
    if Path("/") in place.read_only:
        assert found["writable"] == []


def _go(work: Path, place: Place, out: Path, single: Path, *, writable: bool = True) -> Told:
    """Run all commands in a place."""
    for folder in (out, single):
        folder.mkdir()
        if writable and place.user is not None:
            os.chown(folder, place.user, place.user)
    temporary = ":".join(str(folder) for folder in TEMPORARY if folder.is_dir())
    folders = map(str, (ROOT, work / "raw", out, single))
    driver = [sys.executable, "-c", DRIVER, *folders, temporary, *FOR_ONE]
    done = subprocess.run(
        _in_place(place, driver, work, (out, single) if writable else ()),
        capture_output=True,
        text=True,
        check=False,
        cwd=work,
        env=dict(place.environment),
    )
    lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
    found = [json.loads(" ".join(rest)) for word, *rest in lines if word == "FOUND"]
    assert found, f"nothing was started: {done.stderr}"
    codes = {rest[0]: int(rest[1]) for word, *rest in lines if word == "EXIT"}
    (asked,) = [json.loads(" ".join(rest)) for word, *rest in lines if word == "ASKED"]
    return Told(found=found[0], asked=asked, codes=codes, err=done.stderr)


def _in_place(place: Place, command: Sequence[str], work: Path, outputs: Sequence[Path]) -> list[str]:
    """The command line that runs another one in a place."""
    network = [] if place.network else ["--net"]
    if place.mounts:
        if os.geteuid() != 0:
            pytest.skip("mounts and other users need root")
        unshare = _unshare("--mount", *network)
        return [*unshare, "sh", "-ec", "\n".join(_mounting(place, command, work, outputs))]
    if network:
        return [*_unshare(*network, *(["--map-root-user"] if os.geteuid() else [])), *command]
    return list(command)


def _unshare(*namespaces: str) -> list[str]:
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("there is no unshare, of util-linux")
    if subprocess.run([program, *namespaces, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"this system lets nobody unshare {' '.join(namespaces)}")
    return [program, *namespaces]


def _mounting(place: Place, command: Sequence[str], work: Path, outputs: Sequence[Path]) -> Iterator[str]:
    """Lines of a shell script: cover folders, but keep in them what the program is and works on."""
    kept = [ROOT, work, *map(Path, (sys.prefix, sys.base_prefix, *sys.path))]
    kept = [path for path in dict.fromkeys(kept) if path.is_dir()]
    # A user who is not root does not get through folders for root alone.
    closed = [] if place.user is None else [path for path in map(_closed, kept) if path]
    covered = dict.fromkeys([*closed, *place.empty, *place.full])
    covers = sorted((path for path in covered if path.is_dir()), key=lambda path: len(path.parts))
    hold = next(
        path for path in map(Path, ("/mnt", "/media", "/srv")) if path.is_dir() and path not in covers
    )
    yield f"mount -t tmpfs {MARK}-held {hold}"
    for number, path in enumerate(kept):
        yield f"mkdir {hold}/{number}; mount --rbind {quote(str(path))} {hold}/{number}"
    for folder in covers:
        yield f"mount -t tmpfs -o mode=755 {MARK}-cover {quote(str(folder))}"
        for number, path in enumerate(kept):
            if folder in path.parents:
                at = quote(str(path))
                yield f"mkdir -p {at}; mount --rbind {hold}/{number} {at}"
    for folder in outputs:
        yield f"mount --bind {quote(str(folder))} {quote(str(folder))}"
    for folder in place.full:
        if folder.is_dir():
            # The file system is made as small as it may be, and then filled to the last byte.
            yield f"mount -o remount,size=4k {quote(str(folder))}"
            yield f"cat /dev/zero >{quote(str(folder))}/fill 2>/dev/null || true"
    for folder in (*place.empty, *place.read_only):
        if folder.is_dir():
            mounted = "mountpoint -q" if folder not in place.empty else "true"
            yield f"if {mounted} {quote(str(folder))}; then mount -o remount,bind,ro {quote(str(folder))}; fi"
    yield f"umount -l {hold}; cd {quote(str(work))}"
    user = f"setpriv --reuid {place.user} --regid {place.user} --clear-groups " if place.user else ""
    # The shell leaves variables of its own behind.
    yield f"exec env -u PWD -u OLDPWD -u SHLVL {user}{join(command)}"


def _closed(path: Path) -> Path | None:
    """The first folder on the way to a path, or itself, that others may not enter."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None
