"""Images whose headers, data or compression are damaged, or lie, are read or refused, in bounded memory.

It is one file because most of its tests damage the same small files, by strategies that build on each other.
"""

from __future__ import annotations

import gzip
import logging
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bids_harmonize.cli import dataset as dataset_cli
from bids_harmonize.cli import image as image_cli
from bids_harmonize.errors import BadData
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.nifti import as_magnitude, open_image, read_voxels, with_voxels, zooms
from bids_harmonize.imaging.nifti_integrity import MAX_HEADER_BYTES
from tests.helpers.fuzzing import (
    SECONDS_FOR_ALL,
    called,
    check_sentence,
    check_told,
    clock,
    done_or_refused,
    fuzz,
)
from tests.helpers.toy_datasets import COMMON, FOR_ONE, ROOT, head, image_of, write_dataset

# A result that goes on with NaN is as bad as a crash.
pytestmark = [
    pytest.mark.filterwarnings("error::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("models_that_cannot_tell"),
]

# nibabel would log thousands of remarks on headers.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

SHAPE = (5, 4, 3)
DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64)
FIELDS = nib.Nifti1Header.template_dtype.names
# Fields of a header that decide how the file is read.
MATTERING = (
    *("dim", "pixdim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "magic", "sizeof_hdr"),
    *("qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_y", "xyzt_units", "intent_code"),
)
# Peak memory for a small file, whatever its header says; parsers and numpy itself take some.
LARGEST_PEAK = 3 * MAX_HEADER_BYTES


def small(kind: type[nib.Nifti1Image], dtype: type, endianness: str) -> bytes:
    """A valid image of a few voxels, not compressed."""
    voxels = np.arange(1, 1 + np.prod(SHAPE)).reshape(SHAPE).astype(dtype)
    image = kind(voxels, np.diag([2.0, 2.5, 3.0, 1.0]), header=kind.header_class(endianness=endianness))
    image.set_data_dtype(dtype)
    image.header.set_xyzt_units("mm", "sec")
    return bytes(image.to_bytes())


BASES = [
    small(kind, dtype, endianness)
    for kind in (nib.Nifti1Image, nib.Nifti2Image)
    for dtype in DTYPES
    for endianness in "<>"
]


def header_of(content: bytes) -> nib.Nifti1Header:
    kind = (
        nib.Nifti1Header
        if content[:4] in (struct.pack("<i", 348), struct.pack(">i", 348))
        else nib.Nifti2Header
    )
    return kind(content[: kind.template_dtype.itemsize], check=False)


def values(field: np.ndarray) -> st.SearchStrategy[Any]:
    """For a field of a header."""
    kind = field.dtype.kind
    if kind == "S":
        return st.sampled_from([b"n+1", b"ni1", b"n+2", b"ni2", b"n+1\0\r\n\x1a\n", b"", b"\xff"])
    if kind == "f":
        special = [0, -0.0, 1e-40, 0.01, 2, 16, 352, 353, 1e4, 1e9, 3e38, np.nan, np.inf, -np.inf, -1]
        one = st.sampled_from(special) | st.floats(width=32)
    else:
        limits = np.iinfo(field.dtype)
        special = [0, 1, 2, 3, 4, 7, 16, 64, 100, 128, 348, 352, 540, 544, 1537, 30_000, 2**31, 2**40, 2**62]
        known = [
            value for value in (*special, -1, limits.min, limits.max) if limits.min <= value <= limits.max
        ]
        one = st.sampled_from(known) | st.integers(int(limits.min), int(limits.max))
    if not field.shape:
        return one
    return one | st.lists(one, min_size=field.shape[0], max_size=field.shape[0])


@st.composite
def with_fields(draw: st.DrawFn, content: bytes) -> bytes:
    """Some fields say something else."""
    header = header_of(content)
    for name in draw(st.lists(st.sampled_from(MATTERING) | st.sampled_from(FIELDS), min_size=1, max_size=3)):
        if name in list(header):
            header[name] = draw(values(header[name]))
    block = header.binaryblock
    return block + content[len(block) :]


@st.composite
def with_shape(draw: st.DrawFn, content: bytes) -> bytes:
    """Another size, up to one that no memory holds, that would be an extent of a head all the same."""
    header = header_of(content)
    sizes = draw(st.lists(st.sampled_from([1, 2, 5, 100, 1000, 30_000]), min_size=1, max_size=7))
    header["dim"] = [len(sizes), *sizes, *[1] * (7 - len(sizes))]
    header["pixdim"][1:4] = header["srow_x"][0] = header["srow_y"][1] = header["srow_z"][2] = 0.01
    block = header.binaryblock
    return block + content[len(block) :]


@st.composite
def with_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes are others."""
    damaged = bytearray(content)
    # Another mutation may have left no bytes.
    for _ in range(draw(st.integers(1, 4)) if content else 0):
        place = draw(st.integers(0, len(content) - 1))
        new = draw(st.binary(min_size=1, max_size=8))
        damaged[place : place + len(new)] = new
    return bytes(damaged)


@st.composite
def with_extensions(draw: st.DrawFn, content: bytes) -> bytes:
    """Extensions before the voxels, of true and false sizes, of known and unknown kinds."""
    header = header_of(content)
    start = len(header.binaryblock)
    order = header.endianness
    extensions = b""
    for payload in draw(st.lists(st.binary(max_size=40), max_size=3)):
        sizes = [0, 1, 7, 8, 9, 16, 2**20, 2**31 - 16, -1, -(2**31)]
        size = draw(st.just(len(payload) + 8) | st.sampled_from(sizes))
        code = draw(st.sampled_from([0, 2, 4, 6, 32, 44, -1, 10**6]))
        extensions += struct.pack(f"{order}ii", size, code) + payload
    header["vox_offset"] = draw(
        st.just(start + 4 + len(extensions)) | st.sampled_from([0, 352, 544, 2**20, 2**31, 2**40])
    )
    if draw(st.booleans()):
        header["intent_code"] = draw(st.sampled_from([3000, 3001, 3007, 1007]))
    flag = draw(st.sampled_from([b"\1\0\0\0", b"\xff" * 4, b"\0\0\0\0"]))
    return header.binaryblock + flag + extensions + content[start + 4 :]


@st.composite
def of_another_length(draw: st.DrawFn, content: bytes) -> bytes:
    if draw(st.booleans()):
        return content[: draw(st.integers(0, len(content)))]
    return content + draw(st.sampled_from([b"\0", b"\xff"])) * draw(st.sampled_from([1, 1000, 3_000_000]))


MUTATIONS = st.sampled_from(
    [with_fields, with_fields, with_shape, with_bytes, with_extensions, of_another_length]
)


@st.composite
def images(draw: st.DrawFn) -> bytes:
    content = draw(st.sampled_from(BASES))
    for mutate in draw(st.lists(MUTATIONS, min_size=1, max_size=2)):
        try:
            content = draw(mutate(content))
        except nib.wrapstruct.WrapStructError:
            # It was cut within the header.
            return content
    return content


def use(path: Path, largest_peak: float = LARGEST_PEAK) -> None:
    """Do with an image what the program does before and after the model; the file is read or refused."""
    tracemalloc.start()
    try:
        with done_or_refused(path):
            image = open_image(path)
            voxels = as_magnitude(read_voxels(image))[0]
            assert np.isfinite(voxels).all()
            assert np.isfinite(intensity_scale(voxels))
            assert np.all(np.isfinite(zooms(image)))
            result = with_voxels(image, voxels)
            again = type(result).from_bytes(result.to_bytes())
            assert np.array_equal(np.asarray(again.dataobj).reshape(voxels.shape), voxels)
            assert np.array_equal(again.affine, image.affine, equal_nan=True)
        assert tracemalloc.get_traced_memory()[1] < largest_peak
    finally:
        tracemalloc.stop()


def with_field(content: bytes, name: str, value: Any) -> bytes:
    header = header_of(content)
    header[name] = value
    return header.binaryblock + content[len(header.binaryblock) :]


# Voxel sizes that cannot be squared, and voxels of which products overflow.
HUGE_VOXELS = with_field(small(nib.Nifti2Image, np.int16, "<"), "pixdim", [1, *[1e200] * 3, 1, 1, 1, 1])
BRIGHT_VOXELS = small(nib.Nifti1Image, np.float32, "<")[:-4] + struct.pack("<f", 3e38)
# A value that is not a number and signals it when it becomes a 64-bit float.
SIGNALLING_VOXELS = small(nib.Nifti1Image, np.float32, "<")[:-4] + struct.pack("<I", 0x7FA00000)


def test_damaged_images(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    @fuzz(tally, long, 800)
    @given(images(), st.sampled_from(["a.nii", "a.nii.gz", "a.NII.GZ"]))
    @example(to_byte_zero_with_extensions(), "a.nii")
    @example(with_field(HUGE_VOXELS, "sform_code", 0), "a.nii")
    @example(with_field(HUGE_VOXELS, "qform_code", 0), "a.nii")
    @example(BRIGHT_VOXELS, "a.nii")
    @example(SIGNALLING_VOXELS, "a.nii")
    @example(to_byte_zero_with_extensions(), "a.nii.gz")
    def read_or_refused(content: bytes, name: str) -> None:
        packed = gzip.compress(content, 1) if name.lower().endswith(".gz") else content
        (tmp_path / name).write_bytes(packed)
        use(tmp_path / name)


def to_byte_zero_with_extensions() -> bytes:
    """Voxels that begin within the header, and an extension that would take half of the memory."""
    header = header_of(BASES[0])
    header["vox_offset"] = 0
    return header.binaryblock + b"\1\0\0\0" + struct.pack("<ii", 2**31 - 16, 6) + bytes(1000)


# --- Compression ------------------------------------------------------------------------------------------


def member(content: bytes, **fields: int) -> bytes:
    """Of a gzip stream, with a sum or length that may be false."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(content) + deflate.flush()
    end = {"crc": zlib.crc32(content), "length": len(content) % 2**32} | fields
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + struct.pack("<II", end["crc"], end["length"])


@st.composite
def honest_streams(draw: st.DrawFn, content: bytes) -> bytes:
    """Of several members, empty ones too, with padding, as tapes and `cat` leave it."""
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=3)))
    parts = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    return b"".join(map(member, parts)) + bytes(draw(st.sampled_from([0, 1, 511, 5000])))


@st.composite
def damaged_streams(draw: st.DrawFn, content: bytes) -> bytes:
    packed = draw(honest_streams(content))
    how = draw(st.sampled_from(["cut", "bytes", "crc", "length", "garbage", "flags", "more", "again"]))
    match how:
        case "cut":
            return packed[: draw(st.integers(0, len(packed)))]
        case "bytes":
            return draw(with_bytes(packed))
        case "crc" | "length":
            return member(content, **{how: draw(st.integers(0, 2**32 - 1))})
        case "garbage":
            return packed + draw(st.binary(min_size=1, max_size=40))
        case "flags":
            # Extra fields, names and comments that are said to be there.
            return packed[:3] + bytes([draw(st.integers(1, 255))]) + packed[4:]
        case "more":
            return packed + member(bytes(draw(st.sampled_from([1, 10_000, 5_000_000]))))
    return packed * draw(st.integers(2, 5))


CONTENTS = st.sampled_from(BASES)


def test_streams_of_many_parts_are_read(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    @fuzz(tally, long, 100)
    @given(st.data())
    def read(data: st.DataObject) -> None:
        content = data.draw(CONTENTS)
        path = tmp_path / "a.nii.gz"
        path.write_bytes(data.draw(honest_streams(content)))
        (tmp_path / "a.nii").write_bytes(content)
        expected = read_voxels(open_image(tmp_path / "a.nii"))
        assert np.array_equal(read_voxels(open_image(path)), expected)


def test_damaged_streams(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    @fuzz(tally, long, 400)
    @given(CONTENTS.flatmap(damaged_streams) | st.binary(max_size=100))
    def read_or_refused(packed: bytes) -> None:
        (tmp_path / "a.nii.gz").write_bytes(packed)
        use(tmp_path / "a.nii.gz")


def test_a_false_sum_or_length_is_refused(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    @fuzz(tally, long, 50)
    @given(CONTENTS, st.sampled_from(["crc", "length"]), st.integers(1, 2**32 - 1))
    def refused(content: bytes, field: str, change: int) -> None:
        true = {"crc": zlib.crc32(content), "length": len(content)}[field]
        path = tmp_path / "a.nii.gz"
        path.write_bytes(member(content, **{field: true ^ change}))
        with pytest.raises(BadData, match=r"a\.nii\.gz is"):
            read_voxels(open_image(path))


# --- Size -------------------------------------------------------------------------------------------------


def of_shape(*shape: int, dtype: type = np.int16, offset: int | None = None) -> bytes:
    """A header alone."""
    header = nib.Nifti2Header() if max(shape) > np.iinfo(np.int16).max else nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(np.diag([*(200 / n for n in shape[:3]), 1]), 1)
    header["magic"] = b"n+2" if isinstance(header, nib.Nifti2Header) else b"n+1"
    header["vox_offset"] = offset or header.single_vox_offset
    return header.binaryblock + bytes(4)


ZEROS = member(bytes(2**24))


def _bomb(path: Path) -> None:
    path.write_bytes(member(of_shape(20, 20, 20) + bytes(16_000)) + 2**6 * ZEROS)


def _bomb_of_extensions(path: Path) -> None:
    start = of_shape(20, 20, 20, offset=2**30)[:348] + b"\1\0\0\0" + struct.pack("<ii", 2**30 - 352, 6)
    path.write_bytes(member(start) + 2**6 * ZEROS)


def _bomb_of_many_extensions(path: Path) -> None:
    start = of_shape(20, 20, 20, offset=MAX_HEADER_BYTES)[:348] + b"\1\0\0\0"
    path.write_bytes(gzip.compress(start + struct.pack("<ii", 8, 6) * (MAX_HEADER_BYTES // 8), 1))


def _terabytes(path: Path) -> None:
    path.write_bytes(gzip.compress(of_shape(2**14, 2**14, 2**14)))


def _terabytes_in_a_hole(path: Path) -> None:
    path.write_bytes(of_shape(2**14, 2**14, 2**13))
    with path.open("r+b") as file:
        file.truncate(2**43)


def _gigabytes(path: Path) -> None:
    path.write_bytes(of_shape(1000, 1000, 1000) + bytes(1000))


def _packed_gigabytes(path: Path) -> None:
    path.write_bytes(gzip.compress(of_shape(1000, 1000, 1000) + np.random.default_rng(0).bytes(3_000_000)))


def _without_end(path: Path) -> None:
    path.write_bytes(of_shape(2**60, 1, 1))


LIES = {
    "stream of a gigabyte": ("a.nii.gz", _bomb, "more than"),
    "extensions of a gigabyte": ("a.nii.gz", _bomb_of_extensions, "voxels would begin at byte"),
    "a million extensions": ("a.nii.gz", _bomb_of_many_extensions, "extensions"),
    "header of terabytes": ("a.nii.gz", _terabytes, "out of memory"),
    "file of terabytes": ("a.nii", _terabytes_in_a_hole, "out of memory"),
    "header of gigabytes": ("a.nii", _gigabytes, "1352 bytes instead of 2000000352"),
    "packed header of gigabytes": ("a.nii.gz", _packed_gigabytes, "bytes instead of 2000000352"),
    "header of exabytes": ("a.nii", _without_end, "a.nii"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_false_size_is_refused_before_memory_is_taken(
    tmp_path: Path, tally: Counter[str], lie: str
) -> None:
    tally["inputs fuzzed"] += 1
    name, write, words = LIES[lie]
    path = tmp_path / name
    write(path)
    tracemalloc.start()
    try:
        # The limit is far longer than the refusal takes, and shorter than reading it all would.
        with clock(10), pytest.raises(BadData) as caught:
            read_voxels(open_image(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        path.unlink()
    check_sentence(str(caught.value), path)
    assert words in str(caught.value)
    assert peak < LARGEST_PEAK


def test_a_scan_that_is_mostly_zeros_is_read(tmp_path: Path) -> None:
    n = 512
    path = tmp_path / "a.nii.gz"
    bright = np.full(n * n, 100, np.uint8).tobytes()
    # Air without noise is packed a thousandfold.
    air = bytes(n * n * (n - 1))
    path.write_bytes(gzip.compress(of_shape(n, n, n, dtype=np.uint8) + air + bright))
    assert path.stat().st_size * 500 < n**3
    voxels = read_voxels(open_image(path))
    assert (voxels.shape, voxels[:, :, -1].min(), voxels[:, :, :-1].max()) == ((n, n, n), 100, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux only")
def test_a_process_takes_no_memory_for_a_false_size(tmp_path: Path) -> None:
    honest, false = tmp_path / "honest.nii.gz", tmp_path / "false.nii.gz"
    nib.save(image_of(head()), honest)
    false.write_bytes(gzip.compress(of_shape(30_000, 30_000, 30_000)))
    peaks = []
    for path in (honest, false):
        code = (
            "import resource, sys; from bids_harmonize.cli.image import main; code = main(sys.argv[1:]); "
            "print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        options = [path, tmp_path / "out.nii.gz", "--modality", "T1w", *FOR_ONE]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, options)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        code, peak = map(int, done.stdout.split())
        peaks.append(peak)
        assert code == (0 if path == honest else 65), done.stderr
    assert peaks[1] <= peaks[0]
    assert done.stderr.count("\n") == 1
    check_sentence(done.stderr, false)


# --- Whole commands ---------------------------------------------------------------------------------------


def test_the_command_for_one_file(
    tmp_path: Path, tally: Counter[str], long: bool, random_model: Path
) -> None:
    @fuzz(tally, long, 15)
    @given(images() | CONTENTS)
    @example(BRIGHT_VOXELS)
    def done_or_one_sentence(content: bytes) -> None:
        source, output = tmp_path / "a.nii", tmp_path / "out" / "b.nii.gz"
        source.write_bytes(content)
        arguments = [str(source), str(output), "--model", str(random_model), *FOR_ONE]
        result = called(image_cli.main, arguments)
        assert result.code in (0, 65), result.err
        assert output.is_file() == (result.code == 0)
        check_told(result, source)
        shutil.rmtree(output.parent, ignore_errors=True)


def test_a_dataset(tmp_path: Path, tally: Counter[str], long: bool) -> None:
    @fuzz(tally, long, 2, SECONDS_FOR_ALL)
    @given(st.lists(images() | CONTENTS, min_size=6, max_size=6))
    def others_go_on(contents: list[bytes]) -> None:
        tally["inputs fuzzed"] += len(contents) - 1
        for folder in ("data", "out"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        dataset, output = write_dataset(tmp_path / "data"), tmp_path / "out"
        paths = [dataset / f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.parent.mkdir(parents=True)
            path.write_bytes(gzip.compress(content))
        result = called(dataset_cli.main, [str(dataset), str(output), "participant", *COMMON])
        check_told(result)
        names = [path.name.replace("_T1w", "_desc-harmonized_T1w") for path in paths]
        done = [any(output.rglob(name)) for name in names]
        assert result.code == (0 if all(done) else 65), result.err
        for path, there in zip(paths, done, strict=True):
            told = [line for line in result.err.splitlines() if path.name in line]
            assert any(line.endswith(" is harmonized") for line in told) == there
            assert there or told
