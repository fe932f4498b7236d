"""Metrics of the benchmark, by hand: what they are of identical, scaled, flattened and inverted scans."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.benchmark_extra import require_benchmark_extra

require_benchmark_extra()

from benchmarks import efficacy
from benchmarks.data import Data
from benchmarks.formatting import number
from benchmarks.methods import Method
from benchmarks.metrics import (
    error_db,
    fitted,
    gradient_correlation,
    neighbours,
    variation,
    white_grey_contrast,
)
from benchmarks.result_rows import Row, summarize
from benchmarks.scans import Scan
from benchmarks.simulated import PROTOCOLS, Subject
from benchmarks.splits import DEVELOPMENT_HEADS, REPORT_HEADS, TRAINING_HEADS
from benchmarks.table import best, draw, line_ends, lines, markdown
from benchmarks.tiers import agreement, held_out, invariants, lesions, repeats, surroundings
from bids_harmonize.simulation.label_heads import Head
from tests.helpers.benchmark_data import method, unchanged
from tests.helpers.toy_heads import label_map, write_label_map

pytestmark = pytest.mark.benchmark

Volume = NDArray[np.float32]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    path = tmp_path_factory.mktemp("labels") / "head-11_dseg.nii.gz"
    return Subject.of(Head.read(write_label_map(path, label_map()), (1, 1, 1)), "T1w")


@pytest.fixture(scope="module")
def scan(subject: Subject) -> Scan:
    return subject.scan("MPRAGE 3 T")


def inverted(scan: Scan) -> Volume:
    return np.asarray(scan.volume.max() - scan.volume, dtype=np.float32)


def test_no_head_has_two_uses() -> None:
    assert len({*TRAINING_HEADS, *DEVELOPMENT_HEADS, *REPORT_HEADS}) == 13


def test_mean_and_spread_by_hand() -> None:
    row = summarize("A", "T1w", "figure", "m", [1.0, 3.0, float("nan")], better="higher", scans=5)
    assert (row.value, row.n, row.scans_used) == (2.0, 2, 5)
    assert row.spread == pytest.approx(math.sqrt(2))
    endless = summarize("A", "T1w", "figure", "m", [math.inf, math.inf], better="higher", scans=2)
    assert (endless.value, endless.spread) == (math.inf, 0.0)


def test_a_gain_and_an_offset_are_fitted() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 500).astype(np.float32)
    assert fitted(values, 5 * values, offset=False) == pytest.approx(5 * values, rel=1e-5)
    assert fitted(values, 5 * values - 2, offset=True) == pytest.approx(5 * values - 2, abs=1e-5)
    assert np.abs(fitted(values, 5 * values - 2, offset=False) - (5 * values - 2)).mean() > 0.1


def test_neighbours_are_counted_inside_the_region_only() -> None:
    region = np.zeros((4, 5, 6), dtype=bool)
    region[1:3, 1:4, 2] = True
    assert [int(pairs.sum()) for pairs in neighbours(region)] == [3, 4, 0]


def test_gradients_follow_gain_and_sign(scan: Scan) -> None:
    assert gradient_correlation(scan.volume, 3 * scan.volume + 5, scan.head) == pytest.approx(1, abs=1e-4)
    assert gradient_correlation(scan.volume, -scan.volume, scan.head) == pytest.approx(-1, abs=1e-4)


def test_contrast_over_range_does_not_depend_on_the_scale(scan: Scan) -> None:
    contrast = white_grey_contrast(scan, scan.volume)
    assert 0.05 < contrast < 1
    assert white_grey_contrast(scan, 7 * scan.volume - 3) == pytest.approx(contrast, rel=1e-3)


def test_variation_by_hand() -> None:
    assert variation([9.0, 11.0]) == pytest.approx(math.sqrt(2) / 10)


def test_the_truth_under_every_protocol_agrees_without_limit(subject: Subject, tmp_path: Path) -> None:
    scans = [subject.scan(protocol) for protocol in PROTOCOLS["T1w"]]
    found = agreement.measure(method(tmp_path, lambda scan: scan.truth["reference"]), scans)
    assert len(found["agreement inside the brain, dB"]) == 15
    assert all(np.isinf(found["agreement inside the brain, dB"]))
    assert min(found["to the truth inside the brain, dB"]) > 90
    assert found["white-matter median, CoV"] == [0.0]
    raw = agreement.measure(method(tmp_path, unchanged, "none"), scans)
    assert max(raw["agreement inside the brain, dB"]) < 40
    assert raw["gradient correlation with the input"] == pytest.approx([1.0] * 6, abs=1e-5)


def test_the_oracle_comes_nearer_to_the_truth_than_any_curve(subject: Subject, tmp_path: Path) -> None:
    scans = [subject.scan(protocol) for protocol in PROTOCOLS["T1w"]]
    figure = "to the truth inside the brain, dB"
    oracle = agreement.measure(method(tmp_path, agreement.nearest_to_truth, agreement.ORACLE), scans)[figure]
    for power in (0.5, 1.0, 2.0):
        curve = method(tmp_path, lambda scan, power=power: scan.volume**power, f"power {power}")
        assert np.all(np.array(oracle) > agreement.measure(curve, scans)[figure])


def test_the_oracle_keeps_order_but_for_the_field(subject: Subject) -> None:
    scan = subject.scan(next(iter(PROTOCOLS["T1w"])))
    order = np.argsort((scan.volume / scan.truth["field"])[scan.brain])
    assert np.all(np.diff(agreement.nearest_to_truth(scan)[scan.brain][order]) >= 0)


def test_ratios_are_left_out_of_methods_without_a_zero(subject: Subject, tmp_path: Path) -> None:
    scans = [subject.scan(protocol) for protocol in list(PROTOCOLS["T1w"])[:2]]
    shifted = Method(name="shifted", function=unchanged, folder=tmp_path, zero_kept=False)
    assert "grey/white ratio, CoV" not in agreement.measure(shifted, scans)


def test_invariants_of_what_leaves_a_scan_alone(scan: Scan, tmp_path: Path) -> None:
    found = invariants.measure(method(tmp_path, unchanged), scan)
    assert found["edges of the same sign, %"] == 100
    assert found["order reversed within a cell, pairs per million edges"] == 0
    assert found["negative or non-finite inside the head, %"] == 0
    assert found["gain, 99 % over 1 %"] == pytest.approx(1)


def test_invariants_of_what_turns_a_scan_over(scan: Scan, tmp_path: Path) -> None:
    found = invariants.measure(method(tmp_path, inverted), scan)
    assert found["edges of the same sign, %"] == 0
    assert found["order reversed within a cell, pairs per million edges"] == 1e6
    negative = invariants.measure(method(tmp_path, lambda scan: -scan.volume, "negative"), scan)
    assert negative["negative or non-finite inside the head, %"] > 99


def test_pairs_across_cells_are_not_within_one(scan: Scan) -> None:
    # Every other cell falls; inside a cell the order is kept.
    index = (np.arange(scan.volume.shape[0]) * scan.zooms[0] // 8).astype(int)
    stairs = scan.volume - 10 * scan.volume.max() * (index[:, None, None] % 2)
    assert invariants.reversed_within_cells(scan, scan.volume) == 0
    assert invariants.same_sign(scan, stairs.astype(np.float32)) < 1


@pytest.mark.parametrize("family", held_out.ALTERATIONS)
def test_alterations_change_a_scan_and_keep_its_air(scan: Scan, family: str) -> None:
    copies = held_out.altered_scans(scan)[family]
    assert len({copy.name for copy in copies}) == held_out.DRAWS
    for copy in copies:
        assert np.isfinite(copy.volume).all() and (copy.volume >= 0).all()
        assert copy.volume[scan.volume == 0] == pytest.approx(0, abs=1e-3)
        assert gradient_correlation(scan.volume, copy.volume, scan.head) < 0.99999
    assert np.array_equal(copies[0].volume, held_out.altered_scans(scan)[family][0].volume)


def test_lesions_are_kept_by_gain_and_lost_by_flattening(subject: Subject, tmp_path: Path) -> None:
    scans = lesions.lesioned_subject(subject, "spin echo 3 T", seed=0)
    assert len(scans.places) > 6
    before = scans.with_lesions.volume, scans.without.volume
    assert not np.array_equal(*before)
    kept = lesions.compare(method(tmp_path, lambda scan: 3 * scan.volume, "gain"), scans)
    assert len(kept) > 6
    for lesion in kept:
        assert lesion.sign_kept
        assert lesion.after == pytest.approx(3 * lesion.before, rel=1e-4)
        assert lesion.by_white_grey == pytest.approx(3 * lesion.before, rel=1e-3)
    own = [lesion.after / lesion.by_own_mapping for lesion in kept]
    assert np.median(own) == pytest.approx(1, abs=0.15)
    turned = lesions.compare(method(tmp_path, inverted, "inverted"), scans)
    assert all(not lesion.sign_kept for lesion in turned)
    lost = lesions.compare(method(tmp_path, lambda scan: scans.without.volume, "lost"), scans)
    assert np.median([abs(lesion.after / lesion.by_own_mapping) for lesion in lost]) < 0.4


def test_a_local_curve_goes_straight_on() -> None:
    values = np.linspace(0, 1, 2000, dtype=np.float32)
    curve = lesions.LocalCurve.of(values, 4 * values + 1)
    assert [curve(x) for x in (-1.0, 0.5, 3.0)] == pytest.approx([-3, 3, 13], rel=0.02)


def test_repeats_are_found_and_brought_together(scan: Scan, tmp_path: Path) -> None:
    moved = np.roll(scan.volume, (2, -1, 0), axis=(0, 1, 2)) * np.float32(0.4)
    for session, volume in (("1", scan.volume), ("2", moved)):
        folder = tmp_path / "sub-1" / f"ses-{session}" / "anat"
        folder.mkdir(parents=True)
        image = Scan(**{**vars(scan), "volume": volume}).image
        image.to_filename(folder / f"sub-1_ses-{session}_T1w.nii.gz")
    (repeat,) = repeats.read_repeats(tmp_path, "T1w")
    scaled = method(tmp_path, lambda scan: scan.volume / np.percentile(scan.volume, 99), "scaled")
    found = repeats.measure(scaled, repeat)
    assert found["correlation inside the head"] > 0.97
    assert found["distance of distributions inside the head"] < 0.02
    nothing = Data(shared=tmp_path, modality="T1w")
    assert repeats.run([scaled], nothing) == []


def test_a_made_repeat_comes_back_to_its_place(scan: Scan) -> None:
    repeat = repeats.made_repeat(scan, 0)
    assert not np.allclose(repeat.second.volume, scan.volume, atol=0.05 * scan.volume.max())
    back = repeats.resampled(repeat.second.volume, repeat.second, scan, repeat.transform)
    inside = scan.head & repeat.overlap
    moved = np.corrcoef(repeat.second.volume[inside], scan.volume[inside])[0, 1]
    assert np.corrcoef(back[inside], scan.volume[inside])[0, 1] > max(0.9, moved)


def test_error_over_spread_by_hand() -> None:
    a = np.array([0, 2, 4], dtype=np.float32)
    # The pooled variance of 0, 2, 4, 1, 3, 5 is 35/12, and the mean squared difference 1.
    assert error_db(a, a + 1) == pytest.approx(10 * math.log10(35 / 12))
    assert error_db(a, a) == math.inf


def test_a_method_that_sees_the_field_of_view_is_found_out(scan: Scan, tmp_path: Path) -> None:
    still = surroundings.measure(method(tmp_path, lambda scan: scan.volume, "unchanged"), scan)
    assert {value for name, value in still.items() if "change" in name} == {0.0}
    assert still["harmonized twice, dB"] == math.inf
    by_mean = surroundings.measure(
        method(tmp_path, lambda scan: scan.volume / scan.volume.mean(), "mean"), scan
    )
    assert by_mean["zeros around: change of the head, mean, % of the range"] > 10
    assert by_mean["air cut away: change of the head, mean, % of the range"] > 1


def row(method: str, value: float, metric: str = "x", better: str = "higher") -> Row:
    return Row(
        tier="A",
        modality="T1w",
        metric=metric,
        method=method,
        value=value,
        spread=0.5,
        n=3,
        better=better,  # type: ignore[arg-type]
        scans_used=3,
    )


def test_the_table_marks_the_best() -> None:
    rows = [
        row("ours", 2.0),
        row("other", 3.0),
        row("ours", 2.0, "y", "lower"),
        row("other", 3.0, "y", "lower"),
    ]
    text = markdown(rows, ["ours", "other"]).splitlines()
    assert text[2] == "| A T1w | x ↑ | 3 | 2.00 ±0.500 | **3.00** ±0.500 |"
    assert text[3] == "| A T1w | y ↓ | 3 | **2.00** ±0.500 | 3.00 ±0.500 |"
    (first, *_) = lines(rows).values()
    assert best(first) == ["other"]
    assert best({"a": row("a", 1.0, better="neither"), "b": row("b", 2.0, better="neither")}) == []


def test_what_looks_the_same_is_as_good() -> None:
    assert best({"a": row("a", 21.81), "b": row("b", 21.79), "c": row("c", 21.6)}) == ["a", "b"]


def test_ours_is_never_drawn_at_the_edge_for_being_far() -> None:
    others = [row(f"other {k}", 30.0 + 0.01 * k) for k in range(8)]
    low, high = line_ends([*others, row("ours", 20.0), row("far", -500.0)])
    assert low == 20.0 and high == pytest.approx(30.07)
    low, high = line_ends([row(name, value, better="lower") for name, value in (("ours", 3.0), ("a", 1.0))])
    assert (low, high) == (3.0, 1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12.345, "12.3"),
        (99.9996, "100"),
        (0.9996, "1.00"),
        (0.01234, "0.012"),
        (1234.5, "1234"),
        (math.inf, "∞"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_the_figure_is_drawn_even_of_odd_values(tmp_path: Path) -> None:
    names = ["ours", "none", "other"]
    values = [(math.inf, 3.0, 4.0), (1.0, 1.0, 1.0), (math.inf, math.inf, math.inf)]
    rows = [
        row(n, v, f"figure {k}") for k, line in enumerate(values) for n, v in zip(names, line, strict=True)
    ]
    draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_one_command_writes_table_numbers_and_figure(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [subject.scan(protocol) for protocol in PROTOCOLS["T1w"]]
    monkeypatch.setattr(Data, "simulated", scans)
    monkeypatch.setattr(Data, "reference", scans[:2])
    options = ["--modality", "T1w", "--tiers", "A", "B", "--methods", "none", "z-score"]
    assert efficacy.main([*options, "--out", str(tmp_path), "--shared", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "efficacy.md").read_text(encoding="utf-8") + "\n"
    assert "Tier B T1w: no such scans here." in table
    numbers = json.loads((tmp_path / "efficacy.json").read_text(encoding="utf-8"))
    assert {row["method"] for row in numbers["Rows"]} == {"none", "z-score", agreement.ORACLE}
    assert numbers["SecondsByTier"]["A T1w"] > 0
    assert (tmp_path / "efficacy.png").is_file()
    # Another tier, added later.
    options[options.index("A") : options.index("--methods")] = ["B", "--add"]
    assert efficacy.main([*options, "--out", str(tmp_path), "--shared", str(tmp_path)]) == 0
    added = json.loads((tmp_path / "efficacy.json").read_text(encoding="utf-8"))
    assert sorted(map(str, added["Rows"])) == sorted(map(str, numbers["Rows"]))
    assert added["SecondsByTier"].keys() == numbers["SecondsByTier"].keys()


@pytest.mark.parametrize("value", [1.5, math.inf, -math.inf, math.nan])
def test_rows_are_read_as_they_were_written(value: float) -> None:
    written = row("none", value, "figure")
    content = json.loads(json.dumps(written.to_json(), allow_nan=False))
    assert repr(Row.from_json(content)) == repr(written)
