"""Who is at the page: a visit's finished takes, and the songs that are made for it. Nothing here knows the page.

A visit is known by a key that its browser tab keeps, so that a reload finds it again. A song belongs to the visit, not to the
line: when that breaks it goes on, and its take is there when the page comes back.
"""

from __future__ import annotations

import contextvars
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from audio_io import KEPT_S
from listening import Preview
from sound import Progress, Take

TAKES_MAX = 12  # of a visit; the oldest without a star goes first
VISITS_MAX = 1_000
AWAY_S = 12.0  # a page that was left and is not back by then has not merely been loaded anew
BEAT_S = 0.5  # a generator can be stopped only when it yields
JUST_S = 2.0  # a Stop may overtake the song that it is meant for
_KEY = re.compile(r"[0-9a-f-]{32,40}", re.ASCII)


@dataclass(frozen=True)
class Shown:
    """A take of a visit: by which mode and from which values it was made, what it is called, what is played of it."""

    mode: type[Any]
    values: dict[str, Any] = field(hash=False)
    take: Take
    name: str = ""
    preview: Preview | None = None
    starred: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class Making:
    """A song that is being made, in a thread of its own: it goes on while nobody watches, until it is done or stopped."""

    def __init__(self, events: Generator[Progress | Shown], at: str = "") -> None:
        self.at = at  # the mode of the tab it was begun on
        self._events: list[Progress | Shown] = []
        self._error: Exception | None = None
        self._over = self._stopped = False
        self._changed = threading.Condition()
        # ZeroGPU reads from the context whose request it is.
        work = contextvars.copy_context().run
        threading.Thread(target=work, args=(self._work, events), daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether it is done, failed or stopped."""
        return self._over

    @property
    def finished(self) -> list[Shown]:
        """The takes that it has told of."""
        return [event for event in self._events if isinstance(event, Shown)]

    def stop(self) -> None:
        """End it with the next thing it has to tell, which is within two steps."""
        self._stopped = True

    def watch(self) -> Iterator[Progress | Shown]:
        """What it has to tell from now on, at least every BEAT_S. Raises what it failed of."""
        at = max(len(self._events) - 1, 0)
        told = next((event for event in self._events[at::-1] if isinstance(event, Progress)), Progress("Starting"))
        while True:
            with self._changed:
                if not self._over and len(self._events) == at:
                    self._changed.wait(BEAT_S)
                new, over = self._events[at:], self._over
            at += len(new)
            for event in new:
                told = event if isinstance(event, Progress) else told
                yield event
            if over:
                break
            if not new:
                yield told
        if self._error:
            raise self._error

    def _work(self, events: Generator[Progress | Shown]) -> None:
        error = None
        try:
            for event in events:
                if self._stopped:
                    break
                self._tell(event)
            events.close()
        except Exception as failed:
            error = failed
        finally:
            with self._changed:
                self._error, self._over = error, True
                self._changed.notify_all()

    def _tell(self, event: Progress | Shown) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()


class Visit:
    """One browser tab: its `takes`, newest first, which of them is `on` the screen, and the `pair` that is compared."""

    def __init__(self) -> None:
        self.takes: tuple[Shown, ...] = ()
        self.on = ""
        self.pair: tuple[str, ...] = ()
        self._makings: list[Making] = []
        self._stopped = -JUST_S
        self._lock = threading.RLock()

    def begin(self, events: Generator[Progress | Shown], at: str = "") -> Making:
        """Make a song for this visit."""
        with self._lock:
            self._makings = [making for making in self._makings if not making.over] + [Making(events, at)]
            return self._makings[-1]

    @property
    def making(self) -> Making | None:
        """The song that is being made, the last one if there are several."""
        return next((making for making in reversed(self._makings) if not making.over), None)

    def watch(self, making: Making) -> Iterator[Progress | Shown]:
        """What a song has to tell. When the watcher goes, the song goes on, unless Stop was pressed."""
        try:
            yield from making.watch()
        finally:
            if time.monotonic() - self._stopped < JUST_S:
                making.stop()

    def stop(self) -> None:
        """End all songs of this visit."""
        self._stopped = time.monotonic()
        for making in self._makings:
            making.stop()

    def find(self, id: str) -> Shown | None:
        """The take of an id, if there is one."""
        return next((shown for shown in self.takes if shown.id == id), None)

    @property
    def shown(self) -> Shown | None:
        """The take on the screen."""
        return self.find(self.on)

    def add(self, shown: Shown, beside: bool = False) -> None:
        """A new take, on the screen or, where another is there, `beside` it; the oldest without a star makes room for it."""
        with self._lock:
            takes, self.on = [shown, *self.takes], self.on if beside and self.shown else shown.id
            while len(takes) > TAKES_MAX:
                oldest = [old for old in takes[:0:-1] if old.id != self.on]
                takes.remove(next((old for old in oldest if not old.starred), oldest[0]))
            self._keep(takes)
            self.touch()

    def change(self, id: str, **new: Any) -> None:
        """Another name, or a star."""
        with self._lock:
            self._keep([replace(shown, **new) if shown.id == id else shown for shown in self.takes])

    def drop(self, id: str) -> None:
        """Forget a take. The one after it comes on the screen, if it was there."""
        with self._lock:
            rest = [shown for shown in self.takes if shown.id != id]
            if self.on == id:
                place = next((n for n, shown in enumerate(self.takes) if shown.id == id), 0)
                self.on = rest[min(place, len(rest) - 1)].id if rest else ""
            self._keep(rest)

    def compare(self, id: str) -> None:
        """Put a take into the pair, or take it out; a third takes the place of the second."""
        with self._lock:
            rest = tuple(one for one in self.pair if one != id)
            self.pair = rest if len(rest) < len(self.pair) else (*self.pair[:1], id)

    def touch(self) -> None:
        """The files of this visit are in use: what nobody used for an hour is swept."""
        for shown in self.takes:
            for path in filter(None, (shown.take.path, shown.preview and shown.preview.path)):
                with suppress(OSError):
                    os.utime(path)

    def _keep(self, takes: list[Shown]) -> None:
        known = {shown.id for shown in takes}
        self.takes, self.pair = tuple(takes), tuple(one for one in self.pair if one in known)


class Visits:
    """All visits by their keys; those not seen for an hour are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, Visit]] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, key: str | None) -> Visit:
        """The visit of a key, a new one for a new key. What is no key has a visit that nobody finds again."""
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            return Visit()
        now = time.monotonic()
        with self._lock:
            while self._known and now - next(iter(self._known.values()))[0] > KEPT_S:
                self._known.popitem(last=False)[1][1].stop()
            visit = self._known.pop(key, (0, None))[1] or Visit()
            self._known[key] = now, visit
            while len(self._known) > VISITS_MAX:
                self._known.popitem(last=False)[1][1].stop()
        return visit

    def left(self, key: str) -> None:
        """A page was left: unless it is back soon, its songs end."""
        seen = self._known.get(key)
        if seen:
            timer = threading.Timer(AWAY_S, self._gone, (key, seen))
            timer.daemon = True
            timer.start()

    def _gone(self, key: str, seen: tuple[float, Visit]) -> None:
        if self._known.get(key) == seen:
            seen[1].stop()


VISITS = Visits()
