"""Helpers of the tests with random input: number of inputs, a clock for each, and checks of the outcome."""

from __future__ import annotations

import copy
import functools
import io
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from bids_harmonize.errors import HarmonizeError
from tests.helpers.toy_datasets import Result

# The long mode tries this many times the inputs of the normal one.
LONG = 12
# No input may keep the program busy for longer, on a machine that others use too.
SECONDS = 30
# The same limit for whole commands on a dataset of several scans, with all their pages.
SECONDS_FOR_ALL = 150
# A message that is longer or holds one of these words is no sentence for a user.
LONGEST_SENTENCE = 3000
UNEXPLAINED = ("Traceback", "unexpectedly", "please report")

Test = TypeVar("Test", bound=Callable[..., None])

# Values of JSON: whatever its parser takes, and often those that programs trip over.
NUMBERS = (
    st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 10**30, 10**400])
    | st.floats()
    | st.sampled_from([1e-320, 1e38, 1e308, -1e308])
)
TEXTS = st.text(max_size=6) | st.sampled_from(
    ["", " ", "a\nb", "<script>", "\x00", "\ud800", "\udcff", "é" * 300, "%s{}", "../..", "9" * 5000, "n/a"]
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
# These bytes are nearly JSON, or not JSON at all.
DAMAGED_JSON = st.binary(max_size=60) | st.sampled_from(
    [
        b"",
        b" \n\t",
        b"null",
        b"[]",
        b"{}",
        b'{"a": 1} {"a": 2}',
        b'{"a": 1, "a": {"a": 2}}',
        b'{"a": NaN, "b": -Infinity, "c": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        '{"Manufacturer": "Zürich"}'.encode("latin-1"),
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"\x1f\x8b\x08\x00",
        b"\x00" * 1000,
        b"version https://git-lfs.github.com/spec/v1\n",
    ]
)

SCALARS = st.sampled_from([0, -1, 1e-320, 1e300, 10**400, "1000", "", True, None, [], {}, [1], "a\nb"])


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """An object of JSON of which something, deep or not, is something else or gone."""
    whole = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        part, keys = whole, _keys(whole)
        while True:
            key = draw(st.sampled_from(keys))
            if not _keys(part[key]) or draw(st.integers(0, 2)) == 0:
                break
            part, keys = part[key], _keys(part[key])
        if draw(st.integers(0, 3)) == 0:
            del part[key]
        else:
            # It is copied because the sampled value is one object, which the next change would alter too.
            part[key] = copy.deepcopy(draw(SCALARS | JSON))
        if not whole:
            break
    return whole


def _keys(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    # The first and last of long lists stand for all.
    return [0, len(value) - 1] if isinstance(value, list) and value else []


class Hang(BaseException):
    """An input took too long; the program, which catches every `Exception`, must not catch this one."""


def fuzz(tally: Counter[str], long: bool, examples: int, seconds: float = SECONDS) -> Callable[[Test], Test]:
    """Run a test of hypothesis, each input under a clock, with `examples` inputs or `LONG` times as many."""

    def run(test: Test) -> Test:
        inner = test.hypothesis.inner_test  # type: ignore[attr-defined]
        test.hypothesis.inner_test = _timed(inner, tally, seconds)  # type: ignore[attr-defined]
        settings(
            max_examples=examples * (LONG if long else 1),
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )(test)()
        return test

    return run


def _timed(test: Test, tally: Counter[str], seconds: float) -> Callable[..., None]:
    @functools.wraps(test)
    def timed(*arguments: Any, **named: Any) -> None:
        tally["inputs fuzzed"] += 1
        with clock(seconds):
            test(*arguments, **named)

    return timed


@contextmanager
def clock(seconds: float = SECONDS) -> Iterator[None]:
    """Stop what takes longer, as a failure."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Hang as hang:
        raise AssertionError(f"not done after {seconds} s") from hang
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def done_or_refused(*names: str | Path) -> Iterator[None]:
    """What is tried may fail with a named error: one sentence, which names one of the files."""
    try:
        yield
    except HarmonizeError as error:
        check_sentence(str(error), *names)


def check_sentence(sentence: str, *names: str | Path) -> None:
    """Fail if it is not one short line that names one of the files, if any is given."""
    assert sentence.strip()
    assert len(sentence) < LONGEST_SENTENCE, sentence[:1000]
    assert len(sentence.splitlines()) == 1, sentence
    assert not any(word in sentence for word in UNEXPLAINED), sentence
    assert not names or any(str(name) in sentence for name in names), (sentence, names)


def check_told(result: Result, *names: str | Path) -> None:
    """Fail if a command wrote anything but sentences, or reported a failure without the name of a file."""
    said = result.out + result.err
    assert not any(word in said for word in UNEXPLAINED), said
    if result.code:
        assert result.err.strip(), said
        assert not names or any(str(name) in said for name in names), said


def called(main: Callable[[list[str]], int], arguments: list[str]) -> Result:
    """Call a command in this process; what it writes goes through the same encodings as in a terminal."""
    out, err = (_utf8(errors) for errors in ("strict", "backslashreplace"))
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    return Result(code=code, out=_written(out), err=_written(err))


def _utf8(errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)


def _written(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode("utf-8")
