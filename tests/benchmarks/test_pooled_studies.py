"""Simulated studies of pools: figures of people and protocols whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.pooled_studies import GROUPS, Harmonized, Study, balanced, in_pools, unbalanced, wrong_members
from bids_harmonize.measures.overall_curve import OverallCurve

pytestmark = pytest.mark.benchmark
WANTED = -0.3
ILL = 0.02
PROTOCOLS = {"first": 1.0, "second": 0.5}


def scanned(number: int, bend: float, *, ill: bool, seen_as_ill: float) -> Harmonized:
    """A scan whose own edit removes the protocol, and a share of what is special about the person."""
    person = 0.005 * np.sin(number) + ILL * ill
    before = bend * WANTED + person
    after = WANTED + (1 - seen_as_ill) * person
    inputs = np.linspace(-1.5, 0.5, 32)
    return Harmonized(
        before=(before, 0.0),
        after=(after, 0.0),
        evened=(before, 0.0),
        own=OverallCurve.through(inputs, inputs * after / before),
    )


def study(people: int = 20, seen_as_ill: float = 0.8) -> Study:
    return Study(
        scans={
            protocol: {
                group: [
                    scanned(number, bend, ill=group == "patients", seen_as_ill=seen_as_ill)
                    for number in range(people)
                ]
                for group in GROUPS
            }
            for protocol, bend in PROTOCOLS.items()
        }
    )


def test_by_itself_a_scan_keeps_what_its_edit_left() -> None:
    assert balanced(study(), 1)["difference between groups kept"] == pytest.approx(0.2, abs=0.01)


def test_a_pool_keeps_people_and_removes_the_protocol() -> None:
    found = balanced(study(), 20)
    # The curve of the second protocol stretches what differs between people by two.
    assert found["difference between groups kept"] == pytest.approx(1.6, abs=0.1)
    assert found["difference between protocols left"] < 0.15


def test_everybody_has_a_ratio() -> None:
    scans = study().scans["first"]["controls"]
    for size in (1, 3, 7, 100):
        assert np.isfinite(in_pools(scans, size)).all()
        assert len(in_pools(scans, size)) == len(scans)


def test_where_all_patients_are_at_one_site_little_is_kept() -> None:
    together = balanced(study(), 40)["difference between groups kept"]
    assert unbalanced(study(), 1.0) < unbalanced(study(), 0.75) < together


def test_wrong_members_are_named() -> None:
    found = wrong_members(study(), 2)
    assert found["named"] == 1
    assert found["of the right ones named"] == 0
    assert found["change of the others' ratio"] < 0.01
