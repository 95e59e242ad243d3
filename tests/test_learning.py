"""What is believed of a machine: the first song almost wholly, an odd one not at once, a change at its second song."""

from __future__ import annotations

import functools
import math
import random
import statistics
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import DOUBT, Belief


def after(ratios: Iterable[float]) -> Belief:
    return functools.reduce(Belief.after, ratios, Belief())


def test_before_anything_was_seen_a_machine_is_like_the_one_that_was_measured() -> None:
    assert Belief().ratio == 1


@pytest.mark.parametrize("seen", [0.05, 0.5, 1, 3, 100])
def test_the_first_song_is_believed_almost_wholly_whatever_it_says(seen: float) -> None:
    assert after([seen]).ratio == pytest.approx(seen, rel=0.1)


def test_one_odd_song_changes_nothing_and_a_usual_one_after_it_little() -> None:
    usual = after([2] * 5)
    for odd in (20, 0.1):
        assert usual.after(odd).ratio == usual.ratio
        assert usual.after(odd).after(2.2).ratio == pytest.approx(2.2, rel=0.02)


def test_a_machine_that_really_changed_is_believed_at_the_second_song() -> None:
    assert after([2] * 5 + [10, 10]).ratio == pytest.approx(10, rel=0.05)


def test_a_slow_change_is_followed() -> None:
    ratios = [1.1**n for n in range(20)]
    assert after(ratios).ratio == pytest.approx(ratios[-1], rel=0.3)


def test_songs_that_scatter_are_averaged_so_that_the_belief_is_nearer_than_the_last_one() -> None:
    draw = random.Random(1)
    songs = [3 * math.exp(draw.gauss(0, 0.2)) for _ in range(200)]
    beliefs = [after(songs[:n]) for n in range(20, 200)]
    off = statistics.median(abs(b.ratio / 3 - 1) for b in beliefs)
    assert off < 0.75 * statistics.median(abs(s / 3 - 1) for s in songs[20:])


@given(st.lists(st.floats(0, allow_nan=False), max_size=30))
def test_whatever_is_seen_the_belief_stays_a_number(seen: list[float]) -> None:
    belief = after(seen)
    assert belief.ratio * 1.001 >= 1e-3 and belief.ratio <= 1.001e3 and 0 < belief.variance <= DOUBT**2
