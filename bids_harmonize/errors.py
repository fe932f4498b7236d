"""Named errors, each with the exit code of the BIDS-Apps execution specification."""

import re

# What would break a line, or steer a terminal; names of files and what is in them may hold it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# The middle of a longer sentence is left out: the file comes first in it, and what to do last.
_LONGEST = 2000


class HarmonizeError(Exception):
    """Base of every error a user may see: one clear sentence and an exit code."""

    exit_code = 1

    def __init__(self, sentence: str = "") -> None:
        line = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), sentence)
        half = _LONGEST // 2
        super().__init__(line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}")


class InvalidBIDS(HarmonizeError):
    """The input folder is not a valid BIDS dataset."""

    exit_code = 16


class BadLevel(HarmonizeError):
    """The analysis level is none of participant, group and train."""

    exit_code = 17


class NothingSelected(HarmonizeError):
    """The filters match no run."""

    exit_code = 18


class UsageError(HarmonizeError):
    """The command line cannot be understood, or contradicts itself."""

    exit_code = 64


class BadData(HarmonizeError):
    """A scan, a sidecar or a weight file cannot be used."""

    exit_code = 65


class NoInput(HarmonizeError):
    """An input does not exist or cannot be read."""

    exit_code = 66


class CannotCreate(HarmonizeError):
    """The output folder cannot be created or written."""

    exit_code = 73


class InputOutputError(HarmonizeError):
    """Reading or writing failed half-way, for example because the disk is full."""

    exit_code = 74
