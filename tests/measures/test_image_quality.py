"""The image-quality metrics against signals, noise and fields that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.measures.image_quality import (
    QUALITY_METRICS,
    Quality,
    format_significant,
    measure_quality,
)

ZOOMS = (3.0, 3.0, 3.0)
SHAPE = (56, 52, 48)
WHITE, GREY = 900.0, 600.0
RADIUS = np.sqrt(
    sum(np.square(axis) for axis in np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
)
INNER, BRAIN = RADIUS < 12, RADIUS < 17
TISSUES = (INNER, BRAIN & ~INNER)


def ball(noise: float = 10.0, seed: int = 0) -> Volume:
    """White matter within grey matter within air, with the noise of a magnitude image."""
    rng = np.random.default_rng(seed)
    signal = np.select([INNER, BRAIN], [WHITE, GREY], 0.0)
    return np.hypot(signal + rng.normal(0, noise, SHAPE), rng.normal(0, noise, SHAPE)).astype(np.float32)


def measured(volume: Volume, tissues: tuple[Mask, Mask] | None = TISSUES) -> Quality:
    return measure_quality(volume, ZOOMS, BRAIN, tissues)


def test_every_measure_of_a_head_is_measured() -> None:
    quality = measured(ball())
    assert list(quality.values) == list(QUALITY_METRICS)
    assert not quality.missing


@pytest.mark.parametrize("noise", [5.0, 15.0, 30.0])
def test_ratios_are_those_of_the_known_signal_and_noise(noise: float) -> None:
    values = measured(ball(noise)).values
    assert values["snr"] == pytest.approx(WHITE / noise, rel=0.05)
    assert values["snrd"] == pytest.approx(WHITE / noise, rel=0.05)
    # The variance of air is (2 - pi / 2) of that of the noise.
    assert values["cnr"] == pytest.approx((WHITE - GREY) / (noise * math.sqrt(4 - math.pi / 2)), rel=0.05)
    energy = np.mean(np.select([INNER, BRAIN], [WHITE, GREY], 0.0)[BRAIN] ** 2)
    # The body's mask is a little wide, so that air is air.
    assert 0.5 < values["fber"] / (energy / (2 * noise**2)) <= 1.05


def test_noise_makes_every_measure_worse_that_speaks_of_it() -> None:
    series = [measured(ball(noise)).values for noise in (5.0, 12.0, 25.0)]
    for name in ("snr", "snrd", "cnr", "efc", "fber"):
        values = [quality[name] for quality in series]
        assert values == sorted(values, reverse=QUALITY_METRICS[name].more_is_better), name


def test_ghost_is_seen_in_the_air() -> None:
    clean = ball()
    ghosted = (clean + 0.04 * np.roll(clean, SHAPE[1] // 2, axis=1)).astype(np.float32)
    before, after = measured(clean).values, measured(ghosted).values
    for name in ("snrd", "efc", "fber"):
        better = after[name] > before[name]
        assert better != QUALITY_METRICS[name].more_is_better, name


@pytest.mark.parametrize("slope", [0.1, 0.3, 0.6])
def test_bias_field_is_as_strong_as_it_was_made(slope: float) -> None:
    along = np.linspace(-1, 1, SHAPE[0])[:, None, None]
    field = np.broadcast_to(np.exp(slope * along), SHAPE)
    low, middle, high = np.percentile(field[INNER], [5, 50, 95])
    strength = measured((ball() * field).astype(np.float32)).values["inu"]
    assert measured(ball()).values["inu"] < 0.01
    # Smoothing takes some of a field's ends away.
    assert 0.4 < strength / ((high - low) / middle) < 1.0


def test_bias_strength_is_blind_to_noise_and_contrast() -> None:
    assert measured(ball(60.0)).values["inu"] < 0.03


def test_entropy_of_equal_voxels_is_one() -> None:
    quality = measure_quality(np.full(SHAPE, 7, np.float32), ZOOMS, BRAIN)
    assert quality.values["efc"] == pytest.approx(1.0)


def test_air_set_to_zero_is_told_and_spoils_nothing_else() -> None:
    quality = measured((ball() * BRAIN).astype(np.float32))
    assert set(quality.missing) == {"snrd", "fber"}
    assert all("air" in reason for reason in quality.missing.values())
    assert quality.values["snr"] == measured(ball()).values["snr"]


def test_defaced_part_of_the_air_does_not_count() -> None:
    whole, defaced = ball(), ball()
    defaced[:, :10, :10] = 0
    whole, defaced = measured(whole).values, measured(defaced).values
    for name in ("snrd", "fber"):
        assert defaced[name] == pytest.approx(whole[name], rel=0.03)


def test_coarsely_stored_noise_is_noise() -> None:
    fine = ball(8.0)
    coarse = np.round(fine / 8) * 8
    assert np.mean(coarse[~BRAIN] == 0) > 0.1
    assert measured(coarse).values["snrd"] == pytest.approx(measured(fine).values["snrd"], rel=0.15)


def test_body_part_without_known_tissues() -> None:
    quality = measured(ball(), tissues=None)
    assert set(quality.missing) == {"snr", "cnr", "inu"}
    assert all("tissue" in reason for reason in quality.missing.values())


@given(st.floats(1e-3, 1e5))
@settings(max_examples=10)
def test_intensity_unit_does_not_matter(unit: float) -> None:
    values = measured((ball() * unit).astype(np.float32)).values
    assert values == pytest.approx(measured(ball()).values, rel=1e-3, abs=1e-5)


@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([1.0, 100.0, 1e6]))
@settings(max_examples=30)
def test_whatever_the_volume_each_measure_is_finite_or_has_a_reason(
    seed: int, share: float, unit: float
) -> None:
    rng = np.random.default_rng(seed)
    shape = (16, 15, 14)
    volume = (rng.gamma(0.5, unit, shape) * (rng.random(shape) < share)).astype(np.float32)
    volume[0, 0, 0] = unit
    first, second = rng.random(shape) < share, rng.random(shape) < share
    quality = measure_quality(volume, (2.0, 1.0, 5.0), first, (first & second, first & ~second))
    assert set(quality.values) | set(quality.missing) == set(QUALITY_METRICS)
    assert not set(quality.values) & set(quality.missing)
    assert all(math.isfinite(value) and value > 0 for value in quality.values.values())
    assert all(quality.missing.values())


@pytest.mark.parametrize(
    ("value", "text"), [(0.012345, "0.0123"), (12.345, "12.3"), (1234.5, "1234"), (98765.0, "98765")]
)
def test_digits_for_people(value: float, text: str) -> None:
    assert format_significant(value) == text
