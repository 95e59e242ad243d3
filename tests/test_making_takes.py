"""Several takes from a press to the screen: told as they come, stopped, found again, at no time taken from a listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_app
import tiny
from test_app import events, press
from test_making import until

import app
import backend
import keeping
from errors import BadOutput
from making import if_stopped
from song import Generate, SongRequest
from sound import Progress, Sound
from takes_panel import listed
from visits import VISITS, Visit

scratch = test_app.scratch
SKIP = {"__type__": "update"}
SAME_WIDGETS = 5  # the list, the three of a comparison, the take itself


class Failing:
    """The tiny engine, which fails from a take on."""

    def __init__(self, take: int) -> None:
        self.engine, self.take = tiny.engine(), take
        self.conditioner, self.pipe = self.engine.conditioner, self.engine.pipe

    def takes(self, request: SongRequest, report: Callable[[Progress], None], done: int = 0) -> Iterator[Sound]:
        for n, sound in enumerate(self.engine.takes(request, report, done), done + 1):
            if n == self.take:
                raise BadOutput("The model made silence.", "Try another seed.")
            yield sound


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch, scratch: Path) -> str:
    """Whose visit it is: a new one."""
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    monkeypatch.setattr(VISITS, "_known", type(VISITS._known)())
    return test_app.KEY


def pressed(key: str, **values: Any) -> Iterator[tuple[Any, ...]]:
    return press(app.studio(), Generate, key=key, seed=5, **{"count": 3, **values})


def landed(running: Iterator[tuple[Any, ...]]) -> tuple[Any, ...]:
    """What the page is told when the next take is there."""
    return next(told for told in running if any(update != SKIP for update in told[1:]))


def test_the_first_take_comes_on_the_screen_and_the_others_into_the_list_alone(key: str) -> None:
    running, visit = pressed(key), VISITS.at(key)
    status, *shown = landed(running)
    assert "Take 1 of 3: 10 s in " in status and 'class="running"' in status, "there is more to come"
    assert 'data-stopped="Stopped. 1 of 3 takes was kept."' in status
    assert SKIP not in shown and shown[-1] is visit.shown is visit.takes[0]
    waiting, *rest = next(told for told in running if "take 2 of 3" in told[0] or "Take 2" in told[0])
    assert 'data-stopped="Stopped. ' in waiting and "takes w" in waiting and len(rest) == len(shown)
    assert "Take 2 of 3" in waiting or rest == [SKIP] * len(shown)
    status, *shown = landed(running) if "Take 2" not in waiting else (waiting, *rest)
    places = [n for n, update in enumerate(shown) if update != SKIP]
    assert places == list(range(len(shown) - SAME_WIDGETS, len(shown) - 1)), "the list, and the pair that there is not"
    assert len(shown[places[0]]["rows"]) == 2 and shown[places[0]]["on"] == visit.takes[1].id
    status, *_ = landed(running)
    assert "Take 3 of 3" in status and 'class="done"' in status and list(running) == []
    assert [one.take.metadata["seed"] for one in visit.takes] == [7, 6, 5] and visit.shown is visit.takes[2]
    rows = keeping.screen(visit)[-SAME_WIDGETS]["rows"]
    assert [row["what"] for row in rows] == [f"Generate {n}/3 · 0:10" for n in (3, 2, 1)]
    assert [one.values["takes"] for one in visit.takes] == [1, 1, 1], "a retake is of one"


def test_two_that_are_compared_are_left_alone_when_another_take_comes(key: str) -> None:
    list(pressed(key))
    visit = VISITS.at(key)
    before = keeping.added(visit)
    assert [update == SKIP for update in before[-SAME_WIDGETS:]] == [False, False, False, False, True]
    for one in visit.takes[:2]:
        visit.compare(one.id)
    assert [update == SKIP for update in keeping.added(visit)[-SAME_WIDGETS:]] == [False, True, True, True, True]
    assert keeping.added(Visit())[-SAME_WIDGETS] == listed([])


def test_whoever_stops_between_takes_keeps_what_is_finished(key: str, scratch: Path) -> None:
    running, visit = pressed(key, inference_steps=80), VISITS.at(key)
    landed(running)
    making = visit.making
    assert if_stopped(making) == "Stopped. 1 of 3 takes was kept."
    visit.stop()
    told = [status for status, *_ in running]
    until(lambda: not list(scratch.iterdir()))
    assert "Take 2" not in "".join(told) and len(visit.takes) == 1 and Path(visit.takes[0].take.path).is_file()
    assert visit.making is None and visit.shown is visit.takes[0]


def test_what_fails_the_second_take_leaves_the_first(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_engine", Failing(2))
    *_, (status, *rest) = pressed(key)
    assert 'role="alert"' in status and "The model made silence." in status and set(map(str, rest)) == {str(SKIP)}
    visit = VISITS.at(key)
    assert [one.take.metadata["seed"] for one in visit.takes] == [5] and visit.shown is visit.takes[0]


def test_a_page_that_comes_back_between_takes_finds_all(key: str) -> None:
    known = events(app.studio())
    running, visit = pressed(key, inference_steps=24), VISITS.at(key)
    landed(running)
    running.close()
    assert visit.making, "it goes on"
    line, *_ = known["arrived"].fn(key)
    assert "Going on with your song" in line
    until(lambda: len(visit.takes) == 2)
    back = known["watch_on"].fn(key)
    first, *shown = next(back)
    assert first == SKIP and len(shown[-SAME_WIDGETS]["rows"]) == 2, "what was finished meanwhile stands there"
    *_, (status, *_) = back
    assert "Take 3 of 3" in status and len(visit.takes) == 3
