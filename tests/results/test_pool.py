"""Pools in their files: the same whenever they are formed again, and found by their scans."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from safetensors.numpy import save

from bids_harmonize.bids.grouping import Grouping
from bids_harmonize.bids.pools import Acquired
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.measures.overall_curve import OverallCurve
from bids_harmonize.results.pool import (
    Measured,
    Pool,
    as_named,
    pool_of,
    pool_scans,
    read_pools,
    scans_alone,
    write_pools,
)

SHA = "a" * 64


def measured(number: int, *, suffix: str = "T1w", sha256: str = SHA, steep: float = 1.0) -> Measured:
    inputs = np.linspace(2, 5, 32) + 0.1 * number
    return Measured(
        acquired=Acquired(
            path=PurePosixPath(f"sub-{number:02d}/anat/sub-{number:02d}_{suffix}.nii.gz"),
            metadata={},
            zooms=(1.0, 1.0, 1.0),
        ),
        suffix=suffix,
        model="T1w-head",
        model_sha256=sha256,
        own=OverallCurve.through(inputs, steep * (inputs + 0.02 * np.sin(number + inputs))),
    )


def formed(*labels: str | None) -> Grouping:
    return Grouping(labels=labels, rule="a rule")


def test_scans_are_pooled_by_label_suffix_and_model() -> None:
    scans = [
        measured(1),
        measured(2),
        measured(3, suffix="T2w"),
        measured(4, sha256="b" * 64),
        measured(5),
        measured(6),
    ]
    pools = pool_scans(scans, formed("x", "x", "x", "x", "y", None))
    assert [(pool.label, len(pool.members)) for pool in pools] == [("x", 2), ("x", 1), ("x", 1), ("y", 1)]
    assert len({pool.file_name for pool in pools}) == len(pools)


def test_the_order_of_scans_makes_no_difference_to_a_byte() -> None:
    scans = [measured(number) for number in range(6)]
    labels = ["x"] * 6
    forwards, backwards = (pool_scans(order, formed(*labels)) for order in (scans, scans[::-1]))
    assert [pool.content() for pool in forwards] == [pool.content() for pool in backwards]


def test_a_pool_survives_its_file(tmp_path: Path) -> None:
    scans = [*(measured(number) for number in range(5)), measured(9, steep=4.0)]
    pools = pool_scans(scans, formed(*["Siemens Trio, 3 T / \u00fc"] * 6))
    *paths, table = write_pools(pools, tmp_path / "pools")
    assert [Pool.read(path) for path in paths] == pools
    assert pools[0].left_out.keys() == {"sub-09/anat/sub-09_T1w.nii.gz"}
    lines = table.read_text().splitlines()
    assert len(lines) == 1 + len(scans)
    assert sum("\tfalse\t" in line for line in lines) == 1


def test_pools_that_are_no_more_are_removed(tmp_path: Path) -> None:
    write_pools(pool_scans([measured(1)], formed("x")), tmp_path)
    write_pools(pool_scans([measured(1)], formed("y")), tmp_path)
    (pool,) = read_pools(tmp_path)
    assert pool.label == "y"


def test_a_scan_finds_the_pool_that_names_it() -> None:
    scans = [measured(1), measured(2), measured(3, suffix="T2w")]
    pools = pool_scans(scans, formed("x", "y", "x"))
    for scan, label in zip(scans, "xyx", strict=True):
        found = pool_of(scan.acquired.path, scan.suffix, SHA, pools)
        assert found is not None
        assert (found.label, found.suffix) == (label, scan.suffix)
        assert found.of_scan(scan.acquired.path).others == 0
    stranger = PurePosixPath("sub-99/anat/sub-99_T1w.nii.gz")
    assert pool_of(stranger, "T1w", SHA, pools) is None
    assert pool_of(scans[0].acquired.path, "T1w", "b" * 64, pools) is None


def test_a_new_scan_takes_a_pool_that_is_for_all() -> None:
    pools = pool_scans([measured(number) for number in range(3)], formed("x", "x", "x"))
    stranger = PurePosixPath("sub-99/anat/sub-99_T1w.nii.gz")
    found = pool_of(stranger, "T1w", SHA, pools, for_all=True)
    assert found == pools[0]
    assert found.of_scan(stranger).others == 3
    assert pool_of(stranger, "T1w", SHA, pools) is None
    assert pool_of(stranger, "T2w", SHA, pools, for_all=True) is None


def test_a_file_is_found_by_its_name() -> None:
    pools = pool_scans([measured(1), measured(2)], formed("x", "y"))
    assert as_named("sub-02_T1w.nii.gz", pools) == measured(2).acquired.path
    assert as_named("any.nii", pools) == PurePosixPath("any.nii")


def test_scans_in_no_pool_are_remembered(tmp_path: Path) -> None:
    scans = [measured(1), measured(2)]
    write_pools(pool_scans(scans, formed("x", None)), tmp_path, [scans[1].acquired.path])
    assert scans_alone(tmp_path) == {str(scans[1].acquired.path)}
    write_pools([], tmp_path, [scan.acquired.path for scan in scans])
    assert read_pools(tmp_path) == []
    assert scans_alone(tmp_path) == {str(scan.acquired.path) for scan in scans}


GOOD = {"label": "x", "rule": "r", "suffix": "T1w", "model": "m", "model_sha256": SHA}


def pool_file(description: object, curve: list[list[float]]) -> bytes:
    return save({"curve": np.array(curve)}, metadata={"pool": json.dumps(description)})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pool",
        b"\xff" * 100,
        pool_file({}, [[0, 1], [0, 1]]),
        pool_file({**GOOD, "scans": 2, "members": ["a"], "left_out": {}}, [[0, 1], [0, 1]]),
        pool_file({**GOOD, "scans": 1, "members": ["a"], "left_out": {}}, [[0, 1], [1, 0]]),
        pool_file({**GOOD, "scans": 1, "members": ["a"], "left_out": []}, [[0, 1], [0, 1]]),
        pool_file({**GOOD, "scans": 1, "members": ["a"], "left_out": {}}, [[0, float("nan")], [0, 1]]),
    ],
)
def test_a_damaged_pool_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x_T1w.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadData, match=r"x_T1w\.safetensors is no pool, or is damaged"):
        Pool.read(path)


def test_no_pool_at_all(tmp_path: Path) -> None:
    with pytest.raises(NoInput, match="holds no pool"):
        read_pools(tmp_path)
    with pytest.raises(NoInput, match="does not exist"):
        read_pools(tmp_path / "x.safetensors")
