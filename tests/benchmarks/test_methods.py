"""The methods that are compared: what each does to a scan, and how it is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray

from tests.helpers.benchmark_extra import require_benchmark_extra

require_benchmark_extra()

from benchmarks.methods import NAMES, OURS, SWAPPED, Method, make_methods
from benchmarks.scans import Scan

pytestmark = pytest.mark.benchmark

SHAPE = (32, 36, 30)
OTHERS = [name for name in NAMES if name != OURS]


def toy_scan(seed: int) -> Scan:
    """A brain of 900 within 600 within 200, in scalp of 1200, at 2 mm."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, n) for n in SHAPE]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x**2 + y**2 + z**2) / rng.uniform(0.9, 1.1))
    signal = np.select([radius < 0.35, radius < 0.6, radius < 0.7, radius < 0.85], [900, 600, 200, 1200], 0)
    volume = np.hypot(signal + rng.normal(0, 15, SHAPE), rng.normal(0, 15, SHAPE)).astype(np.float32)
    return Scan(
        name=f"toy-{seed}",
        participant=f"toy-{seed}",
        site="toy",
        modality="T1w",
        volume=volume,
        zooms=(2.0, 2.0, 2.0),
        affine=np.diag([2.0, 2.0, 2.0, 1.0]),
        head=radius < 0.85,
        brain=radius < 0.7,
    )


GROUP = [toy_scan(seed) for seed in range(3)]
SCAN = toy_scan(7)


def method(name: str, folder: Path, model: Path | None = None) -> Method:
    return make_methods([name], "T1w", GROUP, model or "T1w", folder)[0]


@pytest.mark.parametrize("name", OTHERS)
def test_every_method_gives_a_volume(name: str, tmp_path: Path) -> None:
    made = method(name, tmp_path)
    volume = made.apply(SCAN)
    assert made.failures == {}
    assert volume.shape == SHAPE
    assert volume.dtype == np.float32
    white, grey = (np.median(volume[SCAN.volume > edge]) for edge in (1000, 500))
    assert white > grey


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "none"])
def test_the_unit_of_the_scan_does_not_matter(name: str, tmp_path: Path) -> None:
    made = method(name, tmp_path)
    brighter = replace(SCAN, name="brighter", volume=SCAN.volume * np.float32(37))
    first, second = made.apply(SCAN)[SCAN.head], made.apply(brighter)[SCAN.head]
    assert np.abs(first - second).mean() < 0.005 * np.ptp(first)


def test_ours_is_the_model(untrained_model: Path, tmp_path: Path) -> None:
    made = method(OURS, tmp_path, untrained_model)
    output, inside = made.apply(SCAN), SCAN.volume > 300
    assert made.failures == {}
    # This model changes nothing but the scale.
    gain = output[inside] / SCAN.volume[inside]
    assert np.ptp(gain) < 1e-3 * gain.mean()


def test_z_score_by_its_definition(tmp_path: Path) -> None:
    values = method("z-score", tmp_path).apply(SCAN)[SCAN.brain]
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.01)


def test_histogram_matching_gives_the_groups_histogram(tmp_path: Path) -> None:
    values = method("histogram matching", tmp_path).apply(SCAN)[SCAN.brain]
    group = np.concatenate([scan.volume[scan.brain] / np.median(scan.volume[scan.brain]) for scan in GROUP])
    levels = [0.1, 0.3, 0.5, 0.7, 0.9]
    assert np.quantile(values, levels) == pytest.approx(np.quantile(group, levels), rel=0.02)


def test_spectrum_swapping_takes_the_lowest_coefficients_of_another_scan(tmp_path: Path) -> None:
    everywhere: NDArray[np.bool_] = np.ones(SHAPE, dtype=bool)
    swapped = method("spectrum swapping", tmp_path).apply(replace(SCAN, head=everywhere))
    low = (slice(SWAPPED),) * 3
    found = scipy.fft.dctn(swapped, norm="ortho")
    assert any(
        np.allclose(
            found[low] * group.volume.max() / swapped.max(), scipy.fft.dctn(group.volume, norm="ortho")[low]
        )
        or np.corrcoef(found[low].ravel(), scipy.fft.dctn(group.volume, norm="ortho")[low].ravel())[0, 1]
        > 0.999999
        for group in GROUP
    )


def test_n4_flattens_a_receive_field(tmp_path: Path) -> None:
    # Two tissues in blocks all over: what varies over the whole head is no anatomy.
    blocks = np.random.default_rng(1).integers(0, 2, (8, 9, 8)).astype(bool)
    white = np.kron(blocks, np.ones((4, 4, 4)))[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(bool) & SCAN.head
    shading = np.exp(np.linspace(-0.4, 0.4, SHAPE[0], dtype=np.float32))[:, None, None]
    shaded = replace(
        SCAN, name="shaded", volume=np.float32(SCAN.head) * np.where(white, 900, 600).astype("f4") * shading
    )
    made = method("N4 + z-score", tmp_path)
    made.apply(shaded)
    assert made.before is not None
    corrected = made.before.apply(shaded)
    before, after = (volume[white].std() / volume[white].mean() for volume in (shaded.volume, corrected))
    assert after < 0.5 * before


def test_a_method_runs_once_per_scan_and_times_include_what_comes_before(tmp_path: Path) -> None:
    calls: list[str] = []

    def double(scan: Scan) -> NDArray[np.float32]:
        calls.append(scan.name)
        return 2 * scan.volume

    first = Method(name="first", function=double, folder=tmp_path)
    second = Method(name="second", function=double, folder=tmp_path, before=first)
    for _ in range(2):
        assert np.array_equal(second.apply(SCAN), 4 * SCAN.volume)
    assert calls == [SCAN.name, SCAN.name]
    assert second.seconds[SCAN.name] >= first.seconds[SCAN.name] > 0


def test_a_failure_counts_as_unchanged_and_is_recorded(tmp_path: Path) -> None:
    def fail(scan: Scan) -> NDArray[np.float32]:
        raise ValueError("no white matter")

    failing = Method(name="failing", function=fail, folder=tmp_path)
    endless = Method(name="endless", function=lambda scan: scan.volume / np.float32(0), folder=tmp_path)
    with np.errstate(all="ignore"):
        assert np.array_equal(endless.apply(SCAN), SCAN.volume)
    assert np.array_equal(failing.apply(SCAN), SCAN.volume)
    assert failing.failures == {SCAN.name: "no white matter"}
    assert list(endless.failures) == [SCAN.name]
