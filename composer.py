"""From a request to what it asks for: first the planner, then the engine. The one place that knows both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ace_pipeline import Engine
from conditioning import Report
from drafts import Describe, Write
from errors import EngineMissing, out_of_memory
from planner import Planned, Planner
from plans import Draft, Plan
from song import Asked, SongRequest
from sound import Progress, Sound

NO_ROOM = "The planner does not fit into memory beside this song."


def answer(
    engine: Engine, planner: Callable[[], Planner] | None, request: Asked, report: Report, done: int = 0
) -> Iterator[Sound | Draft]:
    """The sounds of a song's takes, each as it is finished, or the draft of a request. `planner` finds the planner, or raises
    EngineMissing; None where there is none. The first `done` takes are left out.

    A song does without a planner that is missing or does not fit, and says so; a draft raises.
    """
    if isinstance(request, SongRequest):
        yield from _songs(engine, planner, request, report, done)
    elif planner is None:
        raise EngineMissing("There is no planner here.", "Set ACE_PLANNER to have one.")
    else:
        with _turn(engine, planner()) as mind:
            yield _draft(engine, mind, request, report)


@contextmanager
def _turn(engine: Engine, mind: Planner) -> Iterator[Planner]:
    """The planner for as long as the block runs; then it leaves a card that it shares with the song."""
    try:
        yield mind
    finally:
        if engine.tier.shares:
            mind.lm.leave()  # one of torch's: only those share a card


def _draft(engine: Engine, mind: Planner, request: Asked, report: Report) -> Draft:
    if isinstance(request, Describe):
        report(Progress("Listening to the song"))
        return mind.describe(request, engine.codes(request.source_audio), report)
    return mind.write(request, report) if isinstance(request, Write) else mind.tidy(request, report)


def _songs(
    engine: Engine, planner: Callable[[], Planner] | None, request: SongRequest, report: Report, done: int
) -> Iterator[Sound]:
    """A plan is made once, from the first seed, for all takes; its seconds are part of the first one's."""
    planned, told = Planned(request.plan or Plan()), {}
    if planner and (request.open or (request.code_count and engine.conditioner.sketches)):
        try:
            with _turn(engine, planner()) as mind:
                planned = mind.plan(request, engine.conditioner.sketches, report)
            told = {"name": mind.name}
        except Exception as error:
            if not isinstance(error, EngineMissing) and not out_of_memory(error):
                raise
            told = {"missing": str(error) if isinstance(error, EngineMissing) else NO_ROOM}
    elif not request.plan:
        yield from engine.takes(request, report, done)
        return
    settled, spent = request.planned(planned.plan), planned.timings
    if planned.chosen or request.plan:
        told = {**told, "chosen": list(planned.chosen), "plan": settled.plan.model_dump(mode="json")}
    for sound in engine.takes(settled, report, done):
        total = round(sound.timings["total_s"] + sum(spent.values()), 4)
        timings = {**spent, **sound.timings, "total_s": total}
        yield replace(sound, timings=timings, planner=told, warnings=(*planned.warnings, *sound.warnings))
        spent = {}
