"""Signals of protocols, and protocols and tissues drawn at random."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.simulation.protocols import TISSUES, Protocol, draw_protocol, vary_tissues
from bids_harmonize.simulation.signal_equations import TISSUES_3T

seeds = st.integers(0, 2**31)
modalities = st.sampled_from(["T1w", "T2w"])


def drawn(modality: str, seed: int) -> Protocol:
    return draw_protocol(modality, np.random.default_rng(seed))


def brain(protocol: Protocol) -> tuple[float, float, float, float]:
    signals = protocol.signals()
    return tuple(signals[name] for name in ("white matter", "deep grey matter", "grey matter", "csf"))


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        # White matter: T1 850 ms, T2 70 ms, density 0.70; at 1.5 T its T1 is 612 ms.
        (
            Protocol(field_strength=3.0, sequence="spin echo", tr=600, te=12),
            0.70 * (1 - math.exp(-600 / 850)) * math.exp(-12 / 70),
        ),
        (
            Protocol(field_strength=1.5, sequence="spin echo", tr=600, te=12),
            0.70 * (1 - math.exp(-600 / 612)) * math.exp(-12 / 70),
        ),
        (
            Protocol(field_strength=3.0, sequence="MPRAGE", tr=2300, te=3, ti=900),
            0.70 * (1 - 2 * math.exp(-900 / 850) / (1 + math.exp(-2300 / 850))) * math.exp(-3 / 70),
        ),
        (
            Protocol(field_strength=3.0, sequence="inversion recovery", tr=9000, te=100, ti=2500),
            0.70 * (1 - 2 * math.exp(-2500 / 850) + math.exp(-9000 / 850)) * math.exp(-100 / 70),
        ),
        (
            # sin 30° = 1/2, cos 30° = √3/2
            Protocol(field_strength=3.0, sequence="spoiled gradient echo", tr=20, te=4, flip_angle=30),
            0.35
            * (1 - math.exp(-20 / 850))
            / (1 - math.exp(-20 / 850) * math.sqrt(3) / 2)
            * math.exp(-4 / 70),
        ),
    ],
    ids=lambda value: f"{value.sequence} {value.field_strength}" if isinstance(value, Protocol) else None,
)
def test_signal_of_white_matter_by_hand(protocol: Protocol, expected: float) -> None:
    assert protocol.signal("white matter") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("field_strength", [1.5, 3.0])
def test_inversion_recovery_nulls_fluid(field_strength: float) -> None:
    t1 = TISSUES["csf"].t1 * (0.72 if field_strength < 2 else 1)
    flair = Protocol(
        field_strength=field_strength, sequence="inversion recovery", tr=1e6, te=100, ti=t1 * math.log(2)
    )
    assert flair.signal("csf") == pytest.approx(0, abs=1e-12)
    assert flair.signal("grey matter") > flair.signal("white matter") > 0.05


def test_tissues_of_the_brain_are_those_of_the_signal_equations() -> None:
    assert {name: TISSUES[name] for name in TISSUES_3T} == TISSUES_3T


@given(seeds, modalities)
def test_same_random_numbers_same_protocol(seed: int, modality: str) -> None:
    assert drawn(modality, seed) == drawn(modality, seed)


@given(seeds, modalities)
def test_every_tissue_but_air_gives_a_signal(seed: int, modality: str) -> None:
    signals = drawn(modality, seed).signals()
    assert set(signals) == set(TISSUES)
    assert signals.pop("air") == 0
    assert all(0 < signal < 1 for signal in signals.values())


@given(seeds)
def test_t2w_protocols_show_fluid_brightest_and_white_matter_darkest(seed: int) -> None:
    protocol = drawn("T2w", seed)
    white, deep, grey, fluid = brain(protocol)
    assert white < deep < grey < fluid
    assert protocol.signal("muscle") < white


@given(seeds)
def test_t1w_protocols_show_fat_brightest_then_white_matter(seed: int) -> None:
    protocol = drawn("T1w", seed)
    white, deep, grey, fluid = brain(protocol)
    assert protocol.signal("fat") > white > fluid
    # A small flip angle can bring the two together; only fluid before its null may outshine grey matter.
    assert white > 0.98 * max(deep, grey)
    if protocol.sequence != "MPRAGE":
        assert grey > fluid
    if protocol.sequence != "spoiled gradient echo":
        assert white > deep > grey


def test_protocols_of_both_field_strengths_and_all_sequences_are_drawn() -> None:
    rng = np.random.default_rng(0)
    protocols = [draw_protocol("T1w", rng) for _ in range(60)]
    assert {protocol.field_strength for protocol in protocols} == {1.5, 3.0}
    assert {protocol.sequence for protocol in protocols} == {"MPRAGE", "spoiled gradient echo", "spin echo"}
    assert {draw_protocol("T2w", rng).sequence for _ in range(20)} == {"spin echo"}


@given(seeds)
def test_tissues_vary_by_their_spread(seed: int) -> None:
    varied = vary_tissues(np.random.default_rng(seed), spread=0.01)
    assert varied == vary_tissues(np.random.default_rng(seed), spread=0.01)
    assert varied.keys() == TISSUES.keys()
    for name, tissue in varied.items():
        # Six standard deviations.
        assert tissue.t1 == pytest.approx(TISSUES[name].t1, rel=0.062)
        assert tissue.proton_density == pytest.approx(TISSUES[name].proton_density, rel=0.031)
        longest = 3 if name in ("fat", "marrow") else 1
        assert 0.938 <= tissue.t2 / TISSUES[name].t2 <= 1.062 * longest


@given(seeds)
def test_without_spread_only_fat_is_uncertain(seed: int) -> None:
    varied = vary_tissues(np.random.default_rng(seed), spread=0.0)
    different = {name for name, tissue in varied.items() if tissue != TISSUES[name]}
    assert different <= {"fat", "marrow"}
    assert all(varied[name].t1 == TISSUES[name].t1 for name in varied)
