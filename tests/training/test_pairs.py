"""Pairs for training: reproducible, on one grid, now and then unaltered, of scans and of simulated heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.errors import BadData
from bids_harmonize.imaging.foreground import Foreground
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.simulation.protocols import REFERENCE_PROTOCOLS, TISSUES, Protocol, vary_tissues
from bids_harmonize.training.pairs import Pair, alter, draw_batch, draw_pair
from bids_harmonize.training.recipe import ACQUISITION, WITHOUT_BRAIN, Recipe
from bids_harmonize.training.reference_group import ReferenceScan
from bids_harmonize.training.sources import (
    SIMULATED_SURROUNDINGS,
    ReferenceExample,
    SimulatedHead,
    Source,
    reference_examples,
    simulated_heads,
    tissue_levels,
)
from tests.helpers.toy_heads import MPRAGE, T2_SPIN_ECHO, ball_scan, label_map, write_label_map

PROTOCOLS = {"T1w": MPRAGE, "T2w": T2_SPIN_ECHO}
# A recipe without alterations: only the source itself changes the contrast.
UNTOUCHED = Recipe(frequencies={}, unaltered=0.0, mild=0.0, scale_jitter=0.0)
few = settings(max_examples=20)
seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def group(small_group: list[ReferenceScan]) -> list[ReferenceExample]:
    return [example for scan in small_group for example in reference_examples(scan)]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> list[Head]:
    """Four people, voxels of 7 mm."""
    folder = tmp_path_factory.mktemp("labels")
    return [
        Head.read(write_label_map(folder / f"sub-{seed}_dseg.nii.gz", label_map(seed))) for seed in range(4)
    ]


def scanned(head: Head, protocol: Protocol, seed: int = 0, *, stripped: bool = False) -> ReferenceScan:
    """A scan in units of its white matter."""
    signals = protocol.signals()
    volume = head.person(np.random.default_rng([7, seed])).render(signals) / signals["white matter"]
    shown = volume * head.brain if stripped else volume
    return ReferenceScan(
        name=head.name,
        volume=shown.astype(np.float32),
        zooms=head.zooms,
        region=head.brain,
        reference_intensity=1.0,
    )


def group_of(heads: Sequence[Head], modality: str, *, stripped: bool = False) -> list[ReferenceExample]:
    scans = [scanned(head, PROTOCOLS[modality], seed, stripped=stripped) for seed, head in enumerate(heads)]
    return [example for scan in scans for example in reference_examples(scan, modality)]


@pytest.fixture(scope="module")
def mixed(heads: list[Head]) -> list[Source]:
    """Scans of three heads, and the fourth simulated, in voxels of another size."""
    scans = group_of(heads[:3], "T2w")
    return [*scans, *simulated_heads([replace(heads[3], zooms=(7.0, 7.0, 6.0))], scans, "T2w")]


def arrays_of(pair: Pair) -> list[np.ndarray]:
    return [pair.augmented, pair.target, pair.region]


# Examples


def test_examples_are_in_units_of_white_matter(small_group: list[ReferenceScan]) -> None:
    for example in reference_examples(small_group[0]):
        assert example.volume.dtype == np.float32
        assert example.volume.shape == example.region.shape == example.inside.shape
        assert np.quantile(example.volume[example.region], 0.1) == pytest.approx(600 / 900, abs=0.05)
        assert 0 <= example.inside.min() <= example.inside.max() <= 1 + 1e-6


@pytest.mark.parametrize("zooms", [(1.0, 1.0, 1.0), (0.8, 0.8, 5.0), (2.0, 2.0, 2.0), (4.0, 0.5, 0.5)])
def test_examples_keep_the_field_of_view(zooms: tuple[float, float, float]) -> None:
    shape = tuple(round(48 / zoom) for zoom in zooms)
    volume = np.random.default_rng(0).uniform(100, 900, shape).astype(np.float32)
    scan = ReferenceScan(
        name="a", volume=volume, zooms=zooms, region=np.ones(shape, dtype=bool), reference_intensity=500.0
    )
    averaged, every = reference_examples(scan, brain=False)
    for example in (averaged, every):
        extent = np.multiply(example.volume.shape, example.zooms)
        target = np.multiply(shape, zooms)
        assert np.all(np.abs(extent - target) <= np.maximum(example.zooms, 2.0) + 1e-9)
        assert np.all(np.asarray(example.zooms) >= np.minimum(zooms, 1.8))
        assert example.tissues is None
    # Averaging keeps the mean and takes noise away; picking keeps values as they were measured.
    assert averaged.volume.mean() == pytest.approx(1, abs=0.03)
    assert np.isin(every.volume, volume / np.float32(500)).all()


@pytest.mark.parametrize("modality", PROTOCOLS)
def test_tissues_of_a_brain_are_found(heads: list[Head], modality: str) -> None:
    signals = PROTOCOLS[modality].signals()
    example = group_of(heads[:1], modality)[0]
    assert example.tissues is not None
    inside, outside = example.tissues
    for name in ("white matter", "grey matter"):
        assert inside[name] == pytest.approx(signals[name] / signals["white matter"], rel=0.1)
    rising = sorted(inside, key=lambda name: inside[name])
    names = ["csf", "grey matter", "white matter"]
    assert rising == (names if modality == "T1w" else names[::-1])
    assert 0 < outside["muscle"] < outside["fat"]
    assert tissue_levels(example, modality) == example.tissues


def test_a_brain_of_two_intensities_has_no_tissues(heads: list[Head]) -> None:
    example = group_of(heads[:1], "T1w")[0]
    flat = np.where(example.volume > np.median(example.volume[example.region]), 2, 1).astype(np.float32)
    with pytest.raises(BadData):
        tissue_levels(replace(example, volume=flat), "T1w")


def test_around_a_skull_stripped_brain_there_are_no_tissues(heads: list[Head]) -> None:
    whole, stripped = (group_of(heads[:1], "T1w", stripped=stripped)[1] for stripped in (False, True))
    assert stripped.tissues is not None and whole.tissues is not None
    assert stripped.tissues == (whole.tissues[0], {})
    pair = draw_pair([stripped], np.random.default_rng(0), replace(UNTOUCHED, frequencies={"Acquisition": 1}))
    assert np.abs(pair.augmented - pair.target).max() > 0.05


# Simulated heads


@pytest.mark.parametrize("modality", PROTOCOLS)
def test_simulated_heads_show_the_classes_of_the_group(heads: list[Head], modality: str) -> None:
    scans = group_of(heads[:3], modality)
    (simulated,) = simulated_heads(heads[3:], scans, modality)
    # Another person than those that the calibration looked at.
    volume = heads[3].person(np.random.default_rng(99)).render(simulated.reference)
    like_a_scan = ReferenceScan(
        name="a", volume=volume, zooms=simulated.zooms, region=simulated.region, reference_intensity=1.0
    )
    found = tissue_levels(reference_examples(like_a_scan, modality)[0], modality)[0]
    for name, level in found.items():
        wanted = np.median([scan.tissues[0][name] for scan in scans if scan.tissues])
        assert level == pytest.approx(wanted, rel=0.03, abs=0.01), name
    grey, white = simulated.reference["grey matter"], simulated.reference["white matter"]
    assert min(grey, white) < simulated.reference["deep grey matter"] < max(grey, white)
    assert simulated.surroundings == SIMULATED_SURROUNDINGS
    assert simulated.modality == modality


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("brain", [True, False])
def test_without_label_maps_there_are_no_simulated_heads(
    small_group: list[ReferenceScan], brain: bool
) -> None:
    assert simulated_heads([], reference_examples(small_group[0], brain=brain), "T1w") == []


def test_of_a_skull_stripped_group_the_surroundings_do_not_count(heads: list[Head]) -> None:
    (simulated,) = simulated_heads(heads[3:], group_of(heads[:2], "T1w", stripped=True), "T1w")
    assert simulated.surroundings == 0
    assert simulated.reference["fat"] == 0


def test_simulated_pair_is_one_person_under_two_protocols(heads: list[Head]) -> None:
    (simulated,) = simulated_heads(heads[3:], group_of(heads[:1], "T2w"), "T2w")
    augmented, target = simulated.contrast(Recipe(), np.random.default_rng(4), 1.0)
    reference = simulated.reference
    white = heads[3].share("white matter") == 1
    step = reference["grey matter"] - reference["white matter"]
    texture = (target[white] - reference["white matter"]) / step
    assert texture.std() > 0.03
    assert np.corrcoef(texture, augmented[white])[0, 1] > 0.999
    np.testing.assert_array_equal(augmented == 0, target == 0)


# Pairs


@few
@given(seeds, st.sampled_from(["T1w", "T2w"]))
def test_white_matter_is_everybodys_unit_and_the_rest_is_their_own(
    heads: list[Head], seed: int, modality: str
) -> None:
    (simulated,) = simulated_heads(heads[3:], group_of(heads[:1], modality), modality)
    tissues = vary_tissues(np.random.default_rng(seed))
    under_reference = REFERENCE_PROTOCOLS[modality].signals(tissues)
    own = simulated.own_reference(tissues, PROTOCOLS[modality].signals(tissues))
    usual = simulated.own_reference(TISSUES, PROTOCOLS[modality].signals())
    assert own["white matter"] == usual["white matter"] == simulated.reference["white matter"]
    for name in ("grey matter", "deep grey matter", "lesion"):
        special = under_reference[name] / under_reference["white matter"]
        common = REFERENCE_PROTOCOLS[modality].signal(name) / REFERENCE_PROTOCOLS[modality].signal(
            "white matter"
        )
        assert own[name] / usual[name] == pytest.approx(special / common)


@few
@given(seeds)
def test_same_random_numbers_same_pair(group: list[ReferenceExample], seed: int) -> None:
    first, second = (draw_pair(group, np.random.default_rng(seed)) for _ in range(2))
    for one, other in zip(arrays_of(first), arrays_of(second), strict=True):
        np.testing.assert_array_equal(one, other)
    assert first.zooms == second.zooms


@few
@given(seeds, st.integers(1, 4))
def test_same_random_numbers_same_batch_of_one_grid(mixed: list[Source], seed: int, size: int) -> None:
    batch, again = (draw_batch(mixed, np.random.default_rng(seed), size) for _ in range(2))
    assert len(batch) == size
    assert len({(pair.augmented.shape, pair.zooms, pair.surroundings, pair.air) for pair in batch}) == 1
    for pair, same in zip(batch, again, strict=True):
        for one, other in zip(arrays_of(pair), arrays_of(same), strict=True):
            assert one.shape == batch[0].augmented.shape
            np.testing.assert_array_equal(one, other)


def test_scans_of_one_protocol_share_a_batch_whatever_rounding_did(group: list[ReferenceExample]) -> None:
    near = replace(group[0], zooms=tuple(zoom + 1e-4 for zoom in group[0].zooms), volume=group[0].volume * 3)
    seen = set()
    for seed in range(12):
        pairs = draw_batch([group[0], near], np.random.default_rng(seed), 2, Recipe(unaltered=1.0))
        seen.add(len({round(float(pair.target.max())) for pair in pairs}))
    assert 2 in seen


def test_pairs_of_a_batch_have_grids_of_one_size(small_group: list[ReferenceScan]) -> None:
    sources = [*reference_examples(small_group[0]), *reference_examples(ball_scan(9, (20, 30, 24)))]
    for seed in range(10):
        batch = draw_batch(sources, np.random.default_rng(seed), 4)
        (shape,) = {pair.augmented.shape for pair in batch}
        assert shape in {pair.region.shape for pair in batch}
        boxes = [Foreground.of(pair.augmented, pair.zooms).box for pair in batch]
        assert np.array_equal(np.max([box.shape for box in boxes], axis=0), batch[0].box.shape)
        for box, pair in zip(boxes, batch, strict=True):
            assert np.all(np.array(pair.box.start) <= box.start)
            assert np.all(np.array(pair.box.stop) >= box.stop)


@few
@given(seeds)
def test_a_pair_is_fit_for_training(mixed: list[Source], seed: int) -> None:
    pair = draw_pair(mixed, np.random.default_rng(seed))
    assert pair.augmented.dtype == pair.target.dtype == np.float32
    assert pair.region.dtype == np.bool_
    for volume in (pair.augmented, pair.target):
        assert volume.flags.c_contiguous
        assert np.all(np.isfinite(volume))
        assert volume.min() >= 0
    # Jitter of the scale has a standard deviation of 10 %.
    assert 0.5 < intensity_scale(pair.augmented) < 2
    # At most a quarter of each axis is cropped, and that seldom takes all of one side.
    assert pair.region.sum() > 0.25 * min(source.region.sum() for source in mixed)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 60)])
def test_share_of_simulated_heads(mixed: list[Source], share: float, expected: int) -> None:
    rng = np.random.default_rng(0)
    recipe = replace(UNTOUCHED, simulated=share)
    pairs = [draw_pair(mixed, rng, recipe) for _ in range(60)]
    assert sum(pair.surroundings == SIMULATED_SURROUNDINGS for pair in pairs) == expected


def test_simulated_heads_alone_are_drawn_from_too(mixed: list[Source]) -> None:
    alone = [source for source in mixed if isinstance(source, SimulatedHead)]
    pairs = draw_batch(alone, np.random.default_rng(0), 3, Recipe(simulated=0.0))
    assert {pair.surroundings for pair in pairs} == {SIMULATED_SURROUNDINGS}


@few
@given(seeds, st.sampled_from([0.3, 1.0]))
def test_altering_leaves_the_original_alone(mixed: list[Source], seed: int, strength: float) -> None:
    source, other = mixed[0], mixed[2]
    assert isinstance(source, ReferenceExample)
    volume, inside = source.volume.copy(), source.inside.copy()
    augmented = alter(source.volume, source, other, np.random.default_rng(seed), strength, Recipe())
    assert augmented.shape == volume.shape
    assert augmented.dtype == np.float32
    assert not np.shares_memory(augmented, source.volume)
    np.testing.assert_array_equal(source.volume, volume)
    np.testing.assert_array_equal(source.inside, inside)


def test_drawing_leaves_the_group_alone(group: list[ReferenceExample]) -> None:
    before = [example.volume.copy() for example in group]
    rng = np.random.default_rng(0)
    for _ in range(20):
        draw_pair(group, rng)
    for example, volume in zip(group, before, strict=True):
        np.testing.assert_array_equal(example.volume, volume)


@few
@given(seeds)
def test_unaltered_pairs_differ_by_a_factor_only(group: list[ReferenceExample], seed: int) -> None:
    pair = draw_pair(group, np.random.default_rng(seed), Recipe(unaltered=1.0))
    factor = np.median(pair.augmented[pair.region] / pair.target[pair.region])
    np.testing.assert_allclose(pair.augmented, factor * pair.target, rtol=1e-4, atol=1e-6)


def test_some_pairs_are_unaltered(group: list[ReferenceExample]) -> None:
    rng = np.random.default_rng(0)
    pairs = [draw_pair(group, rng) for _ in range(200)]
    unaltered = 0
    for pair in pairs:
        bright = pair.target > 0.3
        ratio = pair.augmented[bright] / pair.target[bright]
        unaltered += bool(np.ptp(ratio) < 1e-4 * ratio.mean())
    # Four standard deviations of the binomial distribution around its mean.
    share = Recipe().unaltered
    assert unaltered / len(pairs) == pytest.approx(share, abs=4 * np.sqrt(share / len(pairs)))


def departure(group: Sequence[Source], recipe: Recipe) -> float:
    """Mean difference of altered and original, each over its bright value."""
    rng = np.random.default_rng(5)
    pairs = [draw_pair(group, rng, recipe) for _ in range(30)]
    return float(np.mean([np.abs(p.augmented - p.target / intensity_scale(p.target)).mean() for p in pairs]))


def test_mild_pairs_are_nearer_to_the_original(group: list[ReferenceExample]) -> None:
    mild = departure(group, Recipe(unaltered=0.0, mild=1.0, scale_jitter=0.0))
    full = departure(group, Recipe(unaltered=0.0, mild=0.0, scale_jitter=0.0))
    assert 0 < mild < 0.7 * full


def test_skull_stripped_pairs_are_zero_in_both(group: list[ReferenceExample]) -> None:
    rng = np.random.default_rng(1)
    pairs = [draw_pair(group, rng) for _ in range(100)]
    stripped = [pair for pair in pairs if np.mean(pair.target == 0) > 0.5]
    assert 0.05 < len(stripped) / len(pairs) < 0.36
    for pair in stripped:
        np.testing.assert_array_equal(pair.target[pair.augmented == 0], 0)
        np.testing.assert_array_equal(pair.augmented[pair.target == 0], 0)
        outside = np.flatnonzero(~pair.region & (pair.target > 1.1))
        # Scalp is gone: a mask two voxels too wide does not reach it on most of the surface.
        assert outside.size < 0.25 * pair.region.size


def test_without_a_brain_nothing_is_stripped(small_group: list[ReferenceScan]) -> None:
    rng = np.random.default_rng(1)
    elsewhere = reference_examples(small_group[0], "T2w", brain=False)
    recipe = Recipe(frequencies=WITHOUT_BRAIN)
    pairs = [draw_pair(elsewhere, rng, recipe) for _ in range(40)]
    assert not any(np.mean(pair.target == 0) > 0.01 for pair in pairs)
    assert not set(ACQUISITION) & set(WITHOUT_BRAIN)


@few
@given(seeds)
def test_another_protocol_keeps_the_order_of_intensities(heads: list[Head], seed: int) -> None:
    (example, _) = group_of(heads[:1], "T1w")
    recipe = replace(UNTOUCHED, frequencies={"Acquisition": 1.0})
    augmented, target = example.contrast(recipe, np.random.default_rng(seed), 1.0)
    assert target is example.volume
    assert augmented.dtype == np.float32
    # Where a voxel is all inside or all outside, one rising curve maps it.
    for where in (example.inside > 1 - 1e-6, example.inside < 1e-6):
        order = np.argsort(target[where], kind="stable")
        assert np.diff(augmented[where][order]).min() >= -1e-5
    np.testing.assert_array_equal(augmented[target == 0], 0)


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_strength_of_another_protocol(heads: list[Head], strength: float) -> None:
    (example, _) = group_of(heads[:1], "T2w")
    recipe = replace(UNTOUCHED, frequencies={"Acquisition": 1.0})
    (weak, _), (full, _) = (
        example.contrast(recipe, np.random.default_rng(2), value) for value in (strength, 1.0)
    )
    expected = example.volume / intensity_scale(example.volume)
    assert np.abs(full - expected).max() > 0.05
    weak = weak / np.float32(intensity_scale(weak))
    assert np.abs(weak - expected).mean() <= 0.6 * np.abs(full - expected).mean() * (strength > 0) + 1e-6


def test_halves_of_the_pairs_are_mirrored_and_windows_vary(group: list[ReferenceExample]) -> None:
    rng = np.random.default_rng(2)
    shapes = {draw_pair(group[:1], rng).augmented.shape for _ in range(60)}
    assert group[0].volume.shape in shapes or len(shapes) > 5
    full = group[0].volume.shape
    assert all(0.7 * n <= m <= n for shape in shapes for n, m in zip(full, shape, strict=True))
    mirrored = 0
    for _ in range(60):
        pair = draw_pair(group[:1], rng, replace(UNTOUCHED, unaltered=1.0))
        x, y, z = pair.target.shape
        windows = np.lib.stride_tricks.sliding_window_view(group[0].volume[::-1], (x, y, z)).reshape(
            -1, x, y, z
        )
        mirrored += any(np.array_equal(window, pair.target) for window in windows)
    assert 15 < mirrored < 45
