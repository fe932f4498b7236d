"""What is used for what: nothing is reported on a head or participant of a training or a choice."""

from __future__ import annotations

#: Label maps by their file names' first part.
TRAINING_HEADS = tuple(f"head-{number:02d}" for number in range(1, 9))
DEVELOPMENT_HEADS = ("head-09", "head-10")
REPORT_HEADS = ("head-11", "head-12", "head-13")

#: The participant of each reference dataset that the bundled models have not seen.
HELD_OUT = "sub-08"
PROSTATE_HELD_OUT = "sub-p3t3"

#: Why the results on the real sites are development results.
SITES_NOTE = (
    "The real sites were in no training, but an earlier stage of the models was chosen by looking at them, "
    "so their figures are development figures; heads 11 to 13 and sub-08 were in no training and no choice."
)


def heads(development: bool) -> tuple[str, ...]:
    """The label maps to simulate scans from: to choose by, or to report on."""
    return DEVELOPMENT_HEADS if development else REPORT_HEADS
