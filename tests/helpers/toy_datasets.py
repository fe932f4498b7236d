"""Small datasets with head-like scans, and calls of the program, for tests of whole commands."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_harmonize.cli import image as image_cli
from bids_harmonize.cli.dataset import main

ROOT = Path(__file__).parents[2]
SHAPE = (20, 24, 20)
SPACING = 9.0
# One thread on the CPU gives the same everywhere and costs little. Bundled models flag toys.
FOR_ONE = ("--omp-nthreads", "1", "--device", "cpu", "--out-of-distribution", "harmonize")
# A process of its own for a toy would gain nothing.
COMMON = ("--n-cpus", "1", *FOR_ONE)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a call of the program gave back."""

    code: int
    out: str
    err: str


def harmonize(*arguments: str | Path) -> Result:
    """Call the program in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*map(str, arguments), *common_options(arguments)])
    return Result(code=code, out=out.getvalue(), err=err.getvalue())


def harmonize_image(*arguments: str | Path) -> Result:
    """Call the command for one file in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = image_cli.main([*map(str, arguments), *common_options(arguments, FOR_ONE)])
    return Result(code=code, out=out.getvalue(), err=err.getvalue())


def harmonize_on_terminal(*arguments: str | Path, columns: int = 500) -> Result:
    """Call the program in this process, with its standard error on a terminal."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    out, received = io.StringIO(), bytearray()
    reader = threading.Thread(target=_receive, args=(master, received))
    with open(slave, "w", encoding="utf-8") as err:
        reader.start()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*map(str, arguments), *common_options(arguments)])
    reader.join()
    os.close(master)
    return Result(code=code, out=out.getvalue(), err=received.decode())


def _receive(master: int, received: bytearray) -> None:
    try:
        while chunk := os.read(master, 4096):
            received += chunk
    except OSError:
        # Linux raises this error when the other end is closed.
        return


def screen(written: str) -> list[str]:
    """The lines that a terminal shows; the last one is where the cursor is."""
    lines = [""]
    for part in re.findall(r"\r\n|\n|\r\x1b\[K|[^\r\n\x1b]+|.", written):
        if part in ("\r\n", "\n"):
            lines.append("")
        elif part == "\r\x1b[K":
            lines[-1] = ""
        else:
            lines[-1] += part
    return lines


def harmonize_apart(*arguments: str | Path, **settings: Any) -> Result:
    """Call ``run.py`` as a user does, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *map(str, arguments), *common_options(arguments)],
        capture_output=True,
        text=True,
        check=False,
        **settings,
    )
    return Result(code=done.returncode, out=done.stdout, err=done.stderr)


def counts(result: Result) -> dict[str, int]:
    """Number of scans with each outcome, by the table at the end; zeros are left out."""
    lines = re.findall(r"^ *([0-9]+) ([a-z ]*[a-z])(?: +[0-9.]+ s)?$", result.out, re.MULTILINE)
    return {state: int(count) for count, state in lines if int(count)}


def common_options(arguments: Sequence[str | Path], common: Sequence[str] = COMMON) -> list[str]:
    """The common options that were not given and do something at the level."""
    refused = {"group": FOR_ONE[::2], "train": ("--out-of-distribution",)}
    left_out = {*arguments, *(name for level in refused if level in arguments for name in refused[level])}
    pairs = zip(common[::2], common[1::2], strict=True)
    return [part for pair in pairs if pair[0] not in left_out for part in pair]


def head(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.int16]:
    """A ball of white matter in grey matter in fluid in fat, shaded and noisy, in air."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x / 0.85) ** 2 + (y / 0.9) ** 2 + (z / 0.85) ** 2)
    signal = np.select([radius < 0.55, radius < 0.75, radius < 0.85, radius < 1], [600, 400, 150, 800], 0)
    shaded = signal * np.exp(0.2 * rng.uniform(-1, 1) * x + 0.2 * rng.uniform(-1, 1) * y)
    noisy = np.hypot(shaded + rng.normal(0, 12, shape), rng.normal(0, 12, shape))
    return np.rint(noisy).astype(np.int16)


def image_of(
    voxels: NDArray[Any], spacing: tuple[float, ...] | float = SPACING, *, qform: int = 1, sform: int = 1
) -> nib.Nifti1Image:
    """An image with its origin in the middle of the field of view and axes to the right, front and top."""
    affine = np.diag([*np.broadcast_to(spacing, 3), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(voxels.shape[:3]) - 1) / 2)
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, qform)
    image.set_sform(affine, sform)
    image.header.set_xyzt_units("mm", "sec")
    return image


def write_dataset(folder: Path) -> Path:
    """A BIDS dataset without participants."""
    folder.mkdir(parents=True)
    description = {"Name": "Toys", "BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["A. B.", "C. D."]}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    return folder


def write_scan(
    dataset: Path, name: str, image: nib.Nifti1Image | None = None, sidecar: Mapping[str, Any] | None = None
) -> Path:
    """Write a scan under its BIDS name, such as ``sub-01_T1w.nii.gz``, in the folder where it belongs."""
    folders = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
    path = dataset.joinpath(*folders, "anat", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image_of(head(len(name))) if image is None else image, path)
    if sidecar is not None:
        (path.parent / f"{name.split('.')[0]}.json").write_text(json.dumps(sidecar))
    return path


def load(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def voxels_of(path: Path) -> NDArray[np.float32]:
    return np.asarray(load(path).dataobj, dtype=np.float32)


def output_of(output_dir: Path, name: str) -> Path:
    """The harmonized image of the scan with a BIDS name."""
    stem = name.split(".")[0]
    entities, suffix = stem.rsplit("_", 1)
    folders = [part for part in entities.split("_") if part.startswith(("sub-", "ses-"))]
    return output_dir.joinpath(*folders, "anat", f"{entities}_desc-harmonized_{suffix}.nii.gz")


def sidecar_of(output: Path) -> dict[str, Any]:
    return json.loads(output.with_name(output.name.replace(".nii.gz", ".json")).read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of every file, links followed; folders count with their time only."""
    return {
        path.relative_to(folder).as_posix(): (sha256(path) if path.is_file() else "", path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.exists()
    }


def files(folder: Path) -> set[str]:
    return {
        Path(base, name).relative_to(folder).as_posix()
        for base, _, names in os.walk(folder)
        for name in names
    }


# Files that a command leaves behind besides the scans' own and the logs.
DATASET_FILES = {"dataset_description.json", "README", ".bidsignore"}


def scan_files(output_dir: Path) -> set[str]:
    """Every file of the output but those of the dataset as a whole, the logs and the reports."""
    return {
        name for name in files(output_dir) - DATASET_FILES if not (name.startswith("logs/") or _report(name))
    }


def _report(name: str) -> bool:
    return "/figures/" in name or ("/" not in name and name.endswith(".html"))


def expected_files(*names: str, curves: bool = False) -> set[str]:
    """The files that belong to harmonized scans with these BIDS names, relative to the output."""
    endings = (".nii.gz", ".json", *(("_curves.safetensors",) if curves else ()))
    stems = [output_of(Path("."), name).as_posix().removesuffix(".nii.gz") for name in names]
    return {stem + ending for stem in stems for ending in endings}
