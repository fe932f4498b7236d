"""Tier E: where is measured, what is measured, and how agreement is described."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.helpers.benchmark_extra import require_benchmark_extra

require_benchmark_extra()

from benchmarks.data import Data
from benchmarks.simulated import Subject
from benchmarks.tiers import radiomics
from benchmarks.tiers.radiomics import CLASSES, ball, features, lesion_share, regions, reliability, run
from bids_harmonize.simulation.label_heads import Head
from tests.helpers.benchmark_data import ball as toy_ball
from tests.helpers.benchmark_data import method, normalized, toy_data, unchanged

pytestmark = pytest.mark.benchmark

WHITE, GREY, DEEP, SKIN = 2, 3, 10, 511
SIZE = 96


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two round heads with two deep nuclei."""
    folder = tmp_path_factory.mktemp("shared") / "data" / "labels"
    folder.mkdir(parents=True)
    x, y, z = (axis - (SIZE - 1) / 2 for axis in np.ogrid[:SIZE, :SIZE, :SIZE])
    radius = np.sqrt(x**2 + y**2 + z**2)
    head = np.select([radius < 36, radius < 41, radius < 46], [WHITE, GREY, SKIN], 0)
    head[(np.abs(x) - 10) ** 2 + y**2 + (z + 12) ** 2 < 8**2] = DEEP
    for number in (1, 2):
        nib.save(nib.Nifti1Image(head.astype(np.int16), np.eye(4)), folder / f"head-{number:02d}_dseg.nii.gz")
    return folder


@pytest.fixture(scope="module")
def head(labels: Path) -> Head:
    return Head.read(labels / "head-01_dseg.nii.gz")


def blobs(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(9, 9, 9))
    return (1000 + 80 * noise).astype(np.float32)


def test_regions_lie_in_their_tissues(head: Head) -> None:
    found = regions(head)
    middle = head.brain.shape[0] / 2
    for kind, masks in found.items():
        assert all(np.count_nonzero(mask) > 60 for mask in masks), kind
    for kind in ("white matter", "deep grey matter"):
        for mask in found[kind]:
            assert head.share(kind)[mask].min() > 0.5
    for kind in ("lobe", "deep grey matter"):
        left, right = (np.argwhere(mask)[:, 0] for mask in found[kind])
        assert left.max() < middle < right.max() and left.max() < right.min()
    for lobe in found["lobe"]:
        # Frontal: the second axis runs forward.
        assert np.argwhere(lobe)[:, 1].mean() > 0.7 * head.brain.shape[1]
    # Healthy white matter is that of the side without a lesion.
    (lesion,), (white,) = found["lesion"], found["white matter"]
    assert np.argwhere(lesion)[:, 0].mean() < middle < np.argwhere(white)[:, 0].mean()


def test_ball_is_measured_in_millimetres() -> None:
    field = np.zeros((21, 21, 21))
    field[10, 10, 10] = 1
    extent = np.ptp(np.argwhere(ball(field, 6.1, (1.0, 2.0, 3.0))), axis=0)
    np.testing.assert_array_equal(extent, [12, 6, 4])


def test_lesions_are_where_they_are_measured(head: Head) -> None:
    masks = regions(head)["lesion"]
    share = lesion_share(masks, np.random.default_rng(0))
    inside = np.any(masks, axis=0)
    assert share.min() >= 0 and share.max() < 1
    assert share[inside].mean() > 0.4
    assert share[inside].std() > 0.05
    assert share.sum() < 1.1 * inside.sum()


def test_every_class_of_features_is_there_and_finite() -> None:
    found = features(blobs(), np.ones((9, 9, 9), bool), (600.0, 1400.0))
    assert {name.split("_")[0] for name in found} == set(CLASSES)
    assert all(np.isfinite(list(found.values())))
    assert found["stat_mean"] == pytest.approx(blobs().mean(), rel=1e-4)


def test_texture_does_not_depend_on_the_unit() -> None:
    mask = np.ones((9, 9, 9), bool)
    one = features(blobs(), mask, (600.0, 1400.0))
    other = features(blobs() / 4, mask, (150.0, 350.0))
    texture = [name for name in one if not name.startswith("stat_")]
    np.testing.assert_allclose([one[n] for n in texture], [other[n] for n in texture], rtol=1e-6)


def test_only_the_mask_is_measured() -> None:
    volume, mask = blobs(), np.zeros((9, 9, 9), bool)
    mask[2:7, 2:7, 2:7] = True
    elsewhere = np.where(mask, volume, 5000).astype(np.float32)
    span = (600.0, 1400.0)
    assert features(volume, mask, span) == features(elsewhere, mask, span)


def test_reliability_over_all_regions_and_within_their_kinds() -> None:
    rng = np.random.default_rng(0)
    heads, levels = rng.normal(size=(6, 1, 1)), np.array([0.0, 0, 10, 20])
    kinds = ["a", "a", "b", "c"]
    same = np.broadcast_to(heads + levels, (6, 4, 4))
    assert reliability(same, kinds) == (pytest.approx(1), pytest.approx(1))
    # Protocols differ as much as heads do, and much less than kinds of tissue.
    overall, within = reliability(same + rng.normal(size=(1, 4, 1)), kinds)
    assert within < 0.75 < overall
    assert reliability(np.full((6, 4, 4), np.nan), kinds) == (0, 0)


def test_tier_on_a_toy_head(
    labels: Path, head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cheap(volume: np.ndarray, mask: np.ndarray, span: tuple[float, float]) -> dict[str, float]:
        return {f"{prefix}_mean": float(volume[mask].mean()) for prefix in CLASSES}

    monkeypatch.setattr(radiomics, "features", cheap)
    data = toy_data(labels.parents[1], group=[toy_ball(seed) for seed in range(3)])
    subjects = [Subject.of(one, "T1w") for one in (head, replace(head, name="head-02"))]
    monkeypatch.setattr(Data, "subjects", subjects)
    methods = [
        method(tmp_path, unchanged, "none"),
        method(
            tmp_path,
            lambda scan: scan.truth["reference"] if scan.truth else normalized(scan),
            "truth",
        ),
    ]
    rows = {(row.method, row.metric): row for row in run(methods, data)}
    figure = f"share with ICC > {radiomics.GOOD}, all features"
    assert rows["truth", figure].value == 1
    assert rows["none", figure].value == 0
    assert rows["truth", "median ICC, GLCM"].value == pytest.approx(1)
    assert rows["none", figure].scans_used == 12
