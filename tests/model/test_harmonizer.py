"""A model: what it refuses to load, and what harmonizing keeps, repeats and reports."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from safetensors.torch import save_file

from bids_harmonize.errors import BadData, UsageError
from bids_harmonize.imaging.foreground import Box
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.model.bilateral_grid import KNOTS
from bids_harmonize.model.card import bundled_models
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.model.loading import load_network, torch_device
from bids_harmonize.model.transform import Transform
from tests.helpers.toy_heads import random_network, write_model

# Eight voxels of 2 mm are two cells along each axis: divided alike from both ends.
SHAPE = (16, 24, 20)


def scan(seed: int = 0, shape: tuple[int, ...] = SHAPE, zoom: float = 2.0) -> Nifti1Image:
    """Two tissues and a bright spot in a box of air, with a shading; values as a scanner stores them."""
    rng = np.random.default_rng(seed)
    voxels = np.zeros(shape, np.int16)
    inner = tuple(slice(n // 8, n - n // 8) for n in shape[:3])
    tissue = np.where(rng.random(voxels[inner].shape) < 0.5, 400, 700) + rng.normal(
        0, 30, voxels[inner].shape
    )
    voxels[inner] = tissue * np.linspace(0.7, 1.3, tissue.shape[0])[:, None, None].reshape(
        -1, *[1] * (tissue.ndim - 1)
    )
    image = Nifti1Image(voxels, np.diag([zoom, zoom, zoom, 1]))
    image.header.set_xyzt_units("mm", "sec")
    return image


@pytest.fixture(scope="module")
def model(random_model: Path) -> Model:
    return Model.load(random_model, device="cpu")


@pytest.fixture
def copied(untrained_model: Path, tmp_path: Path) -> Path:
    """Weights and card of the untrained model, to be damaged."""
    for path in (untrained_model, untrained_model.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / untrained_model.name


def resigned(path: Path) -> Path:
    """Let the card describe whatever the file holds now."""
    card = json.loads(path.with_suffix(".json").read_text())
    card["SHA256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


# --- Loading ----------------------------------------------------------------------------------------------


def test_unknown_name() -> None:
    with pytest.raises(UsageError, match="T9w is neither a bundled model"):
        Model.load("T9w")


def test_pickle_is_never_opened(copied: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (copied.with_name("opened"),)

    copied.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BadData, match="safetensors"):
        Model.load(resigned(copied))
    assert not copied.with_name("opened").exists()


def test_truncated_weights(copied: Path) -> None:
    copied.write_bytes(copied.read_bytes()[:-1000])
    with pytest.raises(BadData, match="no weights of this network"):
        Model.load(resigned(copied))


def test_weights_of_another_network(copied: Path) -> None:
    for metadata in (None, {}, {"config": "{}"}, {"config": '{"widths": [4, 8], "context": 9}'}):
        save_file({"layer.weight": torch.zeros(3)}, copied, metadata=metadata)
        with pytest.raises(BadData, match="no weights of this network"):
            Model.load(resigned(copied))


def test_weights_of_a_network_without_levels(copied: Path) -> None:
    save_file({"layer.weight": torch.zeros(3)}, copied, metadata={"config": '{"widths": [], "context": 9}'})
    with pytest.raises(BadData, match="no weights of this network"):
        Model.load(resigned(copied))


def test_path_and_string_load_the_same(untrained_model: Path) -> None:
    first, second = Model.load(untrained_model), Model.load(str(untrained_model))
    assert first.sha256 == second.sha256 == hashlib.sha256(untrained_model.read_bytes()).hexdigest()
    assert first.name == "untrained"
    assert not first.network.training


def test_loading_again_gives_the_weights_that_were_saved(tmp_path: Path) -> None:
    network = random_network(3)
    loaded = Model.load(write_model(tmp_path, network, "again")).network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["banana", "cuda:99", "gpu", "", "meta"])
def test_unknown_device(name: str) -> None:
    with pytest.raises(UsageError, match="device"):
        torch_device(name)


def test_device_cpu() -> None:
    assert torch_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_model_is_what_its_card_says(name: str) -> None:
    bundled = Model.load(name, device="cpu")
    assert bundled.serves(bundled.card.modality, None)
    known = bundled.card.input_distribution
    assert len(known.mean) == len(known.standard_deviation) == 2 * KNOTS


# --- Harmonizing ------------------------------------------------------------------------------------------


def test_untrained_model_changes_the_scale_only(untrained_model: Path) -> None:
    image = scan()
    result = Model.load(untrained_model, device="cpu").harmonize(image)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    expected = voxels * (1000 / intensity_scale(voxels))
    np.testing.assert_allclose(result.image.get_fdata(), expected, rtol=1e-4, atol=0.01)
    gain = result.summary["Gain"]
    assert gain["Maximum"] - gain["Minimum"] < 1e-3


@pytest.mark.parametrize("shape", [SHAPE, (1, 24, 20), (16, 24, 1), (7, 5, 3), (1, 1, 2), (16, 24, 20, 1)])
def test_output_is_on_the_grid_of_the_input(model: Model, shape: tuple[int, ...]) -> None:
    image = scan(shape=SHAPE)
    voxels = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    image = Nifti1Image(
        voxels, np.array([[0, -2.0, 0, 5], [1.8, 0, 0.3, 6], [0.3, 0, -3.0, 7], [0, 0, 0, 1]])
    )
    image.set_qform(image.affine, 1)
    result = model.harmonize(image).image
    assert result.shape == shape
    assert result.get_data_dtype() == np.float32
    np.testing.assert_array_equal(result.affine, image.affine)
    assert (result.header["qform_code"], result.header["sform_code"]) == (1, image.header["sform_code"])
    output = np.asarray(result.dataobj)
    assert np.all(np.isfinite(output))
    assert output.min() >= 0
    np.testing.assert_array_equal(output[voxels == 0], 0)
    assert np.all(output[voxels > 0] > 0)


def test_the_number_of_threads_changes_no_voxel(head_volume: np.ndarray) -> None:
    model, image = Model.load("T1w", "cpu"), nib.Nifti1Image(head_volume, np.diag([3.5, 3.5, 3.5, 1]))
    before, voxels = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        voxels.append(np.asarray(model.harmonize(image).image.dataobj))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert np.array_equal(voxels[0], voxels[1])
    assert np.array_equal(voxels[0], voxels[2])


def test_two_runs_give_the_same_bits(random_model: Path) -> None:
    first, second = (Model.load(random_model, device="cpu").harmonize(scan()) for _ in range(2))
    assert first.image.to_bytes() == second.image.to_bytes()
    assert torch.equal(first.transform.curves, second.transform.curves)
    assert first.summary == second.summary


@settings(max_examples=10)
@given(st.floats(0.01, 30))
def test_the_unit_of_the_input_does_not_matter(model: Model, factor: float) -> None:
    voxels = np.asarray(scan().dataobj, dtype=np.float32)
    first, second = (
        model.harmonize(Nifti1Image(voxels * np.float32(f), scan().affine)).image.get_fdata()
        for f in (1, factor)
    )
    # Voxels may fall on the other side of a step of the soft histogram.
    np.testing.assert_allclose(second, first, rtol=2e-3, atol=0.5)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "LAS", "PIR", "ASL", "SRP", "IPL"])
def test_orientation_of_the_array_does_not_matter(
    model: Model, monkeypatch: pytest.MonkeyPatch, axcodes: str
) -> None:
    # Small edits, too, are to be seen.
    monkeypatch.setattr(model.network, "edit_error", 0)
    image = scan(seed=1)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes)
    )
    turned = image.as_reoriented(turn)
    assert "".join(nib.aff2axcodes(turned.affine)) == axcodes
    expected = model.harmonize(image).image.as_reoriented(turn)
    result = model.harmonize(turned).image
    np.testing.assert_allclose(result.affine, expected.affine)
    np.testing.assert_allclose(result.get_fdata(), expected.get_fdata(), rtol=1e-4, atol=0.02)
    if axcodes != "RAS":
        # The edit does depend on the place, so that this test could fail.
        unaware = model.harmonize(Nifti1Image(np.asarray(turned.dataobj), np.diag([2, 2, 2, 1])))
        assert not np.allclose(unaware.image.get_fdata(), expected.get_fdata(), rtol=1e-3, atol=1)


def test_oblique_grid_is_taken_for_the_nearest_axes(model: Model) -> None:
    image = scan(seed=1)
    angle = np.deg2rad(20)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = image.affine.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    oblique = model.harmonize(Nifti1Image(np.asarray(image.dataobj), affine)).image
    np.testing.assert_allclose(oblique.get_fdata(), model.harmonize(image).image.get_fdata(), rtol=1e-4)


def test_input_is_left_alone(model: Model) -> None:
    image = scan()
    before = np.asarray(image.dataobj).copy()
    model.harmonize(image)
    np.testing.assert_array_equal(np.asarray(image.dataobj), before)


@pytest.mark.parametrize("voxels", [np.zeros(SHAPE), np.ones(SHAPE), np.full(SHAPE, np.nan)])
def test_images_without_content_are_refused(model: Model, voxels: NDArray[np.float64]) -> None:
    with pytest.raises(BadData, match="the image"):
        model.harmonize(Nifti1Image(voxels.astype(np.float32), np.eye(4)))


def test_summary(model: Model) -> None:
    voxels = np.asarray(scan().dataobj, dtype=np.float32)
    voxels[0, 0, :3], voxels[1, 0, :2] = np.nan, -1
    result = model.harmonize(Nifti1Image(voxels, scan().affine))
    summary = result.summary
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["NonFiniteVoxelsSetToZero"] == 3
    assert summary["NegativeVoxelsSetToZero"] == 2
    assert summary["IntensityScale"] == result.transform.scale
    assert summary["DistanceToTrainingDistribution"] > 0
    gain = summary["Gain"]
    assert gain["Minimum"] <= gain["Percentile1"] <= 1 <= gain["Percentile99"] <= gain["Maximum"]
    assert summary["OrderViolations"]["Pairs"] <= summary["OrderViolations"]["Edges"]


# --- What surrounds a head --------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.tuples(st.integers(0, 9), st.integers(0, 9))] * 3),
    st.sampled_from([0.0, 0.02]),
    st.integers(0, 99),
)
def test_air_around_a_head_changes_no_voxel(
    model: Model,
    head_volume: NDArray[np.float32],
    margins: tuple[tuple[int, int], ...],
    noise: float,
    seed: int,
) -> None:
    affine = np.diag([3.5, 3.5, 3.5, 1])
    rng = np.random.default_rng(seed)
    shape = [n + low + high for n, (low, high) in zip(head_volume.shape, margins, strict=True)]
    level = noise * intensity_scale(head_volume)
    wide = np.hypot(*rng.normal(0, level, (2, *shape))).astype(np.float32)
    inside = tuple(slice(low, low + n) for n, (low, _) in zip(head_volume.shape, margins, strict=True))
    wide[inside] = head_volume
    plain = model.harmonize(Nifti1Image(head_volume, affine)).voxels
    padded = model.harmonize(Nifti1Image(wide, affine)).voxels
    span = np.ptp(plain)
    # Noise may move the bright value a little: the head has few voxels here, and its brightest one most.
    change = np.abs(padded[inside] - plain) / span
    assert change.max() <= (0.02 if noise else 0)
    assert np.percentile(change, 99) <= 0.005
    around = np.ones(wide.shape, dtype=bool)
    around[inside] = False
    assert np.all(padded[around] <= 0.2 * span)


def test_air_is_cut_away_without_a_change(model: Model) -> None:
    whole = scan()
    found = model.harmonize(whole)
    box = found.transform.box.within(found.voxels.shape)
    cut = Nifti1Image(np.asarray(whole.dataobj)[box], whole.affine)
    np.testing.assert_array_equal(model.harmonize(cut).voxels, found.voxels[box])


def test_networks_of_version_0_1_0_see_the_whole_volume(random_model: Path, copied: Path) -> None:
    network = load_network(random_model)
    config = {name: network.config[name] for name in ("widths", "context")}
    save_file(network.state_dict(), copied, metadata={"config": json.dumps(config)})
    old = Model.load(resigned(copied), device="cpu")
    assert old.harmonize(scan()).transform.box == Box.whole(SHAPE)


# --- Transform --------------------------------------------------------------------------------------------


def test_saved_transform_gives_the_same_voxels(model: Model, tmp_path: Path) -> None:
    image = scan()
    result = model.harmonize(image)
    result.transform.save(tmp_path / "curves.safetensors")
    loaded = Transform.load(tmp_path / "curves.safetensors")
    assert loaded.scale == result.transform.scale
    assert loaded.shape == SHAPE
    assert loaded.apply(image).to_bytes() == result.image.to_bytes()


def test_saving_a_transform_again_gives_the_same_bytes(model: Model, tmp_path: Path) -> None:
    transform = model.harmonize(scan()).transform
    contents = set()
    # The order of metadata may be random.
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        transform.save(path)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_transform_treats_damaged_voxels_as_the_model_does(model: Model) -> None:
    voxels = np.asarray(scan().dataobj, dtype=np.float32)
    voxels[0, 0, :3], voxels[1, 0, :2] = np.inf, -1
    image = Nifti1Image(voxels, scan().affine)
    result = model.harmonize(image)
    assert result.transform.apply(image).to_bytes() == result.image.to_bytes()


def test_curves_of_a_transform_rise_from_zero(model: Model) -> None:
    curves = model.harmonize(scan()).transform.curves
    # The box of the tissue, which is 24, 36 and 32 mm wide, with 8 mm of air on either side.
    assert curves.shape == (KNOTS, 5, 6, 6)
    assert bool((curves[0] == 0).all())
    assert bool((curves.diff(dim=0) > 0).all())


def test_transform_is_for_one_shape(model: Model) -> None:
    transform = model.harmonize(scan()).transform
    with pytest.raises(BadData, match=r"\(16, 24, 20\)"):
        transform.apply(scan(shape=(20, 24, 16)))


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x00" * 100])
def test_damaged_transform(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "curves.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadData, match=r"curves\.safetensors is no saved transform"):
        Transform.load(path)


def test_weights_are_no_transform(untrained_model: Path) -> None:
    with pytest.raises(BadData, match="is no saved transform"):
        Transform.load(untrained_model)
