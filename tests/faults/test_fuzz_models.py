"""Weight files, model cards and saved transforms that hold anything are used or refused."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from bids_harmonize.cli import dataset as dataset_cli
from bids_harmonize.errors import BadData, HarmonizeError
from bids_harmonize.files.atomic import write_json
from bids_harmonize.model.card import ModelCard
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.model.network import CurveNetwork
from bids_harmonize.model.transform import Transform
from tests.helpers.fuzzing import (
    DAMAGED_JSON,
    JSON,
    TEXTS,
    called,
    changed,
    check_sentence,
    check_told,
    clock,
    done_or_refused,
    fuzz,
)
from tests.helpers.toy_datasets import COMMON, head, image_of, write_dataset, write_scan
from tests.helpers.toy_heads import NEVER, ood_detector, random_network, write_model

IMAGE = image_of(head(1))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A model that also recognizes scans."""
    path = write_model(tmp_path, random_network(7), "fuzzed")
    _write_card(
        path, json.loads(path.with_suffix(".json").read_text()) | {"Recognizer": ood_detector(NEVER).card()}
    )
    return path


def _write_card(weights: Path, card: Any) -> None:
    weights.with_suffix(".json").write_text(json.dumps(card), encoding="utf-8")


def use(weights: Path, written: Path) -> None:
    """Harmonize with a model; it is refused, or what it makes is finite and may be written."""
    with done_or_refused(weights.stem, weights):
        model = Model.load(str(weights), "cpu")
        model.serves("T1w", "HEAD")
        result = model.harmonize(IMAGE)
        assert np.isfinite(np.asarray(result.image.dataobj)).all()
        scale = {"OutputScale": model.card.output_scale.to_json(), "Name": model.name}
        recognized = result.ood_score and result.ood_score.score
        assert result.ood_score is None or math.isfinite(result.ood_score.threshold)
        write_json(written, result.summary | scale | {"Score": recognized})


def test_cards(weights: Path, tmp_path: Path, tally: Counter[str], long: bool) -> None:
    card = json.loads(weights.with_suffix(".json").read_text())

    @fuzz(tally, long, 400)
    @given(changed(card) | JSON | st.dictionaries(st.sampled_from(ModelCard.required_keys()), JSON))
    @example(card | {"BodyParts": 1})
    @example(card | {"OutputScale": {"Unit": "a"}})
    @example(card | {"OutputScale": {"Unit": 1000, "Definition": float("nan")}})
    @example(card | {"OutputScale": {"Unit": 1e30}})
    @example(card | {"InputDistribution": {}})
    @example(card | {"Recognizer": card["Recognizer"] | {"Threshold": 10**400}})
    @example(card | {"Recognizer": card["Recognizer"] | {"Threshold": "nan"}})
    def used_or_refused(card: Any) -> None:
        _write_card(weights, card)
        use(weights, tmp_path / "written.json")

    @fuzz(tally, long, 100)
    @given(DAMAGED_JSON)
    @example(b'{"a":' * 100_000)
    def refused(content: bytes) -> None:
        weights.with_suffix(".json").write_bytes(content)
        with pytest.raises(HarmonizeError) as caught:
            Model.load(weights, "cpu")
        check_sentence(str(caught.value), weights, weights.with_suffix(".json"))


def packed(tensors: dict[str, torch.Tensor], config: Any) -> bytes:
    return save(tensors, metadata={"config": config if isinstance(config, str) else json.dumps(config)})


TENSORS = {name: tensor.contiguous() for name, tensor in random_network(7).state_dict().items()}
CONFIG = random_network(7).config
CONFIGS = changed(CONFIG) | st.fixed_dictionaries(
    {
        "widths": st.lists(st.sampled_from([0, -1, 1, 4, 8, 10**6, 10**12, 1.5, "4", None]), max_size=3),
        "context": st.sampled_from([0, -1, 8, 10**9, 8.0, None]),
    }
)


@st.composite
def weight_files(draw: st.DrawFn) -> bytes:
    tensors = {**TENSORS}
    config = CONFIG
    how = draw(st.sampled_from(["config", "values", "shape", "dtype", "names", "bytes", "header", "cut"]))
    name = draw(st.sampled_from(sorted(tensors)))
    match how:
        case "config":
            config = draw(CONFIGS | DAMAGED_JSON.map(lambda text: text.decode("latin-1")))
        case "values":
            value = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e38, -1e38, 0.0]))
            tensors[name] = torch.full_like(tensors[name], value)
        case "shape":
            shape = draw(st.lists(st.integers(0, 3), max_size=5))
            tensors[name] = torch.zeros(shape)
        case "dtype":
            tensors[name] = tensors[name].to(
                draw(st.sampled_from([torch.float64, torch.float16, torch.int8]))
            )
        case "names":
            tensors[draw(TEXTS.map(lambda text: text.encode("utf-8", "replace").decode()))] = tensors.pop(
                name
            )
    content = packed(tensors, config)
    match how:
        case "bytes":
            place, new = draw(st.integers(0, 2000)), draw(st.binary(min_size=1, max_size=8))
            return content[:place] + new + content[place + len(new) :]
        case "header":
            length = draw(st.sampled_from([0, 1, 2**16, 2**31, 2**63, 2**64 - 1]))
            return length.to_bytes(8, "little") + draw(DAMAGED_JSON | st.just(content[8:]))
        case "cut":
            return content[: draw(st.integers(0, len(content)))]
    return content


def test_weight_files(weights: Path, tmp_path: Path, tally: Counter[str], long: bool) -> None:
    card = json.loads(weights.with_suffix(".json").read_text())

    @fuzz(tally, long, 400)
    @given(weight_files() | st.binary(max_size=100))
    @example(packed(TENSORS, CONFIG | {"widths": [10**6, 10**6]}))
    @example(packed(TENSORS, CONFIG | {"edit_error": 1e300}))
    @example(packed(TENSORS, CONFIG | {"edit_error": 10**400}))
    @example(packed(TENSORS, CONFIG | {"edit_error": 10.0}))
    @example(packed(TENSORS | {"local.bias": torch.full_like(TENSORS["local.bias"], np.nan)}, CONFIG))
    @example(packed(TENSORS | {"local.bias": torch.full_like(TENSORS["local.bias"], 1e38)}, CONFIG))
    def used_or_refused(content: bytes) -> None:
        weights.write_bytes(content)
        _write_card(weights, card | {"SHA256": hashlib.sha256(content).hexdigest()})
        use(weights, tmp_path / "written.json")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_at_once(
    weights: Path, tally: Counter[str], value: float
) -> None:
    tally["inputs fuzzed"] += 1
    card = json.loads(weights.with_suffix(".json").read_text())
    content = packed(TENSORS | {"local.bias": torch.full_like(TENSORS["local.bias"], value)}, CONFIG)
    weights.write_bytes(content)
    _write_card(weights, card | {"SHA256": hashlib.sha256(content).hexdigest()})
    with pytest.raises(BadData, match="holds no weights of this network"):
        Model.load(weights, "cpu")


def test_a_false_width_is_refused_before_memory_is_taken(
    weights: Path, tally: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Weighed(CurveNetwork):
        def __init__(self, **config: Any) -> None:
            super().__init__(**config)
            numbers = sum(one.numel() for one in self.parameters() if one.device.type != "meta")
            assert numbers < 1_000_000

    monkeypatch.setattr("bids_harmonize.model.loading.CurveNetwork", Weighed)
    card = json.loads(weights.with_suffix(".json").read_text())
    for config in (
        CONFIG | {"widths": [1000, 8]},
        CONFIG | {"context": 2000},
        CONFIG | {"widths": [4] * 10_000},
    ):
        tally["inputs fuzzed"] += 1
        content = packed(TENSORS, config)
        weights.write_bytes(content)
        _write_card(weights, card | {"SHA256": hashlib.sha256(content).hexdigest()})
        with clock(), pytest.raises(BadData, match="holds no weights of this network"):
            Model.load(weights, "cpu")


def test_a_card_of_other_weights_is_refused(weights: Path, tally: Counter[str], long: bool) -> None:
    content = weights.read_bytes()

    @fuzz(tally, long, 50)
    @given(st.integers(0, len(content) - 1), st.integers(1, 255))
    def refused(place: int, change: int) -> None:
        damaged = bytearray(content)
        damaged[place] ^= change
        weights.write_bytes(damaged)
        with pytest.raises(HarmonizeError, match="is not the file that its model card describes"):
            Model.load(weights, "cpu")


# --- Transforms -------------------------------------------------------------------------------------------


@st.composite
def transforms(draw: st.DrawFn, curves: torch.Tensor, told: dict[str, Any]) -> bytes:
    metadata: Any = told
    match draw(st.sampled_from(["told", "shape", "dtype", "values", "bytes"])):
        case "told":
            metadata = draw(changed(told) | JSON)
        case "shape":
            curves = torch.ones(draw(st.lists(st.integers(0, 60), max_size=4)))
        case "dtype":
            curves = curves.to(draw(st.sampled_from([torch.float64, torch.int16, torch.bool])))
        case "values":
            curves = torch.full_like(curves, draw(st.sampled_from([np.nan, np.inf, -np.inf, -1.0])))
        case "bytes":
            content = save({"curves": curves}, metadata={"transform": json.dumps(metadata)})
            place = draw(st.integers(0, 300))
            return content[:place] + draw(st.binary(max_size=8)) + content[place + 8 :]
    return save({"curves": curves.contiguous()}, metadata={"transform": json.dumps(metadata)})


def test_transforms(weights: Path, tmp_path: Path, tally: Counter[str], long: bool) -> None:
    path = tmp_path / "a_curves.safetensors"
    Model.load(weights, "cpu").harmonize(IMAGE).transform.save(path)
    told = {"shape": list(IMAGE.shape), "scale": (800.0).hex()}
    # They are copied because what is read is mapped from the file, which is written to.
    curves = load_file(path)["curves"].clone()

    @fuzz(tally, long, 300)
    @given(transforms(curves, told) | st.binary(max_size=100))
    @example(
        save(
            {"curves": curves},
            metadata={"transform": json.dumps(told | {"scale": "0x1p9999"})},
        )
    )
    @example(save({"curves": torch.ones(3)}, metadata={"transform": json.dumps(told)}))
    def applied_or_refused(content: bytes) -> None:
        path.write_bytes(content)
        with done_or_refused(path, "the transform is for"):
            result = Transform.load(path).apply(IMAGE)
            assert np.isfinite(np.asarray(result.dataobj)).all()


# --- Whole commands ---------------------------------------------------------------------------------------


def test_the_command_with_such_models(weights: Path, tmp_path: Path, tally: Counter[str], long: bool) -> None:
    dataset = write_dataset(tmp_path / "data")
    write_scan(dataset, "sub-01_T1w.nii.gz")
    card = json.loads(weights.with_suffix(".json").read_text())
    content = weights.read_bytes()

    @fuzz(tally, long, 12)
    @given(
        st.tuples(st.just(content), changed(card))
        | weight_files().map(
            lambda weights: (weights, card | {"SHA256": hashlib.sha256(weights).hexdigest()})
        )
    )
    def done_or_one_sentence(model: tuple[bytes, Any]) -> None:
        weights.write_bytes(model[0])
        _write_card(weights, model[1])
        arguments = [str(dataset), str(tmp_path / "out"), "participant", "--model", str(weights), "--force"]
        result = called(dataset_cli.main, [*arguments, *COMMON])
        check_told(result)
        assert result.code in (0, 65), result.err
