"""What the scans of a site have in common."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.bids.grouping import Grouping
from bids_harmonize.measures.quantiles import QUANTILES
from bids_harmonize.measures.site_distance import site_distances
from bids_harmonize.results.group_analysis import Group
from bids_harmonize.results.reading import read_results
from bids_harmonize.results.site_summaries import (
    DENSITY_BINS,
    between_sites,
    intensity_densities,
    known_median,
    members_of_largest_sites,
    output_unit,
    participants_per_site,
    round_up,
    within_site,
)
from tests.helpers.group_results import SITES, write_group


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Group:
    """Nine scans of nine participants of three sites."""
    out = write_group(tmp_path_factory.mktemp("group"), 9)
    (results,) = read_results(out).values()
    names = sorted(SITES)
    return Group(results=results, sites=Grouping(labels=tuple(names[n % 3] for n in range(9)), rule="test"))


def test_even_intensities_have_even_densities() -> None:
    curve = np.array([QUANTILES])
    densities = intensity_densities(curve, 1.0)
    assert densities.shape == (1, DENSITY_BINS)
    np.testing.assert_allclose(densities[0, 5:-5], 1 / DENSITY_BINS, rtol=0.02)


def test_the_largest_sites_in_the_order_of_their_names() -> None:
    labels = ["b", "a", None, "b", "c", "a", ""]
    assert members_of_largest_sites(labels, 2) == {"a": [1, 5], "b": [0, 3]}


def test_every_participant_counts_once(group: Group) -> None:
    assert participants_per_site(group) == dict.fromkeys(sorted(SITES), 3)


def test_the_unit_is_that_of_all_or_none(group: Group) -> None:
    assert output_unit(group) == 1000
    assert output_unit(Group(results=[], sites=Grouping(labels=(), rule="test"))) is None


def test_distances_between_and_within_sites() -> None:
    curves = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 2.0], [1.0, 2.0]])
    distances = site_distances(curves, ["a", "a", "b", "b"])
    assert between_sites(distances) == pytest.approx(1.0)
    assert within_site(distances) == 0
    assert within_site(site_distances(curves[::2], ["a", "b"])) is None


@given(st.floats(1e-6, 1e6))
def test_axes_end_at_two_digits_just_above(value: float) -> None:
    end = round_up(value)
    assert value <= end * (1 + 1e-12) and end <= 1.1 * value * (1 + 1e-12)
    assert float(f"{end:.2g}") == pytest.approx(end)


def test_no_axis_ends_at_nothing() -> None:
    assert round_up(0) == round_up(-3) == 1


def test_medians_of_what_is_known() -> None:
    assert known_median(np.array([1.0, np.nan, 3.0])) == 2
    assert np.isnan(known_median(np.array([np.nan])))
