"""Simulated scans of the benchmark: one person under several protocols, with field and noise of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulated import PROTOCOLS, REFERENCE_LIKE, SHADING, Subject, acquire, polynomial_field
from bids_harmonize.simulation.label_heads import Head
from tests.helpers.toy_heads import label_map, write_label_map

pytestmark = pytest.mark.benchmark

T1W, T2W = list(PROTOCOLS["T1w"]), list(PROTOCOLS["T2w"])
BALL = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, 24)] * 2))[..., None] * np.ones(20) < 0.8


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    return Head.read(write_label_map(tmp_path_factory.mktemp("labels") / "head-11_dseg.nii.gz", label_map()))


@pytest.fixture(scope="module")
def subject(head: Head) -> Subject:
    return Subject.of(head, "T1w")


def test_the_same_head_is_the_same_person(head: Head, subject: Subject) -> None:
    again = Subject.of(head, "T1w")
    for protocol in T1W[:2]:
        assert np.array_equal(again.scan(protocol).volume, subject.scan(protocol).volume)


def test_protocols_differ_in_contrast_and_in_field_and_noise(subject: Subject) -> None:
    white, grey = (subject.shares[name] > 0.9 for name in ("white matter", "grey matter"))
    ratios = [np.median(v[grey]) / np.median(v[white]) for v in map(subject.renderings.get, T1W)]
    assert len({round(float(ratio), 3) for ratio in ratios}) == len(T1W)
    first, second = (subject.scan(name, subject.renderings["reference"]).volume for name in T1W[:2])
    assert np.corrcoef(first[subject.inside], second[subject.inside])[0, 1] < 0.999


def test_what_is_added_to_a_rendering_is_all_that_changes(subject: Subject) -> None:
    changed = subject.renderings[T1W[0]].copy()
    changed[subject.inside & (np.arange(changed.shape[2]) > 12)] *= 1.5
    plain, other = subject.scan(T1W[0]).volume, subject.scan(T1W[0], changed, tag="-changed").volume
    same = changed == subject.renderings[T1W[0]]
    assert np.array_equal(plain[same], other[same])
    assert not np.array_equal(plain[~same], other[~same])


def test_scans_tell_what_they_are(subject: Subject) -> None:
    scans = [subject.scan(protocol) for protocol in T1W]
    assert len({scan.name for scan in scans}) == len(T1W)
    assert {scan.participant for scan in scans} == {scans[0].participant}
    assert [scan.site for scan in scans] == T1W
    assert set(scans[0].truth) == {"white matter", "grey matter", "deep grey matter", "reference", "field"}
    assert not scans[0].brain[~scans[0].head].any()


def test_the_reference_like_protocol_is_none_of_those_compared() -> None:
    for modality, protocols in PROTOCOLS.items():
        assert len(protocols) == 6
        assert REFERENCE_LIKE[modality] not in protocols.values()


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_field_is_smooth_and_bounded(seed: int) -> None:
    field = polynomial_field(BALL, np.random.default_rng(seed))
    log_field = np.log(field[BALL])
    assert SHADING / 2.1 < np.abs(log_field).max() <= SHADING * 1.001
    assert max(np.abs(np.diff(np.log(field), axis=axis)).max() for axis in range(3)) < 0.15


def test_noise_is_that_of_the_stated_ratio() -> None:
    flat = np.full(BALL.shape, 50, dtype=np.float32)
    noisy = [acquire(flat, 50, BALL, np.random.default_rng(seed))[0] for seed in range(6)]
    for volume in noisy:
        # Differences of neighbours along the short axis: the field hardly changes between them.
        steps = np.diff(volume / np.median(volume), axis=2)[BALL[..., 1:]]
        assert 1 / 48 < steps.std() / np.sqrt(2) < 1 / 16


def test_thick_slices_of_the_same_person_are_another_scan(tmp_path: Path) -> None:
    path = write_label_map(tmp_path / "head-11_dseg.nii.gz", label_map(), (1.0, 1.0, 1.0))
    fine, thick = (Subject.of(Head.read(path, factors), "T2w") for factors in ((2, 2, 2), (2, 2, 5)))
    assert fine.scan(T2W[0]).participant != thick.scan(T2W[0]).participant
    assert thick.scan(T2W[0]).zooms == (2.0, 2.0, 5.0)
