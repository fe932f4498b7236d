"""The level `train`: a reference group, label maps and a body part become weights, card, table and sheet."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.query import select_runs
from bids_harmonize.bids.run import Run
from bids_harmonize.commands import train
from bids_harmonize.commands.train import train_model
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.measures.histogram import ReferenceIntensities
from bids_harmonize.model.card import read_card
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.phantom.anatomy import Head
from bids_harmonize.phantom.scanner import Receiver, render
from bids_harmonize.simulation.protocols import Protocol
from bids_harmonize.training.candidates import read_heads, trained_body_part
from bids_harmonize.training.recipe import WITHOUT_BRAIN, Recipe
from bids_harmonize.training.run import TrainRequest
from tests.helpers.toy_datasets import harmonize, image_of, snapshot, write_dataset, write_scan
from tests.helpers.toy_heads import HEAD_GRID, T2_SPIN_ECHO, TINY, label_map, write_label_map

PELVIS_ZOOMS = (1.5, 1.5, 4.0)
FLAIR = Protocol(field_strength=3.0, sequence="inversion recovery", tr=9000, te=120, ti=2500)


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def restored_arithmetic() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


def pelvis(seed: int) -> NDArray[np.float32]:
    """A gland of two tissues in fat, with a little noise."""
    rng = np.random.default_rng(seed)
    across, along = np.meshgrid(np.arange(48) - 23.5, np.arange(48) - 23.5, indexing="ij")
    radius = np.hypot(across, along)
    plane = np.select([radius < 6, radius < 12, radius < 22], [700.0, 400.0, 900.0], 20.0)
    return (plane[:, :, None] + rng.normal(0, 8, (48, 48, 8))).astype(np.float32).clip(0)


@pytest.fixture(scope="module")
def dataset(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four T2w scans of a head and two of a pelvis."""
    folder = write_dataset(tmp_path_factory.mktemp("learn") / "data")
    for n in range(4):
        receiver = Receiver(gain=500 + 100 * n, snr=40, shading=0.05 * n)
        volume = render(head, T2_SPIN_ECHO, HEAD_GRID, receiver, seed=(n,))
        # Terms of the head that mean the same to the models.
        sidecar = {"BodyPart": "BRAIN"} if n == 1 else None
        write_scan(folder, f"sub-head{n}_T2w.nii.gz", image_of(volume, HEAD_GRID.zooms), sidecar)
    for n in range(2):
        image = image_of(pelvis(n), PELVIS_ZOOMS)
        write_scan(folder, f"sub-pelvis{n}_T2w.nii.gz", image, {"BodyPart": "prostate"})
    return folder


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    for seed in range(2):
        write_label_map(folder / f"sub-{seed}_dseg.nii.gz", label_map(seed))
    return folder


def runs_of(dataset: Path, body: str) -> list[Run]:
    filters = Filters(participants=(), excluded=(), sessions=(), bids_filters={}, modalities=("T2w",))
    return [run for run in select_runs(dataset, filters) if run.subject.startswith(body)]


def card_of(weights: Path) -> dict[str, Any]:
    return json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))


def request(runs: Sequence[Run], **changes: Any) -> TrainRequest:
    return TrainRequest(
        **{"runs": runs, "modality": "T2w", "reference_size": 3, "steps": 2, "effort": TINY} | changes
    )


def trained(runs: Sequence[Run], folder: Path, **changes: Any) -> Path:
    return train_model(request(runs, **changes), folder, silent)


@pytest.fixture(scope="module")
def heads_model(dataset: Path, label_maps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    return trained(runs_of(dataset, "head"), folder, steps=None, label_maps=label_maps)


@pytest.mark.process
def test_weights_card_table_and_sheet_are_written(heads_model: Path) -> None:
    assert {path.name for path in heads_model.parent.iterdir()} >= {
        "T2w.json",
        "T2w.safetensors",
        "checkpoint-T2w",
        "reference-group_T2w.json",
        "reference-group_T2w.png",
        "reference-group_T2w.tsv",
    }


@pytest.mark.process
def test_models_tell_what_they_are_not_meant_for(heads_model: Path) -> None:
    model = Model.load(heads_model, "cpu")
    assert model.ood_detector is not None
    assert card_of(heads_model)["Recognizer"] == {"TissueOrder": "T2w"}


@pytest.mark.process
def test_card_says_what_the_model_was_made_of(heads_model: Path, dataset: Path) -> None:
    card = card_of(heads_model)
    assert card["SHA256"] == hashlib.sha256(heads_model.read_bytes()).hexdigest()
    assert (card["Name"], card["Modality"]) == ("T2w-head", "T2w")
    assert {"HEAD", "BRAIN"} <= set(card["BodyParts"])
    assert card["SimulatedHeads"] == ["sub-0", "sub-1"]
    # The group's white matter is 1000, and the brightest of tissue is near.
    assert 1000 < ReferenceIntensities.of_card(card["ReferenceIntensities"]).top < 20_000
    assert card["StartedFrom"] is None
    assert card["Schedule"]["patience"] == train.PATIENCE
    assert card["Schedule"]["learning_rate"] == train.FIRST_RATE
    assert card["Steps"] == card["Schedule"]["steps"] == 4
    assert [entry["Step"] for entry in card["History"]] == [2, 4]
    known = read_card(heads_model)
    agreements = [record.agreement for record in known.history or () if record.agreement]
    assert known.agreement == max(agreements, key=lambda agreement: agreement.merit)
    assert card["Alterations"]["frequencies"] == Recipe().frequencies
    assert set(card["Alterations"]["Parameters"]) >= {"ToneCurve", "SmoothField", "Noise"}
    assert "CPU" in card["Hardware"]
    data = card["Data"]
    assert data["Name"] == json.loads((dataset / "dataset_description.json").read_text())["Name"]
    names = {f"sub-head{n}_T2w" for n in range(4)}
    assert len(data["ReferenceGroup"]) == 3
    assert set(data["ReferenceGroup"]) | set(data["LeftOut"]) == names
    assert set(data["LevelBefore"]) == set(data["ReferenceGroup"])


@pytest.mark.process
def test_table_and_card_agree_on_the_group(heads_model: Path) -> None:
    with (heads_model.parent / "reference-group_T2w.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    chosen = {row["scan"] for row in rows if row["group"] == "in"}
    assert chosen == set(card_of(heads_model)["Data"]["ReferenceGroup"])
    assert len(rows) == 4


@pytest.mark.process
def test_the_model_harmonizes(heads_model: Path, head: Head) -> None:
    model = Model.load(heads_model, "cpu")
    assert model.serves("T2w", "HEAD") and model.serves("T2w", None)
    assert not model.serves("T1w", "HEAD") and not model.serves("T2w", "PROSTATE")
    volume = render(head, T2_SPIN_ECHO, HEAD_GRID, Receiver(gain=50, snr=40, shading=0.1), seed=(9,))
    voxels = np.asarray(model.harmonize(image_of(volume, HEAD_GRID.zooms)).image.dataobj)
    assert np.isfinite(voxels).all()
    # The scale of the reference group, whatever that of the scan.
    assert 500 < intensity_scale(voxels) < 4000


@pytest.mark.process
def test_a_second_call_repeats_no_step(heads_model: Path, dataset: Path, label_maps: Path) -> None:
    before = heads_model.read_bytes()
    lines: list[str] = []
    repeated = request(runs_of(dataset, "head"), steps=None, label_maps=label_maps)
    again = train_model(repeated, heads_model.parent, lines.append)
    assert again == heads_model
    assert again.read_bytes() == before
    assert not [line for line in lines if line.startswith("step ")]
    assert any(line.startswith("reference group of 3; held out: sub-head") for line in lines)


@pytest.mark.process
def test_training_goes_on_from_a_model(heads_model: Path, dataset: Path, tmp_path: Path) -> None:
    start = Model.load(heads_model, "cpu")
    card = card_of(trained(runs_of(dataset, "head"), tmp_path, reference_size=9, start=start))
    assert card["StartedFrom"]["SHA256"] == start.sha256
    assert card["StartedFrom"]["Schedule"] == start.card.schedule
    assert card["Schedule"]["learning_rate"] == train.LATER_RATE
    # With a number of steps, or nobody left out, there is no early stopping.
    assert card["Schedule"]["patience"] is None
    assert card["Data"]["LeftOut"] == []
    assert card["Figures"] == {}
    assert card["SimulatedHeads"] == []


@pytest.mark.process
@pytest.mark.parametrize(("suffix", "simulated"), [("FLAIR", True), ("PDw", False)])
def test_other_contrasts_are_learned_and_harmonized(
    head: Head, label_maps: Path, tmp_path: Path, suffix: str, simulated: bool
) -> None:
    dataset = write_dataset(tmp_path / "data")
    for n in range(4):
        volume = render(head, FLAIR, HEAD_GRID, Receiver(gain=500 + 100 * n, snr=40, shading=0.05), seed=(n,))
        write_scan(dataset, f"sub-{n}_{suffix}.nii.gz", image_of(volume, HEAD_GRID.zooms))
    lines: list[str] = []
    runs = select_runs(dataset, Filters(modalities=(suffix,)))
    asked = request(runs, modality=suffix, label_maps=label_maps)
    weights = train_model(asked, tmp_path / "model", lines.append)
    card = card_of(weights)
    assert (weights.name, card["Modality"]) == (f"{suffix}.safetensors", suffix)
    assert bool(card["SimulatedHeads"]) == simulated
    assert any("no signal equation is known" in line for line in lines) != simulated
    assert ("TissueOrder" in card["Recognizer"]) == simulated
    options = ("participant", "--modalities", suffix, "--out-of-distribution", "harmonize")
    result = harmonize(dataset, tmp_path / "out", *options, "--model", weights)
    assert result.code == 0, result.err
    assert len(list((tmp_path / "out").rglob(f"*_desc-harmonized_{suffix}.nii.gz"))) == 4
    without = harmonize(dataset, tmp_path / "other", *options)
    assert f"no model for {suffix}" in without.err


@pytest.mark.process
def test_a_group_is_brought_to_another_echo_time(dataset: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    train_model(request(runs_of(dataset, "head"), echo_times=(60.0, 100.0)), tmp_path, lines.append)
    assert "bringing the group from an echo time of 60 ms to 100 ms" in lines
    card = card_of(tmp_path / "T2w.safetensors")
    assert card["Data"]["BroughtFromToEchoTime"] == [60, 100]
    # Scans of either echo time have their tissues in the same order.
    assert card["Recognizer"] == {"TissueOrder": "T2w"}


@pytest.mark.process
@pytest.mark.parametrize("suffix, sidecar", [("PDw", {}), ("T2w", {"BodyPart": "prostate"})])
def test_label_maps_are_refused_where_they_are_of_no_use(
    suffix: str, sidecar: dict[str, str], label_maps: Path, tmp_path: Path
) -> None:
    folder = write_dataset(tmp_path / "data")
    write_scan(folder, f"sub-01_{suffix}.nii.gz", sidecar=sidecar)
    options = ["--modalities", suffix, "--label-maps", label_maps]
    result = harmonize(folder, tmp_path / "out", "train", *options)
    assert result.code == 64
    assert "--label-maps is for scans of heads, of T1w, T2w, FLAIR; leave it out" in result.err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.process
def test_another_body_part(dataset: Path, label_maps: Path, tmp_path: Path) -> None:
    settings = {"reference_size": 1, "body_part": "PROSTATE", "label_maps": label_maps}
    weights = trained(runs_of(dataset, "pelvis"), tmp_path, **settings)
    assert weights.name == "prostate-T2w.safetensors"
    assert (tmp_path / "reference-group_prostate-T2w.png").is_file()
    card = card_of(weights)
    assert card["Name"] == "T2w-prostate"
    assert card["BodyParts"] == ["PROSTATE"]
    assert "middle of the field of view" in card["OutputScale"]["Description"]
    assert card["SimulatedHeads"] == []
    assert card["Alterations"]["frequencies"] == WITHOUT_BRAIN
    model = Model.load(weights, "cpu")
    assert model.serves("T2w", "prostate") and not model.serves("T2w", "HEAD")


@pytest.mark.process
def test_level_train_makes_a_model_of_each_body_part(
    dataset: Path, label_maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_little_effort(request: TrainRequest, folder: Path, progress: Callable[[str], None]) -> Path:
        return train_model(replace(request, effort=TINY), folder, progress)

    monkeypatch.setattr(train, "train_model", with_little_effort)
    before = snapshot(dataset)
    options = ("--modalities", "T2w", "--reference-size", "2", "--steps", "2", "--label-maps", label_maps)
    result = harmonize(dataset, tmp_path / "out", "train", *options)
    assert result.code == 0, result.err
    weights = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert weights == ["T2w.safetensors", "prostate-T2w.safetensors"]
    for name in weights:
        assert str(tmp_path / "out" / name) in result.out
    head_card, pelvis_card = (card_of(tmp_path / "out" / name) for name in weights)
    assert head_card["SimulatedHeads"] == ["sub-0", "sub-1"]
    scans = {*head_card["Data"]["ReferenceGroup"], *head_card["Data"]["LeftOut"]}
    assert scans == {f"sub-head{n}_T2w" for n in range(4)}
    assert set(pelvis_card["Data"]["ReferenceGroup"]) == {"sub-pelvis0_T2w", "sub-pelvis1_T2w"}
    assert snapshot(dataset) == before


@pytest.mark.parametrize(
    ("sidecar", "expected"),
    [
        (None, "HEAD"),
        ({"BodyPart": ""}, "HEAD"),
        ({"BodyPart": 7}, "HEAD"),
        ({"BodyPart": " brain "}, "HEAD"),
        ({"BodyPart": "HEADNECK"}, "HEAD"),
        ({"BodyPartExamined": "head-neck"}, "HEAD"),
        ({"BodyPartExamined": "Left Knee"}, "LEFTKNEE"),
        ({"BodyPart": "Prostate"}, "PROSTATE"),
    ],
)
def test_body_part_of_a_run(tmp_path: Path, sidecar: dict[str, Any] | None, expected: str) -> None:
    folder = write_dataset(tmp_path / "data")
    write_scan(folder, "sub-head_T2w.nii.gz", sidecar=sidecar)
    (run,) = runs_of(folder, "head")
    assert trained_body_part(run) == expected


@pytest.mark.parametrize(
    ("modality", "body_part", "expected"),
    [("T1w", "HEAD", "T1w"), ("T2w", "BRAIN", "T2w"), ("T2w", "PROSTATE", "prostate-T2w")],
)
def test_name_of_a_model(modality: str, body_part: str, expected: str) -> None:
    assert request([], modality=modality, body_part=body_part).name == expected


def test_thick_slices_are_simulated_for_t2w_only(label_maps: Path) -> None:
    t1w, t2w = (read_heads(label_maps, modality) for modality in ("T1w", "T2w"))
    assert [head.name for head in t1w] == ["sub-0", "sub-1"]
    assert {head.zooms for head in t1w} == {(7.0, 7.0, 7.0)}
    assert [head.zooms for head in t2w] == [(7.0, 7.0, 7.0), (7.0, 7.0, 17.5)] * 2


def test_folder_without_label_maps(tmp_path: Path) -> None:
    with pytest.raises(NoInput, match="holds no label maps"):
        read_heads(tmp_path, "T1w")


@pytest.mark.process
def test_candidate_that_cannot_be_used_is_named(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"sub-pelvis0_T2w\.nii\.gz.*leave the scan out"):
        trained(runs_of(dataset, "pelvis"), tmp_path)
    assert list(tmp_path.iterdir()) == []
