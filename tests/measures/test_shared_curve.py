"""Scans of one protocol share a curve: each keeps its gain and what is special about its person."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.imaging.brain import TissueLevels
from bids_harmonize.measures.overall_curve import OverallCurve
from bids_harmonize.measures.shared_curve import (
    MAX_DISTANCE,
    OTHERS_IN_FULL,
    SharedCurve,
    share_curve,
    share_of_pool,
)

seeds = st.integers(0, 2**31)


def protocol_curve(inputs: np.ndarray) -> np.ndarray:
    """What the edit of one protocol does to logarithms of intensities around 0."""
    return 0.8 * inputs + 0.1 * np.sin(2 * inputs)


def own_curve(rng: np.random.Generator, *, gain: float = 0.0, error: float = 0.03) -> OverallCurve:
    """The curve of one scan: the protocol's, for a gain, with a smooth error of its prediction."""
    inputs = np.sort(rng.uniform(-1.5, 0.3, 32))
    wrong = error * rng.normal() * inputs
    return OverallCurve.through(inputs - gain, protocol_curve(inputs) + wrong)


def scans(count: int, seed: int = 0, *, error: float = 0.03) -> list[OverallCurve]:
    rng = np.random.default_rng(seed)
    return [own_curve(rng, gain=float(rng.normal()), error=error) for _ in range(count)]


@settings(max_examples=20)
@given(seeds)
def test_gains_do_not_matter_and_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains = rng.normal(size=6)
    curves = [own_curve(rng, gain=float(gain), error=0.0) for gain in gains]
    shared = SharedCurve.of(curves)
    assert max(shared.distance(curve) for curve in curves) < 0.02
    found = np.array([shared.log_gain(curve) for curve in curves])
    np.testing.assert_allclose(found - found.mean(), gains - gains.mean(), atol=0.02)


def test_errors_of_single_predictions_are_gone() -> None:
    rng = np.random.default_rng(0)
    gains = rng.normal(size=21).tolist()
    curves = [own_curve(rng, gain=gain, error=0.1) for gain in gains]
    shared = SharedCurve.of(curves)
    tissues = np.array([-0.6, 0.0])
    own = [np.diff(curve(tissues - gain))[0] for curve, gain in zip(curves, gains, strict=True)]
    found = [
        np.diff(shared.of_scan(curve)(tissues - gain))[0] for curve, gain in zip(curves, gains, strict=True)
    ]
    assert np.std(found) < 0.25 * np.std(own)
    assert np.mean(found) == pytest.approx(np.diff(protocol_curve(tissues))[0], abs=0.05)


def brain_curve(rng: np.random.Generator, levels: np.ndarray, spread: float) -> OverallCurve:
    """The curve of a brain through its tissues' levels, brought to those of the reference, with errors."""
    return brain_curve_of(rng, levels + rng.normal(0, spread, 3))


def brain_curve_of(rng: np.random.Generator, levels: np.ndarray) -> OverallCurve:
    """The same, of these very levels."""
    tissues = [
        dict(zip(("csf", "grey_matter", "white_matter"), np.exp(logs).tolist(), strict=True))
        for logs in (levels + rng.normal(), REFERENCE + rng.normal(0, 0.02, 3))
    ]
    return OverallCurve.of_levels(*(TissueLevels(**one) for one in tissues))


# Of fluid, grey and white matter.
REFERENCE = np.log([300.0, 700.0, 1000.0])


@settings(max_examples=30)
@given(seeds, st.floats(0.15, 0.8), st.floats(0.15, 0.8))
def test_around_tissues_the_shared_curve_is_a_mere_gain_and_rises(
    seed: int, dark: float, bright: float
) -> None:
    rng = np.random.default_rng(seed)
    levels = np.cumsum([0.0, dark, bright])
    shared = SharedCurve.of([brain_curve(rng, levels, 0.0) for _ in range(9)])
    assert np.all(np.diff(shared.curve.inputs) > 0)
    assert np.all(np.diff(shared.curve.outputs) > 0)
    one = brain_curve(rng, levels, 0.0)
    own = shared.of_scan(one)
    for level in one.inputs:
        assert own(np.array([level + 0.02]))[0] - own(np.array([level]))[0] == pytest.approx(0.02, abs=2e-3)


def test_what_tells_people_apart_is_kept_and_protocols_are_brought_together() -> None:
    rng = np.random.default_rng(1)
    protocols = [np.array([0.0, 0.9, 1.3]), np.array([0.0, 0.6, 1.2])]
    people = [rng.normal(0, 0.03, 3) for _ in range(20)]
    ratios = []
    for levels in protocols:
        curves = [brain_curve_of(rng, levels + person) for person in people]
        shared = SharedCurve.of(curves)
        outputs = [shared.of_scan(one)(np.array(one.inputs)) for one in curves]
        ratios.append([after[1] - after[2] for after in outputs])
    wanted = [person[1] - person[2] for person in people]
    for found in ratios:
        assert np.polyfit(wanted, found, 1)[0] == pytest.approx(1, abs=0.05)
    assert abs(np.mean(ratios[0]) - np.mean(ratios[1])) < 0.02


def test_the_gain_of_a_brain_is_that_of_its_white_matter() -> None:
    rng = np.random.default_rng(2)
    levels = np.array([0.0, 0.9, 1.3])
    shared = SharedCurve.of([brain_curve(rng, levels, 0.02) for _ in range(9)])
    plain, bright_fluid = (
        OverallCurve.of_levels(
            TissueLevels(csf=csf, grey_matter=50.0, white_matter=80.0),
            TissueLevels(csf=300.0, grey_matter=700.0, white_matter=1000.0),
        )
        for csf in (20.0, 30.0)
    )
    assert shared.log_gain(plain) == shared.log_gain(bright_fluid)
    white = shared.of_scan(plain)(np.log(np.array([80.0])))
    assert white[0] == pytest.approx(np.log(1000.0), abs=1e-4)


def test_alone_nothing_changes_and_one_more_scan_changes_little() -> None:
    curves = scans(OTHERS_IN_FULL + 2, error=0.1)
    own = curves[0]
    inputs, outputs = np.array(own.inputs), np.array(own.outputs)
    changes = []
    for count in range(1, len(curves) + 1):
        shared = SharedCurve.of(curves[:count]).of_scan(own)(inputs)
        changes.append(float(share_of_pool(count - 1) * np.abs(shared - outputs).mean()))
    assert changes[0] < 1e-5
    assert all(abs(a - b) < 0.08 for a, b in pairwise(changes))
    shares = [share_of_pool(others) for others in range(OTHERS_IN_FULL + 3)]
    assert shares == [0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_the_order_of_scans_makes_no_difference() -> None:
    curves = {f"sub-{number:02d}": curve for number, curve in enumerate(scans(7))}
    turned = dict(reversed(curves.items()))
    assert share_curve(curves) == share_curve(turned)


def test_another_contrast_is_left_out_and_changes_nothing() -> None:
    right = {f"sub-{number:02d}": curve for number, curve in enumerate(scans(6))}
    rng = np.random.default_rng(5)
    inputs = np.linspace(-1.5, 0.3, 32)
    foreign = OverallCurve.through(inputs + rng.normal(), 2.5 * inputs)
    alone, nobody = share_curve(right)
    shared, left_out = share_curve({**right, "sub-99": foreign})
    assert nobody == {}
    assert list(left_out) == ["sub-99"]
    assert left_out["sub-99"] > MAX_DISTANCE
    assert shared == alone
    assert not shared.fits(foreign)


def test_of_two_that_do_not_fit_each_is_by_itself() -> None:
    inputs = np.linspace(-1.5, 0.3, 32)
    two = {"sub-01": OverallCurve.through(inputs, inputs), "sub-02": OverallCurve.through(inputs, 3 * inputs)}
    shared, left_out = share_curve(two)
    assert (shared.scans, len(left_out)) == (1, 1)


def test_many_that_do_not_fit_are_left_out_in_a_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    right = {f"sub-{number:03d}": curve for number, curve in enumerate(scans(60))}
    inputs = np.linspace(-1.5, 0.3, 32)
    wrong = {
        f"wrong-{number:03d}": OverallCurve.through(inputs + number, (2.5 + 0.01 * number) * inputs)
        for number in range(40)
    }
    rounds = []
    monkeypatch.setattr(
        SharedCurve, "of", lambda curves, of=SharedCurve.of: (rounds.append(1), of(curves))[1]
    )
    shared, left_out = share_curve({**right, **wrong})
    assert set(left_out) == set(wrong)
    assert shared.scans == len(right)
    assert len(rounds) < 6
