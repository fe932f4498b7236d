"""A T2w reference group is brought to another echo time, tissue by tissue."""

from __future__ import annotations

import numpy as np
import pytest

from bids_harmonize.imaging.tissues import white_and_grey
from bids_harmonize.phantom.anatomy import Head
from bids_harmonize.phantom.scanner import Receiver, render
from bids_harmonize.simulation.protocols import TISSUES, Protocol
from bids_harmonize.training.reference_group import ReferenceScan, measure_scan
from bids_harmonize.training.sources import at_echo_time
from tests.helpers.toy_heads import HEAD_GRID

BEFORE, AFTER = 60.0, 100.0


@pytest.fixture(scope="module")
def short_echo(head: Head) -> ReferenceScan:
    protocol = Protocol(field_strength=3.0, sequence="spin echo", tr=5000, te=BEFORE)
    volume = render(head, protocol, HEAD_GRID, Receiver(gain=700, snr=60, shading=0.0), seed=(5,))
    return measure_scan("sub-01_T2w", volume, HEAD_GRID.zooms, "T2w")


def grey_over_white(scan: ReferenceScan) -> float:
    white, grey = (
        np.median(scan.volume[mask]) for mask in white_and_grey(scan.volume, scan.region, modality="T2w")
    )
    return float(grey / white)


def test_grey_over_white_matter_grows_as_the_signal_equation_says(short_echo: ReferenceScan) -> None:
    longer = at_echo_time(short_echo, BEFORE, AFTER)
    factor = np.exp((AFTER - BEFORE) * (1 / TISSUES["white matter"].t2 - 1 / TISSUES["grey matter"].t2))
    assert grey_over_white(longer) == pytest.approx(factor * grey_over_white(short_echo), rel=0.05)


def test_white_matter_keeps_its_level_and_voxels_their_order(short_echo: ReferenceScan) -> None:
    longer = at_echo_time(short_echo, BEFORE, AFTER)
    white = np.abs(short_echo.volume - short_echo.reference_intensity) < 0.01 * short_echo.reference_intensity
    change = np.median(longer.volume[white]) / np.median(short_echo.volume[white])
    assert change == pytest.approx(1, abs=0.03)
    order = np.argsort(short_echo.volume, axis=None, kind="stable")
    assert np.all(np.diff(longer.volume.ravel()[order]) >= 0)


def test_the_same_echo_time_changes_nothing(short_echo: ReferenceScan) -> None:
    same = at_echo_time(short_echo, AFTER, AFTER)
    np.testing.assert_allclose(same.volume, short_echo.volume, rtol=1e-4, atol=1e-3)


def test_there_and_back_is_nearly_the_same(short_echo: ReferenceScan) -> None:
    back = at_echo_time(at_echo_time(short_echo, BEFORE, AFTER), AFTER, BEFORE)
    inside = short_echo.region
    difference = np.abs(back.volume - short_echo.volume)[inside] / short_echo.reference_intensity
    # The levels of tissues are found anew on the way back.
    assert np.median(difference) < 0.05
