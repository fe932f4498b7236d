"""The figure of the alterations: complete, and its numbers make the same variations again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import alterations
from bids_harmonize.training.alterations.kspace import KSpace
from bids_harmonize.training.alterations.tone import SurroundingGain
from bids_harmonize.training.pairs import FAMILIES

pytest.importorskip("PIL", reason="matplotlib writes PNG files with Pillow")

pytestmark = pytest.mark.benchmark


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with voxels so large that a head is drawn at once."""
    monkeypatch.setattr(alterations, "GRID", replace(alterations.GRID, zooms=(4.0, 4.0, 4.0)))
    return alterations


@settings(max_examples=20)
@given(st.sampled_from(FAMILIES), st.integers(0, 2**31))
def test_recorded_numbers_survive_json(family: Any, seed: int) -> None:
    alteration = family.sample(np.random.default_rng(seed))
    assert alteration == family.sample(np.random.default_rng(seed))
    again = alterations.from_record(json.loads(json.dumps(alterations.to_record(alteration))))
    assert type(again) is family
    assert again == alteration
    assert hash(again) == hash(alteration)


def test_unknown_families_are_refused() -> None:
    with pytest.raises(ValueError, match="Sharpening is not a family of alterations"):
        alterations.from_record({"Family": "Sharpening", "amount": 2.0})
    with pytest.raises(ValueError, match="KSpace"):
        alterations.to_record(KSpace.of(np.ones((4, 5, 6), np.float32), (1.0, 1.0, 1.0)))


def test_the_file_holds_the_numbers_of_every_family(figure: Any, tmp_path: Path) -> None:
    from PIL import Image

    figure.main([str(tmp_path / "figure.png"), "--seed", "3"])
    with Image.open(tmp_path / "figure.png") as image:
        numbers = json.loads(image.info["Description"])
        assert image.width == pytest.approx(300 * figure.WIDTH_INCHES, abs=1)
        assert np.asarray(image.convert("L")).std() > 10
    families = {record["Family"] for variation in numbers.values() for record in variation}
    assert families == {family.__name__ for family in FAMILIES if family is not SurroundingGain}


def test_variations_replay_and_differ_from_the_original(figure: Any) -> None:
    original, *others = figure.variations(seed=1)
    again = figure.variations(seed=1)
    for first, second in zip([original, *others], again, strict=True):
        np.testing.assert_array_equal(first.volume, second.volume)
    for variation in others:
        assert np.abs(variation.volume - original.volume).max() > 0.01
        if not variation.name.startswith("Band"):
            replayed = [figure.from_record(json.loads(json.dumps(record))) for record in variation.numbers]
            np.testing.assert_array_equal(figure.apply_all(original.volume, replayed), variation.volume)


def test_spectrum_has_its_centre_in_the_middle(figure: Any) -> None:
    flat = figure.decibels(np.ones((8, 6), np.float32))
    assert np.unravel_index(flat.argmax(), flat.shape) == (4, 3)
    assert flat[4, 3] == pytest.approx(20 * np.log10(np.sqrt(48)))
