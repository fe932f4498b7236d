"""Tier F on toys: the logistic regression finds what differs between sites, and only that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_extra import require_benchmark_extra

require_benchmark_extra()

from benchmarks.tiers.site_logistic_probe import (
    SLABS,
    Coarse,
    ProbeExample,
    block_mean,
    cross_validated_sites,
    gradient_magnitude,
    recognized,
    run,
)
from bids_harmonize.measures.quantiles import QUANTILES
from tests.helpers.benchmark_data import ball, method, normalized, stripped, toy_data, unchanged

pytestmark = pytest.mark.benchmark

BRAIN = "site probe, brain: balanced accuracy"


def examples(shift: float, scans: int = 16) -> list[ProbeExample]:
    """Two sites that differ by `shift` standard deviations in one of three features."""
    rng = np.random.default_rng(0)
    return [
        ProbeExample(
            label="ab"[k % 2],
            group=f"{k}",
            features=rng.normal([shift * (k % 2), 0, 0], size=(3, 3)),
        )
        for k in range(scans)
    ]


def test_sites_that_differ_are_found() -> None:
    assert cross_validated_sites(examples(6.0)) == ["ab"[k % 2] for k in range(16)]


def test_sites_that_do_not_differ_are_guessed() -> None:
    found = cross_validated_sites(examples(0.0, 40))
    assert 0.25 < np.mean([label == "ab"[k % 2] for k, label in enumerate(found)]) < 0.75


def test_a_group_is_never_on_both_sides() -> None:
    """A scan with traits of its own cannot be recognized: no scan like it is left to learn from."""
    alone = [ProbeExample(label="c", group="lonely", features=np.full((2, 3), 50.0)) for _ in range(2)]
    assert "c" not in cross_validated_sites([*examples(6.0), *alone])[-2:]


def test_gradient_is_per_millimetre() -> None:
    for zoom in (1.0, 2.5):
        ramp = 7 * zoom * np.arange(12, dtype=np.float32)[:, None, None] * np.ones((12, 5, 6), np.float32)
        np.testing.assert_allclose(gradient_magnitude(ramp, (zoom, 1, 3)), 7, rtol=1e-5)


def test_blocks_are_averaged() -> None:
    volume = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    averaged = block_mean(volume, (2, 2, 1))
    assert averaged.shape == (2, 2, 3)
    assert averaged[1, 0, 2] == volume[2:4, 0:2, 2].mean()


def test_features_of_slabs() -> None:
    coarse = Coarse.of(ball(0), ball(0).volume)
    slabs = coarse.slabs()
    assert slabs.shape == (SLABS, coarse.features(coarse.brain).size)
    # White matter, the brightest, lies in the middle.
    bright = QUANTILES.size * 9 // 10
    middle, outer = slabs[[2, 3], bright].mean(), slabs[[0, -1], bright].mean()
    assert middle > outer


def test_people_are_recognized_by_their_edges() -> None:
    scans = [ball(seed) for seed in range(5)]
    raw = np.stack([Coarse.of(scan, scan.volume).edges() for scan in scans])
    darker = np.stack([Coarse.of(scan, np.sqrt(scan.volume)).edges() for scan in scans])
    assert all(recognized(darker, raw, scans))
    assert not any(recognized(np.roll(darker, 1, axis=0), raw, scans))


def test_probe_of_whole_toys(tmp_path: Path) -> None:
    group = [ball(seed) for seed in range(5)]
    bright = [ball(seed, "bright", gain=9.0) for seed in range(10, 14)]
    alone = ball(20, "alone")
    heads = [ball(seed, site, gain) for seed in (30, 31) for site, gain in (("p", 1.0), ("q", 9.0))]
    data = toy_data(tmp_path, group=group, others=[*bright, stripped(ball(21)), alone], heads=heads)
    methods = [method(tmp_path, unchanged, "none"), method(tmp_path, normalized, "ideal")]
    rows = {(row.method, row.metric): row for row in run(methods, data)}
    row = rows["none", f"{BRAIN} (chance 0.50)"]
    # Sites of one scan are left out.
    assert row.value == 1 and row.n == len(group) + len(bright)
    low, high = (rows["none", f"{BRAIN}, 95 % interval {end}"].value for end in ("from", "to"))
    assert 0.5 < low < high == 1
    assert rows["ideal", f"{BRAIN} (chance 0.50)"].value < 0.8
    simulated = "site probe, simulated protocols: balanced accuracy (chance 0.50)"
    assert rows["none", simulated].value == 1 and rows["none", simulated].n == len(heads)
    assert rows["ideal", "people recognizable, share"].value == 1
