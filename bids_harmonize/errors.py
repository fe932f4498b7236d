"""Named errors, each with the exit code of the BIDS-Apps execution specification."""

import re

# Out-of-memory messages of the operating system, of its loader of libraries, and of PyTorch (CPU, CUDA).
_NO_MEMORY = re.compile(
    r"(cannot|can't) allocate memory|(not enough|out of) memory|_ALLOC_FAILED|failed to map segment",
    re.IGNORECASE,
)
# The middle of a longer message is left out: the file comes first in it, and what to do last.
_MAX_LENGTH = 2000

OUT_OF_MEMORY = "out of memory; allow the process more"
"""The message where memory ran out."""


def escape_unprintable(text: str) -> str:
    """Write line breaks, control characters and bytes that are not text as escapes: one line is left."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class HarmonizeError(Exception):
    """Base of the errors that a user may see: one line, lower case without full stop, and an exit code."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        # Names of files are part of the message, and may hold any character.
        line, half = escape_unprintable(message), _MAX_LENGTH // 2
        super().__init__(line if len(line) <= _MAX_LENGTH else f"{line[:half]} ... {line[-half:]}")


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, for which libraries raise errors of many types."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None
