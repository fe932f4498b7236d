"""Tier D and what it measures intensities by, on toy scans of which the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.benchmark_extra import require_benchmark_extra

require_benchmark_extra()

from benchmarks.methods import OURS
from benchmarks.tiers.distribution import AS_IT_IS, HARMONIZED, between_sites, distance, distance_to, run
from benchmarks.tiers.intensities import (
    WHITE_MATTER,
    Scale,
    as_it_is,
    fit_scale,
    harmonized_group,
    measure,
    tissue_medians,
)
from tests.helpers.benchmark_data import ball, method, normalized, stripped, toy_data, unchanged

pytestmark = pytest.mark.benchmark

GROUP = [ball(seed) for seed in range(4)]
CURVE = np.linspace(10, 900, 49)


@given(st.floats(0.01, 100), st.floats(-50, 50))
def test_the_map_between_scales_is_found(slope: float, offset: float) -> None:
    curves = [CURVE, CURVE**1.1]
    found = fit_scale(curves, [slope * curve + offset for curve in curves])
    assert found.slope == pytest.approx(slope, rel=1e-6)
    assert found.offset == pytest.approx(offset, abs=1e-3)


def test_a_scale_maps_measures_as_it_maps_voxels() -> None:
    scan, scale = GROUP[0], Scale(slope=3.0, offset=-40.0)
    mapped, of_mapped = measure(scan, scan.volume).scaled(scale), measure(scan, scale(scan.volume))
    np.testing.assert_allclose(mapped.curves["head"], of_mapped.curves["head"], rtol=1e-4)
    np.testing.assert_allclose([mapped.white, mapped.grey], [of_mapped.white, of_mapped.grey], rtol=1e-4)


def test_tissues_of_a_toy() -> None:
    scan = ball(0)
    white, grey = tissue_medians(scan.volume[scan.brain].astype(float), "T1w")
    assert (white, grey) == (pytest.approx(900, rel=0.02), pytest.approx(600, rel=0.02))


def test_raw_scans_are_in_units_of_white_matter() -> None:
    assert as_it_is(ball(1, gain=17.0)).white == pytest.approx(WHITE_MATTER)


def test_baselines_are_mapped_to_the_reference_scale_and_ours_is_not(tmp_path: Path) -> None:
    z_score = method(tmp_path, lambda scan: normalized(scan) * 7 - 3)
    _, group = harmonized_group(z_score, GROUP)
    assert group[0].white == pytest.approx(WHITE_MATTER, rel=0.01)
    ours = method(tmp_path, lambda scan: normalized(scan) * 7, OURS)
    scale, group = harmonized_group(ours, GROUP)
    assert scale == Scale(slope=1.0)
    assert group[0].white == pytest.approx(7, rel=0.01)


def test_a_mask_too_large_for_a_brain_gives_no_tissue() -> None:
    scan = ball(0)
    everything = type(scan)(**{**vars(scan), "zooms": (9.0, 9.0, 9.0)})
    assert np.isnan(measure(everything, scan.volume).white)


@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_distance_has_no_unit(slope: float, offset: float) -> None:
    other = CURVE**1.05
    far = distance(slope * other + offset, slope * CURVE + offset)
    assert far == pytest.approx(distance(other, CURVE), rel=1e-6)
    assert distance(CURVE, CURVE) == 0


def test_a_stripped_scan_is_compared_inside_the_brain() -> None:
    to_group = distance_to([as_it_is(scan) for scan in GROUP])
    whole, bare = GROUP[0], stripped(GROUP[0])
    assert as_it_is(bare).stripped and not as_it_is(whole).stripped
    assert to_group(as_it_is(bare)) < 0.03
    # Its head holds nothing but brain: as a head it would be far away.
    as_head = distance(as_it_is(bare).curves["head"], as_it_is(whole).curves["head"])
    assert as_head > 0.1


def test_sites_alike_are_near_and_others_far() -> None:
    group = [as_it_is(scan) for scan in GROUP]
    near = [as_it_is(ball(seed, "near")) for seed in (10, 11)]
    far = [as_it_is(ball(seed, "far", grey=850.0)) for seed in (10, 11)]
    (to_near,) = between_sites([*group, *near], group)
    (to_far,) = between_sites([*group, *far], group)
    assert to_near < 0.03 < to_far


def test_a_method_that_undoes_the_gain_is_near_the_group(tmp_path: Path) -> None:
    sites = [ball(seed, site, gain) for seed, (site, gain) in enumerate([("a", 2), ("a", 3), ("b", 0.2)], 20)]
    data = toy_data(tmp_path, group=GROUP, unseen=[ball(9)], others=sites)
    methods = [method(tmp_path, unchanged, "none"), method(tmp_path, normalized, "ideal")]
    rows = {(row.method, row.metric): row for row in run(methods, data)}
    figure = f"{AS_IT_IS}, mean of new sites"
    assert rows["ideal", figure].value < 0.03 < 0.3 < rows["none", figure].value
    assert rows["ideal", figure].n == 2 and rows["ideal", figure].scans_used == 3
    assert rows["ideal", "white-matter median, CoV"].value < 0.02
    assert rows["none", "white-matter median, CoV"].value > 0.3
    assert rows["none", f"{AS_IT_IS}, left-out person"].value < 0.03
    # Ratios do not feel a gain.
    ratios = [rows[name, "grey/white ratio, CoV"].value for name in ("none", "ideal")]
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-3)


def test_the_scale_of_a_baseline_does_not_matter(tmp_path: Path) -> None:
    data = toy_data(tmp_path, group=GROUP, unseen=[ball(9)], others=[ball(8, "a", 2.0, 700.0)])
    methods = [
        method(tmp_path, normalized, "one"),
        method(tmp_path, lambda scan: normalized(scan) * 250, "many"),
    ]
    rows = run(methods, data)
    half = len(rows) // 2
    for one, many in zip(rows[:half], rows[half:], strict=True):
        assert one.metric == many.metric
        assert one.value == pytest.approx(many.value, rel=1e-3)


def test_a_method_that_inverts_contrast_is_near_its_own_group_only(tmp_path: Path) -> None:
    inverted = method(tmp_path, lambda scan: 2000 - 1000 * normalized(scan), OURS)
    data = toy_data(tmp_path, group=GROUP, others=[ball(5, "a")])
    rows = {row.metric: row.value for row in run([inverted], data)}
    assert rows[f"{HARMONIZED}, a"] < 0.03 < 0.1 < rows[f"{AS_IT_IS}, a"]
