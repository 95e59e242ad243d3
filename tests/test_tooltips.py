"""The words beside each control: there for every control, with the range from the table."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from song import KNOBS, SongRequest, fields_of
from tooltips import TIPS, tip

MODES = SongRequest.__subclasses__()
CONTROLS = {name: control for mode in MODES for name, control in (fields_of(mode) | KNOBS).items()}


@dataclass
class Bare:
    """A control whose range has no words."""

    name: str
    range: str = ""


def test_each_control_of_each_mode_has_a_tip_and_no_tip_is_left_over() -> None:
    assert set(TIPS) == set(CONTROLS)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_tip_is_sentences_then_the_range(name: str) -> None:
    words = tip(CONTROLS[name])
    assert TIPS[name][0].isupper() or TIPS[name].startswith(("ode", "-1"))
    assert TIPS[name].endswith(".")
    assert words == f"{TIPS[name]} ({CONTROLS[name].range})"


@pytest.mark.parametrize(
    "name, words",
    [
        ("inference_steps", "(8 to 80)"),
        ("seed", "(-1 to 4294967295)"),
        ("shift", "(0.5 to 3)"),
        ("bpm", "(30 to 300, empty = auto)"),
        ("timesignature", "(empty, 2, 3, 4, 6)"),
        ("vocal_language", "(one of the list)"),
        ("use_adg", "(on or off)"),
        ("prompt", "(up to 512 characters)"),
        ("lyrics", "(up to 4,096 characters)"),
        ("duration_s", "(10 to 600)"),
    ],
)
def test_the_range_is_in_the_readers_words(name: str, words: str) -> None:
    assert tip(CONTROLS[name]).endswith(words)


def test_a_control_without_a_range_shows_its_words_alone() -> None:
    assert tip(Bare("seed")) == TIPS["seed"]
