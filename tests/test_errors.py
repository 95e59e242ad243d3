"""Every error is a sentence for a person, and a value that survives the way out of a GPU worker."""

from __future__ import annotations

import logging
import pickle
import re

import pytest
import torch

import errors
from errors import EngineFault, Failure, KnobError, OutOfMemory, StudioError, as_failure, in_our_words

CLASSES = list(errors.BY_NAME.values())


def test_the_drawing_shows_each_class_under_its_base() -> None:
    bases: list[str] = []
    drawn = []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ([│├└─ ]*)([A-Z][A-Za-z]+)", line):
            depth = len(match[1]) // 3
            bases[depth:] = [match[2]]
            drawn.append((match[2], bases[depth - 1] if depth else "Exception"))
    assert sorted(drawn) == sorted((cls.__name__, cls.__base__.__name__) for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_crosses_a_process_boundary_whole(cls: type[StudioError]) -> None:
    for error in (cls("It is so."), cls("It is so.", "Do this.")):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), back.message, back.hint) == (cls, error.message, error.hint)
        failure = pickle.loads(pickle.dumps(as_failure(error)))
        assert failure == Failure(cls.__name__, error.message, error.hint)
        assert (type(failure.error()), str(failure.error())) == (cls, str(error))


def test_an_error_reads_as_its_message_and_hint() -> None:
    assert str(StudioError("It is so.", "Do this.")) == "It is so. Do this."
    assert str(StudioError("It is so.")) == "It is so."


def test_our_own_error_keeps_its_words(caplog: pytest.LogCaptureFixture) -> None:
    error = KnobError("BPM must be a whole number.", "Try 120.")
    assert in_our_words(error) is error
    assert not caplog.records


def allocate_more_than_there_is() -> Exception:
    try:
        torch.empty(1 << 50)
    except Exception as error:
        return error
    raise AssertionError("this machine gave 4 PiB")


class OutOfMemoryOfALibrary(MemoryError):
    """NumPy raises such a subclass of its own."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryOfALibrary("Unable to allocate 4.00 PiB for an array"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB)."),
        pytest.param(allocate_more_than_there_is(), id="torch on the CPU"),
    ],
)
def test_running_out_of_memory_is_known_wherever_it_comes_from(error: Exception) -> None:
    known = in_our_words(error)
    assert isinstance(known, OutOfMemory)
    assert "shorter" in known.hint


def test_an_unforeseen_error_shows_a_code_and_logs_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    def inside_a_library() -> None:
        raise KeyError("/secret/path")

    with caplog.at_level(logging.ERROR, "ace.errors"):
        try:
            inside_a_library()
        except KeyError as error:
            known = in_our_words(error)
    assert isinstance(known, EngineFault)
    assert "secret" not in str(known) and "KeyError" not in str(known)
    code = re.search(r"\(incident ([0-9a-f]{8})\)", known.message)[1]
    assert code in caplog.text
    assert "inside_a_library" in caplog.text and "/secret/path" in caplog.text


def test_two_incidents_have_two_codes() -> None:
    assert in_our_words(KeyError()).message != in_our_words(KeyError()).message
