"""Alterations in k-space: replayed from their numbers, harmless at strength 0, and only where they say."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bids_harmonize.kspace import (
    Apodization,
    CentrePerturbation,
    KSpace,
    LowBand,
    MagnitudePower,
    Noise,
    RadialGain,
    SmoothField,
    centre_window,
)

ZOOMS = (2.0, 3.0, 2.5)
SPECTRAL = (RadialGain, CentrePerturbation, MagnitudePower, Apodization)
IN_THE_IMAGE = (SmoothField, Noise)
seeds = st.integers(0, 2**31)
few = settings(max_examples=20)


def volume_of(seed: int, shape: tuple[int, ...] = (18, 15, 16)) -> NDArray[np.float32]:
    """A bright, uneven object far from zero, so that no alteration makes it negative."""
    return np.random.default_rng(seed).uniform(400, 600, shape).astype(np.float32)


def replayed(alteration: Any) -> Any:
    return type(alteration)(**json.loads(json.dumps(asdict(alteration))))


def altered(
    alteration: Any, volume: NDArray[np.float32], zooms: tuple[float, ...] = ZOOMS
) -> NDArray[np.float32]:
    if isinstance(alteration, IN_THE_IMAGE):
        return alteration.apply_to_image(volume)
    return alteration.apply(KSpace.of(volume, zooms)).volume()


@few
@given(seeds, st.tuples(*[st.integers(1, 12)] * 3))
def test_there_and_back(seed: int, shape: tuple[int, int, int]) -> None:
    volume = volume_of(seed, shape)
    back = KSpace.of(volume, ZOOMS).volume()
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, volume, rtol=1e-5)


def test_radius_is_in_cycles_per_millimetre() -> None:
    radius = KSpace.of(volume_of(0), ZOOMS).radius()
    assert radius.shape == (18, 15, 9)
    assert radius[0, 0, 0] == 0
    assert radius[1, 0, 0] == radius[-1, 0, 0] == pytest.approx(1 / (18 * 2.0))
    assert radius[0, 1, 0] == pytest.approx(1 / (15 * 3.0))
    assert radius[0, 0, -1] == pytest.approx(0.5 / 2.5)
    assert radius[1, 1, 0] == pytest.approx(np.hypot(1 / 36, 1 / 45))


def test_negative_values_become_zero() -> None:
    k_space = KSpace.of(volume_of(0) - np.float32(500), ZOOMS)
    assert k_space.volume().min() == 0


@few
@given(st.floats(0.01, 0.5))
def test_window_falls_from_one_at_the_centre_to_zero_at_the_cutoff(cutoff: float) -> None:
    window = centre_window(np.linspace(0, 2 * cutoff, 101, dtype=np.float32), cutoff)
    assert window[0] == 1
    assert window[50:].max() < 1e-6
    assert np.all(np.diff(window) <= 0)


@few
@given(st.sampled_from(SPECTRAL + IN_THE_IMAGE), seeds)
def test_replay_from_json_gives_the_same_image(family: Any, seed: int) -> None:
    alteration = family.sample(np.random.default_rng(seed))
    again = family.sample(np.random.default_rng(seed))
    assert alteration == again
    volume = volume_of(seed)
    first = altered(alteration, volume)
    np.testing.assert_array_equal(first, altered(replayed(alteration), volume))
    np.testing.assert_array_equal(volume, volume_of(seed), err_msg="the input was changed")
    assert first.dtype == np.float32
    assert first.shape == volume.shape
    assert np.all(np.isfinite(first))
    assert first.min() >= 0


@few
@given(st.sampled_from(SPECTRAL + IN_THE_IMAGE), seeds)
def test_strength_zero_changes_nothing(family: Any, seed: int) -> None:
    alteration = family.sample(np.random.default_rng(seed), strength=0.0)
    if isinstance(alteration, Apodization):
        # Its sharp cut has no strength: only the blur fades.
        alteration = Apodization(full_width_mm=alteration.full_width_mm, kept_share=1.0)
    np.testing.assert_allclose(altered(alteration, volume_of(seed)), volume_of(seed), rtol=1e-5)


@pytest.mark.parametrize("family", SPECTRAL + IN_THE_IMAGE)
def test_full_strength_changes_the_image(family: Any) -> None:
    # The lowest frequencies that alterations touch need a field of view as large as a head.
    zooms = (12.0, 12.0, 12.0) if family is CentrePerturbation else ZOOMS
    for seed in range(5):
        result = altered(family.sample(np.random.default_rng(seed)), volume_of(seed), zooms)
        assert np.abs(result - volume_of(seed)).max() > 0.05


@few
@given(st.sampled_from([RadialGain, MagnitudePower, Apodization]), seeds)
def test_phase_is_untouched(family: Any, seed: int) -> None:
    before = KSpace.of(volume_of(seed), ZOOMS)
    after = family.sample(np.random.default_rng(seed)).apply(before)
    product = after.values * before.values.conj()
    assert np.all(product.real >= 0)
    np.testing.assert_allclose(product.imag, 0, atol=1e-5 * np.abs(product).max())


@few
@given(st.sampled_from([RadialGain, CentrePerturbation, MagnitudePower]), seeds)
def test_only_frequencies_below_the_cutoff_change(family: Any, seed: int) -> None:
    before = KSpace.of(volume_of(seed), ZOOMS)
    alteration = family.sample(np.random.default_rng(seed))
    beyond = before.radius() >= alteration.cutoff
    np.testing.assert_array_equal(alteration.apply(before).values[beyond], before.values[beyond])


@few
@given(seeds)
def test_perturbation_leaves_the_mean_and_gives_a_real_image(seed: int) -> None:
    volume = volume_of(seed)
    result = altered(CentrePerturbation(seed=seed, strength=0.2, cutoff=0.1), volume)
    assert result.mean() == pytest.approx(volume.mean(), rel=1e-4)
    assert not np.allclose(result, volume, rtol=1e-5)
    # What the transform to a real image keeps is Hermitian: a second round trip changes no coefficient.
    spectrum = np.fft.fftn(result.astype(np.float64))
    mirrored = np.roll(spectrum[::-1, ::-1, ::-1], 1, axis=(0, 1, 2)).conj()
    np.testing.assert_allclose(spectrum, mirrored, atol=1e-9 * np.abs(spectrum).max())


@few
@given(seeds)
def test_gain_bounds_the_energy(seed: int) -> None:
    before = KSpace.of(volume_of(seed), ZOOMS)
    alteration = RadialGain.sample(np.random.default_rng(seed))
    ratio = np.abs(alteration.apply(before).values) / np.abs(before.values)
    low, high = min(*alteration.log_gains, 0), max(*alteration.log_gains, 0)
    assert np.exp(low) * (1 - 1e-4) <= ratio.min() <= ratio.max() <= np.exp(high) * (1 + 1e-4)


@few
@given(seeds)
def test_apodization_only_takes_away(seed: int) -> None:
    before = KSpace.of(volume_of(seed), ZOOMS)
    after = Apodization.sample(np.random.default_rng(seed)).apply(before)
    assert np.all(np.abs(after.values) <= np.abs(before.values) * (1 + 1e-6))
    assert after.values[0, 0, 0] == before.values[0, 0, 0]


def test_gaussian_has_the_width_it_says() -> None:
    point = np.zeros((1, 1, 65), np.float32)
    point[0, 0, 32] = 1
    k_space = KSpace.of(point, (1.0, 1.0, 0.25))
    blurred = Apodization(full_width_mm=2.0, kept_share=1.0).apply(k_space).volume()[0, 0]
    assert blurred[32 + 4] / blurred[32] == pytest.approx(0.5, abs=0.01)
    assert blurred.sum() == pytest.approx(1, rel=1e-3)


def test_cut_removes_all_beyond_its_radius() -> None:
    before = KSpace.of(volume_of(0), ZOOMS)
    after = Apodization(full_width_mm=0.0, kept_share=0.6).apply(before)
    limit = 0.6 * 0.5 / 3.0
    assert np.all(after.values[before.radius() > limit + 1e-6] == 0)
    inside = before.radius() < limit - 1e-6
    np.testing.assert_array_equal(after.values[inside], before.values[inside])


@few
@given(seeds)
def test_power_spreads_magnitudes_about_those_at_the_cutoff(seed: int) -> None:
    before = KSpace.of(volume_of(seed), ZOOMS)
    for power, grows in ((1.1, True), (0.9, False)):
        after = MagnitudePower(power=power, cutoff=0.15).apply(before)
        assert (abs(after.values[0, 0, 0]) > abs(before.values[0, 0, 0])) == grows


@few
@given(seeds)
def test_low_band_of_itself_changes_nothing(seed: int) -> None:
    k_space = KSpace.of(volume_of(seed), ZOOMS)
    band = LowBand.sample(np.random.default_rng(seed))
    np.testing.assert_allclose(band.apply(k_space, k_space).volume(), volume_of(seed), rtol=1e-5)


@few
@given(seeds)
def test_low_band_brings_the_centre_of_the_other_and_nothing_beyond(seed: int) -> None:
    own, other = KSpace.of(volume_of(seed), ZOOMS), KSpace.of(2 * volume_of(seed + 1), ZOOMS)
    band = replayed(LowBand(weight=1.0, cutoff=0.1))
    result = band.apply(own, other)
    assert result.values[0, 0, 0] == pytest.approx(other.values[0, 0, 0], rel=1e-5)
    beyond = own.radius() >= band.cutoff
    np.testing.assert_allclose(result.values[beyond], own.values[beyond], rtol=1e-6)
    inside = ~beyond & (own.radius() < 0.09)
    assert np.all(np.abs(result.values - own.values)[inside] > 0)


def test_low_band_stays_below_its_largest_cutoff() -> None:
    bands = [LowBand.sample(np.random.default_rng(seed), largest_cutoff=0.03) for seed in range(50)]
    assert all(0.02 <= band.cutoff <= 0.03 and 0.4 <= band.weight <= 1 for band in bands)


@few
@given(seeds, st.tuples(*[st.integers(1, 12)] * 3))
def test_field_is_positive_and_smooth(seed: int, shape: tuple[int, int, int]) -> None:
    smooth_field = SmoothField.sample(np.random.default_rng(seed))
    field = smooth_field.field(shape)
    assert field.shape == shape
    assert field.dtype == np.float32
    bound = sum(abs(amplitude) for *_, amplitude, _ in smooth_field.log_amplitudes)
    assert np.all(np.abs(np.log(field)) <= bound + 1e-5)
    # At most one period over the whole extent.
    for axis, n in enumerate(shape):
        if n > 1:
            assert np.abs(np.diff(np.log(field), axis=axis)).max() <= 2 * np.pi * bound / (n - 1) + 1e-5


def test_noise_is_rician() -> None:
    volume = np.zeros((40, 40, 40), np.float32)
    volume[20:] = 100
    noisy = Noise(seed=3, relative_sigma=0.05).apply_to_image(volume)
    sigma = 5.0
    # In air the magnitude is Rayleigh distributed; in bright tissue it is nearly normal.
    assert noisy[:20].min() >= 0
    assert noisy[:20].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
    assert noisy[20:].mean() == pytest.approx(100 + sigma**2 / 200, rel=0.002)
    assert noisy[20:].std() == pytest.approx(sigma, rel=0.02)


def test_noise_of_another_seed_is_another() -> None:
    first, second = (Noise(seed=seed, relative_sigma=0.05).apply_to_image(volume_of(0)) for seed in (1, 2))
    assert not np.array_equal(first, second)
