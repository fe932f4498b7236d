"""Terms for body parts, and which of them show a brain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.imaging.body_part import HEAD_TERMS, body_part_term, shows_brain

# Terms of DICOM (PS3.16, annex L).
TERMS = (*HEAD_TERMS, "NECK", "PROSTATE", "PELVIS", "KNEE", "CSPINE", "ABDOMENPELVIS")


@given(st.sampled_from(TERMS), st.data())
def test_case_and_separators_do_not_matter(term: str, data: st.DataObject) -> None:
    between = st.sampled_from(["", " ", "_", "-", " - "])
    spelled = "".join(
        data.draw(between) + data.draw(st.sampled_from([letter, letter.lower()])) for letter in term
    )
    assert body_part_term(spelled) == term


def test_terms_for_the_head() -> None:
    assert shows_brain(["KNEE", "Brain"])
    assert shows_brain(["Head Neck"])
    assert not shows_brain(["KNEE"])
    assert not shows_brain(["NECK"])
    assert not shows_brain([])
