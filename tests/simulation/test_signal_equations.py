"""Signal equations against closed forms and limits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.simulation.signal_equations import (
    TISSUES_3T,
    Tissue,
    inversion_recovery,
    magnetization_prepared,
    spin_echo,
    spoiled_gradient_echo,
)

FOREVER = 1e9

tissues = st.builds(
    Tissue,
    t1=st.floats(100, 5000),
    t2=st.floats(5, 2000),
    proton_density=st.floats(0.05, 1.0),
)
repetition_times = st.floats(5, 10_000)
echo_times = st.floats(0, 300)
flip_angles = st.floats(1, 90)
increases = st.floats(1, 200)

WHITE = TISSUES_3T["white matter"]
GREY = TISSUES_3T["grey matter"]
CSF = TISSUES_3T["csf"]


def test_spin_echo_of_white_matter_by_hand() -> None:
    # 0.70 (1 - exp(-600/850)) exp(-12/70)
    assert spin_echo(WHITE, tr=600, te=12) == pytest.approx(0.298592, rel=1e-4)


@given(tissues)
def test_spin_echo_fully_recovered_and_not_decayed_is_the_proton_density(tissue: Tissue) -> None:
    assert spin_echo(tissue, tr=FOREVER, te=0) == pytest.approx(tissue.proton_density)


@given(tissues)
def test_spin_echo_after_one_t1_and_one_t2(tissue: Tissue) -> None:
    expected = tissue.proton_density * (1 - 1 / math.e) / math.e
    assert spin_echo(tissue, tr=tissue.t1, te=tissue.t2) == pytest.approx(expected)


@given(tissues, repetition_times, echo_times)
def test_gradient_echo_at_90_degrees_is_saturation_recovery(tissue: Tissue, tr: float, te: float) -> None:
    expected = tissue.proton_density * -math.expm1(-tr / tissue.t1) * math.exp(-te / tissue.t2)
    assert spoiled_gradient_echo(tissue, tr=tr, te=te, flip_angle=90) == pytest.approx(expected)


@given(tissues, flip_angles)
def test_gradient_echo_fully_recovered_is_the_sine_of_the_flip_angle(tissue: Tissue, angle: float) -> None:
    expected = tissue.proton_density * math.sin(math.radians(angle))
    assert spoiled_gradient_echo(tissue, tr=FOREVER, te=0, flip_angle=angle) == pytest.approx(expected)


@given(tissues, repetition_times, flip_angles)
def test_no_flip_angle_beats_the_ernst_angle(tissue: Tissue, tr: float, angle: float) -> None:
    ernst = math.degrees(math.acos(math.exp(-tr / tissue.t1)))
    best = spoiled_gradient_echo(tissue, tr=tr, te=0, flip_angle=ernst)
    assert spoiled_gradient_echo(tissue, tr=tr, te=0, flip_angle=angle) <= best * (1 + 1e-9)


@given(tissues, repetition_times)
def test_mprage_nulls_a_tissue_at_its_inversion_time(tissue: Tissue, tr: float) -> None:
    null = tissue.t1 * math.log(2 / (1 + math.exp(-tr / tissue.t1)))
    assert magnetization_prepared(tissue, tr=tr, te=0, ti=null) == pytest.approx(0, abs=1e-9)


@given(tissues, repetition_times)
def test_inversion_recovery_nulls_a_tissue_at_its_inversion_time(tissue: Tissue, tr: float) -> None:
    null = tissue.t1 * math.log(2 / (1 + math.exp(-tr / tissue.t1)))
    assert inversion_recovery(tissue, tr=tr, te=0, ti=null) == pytest.approx(0, abs=1e-9)


@given(tissues)
def test_inversion_recovery_of_long_tr_nulls_at_t1_times_ln_2(tissue: Tissue) -> None:
    null = tissue.t1 * math.log(2)
    assert inversion_recovery(tissue, tr=FOREVER, te=0, ti=null) == pytest.approx(0, abs=1e-9)
    assert inversion_recovery(tissue, tr=FOREVER, te=0, ti=FOREVER) == pytest.approx(tissue.proton_density)


@given(tissues, repetition_times, echo_times)
def test_inversion_recovery_at_once_is_a_spin_echo(tissue: Tissue, tr: float, te: float) -> None:
    # The magnetization is flipped upside down and read: a magnitude does not tell.
    expected = spin_echo(tissue, tr=tr, te=te)
    assert inversion_recovery(tissue, tr=tr, te=te, ti=0) == pytest.approx(expected, abs=1e-12)


def test_inversion_recovery_of_white_matter_by_hand() -> None:
    # FLAIR: 0.70 (1 - 2 exp(-2500/850) + exp(-9000/850)) exp(-100/70)
    flair = {"tr": 9000, "te": 100, "ti": 2500}
    assert inversion_recovery(WHITE, **flair) == pytest.approx(0.150044, rel=1e-4)
    assert inversion_recovery(GREY, **flair) > inversion_recovery(WHITE, **flair)


def test_mprage_is_a_magnitude_on_both_sides_of_the_null() -> None:
    null = CSF.t1 * math.log(2)
    before = magnetization_prepared(CSF, tr=FOREVER, te=0, ti=null - 500)
    after = magnetization_prepared(CSF, tr=FOREVER, te=0, ti=null + 500)
    assert before > 0.1
    assert after > 0.1


@given(tissues)
def test_mprage_fully_recovered_is_the_proton_density(tissue: Tissue) -> None:
    assert magnetization_prepared(tissue, tr=FOREVER, te=0, ti=FOREVER) == pytest.approx(
        tissue.proton_density
    )
    inverted = magnetization_prepared(tissue, tr=FOREVER, te=0, ti=0)
    assert inverted == pytest.approx(tissue.proton_density)


@given(tissues, repetition_times, echo_times, flip_angles)
def test_no_signal_is_negative_or_exceeds_the_proton_density(
    tissue: Tissue, tr: float, te: float, angle: float
) -> None:
    signals = (
        spin_echo(tissue, tr=tr, te=te),
        spoiled_gradient_echo(tissue, tr=tr, te=te, flip_angle=angle),
        magnetization_prepared(tissue, tr=tr, te=te, ti=tr / 2),
        inversion_recovery(tissue, tr=tr, te=te, ti=tr / 2),
    )
    assert all(0 <= signal <= tissue.proton_density * (1 + 1e-9) for signal in signals)


@given(tissues, repetition_times, st.floats(0, 100), increases)
def test_every_signal_decays_as_exp_te_over_t2(tissue: Tissue, tr: float, te: float, longer: float) -> None:
    decay = math.exp(-longer / tissue.t2)
    for early, late in (
        (spin_echo(tissue, tr=tr, te=te), spin_echo(tissue, tr=tr, te=te + longer)),
        (
            spoiled_gradient_echo(tissue, tr=tr, te=te, flip_angle=20),
            spoiled_gradient_echo(tissue, tr=tr, te=te + longer, flip_angle=20),
        ),
        (
            magnetization_prepared(tissue, tr=tr, te=te, ti=tr / 3),
            magnetization_prepared(tissue, tr=tr, te=te + longer, ti=tr / 3),
        ),
        (
            inversion_recovery(tissue, tr=tr, te=te, ti=tr / 3),
            inversion_recovery(tissue, tr=tr, te=te + longer, ti=tr / 3),
        ),
    ):
        assert late == pytest.approx(early * decay, abs=1e-15)
        assert late <= early


@given(tissues, st.floats(5, 3000), st.floats(1, 1000))
def test_spin_echo_grows_with_repetition_time(tissue: Tissue, tr: float, longer: float) -> None:
    assert spin_echo(tissue, tr=tr + longer, te=10) >= spin_echo(tissue, tr=tr, te=10)


@pytest.mark.parametrize("name", TISSUES_3T)
def test_at_1_5_tesla_only_t1_changes_and_recovery_is_faster(name: str) -> None:
    tissue = TISSUES_3T[name]
    weaker = tissue.at_1_5_tesla()
    assert weaker.t1 == pytest.approx(0.72 * tissue.t1)
    assert (weaker.t2, weaker.proton_density) == (tissue.t2, tissue.proton_density)
    assert spin_echo(weaker, tr=600, te=12) > spin_echo(tissue, tr=600, te=12)


def test_typical_protocols_order_the_brain_as_readers_expect() -> None:
    t1w = [magnetization_prepared(t, tr=2300, te=3, ti=900) for t in (WHITE, GREY, CSF)]
    t2w = [spin_echo(t, tr=4000, te=100) for t in (CSF, GREY, WHITE)]
    assert t1w == sorted(t1w, reverse=True)
    assert t2w == sorted(t2w, reverse=True)
