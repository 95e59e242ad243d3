"""Who is at the page: songs that go on while nobody watches, a visit's takes and pair, visits found by their keys."""

from __future__ import annotations

import contextvars
import os
import queue
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import visits
from errors import BadOutput
from listening import Preview
from song import Generate
from sound import Progress, Take
from visits import TAKES_MAX, Making, Shown, Visit, Visits

KEY, OTHER, THIRD = "ab" * 16, "12345678-90ab-cdef-1234-567890abcdef", "cd" * 16
ASKER: contextvars.ContextVar[str] = contextvars.ContextVar("asker", default="nobody")
ONE, TWO, THREE, FOUR = (Progress("Denoising", n, 4) for n in (1, 2, 3, 4))


def take(name: str = "", path: str = "", **more: Any) -> Shown:
    return Shown(Generate, {}, Take(path, {}), name, **more)


class Song:
    """A song that tells what its test has it say; an error is what it fails of, None its end."""

    def __init__(self) -> None:
        self.closed, self._said = threading.Event(), queue.SimpleQueue()

    def say(self, *events: Progress | Shown | Exception | None) -> None:
        for event in events:
            self._said.put(event)

    def events(self) -> Iterator[Progress | Shown]:
        try:
            while event := self._said.get(timeout=20):
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed.set()


def names(visit: Visit) -> str:
    return "".join(shown.name for shown in visit.takes)


def begun(visit: Visit) -> tuple[Song, Making, Iterator[Progress | Shown]]:
    """A song of a visit that is at its first step, and who watches it."""
    song = Song()
    making = visit.begin(song.events())
    watcher = visit.watch(making)
    song.say(ONE)
    assert ONE in watcher
    return song, making, watcher


def goes_on(song: Song, making: Making) -> bool:
    """Whether what a song says next is still told, or it has ended and given back what it held."""
    song.say(THREE, FOUR)
    wait_until(lambda: making.over or FOUR in islice(making.watch(), 1))
    assert making.over == song.closed.is_set()
    return not making.over


def test_a_song_goes_on_while_nobody_watches_and_its_end_reaches_a_later_watcher() -> None:
    visit, done = Visit(), take("done")
    song, making, watcher = begun(visit)
    watcher.close()
    assert goes_on(song, making) and visit.making is making
    late = making.watch()
    assert next(late) == FOUR, "from where it is"
    song.say(done, None)
    assert list(dict.fromkeys(late)) in ([done], [FOUR, done]) and visit.making is None and song.closed.is_set()
    assert list(visit.watch(making)) == list(visit.watch(making)) == [done], "after every reload"


def test_who_watches_from_the_start_hears_everything_in_order() -> None:
    song, _, watcher = begun(Visit())
    song.say(TWO, THREE, FOUR, None)
    assert [event for event in watcher if event != ONE] == [TWO, THREE, FOUR]


def test_every_beat_tells_something_so_that_a_watcher_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "BEAT_S", 0.02)
    song = Song()
    watcher = Making(song.events()).watch()
    assert list(islice(watcher, 3)) == [Progress("Starting")] * 3
    song.say(ONE)
    assert ONE in watcher and list(islice(watcher, 3)) == [ONE] * 3
    song.say(None)
    assert set(watcher) <= {ONE}, "then it ends"


def test_a_take_among_several_is_told_once_and_the_beat_goes_on_with_what_is_being_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(visits, "BEAT_S", 0.02)
    visit, first, second = Visit(), take("first"), take("second")
    song, making, watcher = begun(visit)
    song.say(first)
    assert [event for event in islice(watcher, 4) if event == first] == [first]
    assert making.finished == [first] and list(islice(making.watch(), 3)) == [first, ONE, ONE], "to whoever comes then"
    song.say(TWO, second, None)
    assert list(dict.fromkeys(watcher))[-2:] == [TWO, second] and making.finished == [first, second]


def test_a_stopped_song_ends_with_its_next_event_which_nobody_hears() -> None:
    song, making, _ = begun(Visit())
    making.stop()
    assert not making.over and not song.closed.is_set(), "it is in the middle of a step"
    assert not goes_on(song, making) and list(making.watch()) == [ONE]


def test_what_a_song_fails_of_reaches_everyone_who_watches_now_or_later() -> None:
    song, making, watcher = begun(Visit())
    song.say(BadOutput("The model made silence."))
    for watching in (watcher, making.watch()):
        with pytest.raises(BadOutput, match="The model made silence"):
            list(watching)
    assert making.over and song.closed.is_set()


def test_a_song_that_fails_while_it_is_stopped_is_over_all_the_same() -> None:
    def clumsy() -> Iterator[Progress]:
        try:
            yield from iter(lambda: time.sleep(0.01) or ONE, None)
        finally:
            raise OSError("its folder could not be removed")

    making = Making(clumsy())
    making.stop()
    wait_until(lambda: making.over, 2)


def test_a_song_is_made_in_the_context_of_the_request_that_asked_for_it() -> None:
    context = contextvars.copy_context()
    context.run(ASKER.set, "this visitor")
    making = context.run(Making, (Progress(ASKER.get()) for _ in range(1)))
    assert list(making.watch())[-1] == Progress("this visitor") != Progress(ASKER.get())


def test_stop_ends_all_songs_of_a_visit_and_none_of_another() -> None:
    visit, other = Visit(), Visit()
    mine, going = [begun(visit)[:2], begun(visit)[:2]], begun(other)[:2]
    assert visit.making is mine[1][1], "the last one"
    visit.stop()
    assert not any(goes_on(*song) for song in mine) and visit.making is None
    assert goes_on(*going) and other.making is going[1]


@pytest.mark.parametrize("when, just_s", [("before", 2), ("while", 2), ("after", 2), ("long before", 0)])
def test_a_stop_finds_the_song_it_is_meant_for(when: str, just_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "JUST_S", just_s)
    visit = Visit()
    if "before" in when:
        visit.stop()
    song, making, watcher = begun(visit)
    if when == "while":
        visit.stop()
    watcher.close()
    if when == "after":
        visit.stop()
    assert goes_on(song, making) == (when == "long before")


def test_takes_stand_newest_first_and_the_oldest_without_a_star_makes_room() -> None:
    visit = Visit()
    for name in "ABCDEFGHIJKL":
        visit.add(take(name))
        assert visit.shown.name == name, "the new one comes on the screen"
    first, second, third = (shown.id for shown in visit.takes[:-4:-1])
    visit.change(first, starred=True, name="a")
    visit.pair = (second, third)
    visit.add(take("M"))
    assert names(visit) == "MLKJIHGFEDCa" and visit.pair == (third,) and len(visit.takes) == TAKES_MAX
    for shown in visit.takes:
        visit.change(shown.id, starred=True)
    visit.add(take("N"))
    assert names(visit) == "NMLKJIHGFEDC" and visit.shown.name == "N", "a new take has room even among stars"


def test_a_take_beside_another_leaves_the_screen_and_takes_no_room_of_what_is_on_it() -> None:
    visit = Visit()
    visit.add(take("A"), beside=True)
    assert visit.shown.name == "A", "an empty screen takes it"
    for name in "BCDEFGHIJKLM":
        visit.add(take(name), beside=True)
        assert visit.shown.name == "A"
    assert names(visit) == "MLKJIHGFEDCA" and len(visit.takes) == TAKES_MAX


@pytest.mark.parametrize("on, gone, left", [(0, 0, "b"), (1, 1, "c"), (2, 2, "b"), (0, 2, "a"), (2, 0, "c")])
def test_when_the_take_on_the_screen_is_deleted_the_one_after_it_comes(on: int, gone: int, left: str) -> None:
    visit = Visit()
    for name in "cba":
        visit.add(take(name))
    visit.on, dropped = visit.takes[on].id, visit.takes[gone].id
    visit.compare(dropped)
    visit.drop(dropped)
    assert names(visit) == "abc".replace("abc"[gone], "") and visit.shown.name == left and visit.pair == ()
    for shown in visit.takes:
        visit.drop(shown.id)
    assert (visit.takes, visit.on, visit.shown) == ((), "", None)


def test_two_takes_are_compared_and_a_third_takes_the_place_of_the_second() -> None:
    visit, told = Visit(), []
    for id in "abcbaa":
        visit.compare(id)
        told.append("".join(visit.pair))
    assert told == ["a", "ab", "ac", "ab", "b", "ba"]


def test_a_touch_says_that_all_files_are_in_use_and_bears_that_some_are_gone(tmp_path: Path) -> None:
    visit, (song, small, gone) = Visit(), (tmp_path / name for name in ("song.wav", "song.mp3", "gone.wav"))
    visit.add(take(path=str(song), preview=Preview(str(small), 1, [])))
    visit.add(take(path=str(gone)))
    for path in (song, small):
        path.touch()
        os.utime(path, (1, 1))
    visit.touch()
    assert min(path.stat().st_mtime for path in (song, small)) > time.time() - 60 and not gone.exists()


def test_a_visit_is_found_again_by_its_key_and_by_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "VISITS_MAX", 2)
    known = Visits()
    one, two = known.at(KEY), known.at(OTHER)
    for key in (None, "", "guest", KEY.upper(), KEY[1:], KEY + KEY, f"{KEY}\n", f" {KEY}", "٣" * 32, 7, [KEY], {}):
        assert len(set(map(id, [one, two, known.at(key), known.at(key)]))) == 4, f"{key!r} is nobody's"
    song = begun(two)[:2]
    assert known.at(KEY) is one and known.at(THIRD) and known.at(KEY) is one, "it was seen since"
    assert not goes_on(*song) and known.at(OTHER) is not two, "the one not seen for longest makes room"


@pytest.mark.parametrize("between", [(OTHER,), ()], ids=["others came", "nobody came"])
def test_who_was_not_seen_for_an_hour_is_forgotten(between: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "KEPT_S", 0.2)
    known = Visits()
    visit = known.at(KEY)
    for _ in range(3):
        time.sleep(0.1)
        assert known.at(KEY) is visit, "it is seen again and again"
    time.sleep(0.3)
    list(map(known.at, between))
    assert known.at(KEY) is not visit, "its files are swept"


@pytest.mark.parametrize("back", [True, False])
def test_the_songs_of_a_page_that_was_left_end_unless_it_comes_back(
    back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "AWAY_S", 0.1)
    known = Visits()
    mine, yours = begun(known.at(KEY))[:2], begun(known.at(OTHER))[:2]
    for key in (KEY, THIRD, "guest"):
        known.left(key)
    if back:
        known.at(KEY)
    time.sleep(0.3)
    assert goes_on(*mine) == back and goes_on(*yours)
