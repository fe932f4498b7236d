"""What is measured on a scan, and the choice of the reference group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bids_harmonize.errors import BadData
from bids_harmonize.measures.image_quality import QUALITY_METRICS, Quality
from bids_harmonize.phantom.anatomy import PHANTOM_LABELS, Head
from bids_harmonize.phantom.scanner import Receiver, render
from bids_harmonize.simulation.protocols import Protocol
from bids_harmonize.training.reference_group import ReferenceScan, measure_scan, select_group
from tests.helpers.toy_heads import HEAD_GRID, MPRAGE, T2_SPIN_ECHO, ball_scan

SPIN_ECHO = Protocol(field_strength=1.5, sequence="spin echo", tr=550, te=12)
RECEIVER = Receiver(gain=700, snr=40, shading=0.1)
GRADIENT_ECHO = Protocol(field_strength=3.0, sequence="spoiled gradient echo", tr=20, te=4, flip_angle=25)
TYPICAL = {"snr": 11.0, "snrd": 37.0, "cnr": 2.5, "efc": 0.5, "fber": 350.0, "inu": 0.05}


def white_matter(head: Head, volume: NDArray[np.float32]) -> float:
    return float(np.median(volume[head.labels_on(HEAD_GRID) == PHANTOM_LABELS.index("white matter")]))


def test_level_of_a_head_is_its_white_matter(head: Head) -> None:
    volume = render(head, T2_SPIN_ECHO, HEAD_GRID, RECEIVER, seed=(2,))
    scan = measure_scan("a", volume, HEAD_GRID.zooms, "T2w")
    assert scan.reference_intensity == pytest.approx(white_matter(head, volume), rel=0.12)
    assert set(scan.quality.values) == set(QUALITY_METRICS)


@pytest.mark.parametrize("protocol", [MPRAGE, SPIN_ECHO, GRADIENT_ECHO], ids=["MPRAGE", "SE", "GRE"])
def test_white_matter_is_found_where_fat_outshines_the_brain(head: Head, protocol: Protocol) -> None:
    volume = render(head, protocol, HEAD_GRID, RECEIVER, seed=(2,))
    scan = measure_scan("a", volume, HEAD_GRID.zooms, "T1w")
    assert scan.reference_intensity == pytest.approx(white_matter(head, volume), rel=0.12)


def pelvis(seed: int = 0) -> NDArray[np.float32]:
    """Fat all over the field of view, around a gland of 300."""
    rng = np.random.default_rng(seed)
    plane = np.full((64, 64), 900.0)
    plane[18:46, 18:46] = 300.0
    return np.repeat(plane[:, :, None], 8, axis=2).astype(np.float32) + rng.normal(0, 5, (64, 64, 8)).astype(
        np.float32
    )


@pytest.mark.parametrize("body_part", ["PROSTATE", "prostate", "ABDOMEN"])
def test_elsewhere_the_middle_of_the_field_of_view_counts(body_part: str) -> None:
    scan = measure_scan("a", pelvis(), (0.5, 0.5, 3.0), "T2w", body_part)
    assert scan.region.any(axis=(0, 1)).all()
    assert scan.region.sum() == 32 * 32 * 8
    assert scan.reference_intensity == pytest.approx(300, rel=0.01)
    assert set(scan.quality.missing) >= {"snr", "cnr"}


@pytest.mark.parametrize("body_part", ["HEAD", "brain", "PROSTATE"])
def test_the_scan_that_cannot_be_used_is_named(body_part: str) -> None:
    volume = np.zeros((30, 30, 30), np.float32)
    volume[2:4, 2:4, 14:16] = 100
    with pytest.raises(BadData, match=r"sub-07_T1w.*leave the scan out"):
        measure_scan("sub-07_T1w", volume, (1.0, 1.0, 1.0), "T1w", body_part)


def scaled(scan: ReferenceScan, factor: float, power: float = 1.0) -> ReferenceScan:
    volume = ((scan.volume / scan.reference_intensity) ** power * scan.reference_intensity * factor).astype(
        np.float32
    )
    return replace(scan, volume=volume, reference_intensity=scan.reference_intensity * factor)


def with_quality(scan: ReferenceScan, **worse: float) -> ReferenceScan:
    """Typical measures, but for some that are so many times worse."""
    values = {
        name: TYPICAL[name] * (1 / worse.get(name, 1) if measure.more_is_better else worse.get(name, 1))
        for name, measure in QUALITY_METRICS.items()
    }
    return replace(scan, quality=Quality(values=values))


def names(scans: Sequence[ReferenceScan]) -> list[str]:
    return [scan.name for scan in scans]


def candidates(number: int) -> list[ReferenceScan]:
    """Alike, each with measures that differ by chance."""
    rng = np.random.default_rng(5)
    return [
        with_quality(
            ball_scan(seed), **dict(zip(QUALITY_METRICS, np.exp(rng.normal(0, 0.1, 6)), strict=True))
        )
        for seed in range(number)
    ]


@pytest.mark.parametrize("place", [0, 3, 6])
def test_the_scan_of_another_contrast_leaves_first(place: int) -> None:
    scans = [scaled(ball_scan(seed), 1 + seed) for seed in range(7)]
    scans[place] = scaled(scans[place], 1.0, power=2.5)
    selection = select_group(scans, 6)
    assert names(selection.held_out) == [scans[place].name]
    assert "unlike the others" in selection.ranking[-1].reason


@pytest.mark.parametrize("place", [0, 3, 6])
@pytest.mark.parametrize("measure", QUALITY_METRICS)
def test_the_worst_of_scans_that_are_alike_leaves_first(place: int, measure: str) -> None:
    scans = [with_quality(replace(ball_scan(0), name=str(seed))) for seed in range(7)]
    scans[place] = with_quality(scans[place], **{measure: 1.5})
    selection = select_group(scans, 6)
    assert names(selection.held_out) == [str(place)]
    assert selection.ranking[-1].reason.startswith(QUALITY_METRICS[measure].weakness)


def test_a_scan_unlike_the_others_leaves_however_good_it_is() -> None:
    scans = candidates(7)
    everything = dict.fromkeys(QUALITY_METRICS, 0.2)
    scans[2] = scaled(with_quality(scans[2], **everything), 1.0, power=2.5)
    selection = select_group(scans, 6)
    assert selection.held_out == [scans[2]]
    assert selection.ranking[-1].candidate.quality > 2


def test_one_ruined_measure_weighs_less_than_a_few_bad_ones() -> None:
    scans = [with_quality(replace(ball_scan(0), name=str(seed))) for seed in range(7)]
    scans[1] = with_quality(scans[1], snrd=1e6)
    scans[4] = with_quality(scans[4], snr=2, snrd=2, cnr=2)
    assert names(select_group(scans, 6).held_out) == ["4"]


def test_differences_that_nobody_would_see_are_not_remarkable() -> None:
    scans = [with_quality(replace(ball_scan(0), name=str(seed))) for seed in range(7)]
    scans[3] = with_quality(scans[3], snr=1.02)
    ranking = select_group(scans, 7).ranking
    assert {ranked.reason for ranked in ranking} == {"nothing stands out"}


def test_distance_is_taken_anew_when_a_scan_has_left() -> None:
    scans = [replace(scaled(ball_scan(0), 1, 1 + 0.02 * n), name=str(n)) for n in range(6)]
    scans[0] = replace(scaled(ball_scan(0), 1, 6.0), name="far")
    ranking = select_group(scans, 3).ranking
    assert ranking[-1].candidate.scan.name == "far"
    last = ranking[-1].candidate.typical_distance
    assert all(ranked.candidate.typical_distance < last for ranked in ranking[:3])


def test_a_measure_that_some_scans_lack_is_compared_among_the_others() -> None:
    scans = candidates(6)
    values = dict(scans[4].quality.values)
    del values["fber"]
    scans[4] = replace(scans[4], quality=Quality(values=values, missing={"fber": "no air"}))
    ranking = {ranked.candidate.scan.name: ranked for ranked in select_group(scans, 5).ranking}
    assert set(ranking[scans[4].name].candidate.deviations) == set(QUALITY_METRICS) - {"fber"}
    assert set(ranking[scans[0].name].candidate.deviations) == set(QUALITY_METRICS)


def test_intensity_scale_does_not_decide_the_group() -> None:
    scan = ball_scan(0)
    np.testing.assert_allclose(scaled(scan, 17.0).quantiles, scan.quantiles, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 9])
def test_group_has_the_size_asked_for(size: int) -> None:
    scans = candidates(4)
    selection = select_group(scans, size)
    assert len(selection.group) == min(size, 4)
    assert len(scans) == 4


CANDIDATES = candidates(8)


@given(st.permutations(range(8)), st.integers(1, 9))
@settings(max_examples=25)
def test_choice_is_complete_and_blind_to_the_order(order: list[int], size: int) -> None:
    scans = [CANDIDATES[place] for place in order]
    selection = select_group(scans, size)
    assert names(selection.group) == [scan.name for scan in scans if scan in selection.group]
    assert sorted(names(selection.group) + names(selection.held_out)) == sorted(names(scans))
    assert [ranked.rank for ranked in selection.ranking] == list(range(1, 9))
    assert [ranked.chosen for ranked in selection.ranking] == [n < size for n in range(8)]
    assert {ranked.candidate.scan.name for ranked in selection.ranking if ranked.chosen} == set(
        names(selection.group)
    )
    scores = [ranked.candidate.score for ranked in selection.ranking if ranked.chosen]
    assert scores == sorted(scores, reverse=True)
    assert all(ranked.reason for ranked in selection.ranking)
    expected = select_group(CANDIDATES, size)
    assert [v.candidate.scan.name for v in selection.ranking] == [
        v.candidate.scan.name for v in expected.ranking
    ]


@given(st.integers(1, 7))
def test_a_larger_group_holds_the_smaller_one(size: int) -> None:
    small, large = select_group(CANDIDATES, size), select_group(CANDIDATES, size + 1)
    assert set(names(small.group)) < set(names(large.group))
