"""A GPU without enough memory for a scan."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bids_harmonize.model import bilateral_grid, harmonizer, loading, transform
from bids_harmonize.model.harmonizer import Model
from tests.helpers.toy_datasets import (
    harmonize,
    head,
    image_of,
    output_of,
    sidecar_of,
    voxels_of,
    write_dataset,
    write_scan,
)

GPU = torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


class SmallMemory:
    """Simulates a device whose memory holds so many voxels, and none of the CPU's."""

    def __init__(self, voxels: int) -> None:
        self.voxels = voxels
        self.tried: list[int] = []

    def slice_volume(
        self, curves: Any, cells: Any, volume: torch.Tensor, chunk_voxels: int, unit: float
    ) -> torch.Tensor:
        """As `bilateral_grid.slice_volume`, which holds one plane at least at a time."""
        plane = volume.shape[0] * volume.shape[1]
        at_once = min(volume.numel(), max(plane, chunk_voxels))
        self.tried.append(at_once)
        if at_once > self.voxels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB.")
        return bilateral_grid.slice_volume(curves, cells, volume, chunk_voxels, unit)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    dataset = write_dataset(tmp_path / "data")
    write_scan(dataset, "sub-01_T1w.nii.gz")
    write_scan(dataset, "sub-02_T1w.nii.gz", image_of(head(1, (6, 6, 6)), 20))
    return dataset


def test_simulated_smaller_chunks_give_the_same_voxels(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Counter[str]
) -> None:
    """Simulated: where a whole scan does not fit, parts of it do; a warning and the sidecar say so."""
    assert harmonize(dataset, tmp_path / "plenty", "participant").code == 0
    plane = 24 * 20
    monkeypatch.setattr(harmonizer, "CHUNK_VOXELS", harmonizer.CHUNK_REDUCTION * plane)
    memory = SmallMemory(plane)
    monkeypatch.setattr(transform, "slice_volume", memory.slice_volume)
    result = harmonize(dataset, tmp_path / "out", "participant")
    assert result.code == 0, result.err
    (warning,) = (line for line in result.err.splitlines() if "too small" in line)
    assert warning.startswith("sub-01/anat/sub-01_T1w.nii.gz: ")
    assert max(memory.tried) > plane
    for name, remarked in (("sub-01_T1w.nii.gz", True), ("sub-02_T1w.nii.gz", False)):
        output = output_of(tmp_path / "out", name)
        warnings = sidecar_of(output)["BidsHarmonize"]["Warnings"]
        assert (
            "the memory of the device cpu was too small; it was harmonized in smaller parts" in warnings
        ) is (remarked)
        assert (voxels_of(output) == voxels_of(output_of(tmp_path / "plenty", name))).all()
    tally["scans survived a full GPU (simulated)"] += 1


def test_simulated_then_the_cpu_does_it(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Counter[str]
) -> None:
    """Simulated: where not even parts fit, the CPU does the scan, and the sidecar names it as the device."""
    splat = bilateral_grid.splat
    tried: list[str] = []

    def out_of_memory(volume: torch.Tensor, cells: Any, device: torch.device, unit: float) -> torch.Tensor:
        tried.append(device.type)
        if device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB.")
        return splat(volume, cells, device, unit)

    load = Model.load.__func__  # type: ignore[attr-defined]
    assert harmonize(dataset, tmp_path / "cpu", "participant").code == 0
    monkeypatch.setattr(harmonizer, "splat", out_of_memory)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: tried.append("emptied"))
    monkeypatch.setattr(
        Model, "load", classmethod(lambda cls, *given: replace(load(cls, *given), device=GPU))
    )
    result = harmonize(dataset, tmp_path / "out", "participant", "-v")
    assert result.code == 0, result.err
    assert tried == 2 * ["cuda", "emptied", "cuda", "emptied", "cpu"]
    for name in ("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"):
        output = output_of(tmp_path / "out", name)
        record = sidecar_of(output)["BidsHarmonize"]
        assert (record["Device"], record["CUDAVersion"]) == ("cpu", None)
        remark = "the memory of the device cuda was too small; it was harmonized on the CPU"
        assert remark in record["Warnings"]
        assert remark in result.err
        assert output.read_bytes() == output_of(tmp_path / "cpu", name).read_bytes()
    tally["scans survived a full GPU (simulated)"] += 2


def test_simulated_no_memory_anywhere_fails_with_a_sentence(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: a scan that fits nowhere fails, as bad data do, and says what to do."""
    monkeypatch.setattr(transform, "slice_volume", SmallMemory(0).slice_volume)
    result = harmonize(dataset, tmp_path / "out", "participant")
    assert result.code == 65
    assert result.err.count("out of memory; allow the process more") == 2
    assert "Traceback" not in result.err


def test_simulated_a_gpu_that_is_full_from_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """Simulated: a device without memory for the model itself is told, and the CPU used."""

    class Network(torch.nn.Module):
        def to(self, device: Any) -> Network:  # type: ignore[override]
            if torch.device(device).type != "cpu":
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return self

    monkeypatched = loading.log.propagate
    loading.log.propagate = True
    try:
        network, device = loading.to_device_or_cpu(Network(), GPU)  # type: ignore[arg-type]
    finally:
        loading.log.propagate = monkeypatched
    assert (type(network), device.type) == (Network, "cpu")
    assert "the device cuda has no memory left; the CPU is used instead" in caplog.text


@needs_gpu
def test_a_gpu_without_memory(dataset: Path, tally: Counter[str]) -> None:
    """Really: a GPU that gives this process no memory does nothing; the CPU gives the CPU's voxels."""
    import nibabel

    path = next(dataset.rglob("sub-01_T1w.nii.gz"))
    loaded = Model.load("T1w", "cuda")
    torch.cuda.set_per_process_memory_fraction(1e-9)
    try:
        result = loaded.harmonize(nibabel.load(path))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.device.type == "cpu"
    assert any("on the CPU" in remark for remark in result.remarks)
    expected = Model.load("T1w", "cpu").harmonize(nibabel.load(path))
    assert (result.image.dataobj == expected.image.dataobj).all()
    tally["scans survived a full GPU"] += 1
