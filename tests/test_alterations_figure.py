"""The figure of the alterations: complete, and its numbers make the same variations again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bids_harmonize.kspace import FAMILIES, replayed

pytest.importorskip("matplotlib", reason="the figures of the benchmarks need matplotlib")
pytest.importorskip("PIL", reason="matplotlib writes PNG files with Pillow")


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with voxels so large that a head is drawn at once."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from benchmarks import alterations

    monkeypatch.setattr(alterations, "GRID", replace(alterations.GRID, zooms=(4.0, 4.0, 4.0)))
    return alterations


def test_the_file_holds_the_numbers_of_every_family(figure: Any, tmp_path: Path) -> None:
    from PIL import Image

    figure.main([str(tmp_path / "figure.png"), "--seed", "3"])
    with Image.open(tmp_path / "figure.png") as image:
        numbers = json.loads(image.info["Description"])
        assert image.width == pytest.approx(300 * figure.WIDTH_INCHES, abs=1)
        assert np.asarray(image.convert("L")).std() > 10
    families = {one["Family"] for variation in numbers.values() for one in variation}
    assert families == {*FAMILIES, "ToneCurve"}


def test_variations_replay_and_differ_from_the_original(figure: Any) -> None:
    original, *others = figure.variations(seed=1)
    again = figure.variations(seed=1)
    for first, second in zip([original, *others], again, strict=True):
        np.testing.assert_array_equal(first.volume, second.volume)
    for variation in others:
        assert np.abs(variation.volume - original.volume).max() > 0.01
        if not variation.name.startswith("Band"):
            alterations = [replayed(json.loads(json.dumps(numbers))) for numbers in variation.numbers]
            np.testing.assert_array_equal(figure._applied(original.volume, alterations), variation.volume)


def test_spectrum_has_its_centre_in_the_middle(figure: Any) -> None:
    flat = figure.decibels(np.ones((8, 6), np.float32))
    assert np.unravel_index(flat.argmax(), flat.shape) == (4, 3)
    assert flat[4, 3] == pytest.approx(20 * np.log10(np.sqrt(48)))
