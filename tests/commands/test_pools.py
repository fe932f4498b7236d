"""Scans that share an edit: in one process, in three steps, on the next visit; the same voxels each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bids_harmonize.measures.shared_curve import MAX_DISTANCE
from bids_harmonize.results.pool import read_pools
from tests.helpers.toy_datasets import (
    harmonize,
    harmonize_image,
    head,
    image_of,
    output_of,
    sha256,
    sidecar_of,
    voxels_of,
    write_dataset,
    write_scan,
)
from tests.helpers.toy_heads import NEVER, random_network, write_model

pytestmark = [pytest.mark.usefixtures("without_reports"), pytest.mark.process]

PROTOCOL = {"Manufacturer": "Siemens", "RepetitionTime": 2.3, "EchoTime": 0.003}
OTHER = {"Manufacturer": "GE", "RepetitionTime": 0.01, "EchoTime": 0.004}
NAMES = [f"sub-{number:02d}_T1w.nii.gz" for number in range(1, 7)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Five scans of one protocol, and one of another."""
    folder = write_dataset(tmp_path / "raw")
    for number, name in enumerate(NAMES):
        write_scan(folder, name, image_of(head(number)), OTHER if number == 5 else PROTOCOL)
    return folder


def pool_of(image: Path) -> dict:
    return sidecar_of(image)["BidsHarmonize"].get("Pool", {})


def images(output: Path) -> dict[str, str]:
    return {name: sha256(output_of(output, name)) for name in NAMES}


def test_one_process_and_three_steps_give_the_same_voxels(
    raw: Path, tmp_path: Path, model: Callable[..., Path]
) -> None:
    weights = ("--model", model(NEVER))
    once, steps = tmp_path / "once", tmp_path / "steps"
    result = harmonize(raw, once, "participant", "--pool-by", "protocol", *weights)
    assert result.code == 0, result.err
    for name in reversed(NAMES):
        label = name.split("_")[0]
        assert harmonize(raw, steps, "participant", "--participant-label", label, *weights).code == 0
    by_themselves = images(steps)
    assert by_themselves != images(once)
    assert harmonize(raw, steps, "group", "--pool-by", "protocol").code == 0
    assert [pool.content() for pool in read_pools(steps / "pools")] == [
        pool.content() for pool in read_pools(once / "pools")
    ]
    for name in NAMES:
        label = name.split("_")[0]
        done = harmonize(
            raw, steps, "participant", "--pool", steps / "pools", "--participant-label", label, *weights
        )
        assert done.code == 0, done.err
    assert images(steps) == images(once)
    # A pool of one scan leaves it as it is by itself.
    assert images(once)[NAMES[5]] == by_themselves[NAMES[5]]
    again = harmonize(raw, steps, "participant", "--pool-by", "protocol", *weights)
    assert f"{len(NAMES)} up to date" in " ".join(again.out.split())


def test_sidecars_say_which_pool(raw: Path, tmp_path: Path, model: Callable[..., Path]) -> None:
    out = tmp_path / "out"
    assert harmonize(raw, out, "participant", "--pool-by", "protocol", "--model", model(NEVER)).code == 0
    pools = {pool.sha256: pool for pool in read_pools(out / "pools")}
    for number, name in enumerate(NAMES):
        record = pool_of(output_of(out, name))
        pool = pools[record["SHA256"]]
        assert record["Label"] == pool.label
        assert record["OtherScans"] == len(pool.members) - 1 == (0 if number == 5 else 4)
        assert record["Share"] == (0 if number == 5 else 1)
        assert record["Fits"]
        assert record["Distance"] >= 0
        assert record["SharedCurve"]["LogInputs"] == list(pool.shared.curve.inputs)
    lines = (out / "pools/pools.tsv").read_text().splitlines()
    assert len(lines) == 1 + len(NAMES)


def test_a_pool_that_changed_redoes_its_scans_and_no_others(
    raw: Path, tmp_path: Path, model: Callable[..., Path]
) -> None:
    out, call = tmp_path / "out", ("participant", "--pool-by", "protocol", "--model", model(NEVER))
    assert harmonize(raw, out, *call).code == 0
    write_scan(raw, "sub-07_T1w.nii.gz", image_of(head(7)), PROTOCOL)
    before = images(out)
    result = harmonize(raw, out, *call)
    told = " ".join(result.out.split())
    assert "6 harmonized" in told
    assert "1 up to date" in told
    assert images(out)[NAMES[5]] == before[NAMES[5]]


def test_the_next_visit_gets_the_same_edit(raw: Path, tmp_path: Path, model: Callable[..., Path]) -> None:
    out, weights = tmp_path / "out", ("--model", model(NEVER))
    assert harmonize(raw, out, "participant", "--pool-by", "protocol", *weights).code == 0
    pool = max(read_pools(out / "pools"), key=lambda pool: len(pool.members))
    path = out / "pools" / pool.file_name
    visit = write_dataset(tmp_path / "later")
    write_scan(visit, NAMES[0], image_of(head(0)), PROTOCOL)
    later = tmp_path / "later_out"
    assert harmonize(visit, later, "participant", "--pool", path, *weights).code == 0
    single = tmp_path / "single.nii.gz"
    source = visit / "sub-01/anat" / NAMES[0]
    assert harmonize_image(source, single, "--pool", path, *weights).code == 0
    np.testing.assert_array_equal(voxels_of(single), voxels_of(output_of(later, NAMES[0])))
    np.testing.assert_array_equal(voxels_of(single), voxels_of(output_of(out, NAMES[0])))


def test_another_contrast_under_the_same_name_is_named_and_done_by_itself(raw: Path, tmp_path: Path) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    # A network that answers contrasts with mere gains would tell none from another.
    weights = ("--model", write_model(tmp_path, random_network(7, by_contrast=4), "T1w"))
    foreign = head(2).astype(np.float32)
    write_scan(raw, NAMES[2], image_of(foreign.max() * (foreign / foreign.max()) ** 3), PROTOCOL)
    result = harmonize(raw, out, "participant", "--pool-by", "protocol", *weights)
    assert result.code == 0
    assert f"{NAMES[1]}: it does not fit" not in result.err
    assert f"sub-03/anat/{NAMES[2]}: it does not fit the pool" in result.err
    record = pool_of(output_of(out, NAMES[2]))
    assert (record["Fits"], record["Share"], record["OtherScans"]) == (False, 0, 4)
    assert record["Distance"] > MAX_DISTANCE
    assert harmonize(raw, alone, "participant", *weights).code == 0
    assert images(out)[NAMES[2]] == images(alone)[NAMES[2]]


def test_bad_pools_are_refused_before_anything_is_written(
    raw: Path, tmp_path: Path, model: Callable[..., Path]
) -> None:
    out, weights = tmp_path / "out", ("--model", model(NEVER))
    assert harmonize(raw, out, "participant", "--pool-by", "protocol", *weights).code == 0
    pools = out / "pools"
    new = tmp_path / "new"

    def refused(code: int, sentence: str, *arguments: str | Path) -> None:
        result = harmonize(raw, new, "participant", *arguments)
        assert (result.code, sentence in result.err) == (code, True), result.err
        assert not new.exists()

    refused(65, "holds a pool of another model", "--pool", pools)
    refused(66, "does not exist", "--pool", tmp_path / "nowhere.safetensors", *weights)
    (tmp_path / "empty").mkdir()
    refused(66, "holds no pool", "--pool", tmp_path / "empty", *weights)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((pools / read_pools(pools)[0].file_name).read_bytes()[:-9])
    refused(65, "is no pool, or is damaged", "--pool", damaged, *weights)


def test_a_scan_that_belongs_to_no_pool_fails_alone(
    raw: Path, tmp_path: Path, model: Callable[..., Path]
) -> None:
    out, weights = tmp_path / "out", ("--model", model(NEVER))
    assert harmonize(raw, out, "participant", "--pool-by", "protocol", *weights).code == 0
    write_scan(raw, "sub-08_T1w.nii.gz", image_of(head(8)), PROTOCOL)
    result = harmonize(raw, out, "participant", "--pool", out / "pools", *weights)
    assert result.code == 65
    assert "sub-08_T1w.nii.gz belongs to no pool in" in result.err + result.out
    assert not output_of(out, "sub-08_T1w.nii.gz").exists()
    assert "1 failed" in " ".join(result.out.split())


def test_a_column_that_is_nowhere_is_wrong_usage(
    raw: Path, tmp_path: Path, model: Callable[..., Path]
) -> None:
    result = harmonize(raw, tmp_path / "out", "participant", "--pool-by", "ward", "--model", model(NEVER))
    assert (result.code, "ward" in result.err) == (64, True)
    assert not (tmp_path / "out").exists()
    dry = harmonize(raw, tmp_path / "out", "participant", "--pool-by", "ward", "--dry-run")
    assert (dry.code, "ward" in dry.err) == (64, True)


def test_a_dry_run_writes_nothing(raw: Path, tmp_path: Path, model: Callable[..., Path]) -> None:
    out = tmp_path / "out"
    result = harmonize(raw, out, "participant", "--pool-by", "site", "--dry-run", "--model", model(NEVER))
    assert result.code == 0
    assert str(out / "pools") in result.out
    assert not out.exists()


def test_scans_of_older_releases_are_in_no_pool_and_told(
    raw: Path, tmp_path: Path, model: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    assert harmonize(raw, out, "participant", "--model", model(NEVER)).code == 0
    old = output_of(out, NAMES[0]).with_suffix("").with_suffix(".json")
    content = json.loads(old.read_text())
    del content["BidsHarmonize"]["OverallCurve"]
    old.write_text(json.dumps(content))
    result = harmonize(raw, out, "group", "--pool-by", "protocol")
    assert (result.code, "1 of 6 sidecars" in result.err) == (0, True)
    members = [name for pool in read_pools(out / "pools") for name in pool.members]
    assert len(members) == len(NAMES) - 1


def test_several_processes_give_the_same_bytes(raw: Path, tmp_path: Path, model: Callable[..., Path]) -> None:
    made = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        call = ("participant", "--pool-by", "protocol", "--n-cpus", workers, "--model", model(NEVER))
        assert harmonize(raw, out, *call).code == 0
        made.append((images(out), [pool.content() for pool in read_pools(out / "pools")]))
    assert made[0] == made[1]


def test_if_all_scans_fail_they_are_told_and_there_are_no_pools(
    tmp_path: Path, model: Callable[..., Path]
) -> None:
    folder = write_dataset(tmp_path / "raw")
    write_scan(folder, NAMES[0], image_of(head(1)), PROTOCOL)
    (folder / "sub-01/anat" / NAMES[0]).write_bytes(b"nothing")
    out = tmp_path / "out"
    result = harmonize(folder, out, "participant", "--pool-by", "protocol", "--model", model(NEVER))
    assert (result.code, NAMES[0] in result.err) == (65, True)
    assert not (out / "pools").exists()


def test_pools_are_not_written_through_a_link(raw: Path, tmp_path: Path, model: Callable[..., Path]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "pools").symlink_to(tmp_path / "elsewhere")
    result = harmonize(raw, out, "participant", "--pool-by", "protocol", "--model", model(NEVER))
    assert (result.code, "remove the link" in result.err) == (73, True)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_scans_in_no_pool_are_by_themselves_in_one_process_and_in_three_steps(
    raw: Path, tmp_path: Path, model: Callable[..., Path]
) -> None:
    rows = [f"sub-{number:02d}\t{'n/a' if number == 6 else 'a'}" for number in range(1, 7)]
    (raw / "participants.tsv").write_text("\n".join(["participant_id\tward", *rows]) + "\n")
    once, steps, weights = tmp_path / "once", tmp_path / "steps", ("--model", model(NEVER))
    assert harmonize(raw, once, "participant", "--pool-by", "ward", *weights).code == 0
    assert harmonize(raw, steps, "participant", *weights).code == 0
    by_itself = images(steps)[NAMES[5]]
    assert harmonize(raw, steps, "group", "--pool-by", "ward").code == 0
    done = harmonize(raw, steps, "participant", "--pool", steps / "pools", *weights)
    assert done.code == 0, done.err
    assert images(steps) == images(once)
    assert images(once)[NAMES[5]] == by_itself
    assert pool_of(output_of(once, NAMES[5])).get("SHA256") is None


def test_where_nothing_says_the_protocol_the_three_steps_leave_all_by_themselves(
    tmp_path: Path, model: Callable[..., Path]
) -> None:
    raw, out = write_dataset(tmp_path / "raw"), tmp_path / "out"
    write_scan(raw, NAMES[0], image_of(head(1)), {})
    weights = ("--model", model(NEVER))
    assert harmonize(raw, out, "participant", *weights).code == 0
    before = sha256(output_of(out, NAMES[0]))
    formed = harmonize(raw, out, "group", "--pool-by", "protocol")
    assert formed.code == 0, formed.err
    assert f"{NAMES[0]}; it is in no pool" in formed.err
    assert (out / "group_T1w.html").is_file()
    assert harmonize(raw, out, "participant", "--pool", out / "pools", *weights).code == 0
    assert sha256(output_of(out, NAMES[0])) == before


def test_pools_are_not_formed_without_scans_that_they_had(
    raw: Path, tmp_path: Path, model: Callable[..., Path]
) -> None:
    out, call = tmp_path / "out", ("participant", "--pool-by", "protocol", "--model", model(NEVER))
    assert harmonize(raw, out, *call).code == 0
    before = {path: path.read_bytes() for path in (out / "pools").iterdir()}
    result = harmonize(raw, out, *call, "--participant-label", "01", "02")
    assert (result.code, "4, such as sub-03/anat/" in result.err) == (64, True), result.err
    assert {path: path.read_bytes() for path in (out / "pools").iterdir()} == before
    (raw / "sub-06/anat" / NAMES[5]).unlink()
    # What the dataset no longer has is no reason.
    assert harmonize(raw, out, *call).code == 0


def test_the_image_tool_knows_the_members_of_a_pool(
    raw: Path, tmp_path: Path, model: Callable[..., Path]
) -> None:
    for name in NAMES[2:5]:
        (raw / name.split("_")[0] / "anat" / name).unlink()
    out, weights = tmp_path / "out", ("--model", model(NEVER))
    assert harmonize(raw, out, "participant", "--pool-by", "protocol", *weights).code == 0
    (pool,) = [pool for pool in read_pools(out / "pools") if len(pool.members) == 2]
    single = tmp_path / "single.nii.gz"
    path = out / "pools" / pool.file_name
    done = harmonize_image(raw / "sub-01/anat" / NAMES[0], single, "--pool", path, *weights)
    assert done.code == 0, done.err
    assert sidecar_of(single)["BidsHarmonize"]["Pool"]["OtherScans"] == 1
    np.testing.assert_array_equal(voxels_of(single), voxels_of(output_of(out, NAMES[0])))
