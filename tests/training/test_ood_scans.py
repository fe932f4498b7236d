"""Foreign scans are what their kind says, and a classifier learns to tell them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.model.ood_detector import OODDetector
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.training.ood_fit import FALSE_ALARM_RATE, PEOPLE, fit_ood_detector
from bids_harmonize.training.ood_scans import (
    CONTRASTS,
    FAMILIAR,
    MIN_RATIO,
    OBJECTS,
    OOD_CLASSES,
    TISSUE_ORDER,
    VIEWS,
    _inverted,
    _shown,
    _skull,
    make_ood,
    of_another_person,
    ood_classes,
    sample_in_distribution,
    sample_ood,
)
from bids_harmonize.training.reference_group import ReferenceScan
from bids_harmonize.training.sources import (
    ReferenceExample,
    SimulatedHead,
    Source,
    reference_examples,
    simulated_heads,
)
from tests.helpers.toy_heads import label_map, write_label_map

few = settings(max_examples=10)
seeds = st.integers(0, 2**31)
MODALITIES = ("T1w", "T2w")


@pytest.fixture(scope="module")
def group(small_group: list[ReferenceScan]) -> list[ReferenceExample]:
    return [example for scan in small_group for example in reference_examples(scan)]


@pytest.fixture(scope="module")
def sources(group: list[ReferenceExample], tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("labels")
    paths = [write_label_map(folder / f"sub-{seed}_dseg.nii.gz", label_map(seed)) for seed in range(2)]
    return [*group, *simulated_heads([Head.read(path) for path in paths], group, "T1w")]


def simulated(sources: list[Source]) -> SimulatedHead:
    return next(source for source in sources if isinstance(source, SimulatedHead))


@few
@given(seeds)
def test_the_same_seed_draws_the_same_scan(sources: list[Source], seed: int) -> None:
    first, second = (sample_ood(sources, "T1w", np.random.default_rng(seed)) for _ in range(2))
    assert first.kind == second.kind
    np.testing.assert_array_equal(first.volume, second.volume)


@pytest.mark.parametrize("kind", OOD_CLASSES)
def test_every_kind_is_a_magnitude_image_scaled_to_its_bright_value(sources: list[Source], kind: str) -> None:
    for source in (sources[0], simulated(sources)):
        drawn = make_ood(source, kind, "T1w", np.random.default_rng(3))
        assert drawn.kind == kind
        assert drawn.volume.dtype == np.float32
        assert np.all(np.isfinite(drawn.volume))
        assert drawn.volume.min() >= 0
        assert intensity_scale(drawn.volume) == pytest.approx(1, rel=0.01)


@few
@given(seeds)
def test_familiar_scans_keep_the_order_of_the_brain(sources: list[Source], seed: int) -> None:
    drawn = sample_in_distribution(sources, "T1w", np.random.default_rng(seed))
    assert drawn.kind == FAMILIAR
    assert intensity_scale(drawn.volume) == pytest.approx(1, rel=0.01)


@few
@given(seeds, st.sampled_from(MODALITIES), st.sampled_from([kind for kind in CONTRASTS if kind != "CT"]))
def test_foreign_contrasts_reverse_the_order_of_two_tissues(seed: int, modality: str, kind: str) -> None:
    if (kind, modality) == ("STIR", "T2w"):
        return
    signals = CONTRASTS[kind](modality, np.random.default_rng(seed))
    low, middle, high = (signals[name] for name in TISSUE_ORDER[modality])
    assert low > MIN_RATIO * middle or middle > MIN_RATIO * high


@few
@given(seeds)
def test_fluid_is_dark_in_flair_and_bone_is_bright_in_ct(seed: int) -> None:
    flair, ct = (CONTRASTS[kind]("T1w", np.random.default_rng(seed)) for kind in ("FLAIR", "CT"))
    assert flair["csf"] < flair["white matter"] < flair["grey matter"]
    assert ct["bone"] >= max(ct.values()) >= min(ct.values()) >= 0
    assert ct["fat"] < ct["white matter"]


def test_a_scan_shows_its_tissues_as_the_contrast_says(group: list[ReferenceExample]) -> None:
    example = group[0]
    assert example.tissues is not None
    inner, outer = example.tissues
    signals = {name: float(number) for number, name in enumerate(reversed([*inner, *outer]), 1)} | {"bone": 0}
    shown = _shown(example, signals, np.random.default_rng(0))
    for name, level in inner.items():
        alike = (example.inside > 0.99) & (np.abs(example.volume - level) < 0.01)
        assert np.median(shown[alike]) == pytest.approx(signals[name], rel=0.1), name


def test_bone_is_shown_where_the_head_is_dark(group: list[ReferenceExample]) -> None:
    example = group[0]
    assert example.tissues is not None
    volume = example.volume.copy()
    volume[3:5, 12:14, 10:12] = 0
    soft = dict.fromkeys([*example.tissues[0], *example.tissues[1]], 1.0)
    hole = replace(example, volume=np.where(_skull(example.volume), 1, volume).astype(np.float32))
    shown = _shown(hole, soft | {"bone": 3.0}, np.random.default_rng(0))
    skull = _skull(hole.volume) & ~hole.region
    assert np.count_nonzero(skull) > 0
    assert np.all(shown[skull] == 3)
    assert shown[~skull].max() < 3


def test_inverted_scans_are_dark_where_they_were_bright(group: list[ReferenceExample]) -> None:
    example = group[0]
    for seed in range(5):
        turned = _inverted(example, np.random.default_rng(seed)).volume
        assert np.corrcoef(turned[example.region], example.volume[example.region])[0, 1] < -0.5


def test_views_are_small_and_show_something(sources: list[Source]) -> None:
    for seed in range(6):
        for kind in VIEWS:
            whole = sources[seed].region.shape
            volume = make_ood(sources[seed], kind, "T1w", np.random.default_rng(seed)).volume
            assert min(n / m for n, m in zip(volume.shape, whole, strict=True)) < 0.36
            assert np.mean(volume > 0.05) > 0.05


def test_what_can_be_made_of_a_source(sources: list[Source], group: list[ReferenceExample]) -> None:
    anywhere = {"inverted", *OBJECTS, *VIEWS}
    assert (
        set(ood_classes(sources[0], "T1w")) == set(ood_classes(simulated(sources), "T1w")) == set(OOD_CLASSES)
    )
    # With fat suppressed, a T2w scan is as STIR shows it.
    assert set(OOD_CLASSES) - set(ood_classes(sources[0], "T2w")) == {"STIR"}
    without = [source for source in group if source.tissues is None]
    assert all(set(ood_classes(source, "T1w")) == anywhere for source in without)
    assert anywhere | set(CONTRASTS) == set(OOD_CLASSES)


def test_no_tissues_no_contrasts(small_group: list[ReferenceScan]) -> None:
    source = reference_examples(small_group[0], brain=False)[0]
    assert set(ood_classes(source, "T2w")) == {"inverted", *OBJECTS, *VIEWS}
    for seed in range(4):
        assert sample_ood([source], "T2w", np.random.default_rng(seed)).kind not in CONTRASTS


def test_what_is_learned_fits_a_card_and_tells_scans_apart(group: list[ReferenceExample]) -> None:
    entry = fit_ood_detector(group, "T1w", seed=1, scans=120)
    assert len(json.dumps(entry)) < 100_000
    ood_detector = OODDetector.of_card(entry)
    assert 0 < ood_detector.threshold < 1
    told = {kind: [int(number) for number in text.split(" of ")] for kind, text in entry["HeldOut"].items()}
    assert (
        told[FAMILIAR][1]
        == sum(total for kind, (_, total) in told.items() if kind != FAMILIAR)
        == 60 * PEOPLE
    )
    assert told[FAMILIAR][0] <= FALSE_ALARM_RATE * 60 * PEOPLE + 1
    assert sum(is_ood for kind, (is_ood, _) in told.items() if kind != FAMILIAR) > 20 * PEOPLE


@pytest.mark.parametrize("seed", range(6))
def test_another_person_has_another_head_and_the_same_contrast(
    group: list[ReferenceExample], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scan = sample_in_distribution(group, "T1w", rng)
    other = of_another_person(scan, rng)
    assert other.kind == FAMILIAR
    assert other.volume.dtype == np.float32
    assert 0 <= other.volume.min() <= other.volume.max() <= scan.volume.max() * (1 + 1e-6)
    sizes = [n * length for n, length in zip(other.volume.shape, other.zooms, strict=True)]
    before = [n * length for n, length in zip(scan.volume.shape, scan.zooms, strict=True)]
    # Up to two voxels of an axis that is not a multiple of the thick slices are left out.
    ratios = [after / length for after, length in zip(sizes, before, strict=True)]
    assert 0.82 * (1 - 2 / min(scan.volume.shape)) <= min(ratios)
    assert max(ratios) <= 1.12


def test_the_same_seed_learns_the_same_and_leaves_other_random_numbers_alone(
    group: list[ReferenceExample],
) -> None:
    state = torch.get_rng_state()
    first, second = (fit_ood_detector(group[:2], "T1w", seed=2, scans=24) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
