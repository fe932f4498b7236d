"""Messages about runs, and the outcome of scans that a model is not meant for."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.query import select_runs
from bids_harmonize.cli.dataset import parse
from bids_harmonize.commands import participant, run_context
from bids_harmonize.commands.run_context import RunStatus, RunTask
from tests.helpers.toy_datasets import (
    counts,
    expected_files,
    files,
    harmonize,
    harmonize_apart,
    harmonize_on_terminal,
    head,
    image_of,
    load,
    output_of,
    scan_files,
    screen,
    sha256,
    sidecar_of,
    snapshot,
    voxels_of,
    write_dataset,
    write_scan,
)
from tests.helpers.toy_heads import ALWAYS, NEVER

pytestmark = [pytest.mark.usefixtures("without_reports"), pytest.mark.process]

SCAN = "sub-01_T1w.nii.gz"
# This is what happens without the option.
SKIP = ("--out-of-distribution", "skip")
UNHARMONIZED = {f"sub-01/anat/sub-01_desc-unharmonized_T1w{ending}" for ending in (".nii.gz", ".json")}


def record_of(image: Path) -> dict:
    return sidecar_of(image)["BidsHarmonize"]


def passed_through(output: Path) -> Path:
    return output / "sub-01/anat/sub-01_desc-unharmonized_T1w.nii.gz"


def test_a_foreign_scan_is_passed_through(dataset: Path, tmp_path: Path, model) -> None:
    output = tmp_path / "out"
    call = ("participant", "--model", model(ALWAYS), "--save-transform", *SKIP)
    result = harmonize(dataset, output, *call)
    assert result.code == 0
    assert scan_files(output) == UNHARMONIZED
    assert counts(result) == {"passed through": 1}
    (line,) = (line for line in result.err.splitlines() if "unlike what the model" in line)
    assert line.startswith("sub-01/anat/sub-01_T1w.nii.gz: ")


def test_what_is_passed_through_is_unchanged(dataset: Path, tmp_path: Path, model) -> None:
    harmonize(dataset, tmp_path / "out", "participant", "--model", model(ALWAYS), *SKIP)
    source = load(dataset / "sub-01/anat" / SCAN)
    image = load(passed_through(tmp_path / "out"))
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(source.dataobj, dtype=np.float32))
    for key in set(source.header) - {"vox_offset"}:
        np.testing.assert_array_equal(image.header[key], source.header[key], err_msg=key)


def test_the_sidecar_says_that_and_why(dataset: Path, tmp_path: Path, model) -> None:
    harmonize(dataset, tmp_path / "out", "participant", "--model", model(ALWAYS), *SKIP)
    sidecar = sidecar_of(passed_through(tmp_path / "out"))
    assert "was not harmonized" in sidecar["Description"]
    assert sidecar["EchoTime"] == 0.003
    record = sidecar["BidsHarmonize"]
    assert record["Harmonized"] is False
    assert record["OutputScale"] is None
    assert record["OutOfDistribution"] == {
        "Checked": True,
        "Flagged": True,
        "Score": pytest.approx(0.9933, abs=1e-3),
        "Threshold": 0.5,
    }
    assert record["Options"]["OutOfDistribution"] == "skip"
    assert "Edit" not in record
    (warning,) = record["Warnings"]
    assert "unlike what the model T1w5.0 is meant for" in warning


def test_the_refusal_names_the_option_that_chooses_another_model(
    dataset: Path, tmp_path: Path, model
) -> None:
    write_scan(dataset, "sub-01_T2w.nii.gz")
    models = (model(ALWAYS), model(ALWAYS, "T2w"))
    result = harmonize(dataset, tmp_path / "out", "participant", "--model", *models, *SKIP)
    first, second = (line for line in result.err.splitlines() if "unlike what the model" in line)
    assert first.endswith("; --model chooses another model, such as T1w")
    assert second.endswith("; --model chooses another model, such as T2w or prostate-T2w")


def test_on_demand_it_is_harmonized_and_flagged(dataset: Path, tmp_path: Path, model) -> None:
    call = ("participant", "--model", model(ALWAYS), "--out-of-distribution", "harmonize")
    result = harmonize(dataset, tmp_path / "out", *call)
    assert (result.code, "1 harmonized" in result.out) == (0, True)
    assert "unlike what the model" in result.err
    assert scan_files(tmp_path / "out") == expected_files(SCAN)
    record = record_of(output_of(tmp_path / "out", SCAN))
    assert (record["Harmonized"], record["OutOfDistribution"]["Flagged"]) == (True, True)
    assert "unlike what the model" in record["Warnings"][0]
    assert record["Edit"]["NonFiniteVoxelsSetToZero"] == 2


def test_on_demand_it_fails_and_the_others_go_on(dataset: Path, tmp_path: Path, model) -> None:
    write_scan(dataset, "sub-01_T2w.nii.gz")
    call = ("participant", "--model", model(ALWAYS), model(NEVER, "T2w"), "--out-of-distribution", "fail")
    result = harmonize(dataset, tmp_path / "out", *call)
    assert result.code == 65
    assert counts(result) == {"harmonized": 1, "failed": 1}
    assert f"{dataset / 'sub-01/anat' / SCAN}: it is unlike what the model" in result.out
    assert scan_files(tmp_path / "out") == expected_files("sub-01_T2w.nii.gz")


def test_what_is_passed_through_is_not_done_again(dataset: Path, tmp_path: Path, model) -> None:
    call = (dataset, tmp_path / "out", "participant", "--model", model(ALWAYS), *SKIP)
    harmonize(*call)
    before = snapshot(tmp_path / "out" / "sub-01")
    assert counts(harmonize(*call)) == {"up to date": 1}
    assert snapshot(tmp_path / "out" / "sub-01") == before
    assert "sub-01_T1w.nii.gz is up to date" in harmonize(*call, "--dry-run").out
    assert "1 passed through" in harmonize(*call, "--force").out


def test_another_way_to_deal_with_it_replaces_what_is_there(dataset: Path, tmp_path: Path, model) -> None:
    call = (dataset, tmp_path / "out", "participant", "--model", model(ALWAYS), "--out-of-distribution")
    for way, expected in (
        ("skip", UNHARMONIZED),
        ("harmonize", expected_files(SCAN)),
        ("skip", UNHARMONIZED),
        ("fail", set()),
    ):
        harmonize(*call, way)
        assert scan_files(tmp_path / "out") == expected, way


def test_a_model_that_knows_the_scan_replaces_what_was_passed_through(
    dataset: Path, tmp_path: Path, model
) -> None:
    for logit, expected in ((ALWAYS, UNHARMONIZED), (NEVER, expected_files(SCAN)), (ALWAYS, UNHARMONIZED)):
        call = ("participant", "--model", model(logit), "--force", *SKIP)
        assert harmonize(dataset, tmp_path / "out", *call).code == 0
        assert scan_files(tmp_path / "out") == expected


def test_a_familiar_scan_is_harmonized_once_whatever_is_done_with_others(
    dataset: Path, tmp_path: Path, model
) -> None:
    call = (dataset, tmp_path / "out", "participant", "--model", model(NEVER), "--out-of-distribution")
    assert "1 harmonized" in harmonize(*call, "skip").out
    record = record_of(output_of(tmp_path / "out", SCAN))
    assert record["OutOfDistribution"]["Flagged"] is False
    assert not any("unlike" in warning for warning in record["Warnings"])
    for way in ("harmonize", "fail"):
        assert counts(harmonize(*call, way)) == {"up to date": 1}


def test_a_model_that_cannot_tell_harmonizes_and_says_so(dataset: Path, tmp_path: Path, model) -> None:
    result = harmonize(
        dataset, tmp_path / "out", "participant", "--model", model(None), "--out-of-distribution", "fail"
    )
    assert result.code == 0
    assert record_of(output_of(tmp_path / "out", SCAN))["OutOfDistribution"] == {"Checked": False}


def test_a_dry_run_names_both_files(dataset: Path, tmp_path: Path, model) -> None:
    call = (dataset, tmp_path / "out", "participant", "--dry-run", *SKIP, "--model")
    named = {line.strip() for line in harmonize(*call, model(ALWAYS)).out.splitlines()}
    assert {str(passed_through(tmp_path / "out")), str(output_of(tmp_path / "out", SCAN))} <= named
    assert "unharmonized" not in harmonize(*call, model(None)).out


def test_intensities_are_told_before_and_where_harmonized_after(dataset: Path, tmp_path: Path, model) -> None:
    found = {}
    for logit, path in ((ALWAYS, passed_through), (NEVER, lambda out: output_of(out, SCAN))):
        output = tmp_path / f"out{logit}"
        assert harmonize(dataset, output, "participant", "--model", model(logit), *SKIP).code == 0
        found[logit] = record_of(path(output))["Intensities"]
        image = voxels_of(path(output))
    assert set(found[ALWAYS]["Foreground"]) == {"Before"}
    assert set(found[NEVER]["Foreground"]) == {"Before", "After"}
    assert found[NEVER]["Foreground"]["Before"] == found[ALWAYS]["Foreground"]["Before"]
    after = found[NEVER]["Foreground"]["After"]
    assert np.quantile(image[image > 0], 0.02) < after[24] < image.max()


def test_the_table_of_the_group_counts_it(dataset: Path, tmp_path: Path, model) -> None:
    write_scan(dataset, "sub-02_T1w.nii.gz")
    for label, logit in (("01", ALWAYS), ("02", NEVER)):
        call = ("participant", "--model", model(logit), "--participant-label", label, *SKIP)
        assert harmonize(dataset, tmp_path / "out", *call).code == 0
    assert harmonize(dataset, tmp_path / "out", "group").code == 0
    with (tmp_path / "out" / "group_T1w.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["scan"] for row in rows] == [
        "sub-01_desc-unharmonized_T1w.nii.gz",
        "sub-02_desc-harmonized_T1w.nii.gz",
    ]
    assert [(row["harmonized"], row["out_of_distribution"]) for row in rows] == [("0", "1"), ("1", "0")]
    assert rows[0]["gain_median"] == "n/a"
    assert float(rows[0]["out_of_distribution_score"]) > 0.5 > float(rows[1]["out_of_distribution_score"])


def test_a_damaged_recognizer_is_bad_data(dataset: Path, tmp_path: Path, model) -> None:
    weights = model(ALWAYS)
    path = weights.with_suffix(".json")
    card = json.loads(path.read_text())
    card["Recognizer"]["Tensors"][0]["Base64"] = "?"
    path.write_text(json.dumps(card))
    result = harmonize(dataset, tmp_path / "out", "participant", "--model", weights)
    assert (result.code, "(Recognizer)" in result.err) == (65, True)


# What is told


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three participants: one with a warning, one whose scan holds no image, and a good one."""
    folder = write_dataset(tmp_path / "three")
    voxels = head(1).astype(np.float32)
    voxels[0, 0, 0] = np.nan
    write_scan(folder, "sub-01_T1w.nii.gz", image_of(voxels))
    write_scan(folder, "sub-02_T1w.nii.gz").write_bytes(b"no image")
    write_scan(folder, "sub-03_T1w.nii.gz")
    return folder


def without_seconds(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+\.\d s", "T s", line) for line in lines]


def told_of(three: Path) -> list[str]:
    """The log of `three`."""
    bad = three / "sub-02/anat/sub-02_T1w.nii.gz"
    return [
        "sub-01/anat/sub-01_T1w.nii.gz: 1 voxels that are not finite were set to 0",
        "1 of 3, T s: sub-01/anat/sub-01_T1w.nii.gz is harmonized",
        f"2 of 3, T s: {bad} is not a readable NIfTI image",
        "3 of 3, T s: sub-03/anat/sub-03_T1w.nii.gz is harmonized",
    ]


def same_beginnings(lines: list[str], expected: list[str]) -> bool:
    return all(line.startswith(start) for line, start in zip(lines, expected, strict=True))


def test_a_log_has_one_line_for_each_run(three: Path, tmp_path: Path, random_model: Path) -> None:
    result = harmonize(three, tmp_path / "out", "participant", "--model", random_model)
    assert same_beginnings(without_seconds(result.err.splitlines()), told_of(three)), result.err
    assert "\x1b" not in result.err
    assert "\r" not in result.err


def test_a_terminal_shows_the_run_and_the_time_left_below_the_log(
    three: Path, tmp_path: Path, random_model: Path
) -> None:
    result = harmonize_on_terminal(three, tmp_path / "out", "participant", "--model", random_model)
    *lines, last = screen(result.err)
    assert same_beginnings(without_seconds(lines), told_of(three)), result.err
    assert last == ""
    shown = result.err.split("\r\x1b[K")
    assert shown[0] == "1 of 3: sub-01/anat/sub-01_T1w.nii.gz"
    assert any(re.fullmatch(r"2 of 3, about \d+ (s|min|h) left: sub-02/\S+", part) for part in shown)
    assert any(re.fullmatch(r"3 of 3, about \d+ (s|min|h) left: sub-03/\S+", part) for part in shown)


def test_the_line_on_a_terminal_is_gone_when_it_is_interrupted(
    three: Path, tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_context, "plan_run", interrupt)
    result = harmonize_on_terminal(three, tmp_path / "out", "participant", "--model", random_model)
    assert result.code == 130
    assert "1 of 3: sub-01" in result.err
    assert screen(result.err) == ["bids-harmonize: error: interrupted", ""]


def test_the_table_counts_scans_and_seconds_and_names_failures(
    three: Path, tmp_path: Path, random_model: Path
) -> None:
    result = harmonize(three, tmp_path / "out", "participant", "--model", random_model)
    assert counts(result) == {"harmonized": 2, "failed": 1}
    heading, sentence, details, *table, where = result.out.splitlines()
    assert heading == "failed:"
    assert sentence.strip().startswith(f"{three / 'sub-02/anat/sub-02_T1w.nii.gz'} is not a readable")
    (crash,) = (tmp_path / "out/logs").glob("crash_*")
    assert details.strip() == f"details are in {crash}"
    assert where == f"results are in {tmp_path / 'out'}"
    seconds = {line[7:24].rstrip(): float(line[24:].rstrip(" s")) for line in table[:-1]}
    assert list(seconds) == ["harmonized", "passed through", "up to date", "skipped", "failed"]
    assert seconds["harmonized"] > 0
    assert seconds["passed through"] == seconds["up to date"] == seconds["skipped"] == 0
    assert table[-1].split() == ["0", "not", "started"]


def test_quiet_leaves_warnings_and_errors(three: Path, tmp_path: Path, random_model: Path) -> None:
    result = harmonize(three, tmp_path / "out", "participant", "--model", random_model, "-q")
    assert (result.code, result.out) == (65, "")
    assert same_beginnings(without_seconds(result.err.splitlines()), [told_of(three)[0], told_of(three)[2]])


def test_a_quiet_terminal_shows_no_run(three: Path, tmp_path: Path, random_model: Path) -> None:
    call = ("participant", "--model", random_model, "--participant-label", "03", "-q")
    result = harmonize_on_terminal(three, tmp_path / "out", *call)
    assert (result.code, result.out, result.err) == (0, "", "")


def test_verbose_says_how_and_very_verbose_where_it_failed(
    three: Path, tmp_path: Path, random_model: Path
) -> None:
    call = (three, tmp_path / "out", "participant", "--model", random_model, "--force")
    for flag, traced in (("-v", False), ("-vv", True)):
        result = harmonize(*call, flag)
        assert re.search(r"^\d\d:\d\d:\d\d DEBUG: sub-03/\S+: model random on cpu", result.err, re.MULTILINE)
        written = output_of(tmp_path / "out", "sub-03_T1w.nii.gz")
        assert f"DEBUG: sub-03/anat/sub-03_T1w.nii.gz: written to {written} in " in result.err
        assert re.search(r"^\d\d:\d\d:\d\d INFO: 3 of 3, ", result.err, re.MULTILINE)
        assert ("Traceback (most recent call last)" in result.err) == traced


# Worker processes


def test_workers_write_and_say_what_one_process_does_in_the_same_order(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    names = [f"sub-{n:02d}_T1w.nii.gz" for n in range(5)]
    for n, name in enumerate(names):
        write_scan(dataset, name, image_of(head(n, (20, 24, 12 + 2 * n))))
    write_scan(dataset, "sub-02_acq-broken_T1w.nii.gz").write_bytes(b"nothing")
    told, made = [], []
    for number in ("1", "3"):
        output = tmp_path / "out" / number
        result = harmonize_apart(dataset, output, "participant", "--n-cpus", number)
        assert (result.code, counts(result)) == (65, {"harmonized": 5, "failed": 1})
        told.append([line.split(":", 1)[1] for line in result.err.splitlines() if " of 6, " in line])
        drawn = {name for name in files(output) if name.endswith((".gz", ".svg", ".png"))}
        made.append({name: sha256(output / name) for name in drawn})
        assert {f"sub-{n:02d}.html" for n in range(5)} <= files(output)
        assert scan_files(output) == expected_files(*names)
    assert told[0] == told[1]
    assert made[0] == made[1]


def test_a_scan_whose_process_was_killed_is_a_failure_with_a_crash_file(tmp_path: Path) -> None:
    dataset, output = write_dataset(tmp_path / "data"), tmp_path / "out"
    write_scan(dataset, "sub-01_T1w.nii.gz")
    job = run_context.RunContext(
        options=parse([str(dataset), str(output), "participant"]), threads=1, conflicting={}
    )
    (run,) = select_runs(dataset, Filters(), None)
    assert harmonize(dataset, output, "participant").code == 0
    outcome = job.killed(RunTask(run=run))
    assert (outcome.status, outcome.exit_code) == (RunStatus.FAILED, 65)
    assert str(run.path) in outcome.message
    assert outcome.crash is not None
    assert outcome.message in outcome.crash.read_text()


@pytest.mark.parametrize(
    ("given", "runs", "expected"),
    [
        (["--n-cpus", "8"], 100, (8, 1)),
        (["--n-cpus", "8"], 3, (3, 2)),
        (["--n-cpus", "8"], 1, (1, 8)),
        (["--n-cpus", "8", "--omp-nthreads", "2"], 100, (4, 2)),
        (["--n-cpus", "2", "--omp-nthreads", "4"], 100, (1, 4)),
        (["--n-cpus", "1"], 100, (1, 1)),
    ],
)
def test_cpus_are_shared_out(tmp_path: Path, given: list[str], runs: int, expected: tuple[int, int]) -> None:
    options = parse([str(tmp_path), "/out", "participant", "--device", "cpu", *given])
    assert participant.workers_and_threads(options, runs) == expected


def test_a_page_for_which_there_is_no_memory_is_told_as_that(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr("bids_harmonize.commands.run_context.write_participant_report", out_of_memory)
    result = harmonize(dataset, tmp_path / "out", "participant")
    assert result.code == 65
    assert "sub-01.html was not written: out of memory" in result.err


# What the metadata say


def test_a_contrast_agent_is_warned_of(dataset: Path, tmp_path: Path, model) -> None:
    write_scan(dataset, "sub-01_ce-gd_T1w.nii.gz")
    write_scan(dataset, "sub-01_run-1_T1w.nii.gz", sidecar={"ContrastBolusIngredient": "GADOLINIUM"})
    write_scan(dataset, "sub-01_run-2_T1w.nii.gz", sidecar={"ContrastBolusIngredient": "NONE"})
    result = harmonize(dataset, tmp_path / "out", "participant", "--model", model(NEVER))
    assert result.err.count("enhancement may be compressed") == 2
    warned = {
        name: record_of(output_of(tmp_path / "out", f"sub-01_{name}_T1w.nii.gz"))["Warnings"]
        for name in ("ce-gd", "run-1", "run-2")
    }
    assert ["(ce- in its name)" in warned["ce-gd"][0], len(warned["ce-gd"])] == [True, 1]
    assert "(ContrastBolusIngredient in its sidecar)" in warned["run-1"][0]
    assert warned["run-2"] == []


def test_what_is_passed_through_is_not_said_to_be_compressed(dataset: Path, tmp_path: Path, model) -> None:
    write_scan(dataset, "sub-01_ce-gd_T1w.nii.gz")
    result = harmonize(dataset, tmp_path / "out", "participant", "--model", model(ALWAYS), *SKIP)
    assert (result.code, "enhancement" in result.err) == (0, False)


@pytest.mark.parametrize("logit", [NEVER, ALWAYS])
def test_two_body_parts_that_disagree_are_told(dataset: Path, tmp_path: Path, model, logit: float) -> None:
    (dataset / "T1w.json").write_text('{"BodyPart": "HEAD"}')
    write_scan(dataset, SCAN, sidecar={"BodyPartExamined": "PROSTATE"})
    result = harmonize(dataset, tmp_path / "out", "participant", "--model", model(logit), *SKIP)
    assert result.code == 0
    image = output_of(tmp_path / "out", SCAN) if logit == NEVER else passed_through(tmp_path / "out")
    sidecar = sidecar_of(image)
    assert sidecar["BodyPart"] == "HEAD"
    assert "BodyPart HEAD, but BodyPartExamined PROSTATE" in sidecar["BidsHarmonize"]["Warnings"][-1]


def _stripped() -> nib.Nifti1Image:
    """A ball of 1.4 l in nothing."""
    axes = np.meshgrid(*(np.arange(n) - n / 2 for n in (30, 34, 28)), indexing="ij")
    inside = sum(np.square(axis) for axis in axes) < 49
    return image_of(np.where(inside, 400 + 100 * np.sin(axes[0]), 0).astype(np.int16), (10, 10, 10))


@pytest.mark.parametrize(
    ("stated", "image", "written"),
    [
        (None, _stripped, True),
        (False, _stripped, False),
        (True, lambda: image_of(head(1)), True),
        (None, lambda: image_of(head(1)), False),
    ],
)
def test_a_sidecar_does_not_contradict_itself_or_its_source(
    dataset: Path,
    tmp_path: Path,
    model,
    stated: bool | None,
    image: Callable[[], nib.Nifti1Image],
    written: bool,
) -> None:
    write_scan(dataset, SCAN, image(), {} if stated is None else {"SkullStripped": stated})
    assert harmonize(dataset, tmp_path / "out", "participant", "--model", model(NEVER)).code == 0
    sidecar = sidecar_of(output_of(tmp_path / "out", SCAN))
    assert sidecar["SkullStripped"] is written
    assert sidecar["BidsHarmonize"]["Intensities"]["SkullStripped"] is written


def test_a_space_of_the_source_is_kept(dataset: Path, tmp_path: Path, model) -> None:
    stated = {"SpatialReference": "bids::sub-01/anat/sub-01_T1w.nii.gz"}
    names = ["sub-01_space-a_T1w.nii.gz", "sub-01_space-b_T1w.nii.gz"]
    write_scan(dataset, names[0], sidecar=stated)
    write_scan(dataset, names[1])
    harmonize(dataset, tmp_path / "out", "participant", "--model", model(NEVER))
    references = [sidecar_of(output_of(tmp_path / "out", name))["SpatialReference"] for name in names]
    assert references == [
        "bids:raw:sub-01/anat/sub-01_T1w.nii.gz",
        "bids:raw:sub-01/anat/sub-01_space-b_T1w.nii.gz",
    ]


@pytest.mark.parametrize("logit", [NEVER, ALWAYS])
def test_forms_that_disagree_are_told(dataset: Path, tmp_path: Path, model, logit: float) -> None:
    image = image_of(head(1))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine @ np.diag([0.5, 0.5, 0.5, 1]), 1)
    write_scan(dataset, SCAN, image)
    harmonize(dataset, tmp_path / "out", "participant", "--model", model(logit), *SKIP)
    written = output_of(tmp_path / "out", SCAN) if logit == NEVER else passed_through(tmp_path / "out")
    assert "qform and sform disagree" in record_of(written)["Warnings"][-1]
