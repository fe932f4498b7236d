"""Alterations in k-space: replayed from their numbers, harmless at strength 0, and only where they say.

It is one file because tests mirror the package, and most properties hold for all families of `kspace`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.alterations import from_record, to_record
from bids_harmonize.training.alterations.kspace import (
    Apodization,
    CentrePerturbation,
    KSpace,
    LowBand,
    MagnitudePower,
    Noise,
    PhaseError,
    RadialGain,
    SmoothField,
    Spikes,
    acquired_axes,
    centre_window,
)
from bids_harmonize.training.pairs import FAMILIES

ZOOMS = (2.0, 3.0, 2.5)
IN_THE_IMAGE = (SmoothField, Noise)
PHASE_KEEPING = (RadialGain, MagnitudePower, Apodization)
# Every family of k-space but the one that takes a second scan.
ONE_SCAN = tuple(
    family for family in FAMILIES if family.__module__ == KSpace.__module__ and family is not LowBand
)
# The energy afterwards over that before, at most and at least, as the families state it for full strength.
MAX_ENERGY = {
    RadialGain: np.exp(0.8),
    CentrePerturbation: 3,
    MagnitudePower: 1000**0.24,
    Apodization: 1,
    Spikes: 1.36**2,
    PhaseError: 1,
    SmoothField: np.exp(1.6),
}
MIN_ENERGY = {
    RadialGain: np.exp(-0.8),
    CentrePerturbation: 1 / 12,
    MagnitudePower: 1000**-0.24,
    PhaseError: 1,
    Spikes: 0.64**2,
    SmoothField: np.exp(-1.6),
}

seeds = st.integers(0, 2**31)
families = st.sampled_from(ONE_SCAN)
# Volumes encoded in 3-D, and thick slices along each axis; the coarse ones have the field of view of a head,
# without which no coefficient lies as near to the centre as some alterations reach.
zooms_of_any_scan = st.sampled_from(
    [ZOOMS, (12.0, 9.0, 10.0), (1.5, 1.5, 5.0), (9.0, 8.0, 30.0), (8.0, 40.0, 8.0), (30.0, 9.0, 9.0)]
)
few = settings(max_examples=20)


def volume_of(seed: int, shape: tuple[int, ...] = (18, 15, 16)) -> NDArray[np.float32]:
    """A bright, uneven object far from zero, so that no alteration makes it negative."""
    return np.random.default_rng(seed).uniform(400, 600, shape).astype(np.float32)


def head_like(seed: int, shape: tuple[int, ...] = (18, 15, 16)) -> NDArray[np.float32]:
    """A smooth blob in air: most of its energy lies near the centre of k-space."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij")
    blob = np.exp(-4 * sum(np.square(axis) for axis in axes))
    return (blob * volume_of(seed, shape)).astype(np.float32)


def through_json(alteration: Any) -> Any:
    return from_record(json.loads(json.dumps(to_record(alteration))))


def altered(
    alteration: Any, volume: NDArray[np.float32], zooms: tuple[float, ...] = ZOOMS
) -> NDArray[np.float32]:
    if isinstance(alteration, IN_THE_IMAGE):
        return alteration.apply_to_image(volume)
    return alteration.apply(KSpace.of(volume, zooms)).volume()


def full_spectrum(k_space: KSpace) -> NDArray[np.complex128]:
    """Both halves; the one that is not stored is what Hermitian symmetry says it is."""
    full, half = k_space.axes[:-1], k_space.axes[-1]
    stored_half = k_space.values.astype(np.complex128)
    mirrored = np.roll(np.flip(stored_half, full), 1, full).conj()
    n = k_space.shape[half]
    missing = np.flip(np.take(mirrored, range(1, (n + 1) // 2), axis=half), half)
    return np.concatenate([stored_half, missing], axis=half)


def energy(k_space: KSpace) -> float:
    """Sum of squares of the volume, before negative values are cut off (Parseval)."""
    encoded = np.prod([k_space.shape[axis] for axis in k_space.axes])
    return float(np.square(np.abs(full_spectrum(k_space))).sum() / encoded)


@few
@given(seeds, st.tuples(*[st.integers(1, 12)] * 3), zooms_of_any_scan)
def test_there_and_back(seed: int, shape: tuple[int, int, int], zooms: tuple[float, ...]) -> None:
    volume = volume_of(seed, shape)
    k_space = KSpace.of(volume, zooms)
    back = k_space.volume()
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, volume, rtol=1e-5)
    assert energy(k_space) == pytest.approx(np.square(volume, dtype=np.float64).sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("zooms", "axes"),
    [
        ((1.0, 1.0, 1.0), (0, 1, 2)),
        ((0.8, 0.8, 1.5), (0, 1, 2)),
        ((0.5, 0.5, 3.0), (0, 1)),
        ((1.56, 1.56, 5.0), (0, 1)),
        ((5.0, 0.9, 0.9), (1, 2)),
        ((0.4, 6.5, 0.4), (0, 2)),
        ((2.0, 2.0, 3.999), (0, 1)),
        # Thin in one direction only: pixels are not square, slices are not thick.
        ((0.5, 2.0, 2.0), (0, 1, 2)),
    ],
)
def test_thick_slices_are_transformed_in_plane(zooms: tuple[float, ...], axes: tuple[int, ...]) -> None:
    assert acquired_axes(zooms) == axes
    volume = volume_of(0)
    k_space = KSpace.of(volume, zooms)
    assert k_space.axes == axes
    expected = np.fft.rfftn(volume, axes=axes)
    np.testing.assert_allclose(k_space.values, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_radius_is_in_cycles_per_millimetre() -> None:
    radius = KSpace.of(volume_of(0), ZOOMS).radius()
    assert radius.shape == (18, 15, 9)
    assert radius[0, 0, 0] == 0
    assert radius[1, 0, 0] == radius[-1, 0, 0] == pytest.approx(1 / (18 * 2.0))
    assert radius[0, 1, 0] == pytest.approx(1 / (15 * 3.0))
    assert radius[0, 0, -1] == pytest.approx(0.5 / 2.5)
    assert radius[1, 1, 0] == pytest.approx(np.hypot(1 / 36, 1 / 45))


def test_radius_of_thick_slices_is_in_plane() -> None:
    radius = KSpace.of(volume_of(0), (2.0, 3.0, 7.0)).radius()
    assert radius.shape == (18, 8, 1)
    assert radius[1, 1, 0] == pytest.approx(np.hypot(1 / 36, 1 / 45))
    with pytest.raises(ValueError, match="read-only"):
        radius[0] = 1


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


@given(families, seeds, zooms_of_any_scan)
def test_replay_gives_the_same_image(family: Any, seed: int, zooms: tuple[float, ...]) -> None:
    alteration = family.sample(np.random.default_rng(seed))
    volume = volume_of(seed)
    first = altered(alteration, volume, zooms)
    np.testing.assert_array_equal(first, altered(through_json(alteration), volume, zooms))
    np.testing.assert_array_equal(volume, volume_of(seed), err_msg="the input was changed")
    assert first.dtype == np.float32
    assert first.shape == volume.shape
    assert np.all(np.isfinite(first))
    assert first.min() >= 0


@given(families, seeds, zooms_of_any_scan)
def test_strength_zero_changes_nothing(family: Any, seed: int, zooms: tuple[float, ...]) -> None:
    alteration = family.sample(np.random.default_rng(seed), strength=0.0)
    np.testing.assert_allclose(altered(alteration, volume_of(seed), zooms), volume_of(seed), rtol=1e-5)


@pytest.mark.parametrize("family", ONE_SCAN)
@pytest.mark.parametrize("zooms", [(12.0, 12.0, 12.0), (12.0, 12.0, 30.0)])
def test_full_strength_changes_the_image(family: Any, zooms: tuple[float, ...]) -> None:
    # The lowest frequencies that alterations touch need a field of view as large as a head.
    for seed in range(5):
        result = altered(family.sample(np.random.default_rng(seed)), volume_of(seed), zooms)
        assert np.abs(result - volume_of(seed)).max() > 0.05


@given(families, seeds, zooms_of_any_scan, st.tuples(*[st.integers(1, 9)] * 3))
def test_altered_spectra_are_hermitian(
    family: Any, seed: int, zooms: tuple[float, ...], shape: tuple[int, ...]
) -> None:
    after = family.sample(np.random.default_rng(seed)).apply(KSpace.of(volume_of(seed, shape), zooms))
    spectrum = full_spectrum(after)
    assert spectrum.shape == shape
    mirrored = np.roll(np.flip(spectrum, after.axes), 1, after.axes).conj()
    np.testing.assert_allclose(spectrum, mirrored, atol=1e-6 * np.abs(spectrum).max())
    image = np.fft.ifftn(spectrum, axes=after.axes)
    np.testing.assert_allclose(image.imag, 0, atol=1e-5 * np.abs(image).max())
    expected = np.maximum(image.real, 0)
    np.testing.assert_allclose(after.volume(), expected, atol=1e-5 * np.abs(image).max())


@given(st.sampled_from(list(MAX_ENERGY)), seeds, zooms_of_any_scan, st.sampled_from([volume_of, head_like]))
def test_energy_stays_within_the_bounds_stated(
    family: Any, seed: int, zooms: tuple[float, ...], make: Any
) -> None:
    before = KSpace.of(make(seed), zooms)
    ratio = energy(family.sample(np.random.default_rng(seed)).apply(before)) / energy(before)
    assert MIN_ENERGY.get(family, 0) * (1 - 1e-4) <= ratio <= MAX_ENERGY[family] * (1 + 1e-4)


def test_rare_draws_are_bounded_too() -> None:
    draws = range(2000)
    gains = [RadialGain.sample(np.random.default_rng(seed)).log_gains for seed in draws]
    assert np.abs(gains).max() == 0.4
    powers = [MagnitudePower.sample(np.random.default_rng(seed)).power for seed in draws]
    assert (min(powers), max(powers)) == pytest.approx((0.88, 1.12))
    terms = [SmoothField.sample(np.random.default_rng(seed)).log_amplitudes for seed in draws]
    assert max(sum(abs(amplitude) for *_, amplitude, _ in few) for few in terms) == pytest.approx(0.8)


@few
@given(seeds, zooms_of_any_scan)
def test_low_band_has_no_more_energy_than_the_two_scans(seed: int, zooms: tuple[float, ...]) -> None:
    own, other = KSpace.of(head_like(seed), zooms), KSpace.of(volume_of(seed), zooms)
    blend = LowBand.sample(np.random.default_rng(seed)).apply(own, other)
    largest = np.maximum(np.abs(own.values), np.abs(other.values))
    assert np.all(np.abs(blend.values) <= largest * (1 + 1e-5))


@few
@given(seeds)
def test_noise_adds_the_energy_it_says(seed: int) -> None:
    volume = volume_of(seed)
    noise = Noise.sample(np.random.default_rng(seed))
    sigma = noise.relative_sigma * np.percentile(volume[::2, ::2, ::2], 99)
    added = np.mean(np.square(noise.apply_to_image(volume), dtype=np.float64) - np.square(volume))
    # Five standard errors of the mean of 2 v n, by far the largest part of the scatter.
    assert added == pytest.approx(2 * sigma**2, abs=5 * 2 * 500 * sigma / np.sqrt(volume.size) + 0.01)


@given(st.sampled_from(PHASE_KEEPING), seeds, zooms_of_any_scan)
def test_phase_is_untouched(family: Any, seed: int, zooms: tuple[float, ...]) -> None:
    before = KSpace.of(volume_of(seed), zooms)
    after = family.sample(np.random.default_rng(seed)).apply(before)
    product = after.values * before.values.conj()
    assert np.all(product.real >= 0)
    np.testing.assert_allclose(product.imag / np.maximum(np.abs(product), 1e-6), 0, atol=1e-5)


@given(st.sampled_from([RadialGain, CentrePerturbation, MagnitudePower]), seeds, zooms_of_any_scan)
def test_only_frequencies_below_the_cutoff_change(family: Any, seed: int, zooms: tuple[float, ...]) -> None:
    before = KSpace.of(volume_of(seed), zooms)
    alteration = family.sample(np.random.default_rng(seed))
    beyond = np.broadcast_to(before.radius() >= alteration.cutoff, before.values.shape)
    np.testing.assert_array_equal(alteration.apply(before).values[beyond], before.values[beyond])


@given(st.sampled_from([RadialGain, CentrePerturbation, Apodization]), seeds)
def test_slices_acquired_one_by_one_are_altered_alike(family: Any, seed: int) -> None:
    """Slice by slice gives the same as all at once: no slice knows of another."""
    alteration, zooms = family.sample(np.random.default_rng(seed)), (12.0, 12.0, 40.0)
    volume = volume_of(seed)
    together = altered(alteration, volume, zooms)
    for z in (0, 7):
        alone = altered(alteration, volume[:, :, z : z + 1], zooms)[:, :, 0]
        np.testing.assert_allclose(together[:, :, z], alone, rtol=1e-5)


@few
@given(seeds)
def test_perturbation_leaves_the_mean_of_every_slice(seed: int) -> None:
    volume = volume_of(seed)
    result = altered(CentrePerturbation(seed=seed, strength=0.2, cutoff=0.1), volume)
    assert result.mean() == pytest.approx(volume.mean(), rel=1e-4)
    assert not np.allclose(result, volume, rtol=1e-5)
    sliced = altered(CentrePerturbation(seed=seed, strength=0.2, cutoff=0.1), volume, (2.0, 2.0, 5.0))
    np.testing.assert_allclose(sliced.mean(axis=(0, 1)), volume.mean(axis=(0, 1)), rtol=1e-4)


@few
@given(seeds)
def test_spikes_are_faint_stripes(seed: int) -> None:
    spikes = Spikes.sample(np.random.default_rng(seed))
    total = sum(amplitude for *_, amplitude, _ in spikes.spikes)
    assert 0.02 <= total <= 0.36
    change = altered(spikes, volume_of(seed)) - volume_of(seed)
    assert 0 < np.abs(change).max() <= total * volume_of(seed).mean() * 1.001
    assert change.mean() == pytest.approx(0, abs=0.01)


@few
@given(seeds)
def test_spikes_lie_far_from_the_centre(seed: int) -> None:
    before = KSpace.of(volume_of(seed, (40, 40, 40)), (1.0, 1.0, 1.0))
    after = Spikes.sample(np.random.default_rng(seed)).apply(before)
    changed = after.values != before.values
    assert 1 <= changed.sum() <= 3
    assert before.radius()[changed].min() > 0.3 * 0.5


def test_a_spike_disturbs_one_thick_slice_only() -> None:
    spike = Spikes(spikes=((0.3, 0.4, 0.5, 0.05, 1.0),))
    volume = volume_of(0)
    change = np.abs(altered(spike, volume, (1.0, 1.0, 4.0)) - volume).max(axis=(0, 1))
    assert change[8] == pytest.approx(0.05 * volume.mean(axis=(0, 1)).max(), rel=0.02)
    assert np.delete(change, 8).max() < 1e-3


def test_phase_error_gives_a_ghost_where_it_says() -> None:
    volume = np.zeros((40, 30, 20), np.float32)
    volume[4:8, 10:20, 5:15] = 100
    ghosted = altered(PhaseError(direction=0.0, shift=0.25, amplitude=0.1, phase=0.5), volume, (1.0,) * 3)
    assert np.mean(ghosted[14:18, 10:20, 5:15]) == pytest.approx(5, rel=0.05)
    assert np.mean(ghosted[34:38, 10:20, 5:15]) == pytest.approx(5, rel=0.05)
    assert np.mean(ghosted[4:8, 10:20, 5:15]) == pytest.approx(100, rel=0.01)
    # Ghosts appear only along the phase encoding.
    assert ghosted[:, :9].max() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("direction", "axis"), [(0.0, 1), (0.49, 1), (0.5, 2), (0.99, 2)])
def test_phase_encoding_lies_in_plane(direction: float, axis: int) -> None:
    volume = np.zeros((8, 32, 32), np.float32)
    volume[2:4, 10:14, 10:14] = 100
    error = PhaseError(direction=direction, shift=0.5, amplitude=0.1, phase=0.5)
    ghosted = altered(error, volume, (5.0, 1.0, 1.0))
    touched = [np.ptp(np.argwhere(ghosted > 1)[:, a]) for a in range(3)]
    assert touched[axis] > 15
    assert sorted(touched)[:2] == [1, 3]


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
    band = through_json(LowBand(weight=1.0, cutoff=0.1))
    result = band.apply(own, other)
    assert result.values[0, 0, 0] == pytest.approx(other.values[0, 0, 0], rel=1e-5)
    beyond = own.radius() >= band.cutoff
    np.testing.assert_allclose(result.values[beyond], own.values[beyond], rtol=1e-6)
    inside = ~beyond & (own.radius() < 0.09)
    assert np.all(np.abs(result.values - own.values)[inside] > 0)


def test_low_band_takes_a_scan_that_was_encoded_otherwise() -> None:
    own, other = KSpace.of(volume_of(0), (2.0, 2.0, 2.0)), KSpace.of(2 * volume_of(1), (2.0, 2.0, 5.0))
    result = LowBand(weight=1.0, cutoff=0.1).apply(own, other)
    assert result.axes == own.axes
    assert result.volume().mean() == pytest.approx(2 * volume_of(1).mean(), rel=1e-3)


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
