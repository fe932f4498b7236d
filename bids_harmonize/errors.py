"""Named errors, each with the exit code of the BIDS-Apps execution specification."""

import re

# Of the system, also where it loads a library, and of PyTorch on the CPU and on CUDA.
_NO_MEMORY = re.compile(
    r"(cannot|can't) allocate memory|(not enough|out of) memory|_ALLOC_FAILED|failed to map segment",
    re.IGNORECASE,
)
# The middle of a longer sentence is left out: the file comes first in it, and what to do last.
_LONGEST = 2000


def printable(text: str) -> str:
    """The text in one line: line breaks, control characters and bytes of no encoding become escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class HarmonizeError(Exception):
    """Base of every error a user may see: one clear sentence and an exit code."""

    exit_code = 1

    def __init__(self, sentence: str = "") -> None:
        # Names of files are part of it, and may be anything.
        line, half = printable(sentence), _LONGEST // 2
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


def lacks_memory(error: BaseException) -> bool:
    """Whether memory ran out, which libraries tell by errors of many types."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None
