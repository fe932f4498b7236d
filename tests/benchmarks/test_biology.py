"""The tier of biology: differences between people and between protocols, by methods with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_extra import require_benchmark_extra

require_benchmark_extra()

from benchmarks.scans import Scan
from benchmarks.tiers import biology
from bids_harmonize.simulation.label_heads import Head
from tests.helpers.benchmark_data import method
from tests.helpers.toy_heads import label_map, write_label_map

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    path = tmp_path_factory.mktemp("labels") / "head-11_dseg.nii.gz"
    return Head.read(write_label_map(path, label_map()), (1, 1, 1))


@pytest.fixture(scope="module")
def study(head: Head) -> biology.Study:
    return biology.study_of([head], "T1w")


def test_atrophy_takes_brain_for_fluid_and_nothing_else(head: Head) -> None:
    ill = biology.with_atrophy(head)
    assert np.allclose(ill.fractions.sum(axis=0), head.fractions.sum(axis=0), atol=1e-5)
    assert ill.fractions.min() >= -1e-6
    assert ill.share("csf").sum() > 1.05 * head.share("csf").sum()
    for name in head.tissues:
        if name not in ("csf", *biology.BRAIN):
            assert np.array_equal(ill.share(name), head.share(name))


def test_what_leaves_scans_alone_keeps_both_differences(study: biology.Study, tmp_path: Path) -> None:
    before = biology.log_ratios(study, None)
    still = biology.compare(
        before, biology.log_ratios(study, method(tmp_path, lambda scan: scan.volume, "still"))
    )
    for values in still.values():
        assert values == pytest.approx([1.0] * len(values))


def test_what_makes_all_alike_keeps_neither(study: biology.Study, tmp_path: Path) -> None:
    def flattened(scan: Scan) -> np.ndarray:
        # Every tissue at its level in a group that has no patients and one protocol.
        levels = {"white matter": 1000.0, "grey matter": 700.0}
        volume = np.zeros_like(scan.volume)
        for name, level in levels.items():
            volume[scan.truth[name] > 0.5] = level
        # Some of the own differences stay, so that there is a spread among people.
        return volume * (1 + 1e-3 * scan.volume / scan.volume.max())

    before = biology.log_ratios(study, None)
    after = biology.compare(before, biology.log_ratios(study, method(tmp_path, flattened, "flat")))
    assert max(map(abs, after["difference between groups kept"])) < 0.1
    assert max(after["difference between protocols left"]) < 0.1
