"""Heads from label maps: shares of tissues, images of them, and label maps that cannot be used."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.simulation.label_heads import FREESURFER_LABELS, TEXTURE, Head, Person
from bids_harmonize.simulation.protocols import REFERENCE_PROTOCOLS, TISSUES
from tests.helpers.toy_heads import MPRAGE, T2_SPIN_ECHO, label_map, write_label_map

# One number of every tissue, one of the brain and one outside it that belong to none, and air.
NUMBERS = [*(numbers[0] for numbers in FREESURFER_LABELS.values()), 6, 999, 0]
few = settings(max_examples=25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels")


@pytest.fixture(scope="module")
def head(folder: Path) -> Head:
    return Head.read(write_label_map(folder / "sub-1_dseg.nii.gz", label_map()))


@pytest.fixture(scope="module")
def person(head: Head) -> Person:
    return head.person(np.random.default_rng(3))


def several(least: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(least, 2), min_size=len(TISSUES), max_size=len(TISSUES))


def signals_of(*values: float) -> dict[str, float]:
    return dict(zip(TISSUES, values, strict=True))


def test_blocks_of_voxels_become_shares(folder: Path) -> None:
    labels = np.full((4, 4, 4), 3, dtype=np.int16)
    labels[:2, :2, :2] = 2
    labels[0, 0, 0] = 41
    labels[0, 0, 1] = 515
    labels[2:, 2:, 2:] = 511
    head = Head.read(write_label_map(folder / "sub-7_desc-a_dseg.nii.gz", labels, (1.0, 1.5, 2.0)))
    assert head.name == "sub-7"
    assert head.zooms == (2.0, 3.0, 4.0)
    assert head.fractions.shape == (len(head.tissues), 2, 2, 2)
    assert head.fractions.dtype == np.float32
    assert head.share("white matter")[0, 0, 0] == 7 / 8
    assert head.share("bone")[0, 0, 0] == 1 / 8
    assert head.share("grey matter").sum() == 6
    np.testing.assert_array_equal(np.argwhere(~head.brain), [[1, 1, 1]])


@few
@given(
    arrays.arrays(np.int16, (6, 7, 8), elements=st.sampled_from(NUMBERS)),
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4)),
)
def test_shares_add_up_to_what_is_labelled(
    folder: Path, labels: np.ndarray, factors: tuple[int, int, int]
) -> None:
    labels[:4, :6, :4] = 2
    head = Head.read(write_label_map(folder / "sub-any_dseg.nii.gz", labels), factors)
    assert head.fractions.min() >= 0
    total = head.fractions.sum(axis=0)
    assert total.max() <= 1 + 1e-6
    x, y, z = (n * factor for n, factor in zip(total.shape, factors, strict=True))
    known = np.isin(labels, [number for numbers in FREESURFER_LABELS.values() for number in numbers])[
        :x, :y, :z
    ]
    assert total.sum() * np.prod(factors) == pytest.approx(known.sum(), rel=1e-5)


def test_no_number_stands_for_two_tissues() -> None:
    numbers = [number for several in FREESURFER_LABELS.values() for number in several]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(("modality", "brighter"), [("T1w", False), ("T2w", True)])
def test_lesions_of_label_maps_look_like_lesions(folder: Path, modality: str, brighter: bool) -> None:
    labels = np.full((12, 12, 12), 2, dtype=np.int16)
    labels[4:6, 4:8, 4:8], labels[6:8, 4:8, 4:8] = 25, 57
    head = Head.read(write_label_map(folder / "sub-old_dseg.nii.gz", labels))
    signals = REFERENCE_PROTOCOLS[modality].signals()
    volume = head.person(np.random.default_rng(0)).render(signals)
    np.testing.assert_allclose(volume[2:4, 2:4, 2:4], signals["lesion"], rtol=1e-5)
    assert (signals["lesion"] > signals["white matter"]) is brighter


def test_air_far_from_the_head_is_left_out(folder: Path) -> None:
    labels = np.zeros((60, 50, 40), dtype=np.int16)
    labels[20:30, 20:30, 20:30] = 2
    head = Head.read(write_label_map(folder / "sub-far_dseg.nii.gz", labels))
    # Ten voxels and a margin of eight on either side, two by two.
    assert head.brain.shape == (13, 13, 13)
    assert head.share("white matter").sum() * 8 == 1000


def test_axes_are_right_anterior_superior(folder: Path, head: Head) -> None:
    affine = np.array([[0, -3.5, 0, 0], [0, 0, 3.5, 0], [-3.5, 0, 0, 0], [0, 0, 0, 1]])
    stored = label_map()[::-1, :, ::-1].transpose(2, 0, 1)
    nib.save(nib.Nifti1Image(stored, affine), folder / "sub-turned_dseg.nii.gz")
    turned = Head.read(folder / "sub-turned_dseg.nii.gz")
    np.testing.assert_array_equal(turned.fractions, head.fractions)
    assert turned.zooms == head.zooms


# Where no tissue is much darker than the others, texture does not reach 0, below which images do not go.
@few
@given(several(0.6), several(0.6), st.floats(0.1, 3))
def test_image_is_linear_in_the_signals(
    person: Person, first: list[float], second: list[float], factor: float
) -> None:
    a, b = signals_of(*first), signals_of(*second)
    together = {name: a[name] + factor * b[name] for name in a}
    expected = person.render(a) + np.float32(factor) * person.render(b)
    np.testing.assert_allclose(person.render(together), expected, rtol=1e-4, atol=1e-4)


@few
@given(several(0.0))
def test_image_lies_between_air_and_the_brightest_tissue(person: Person, values: list[float]) -> None:
    volume = person.render(signals_of(*values))
    assert volume.dtype == np.float32
    assert volume.min() >= 0
    assert volume.max() <= max(values) * (1 + 6 * TEXTURE) + 1e-5
    np.testing.assert_array_equal(volume[person.head.fractions.sum(axis=0) == 0], 0)


def test_pure_voxels_show_their_tissue(person: Person) -> None:
    signals = T2_SPIN_ECHO.signals()
    volume = person.render(signals)
    for name in ("csf", "bone", "deep grey matter"):
        pure = person.head.share(name) == 1
        assert pure.any()
        np.testing.assert_allclose(volume[pure], signals[name], rtol=1e-5, atol=1e-6)
    white = person.head.share("white matter") == 1
    assert np.median(volume[white]) == pytest.approx(signals["white matter"], rel=0.05)


def test_two_scans_of_a_person_share_texture_and_fat(person: Person) -> None:
    first, second = MPRAGE.signals(), T2_SPIN_ECHO.signals()
    volumes = {id(signals): person.render(signals) for signals in (first, second)}
    white = person.head.share("white matter") == 1
    scalp = person.head.share("scalp") == 1

    def part(signals: dict[str, float], where: np.ndarray, low: str, high: str) -> np.ndarray:
        return (volumes[id(signals)][where] - signals[low]) / (signals[high] - signals[low])

    texture = part(first, white, "white matter", "grey matter")
    assert texture.std() == pytest.approx(TEXTURE, rel=0.3)
    np.testing.assert_allclose(part(second, white, "white matter", "grey matter"), texture, atol=1e-4)
    fat = part(first, scalp, "muscle", "fat")
    np.testing.assert_allclose(part(second, scalp, "muscle", "fat"), fat, atol=1e-4)


def test_people_differ_and_can_be_drawn_again(head: Head) -> None:
    first, again, other = (head.person(np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.texture, again.texture)
    assert np.abs(first.texture - other.texture).max() > TEXTURE
    for name in first.fat:
        np.testing.assert_array_equal(first.fat[name], again.fat[name])
        assert np.abs(first.fat[name] - other.fat[name]).max() > 0.5


def test_scalp_is_rather_fat_and_soft_tissue_either(head: Head) -> None:
    people = [head.person(np.random.default_rng(seed)) for seed in range(12)]
    means = {
        name: np.mean([person.fat[name].mean() for person in people]) for name in ("scalp", "soft tissue")
    }
    assert means["scalp"] > means["soft tissue"] + 0.1
    assert 0.3 < means["soft tissue"] < 0.7
    share = people[0].fat["soft tissue"]
    assert 0 <= share.min() <= share.max() <= 1
    # Clumps of the one and of the other, not a mixture.
    assert np.mean((share < 0.1) | (share > 0.9)) > 0.5


def test_label_map_that_is_not_there(folder: Path) -> None:
    with pytest.raises(NoInput, match="sub-none_dseg"):
        Head.read(folder / "sub-none_dseg.nii.gz")


def test_file_that_is_no_image(folder: Path) -> None:
    path = folder / "sub-text_dseg.nii.gz"
    path.write_text("labels")
    with pytest.raises(BadData, match="sub-text_dseg"):
        Head.read(path)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_file_that_ends_early(folder: Path, kept: float) -> None:
    content = write_label_map(folder / "sub-whole_dseg.nii.gz", label_map()).read_bytes()
    path = folder / "sub-half_dseg.nii.gz"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(BadData, match="sub-half_dseg"):
        Head.read(path)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.zeros((8, 8, 8), np.int16), "no label"),
        (np.full((8, 8, 8), 511, np.int16), "no brain"),
        (np.full((8, 8, 1), 2, np.int16), "no brain"),
        (np.full((8, 8, 8, 2), 2, np.int16), "4 dimensions"),
    ],
    ids=["empty", "scalp alone", "one slice", "4-D"],
)
def test_label_map_without_a_head(folder: Path, labels: np.ndarray, why: str) -> None:
    path = write_label_map(folder / "sub-bad_dseg.nii.gz", labels)
    with pytest.raises(BadData, match=rf"sub-bad_dseg.*{why}.*leave it out"):
        Head.read(path)
