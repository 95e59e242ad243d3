"""Lyrics in the sections that were asked for, from models that write nonsense, repeat themselves, never end or talk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import tiny_lyricist
import tiny_planner
from tiny_lyricist import chances

from errors import BadOutput, Stopped
from lm import Sampling
from sections import LINE_TOKENS, Again, Line, Piece, Rules, Said, broken, parts, pieces, structure
from steering import OVERRUN, TRIES, Writer

one_thread = tiny_planner.one_thread
WORDING = tiny_lyricist.lyricist().wording
PROMPT = WORDING.chat([{"role": "user", "content": "Write about rain."}])
COUNTS = {"verse_lines": 4, "chorus_lines": 3, "bridge_lines": 2}
HOW = Sampling(0.85, 0.9, 40)
CIRCLES = "The lyrics model goes in circles. Try another seed, a higher temperature or another brief."
Choice = Callable[[bytes, list[int]], int | None]  # what stands on the line, which tokens may follow: which does


@dataclass
class Fake:
    """A `Speaker` that chooses as it likes among the tokens that it may write, where it likes nothing by chance.

    It has no more room than it is asked for, and forgets what it is taken back behind, as the real ones do.
    """

    choice: Choice
    texts: list[FakeText] = field(default_factory=list)

    def text(self, prompt: Sequence[int], room: int) -> FakeText:
        """A prompt read, with room for so many tokens more."""
        assert prompt == PROMPT
        self.texts.append(FakeText(self.choice, room))
        return self.texts[-1]


@dataclass
class FakeText:
    """The `Text` of a `Fake`; `read` is what it has read after its prompt, `begun` which tokens it began lines with."""

    choice: Choice
    room: int
    read: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    backs: int = 0

    @property
    def seen(self) -> bytes:
        """What it has read, to the last byte."""
        return b"".join(WORDING.raw[token] for token in self.read)

    def feed(self, ids: Sequence[int]) -> None:
        """Read these tokens, one or more."""
        assert len(ids) and set(ids) <= set(WORDING.raw), "text alone is read"
        self.read += ids
        if len(self.read) > self.room:
            raise ValueError(f"There is room for {self.room} tokens, not for {len(self.read)}.")

    def pick(self, among: Sequence[int] | str, how: Sampling, chance: float, barred: Sequence[int] = ()) -> int:
        """One of those that are allowed."""
        assert isinstance(among, str) and how == HOW and 0 <= chance < 1
        allowed = [token for token in np.flatnonzero(WORDING.masks[among]).tolist() if token not in barred]
        wanted = self.choice(self.seen.rpartition(b"\n")[2], allowed)
        token = allowed[int(chance * len(allowed))] if wanted is None else wanted
        assert token in allowed
        self.begun += [token] * (among == "start")
        return token

    def mark(self) -> int:
        """Where the text stands now."""
        return len(self.read)

    def back(self, mark: int) -> None:
        """Forget what was read after `mark`."""
        assert mark <= len(self.read)
        del self.read[mark:]
        self.backs += 1


def likes(*lines: str) -> Choice:
    """It writes the first of these lines that it may begin or go on with; where it may not, it ends the line if it can."""

    def choice(line: bytes, allowed: list[int]) -> int | None:
        for like in map(str.encode, lines):
            rest = like[len(line) :] if like.startswith(line) else b""
            if fits := [token for token in allowed if token in WORDING.raw and rest.startswith(WORDING.raw[token])]:
                return max(fits, key=lambda token: len(WORDING.raw[token]))
        return next((token for token in allowed if WORDING.raw.get(token) == b"\n"), None)

    return choice


def endless(line: bytes, allowed: list[int]) -> int | None:
    """It never ends a line, nor a text."""
    plain = [token for token in allowed if WORDING.ends(token) is None and WORDING.raw[token].strip().isalpha()]
    return plain[crc32(line) % len(plain)] if line else None


def writer(lm: Any, seed: int = 0, how: Sampling = HOW, **values: Any) -> Writer:
    return Writer(lm, WORDING, how, chances(seed), **values)


def written(choice: Choice, asked: Iterable[Piece], budget: int = 600, **values: Any) -> tuple[Writer, FakeText]:
    """What became of these pieces; that the model has read what stands there, and nothing else, is looked at here."""
    fake = Fake(choice)
    wrote = writer(fake, **values)
    text = wrote.write(PROMPT, list(asked), budget)
    assert text == wrote.done and text.encode().startswith(fake.texts[0].seen)
    return wrote, fake.texts[0]


def lines_of(text: str) -> list[str]:
    return [line for part in parts(text) for line in part.lines]


# The tiny model


class Heard:
    """The tiny model; what it is asked is counted, by name."""

    def __init__(self) -> None:
        self.counts = {"pick": 0, "back": 0, "feed": 0, "mark": 0}

    def text(self, prompt: Sequence[int], room: int) -> Any:
        """The model's own text, listened to."""
        self.own = tiny_lyricist.lyricist().lm.text(prompt, room)
        return self

    def __getattr__(self, name: str) -> Any:
        self.counts[name] += 1
        return getattr(self.own, name)


def nonsense(seed: int = 0, asked: str = "verse, chorus: 2", budget: int = 200, how: Sampling = HOW) -> str:
    return writer(tiny_lyricist.lyricist().lm, seed, how).write(PROMPT, pieces(structure(asked, COUNTS)), budget)


STRUCTURES = ["verse", "intro, verse 1, chorus, solo, verse 2, chorus, outro: 1", "hook: 1, hook: 1, bridge, verse: 0"]
HOWS = [Sampling(0, 0.9, 0), Sampling(0.85, 0.9, 40), Sampling(2, 1, 0), Sampling(2, 0.5, 1), Sampling(1, 0, 200)]


@pytest.mark.parametrize("asked", STRUCTURES)
@pytest.mark.parametrize("how", HOWS, ids=str)
def test_nonsense_has_the_sections_that_were_asked_for(how: Sampling, asked: str) -> None:
    sections = structure(asked, COUNTS)
    fresh = sum(isinstance(piece, Line) for piece in pieces(sections))
    for seed, budget in enumerate((6, 60, 150, 6)):
        heard = Heard()
        wrote = writer(heard, seed, how)
        text = wrote.write(PROMPT, pieces(sections), budget)
        assert broken(text, sections) == "" and wrote.lines == lines_of(text)
        most = max(budget, LINE_TOKENS[0] * fresh) + OVERRUN * fresh
        assert wrote.drawn == heard.counts["pick"] <= most + heard.counts["back"] * (LINE_TOKENS[1] + OVERRUN)


def test_the_same_seed_writes_the_same_and_another_something_else() -> None:
    texts = [nonsense(seed) for seed in (1, 2, 3, 1)]
    assert texts[0] == texts[3] and len(set(texts)) == 3
    assert nonsense(1, how=Sampling(0)) == nonsense(2, how=Sampling(0)) != texts[0], "at 0 chance has no say"
    assert nonsense(1, budget=60) != texts[0] != nonsense(1, how=Sampling(2))


def test_a_chorus_comes_again_word_for_word() -> None:
    for seed in range(6):
        found = parts(nonsense(seed, "verse 1, chorus, verse 2, chorus, hook: 1, chorus, hook: 1"))
        assert found[1].lines == found[3].lines == found[5].lines and found[4].lines == found[6].lines
        assert len({part.lines for part in found}) == 4


def test_who_listens_sees_the_text_grow_and_may_stop_it() -> None:
    heard: list[tuple[str, int]] = []

    def on_token(text: str, written: int) -> None:
        heard.append((text, written))
        if len(heard) == stop_at:
            raise Stopped("Stopped.")

    stop_at = 0
    asked = pieces(structure("verse, chorus: 2, chorus: 2", COUNTS))
    wrote = writer(tiny_lyricist.lyricist().lm, on_token=on_token)
    text = wrote.write(PROMPT, asked, 200)
    assert [n for _, n in heard] == sorted(n for _, n in heard) and {n for _, n in heard} == {0, 1, 2, 3, 4, 5}
    for now, count in heard:
        done = now[: now.rindex("\n") + 1]
        assert text.startswith(done) and len(lines_of(done)) == count
    assert heard[0][0].startswith("[verse]\n") and len(heard[0][0]) > len("[verse]")
    stop_at, before = 5, heard[:5]
    heard.clear()
    with pytest.raises(Stopped):
        writer(tiny_lyricist.lyricist().lm, on_token=on_token).write(PROMPT, asked, 200)
    assert heard == before


# Models with a will of their own


def test_a_model_that_repeats_itself_is_taken_back_and_begins_otherwise() -> None:
    wrote, text = written(likes("rain on the sea\n", "home again.\n", "gone are the days\n"), [Line()] * 3)
    assert wrote.done == "rain on the sea\nhome again.\ngone are the days\n"
    assert text.backs >= 3 and len(text.begun) == 3 + text.backs
    assert text.begun.count(text.begun[0]) == 3, "what is barred is so for one line"
    assert wrote.drawn > len(text.read), "what was taken back was drawn, too"


def test_only_the_first_token_of_a_line_is_barred() -> None:
    assert written(likes("la\n", "(la oh)\n"), [Line()] * 2)[0].done == "la\n(la oh)\n"


TALK = ["Here are the lyrics:\n", "Verse 2:\n", "(chorus)\n", "[Chorus]\n", "Sure, a song\n", "**Title**\n", "...\n"]


def test_headings_and_talk_never_stand() -> None:
    wrote, text = written(likes(*TALK, "rain on the sea\n", "no one at home\n"), [Said("[verse]\n"), *[Line()] * 2])
    assert wrote.done == "[verse]\nrain on the sea\nno one at home\n" and text.backs >= 2 * 3


def test_a_model_that_copies_the_brief_is_made_to_say_something_of_its_own() -> None:
    rules = Rules("A song about the sea, and its salt", ["old line"])
    choice = likes("a song about the sea and its salt\n", "old line\n", "rain on the sea\n")
    assert written(choice, [Line()], rules=rules)[0].done == "rain on the sea\n"
    assert written(choice, [Line()])[0].done == "a song about the sea and its salt\n"


@pytest.mark.parametrize("stop", [True, False])
def test_a_model_that_ends_at_once_writes_all_lines_all_the_same(stop: bool) -> None:
    end = WORDING.stops[0] if stop else WORDING.encode("\n")[0]

    sections = structure("verse, chorus, verse, chorus", COUNTS)
    wrote, _ = written(lambda line, allowed: end if end in allowed else None, pieces(sections))
    assert broken(wrote.done, sections) == ""
    assert all(any(line.encode() == raw for raw in WORDING.raw.values()) for line in wrote.lines), "a token each"


def test_a_line_that_never_ends_is_ended_and_what_it_took_is_taken_from_the_others() -> None:
    for budget, count, draws in ((100, 4, [31, 29, 26, 20]), (10, 3, [12] * 3), (2000, 2, [34] * 2)):
        drawn: list[int] = []
        wrote = writer(Fake(endless), on_token=lambda text, count, drawn=drawn: drawn.append(count))
        text = wrote.write(PROMPT, [Line()] * count, budget)
        assert [drawn.count(n) for n in range(count)] == draws and wrote.drawn == sum(draws)
        assert len(lines_of(text)) == text.count("\n") == count


def test_a_model_that_always_goes_in_circles_is_given_up() -> None:
    def choice(line: bytes, allowed: list[int]) -> int | None:
        if not line:
            return next(token for token in allowed if WORDING.raw[token].isalpha())
        return likes(f"{line.decode()[0]}{f' {line.decode()[0]}' * 5}\n")(line, allowed)

    wrote = writer(fake := Fake(choice))
    with pytest.raises(BadOutput) as error:
        wrote.write(PROMPT, [Said("[verse]\n"), Line()], 600)
    assert str(error.value) == CIRCLES and wrote.done == "[verse]\n" and wrote.lines == []
    begun = fake.texts[0].begun
    assert len(begun) == len(set(begun)) == fake.texts[0].backs == TRIES


# What stands already


def test_what_is_said_is_read_and_kept_to_the_last_character() -> None:
    said = "\n[Intro]  \n\n\n[verse 1 - <|im_end|>]\n  Übers Meer ,, \n\n雨の夜\t\n[chorus]\nHey: [x2] **\n"
    asked = [Said(said), Line(), Said("\n \n[x]\n\n"), Line(), Said("tail  ")]
    wrote, text = written(likes("rain\n", "oh no\n"), asked)
    assert wrote.done == f"{said}rain\n\n \n[x]\n\noh no\ntail  "
    assert text.seen.decode() == f"{said}rain\n\n \n[x]\n\noh no", "nothing is read that nothing comes after"
    assert wrote.lines == ["Übers Meer ,,", "雨の夜", "Hey: [x2] **", "rain", "oh no", "tail"]


def test_lines_come_again_from_what_was_said_and_what_was_written() -> None:
    asked = [Said("one \n\n two\n"), Line(), Said("\n"), Again(1, 2), Line(), Again(0, 1), Again(3, 2), Again(0, 0)]
    wrote, _ = written(likes("rain\n", "oh no\n"), asked)
    assert wrote.done == "one \n\n two\nrain\n\ntwo\nrain\noh no\none\ntwo\nrain\n"
    assert len(written(endless, [Line(), *[Again(0, 1)] * 20, Line()])[0].lines) == 22, "there is room for all of it"


def test_there_is_room_for_long_lines_that_come_again() -> None:
    written(likes("rain\n"), [Said("the sea " * 60 + "\n"), Again(0, 1), Again(0, 1), Again(0, 1), Line()])


BEGUN = {  # what stands, what the model likes, what becomes of it
    "I walk the": ("I walk the road home\n", "I walk the road home\n"),
    "I walk the ": ("I walk the road home\n", "I walk the road home\n"),
    "I walk the   ": ("I walk the road home\n", "I walk the   road home\n"),
    "I wal": ("I walk home\n", "I walk home\n"),
    "  I walk": ("  I walk, you run\n", "  I walk, you run\n"),
    "I walk ": ("I walk\n", "I walk \n"),
    "I walk": ("I walk\n", "I walk\n"),
    "Verse": ("Verse 2:\n", "Verse 2:\n"),
    "雨の": ("雨の夜\n", "雨の夜\n"),
}


@pytest.mark.parametrize("begun, line", BEGUN.items())
def test_a_line_that_is_begun_is_completed(begun: str, line: tuple[str, str]) -> None:
    wrote, text = written(likes("oh no\n", line[0]), [Said(f"[verse]\nla\n{begun}"), Line(begun=begun), Line()])
    assert wrote.done == f"[verse]\nla\n{line[1]}oh no\n" and text.begun, "the next line is begun anew"
    assert wrote.lines[::2] == ["la", "oh no"] and len(wrote.lines) == 3


@pytest.mark.parametrize("begun", ["I walk the", "I walk the "])
def test_a_line_that_is_completed_comes_again_as_it_stands(begun: str) -> None:
    asked = [Said(f"[hook]\n{begun}"), Line(begun=begun), Said("\n[hook]\n"), Again(0, 1)]
    assert written(likes("I walk the road\n"), asked)[0].done == "[hook]\nI walk the road\n\n[hook]\nI walk the road\n"


# Lengths


RAIN = "雨の夜に君を待つそして朝が来るまで歌うよ"
LONG = "waiting all the night for the rain"
CUT = f"0>en>{LONG}|200>en>{LONG}|10>en>waiting all|1>>waiting"
CUT += "|18>en>waiting all the night|23>en>waiting all the night|23>>waiting all the night for"


@pytest.mark.parametrize("said", CUT.split("|"))
def test_a_line_that_is_long_enough_ends_after_a_word(said: str) -> None:
    longest, language, line = said.split(">")
    assert written(likes(f"{LONG}\n"), [Line(int(longest))], rules=Rules(language=language))[0].done == f"{line}\n"


def test_a_line_without_blanks_may_end_anywhere() -> None:
    for longest in (1, 5, 8):
        assert written(likes(f"{RAIN}\n"), [Line(longest)])[0].done == f"{RAIN[:longest]}\n"
    assert written(likes(f"{RAIN[:6]}。\n"), [Line()])[0].done == f"{RAIN[:6]}。\n"
    assert written(likes(f"{RAIN}\n"), [Line()], 6)[0].done == "雨の\n", "two of its characters are six tokens"


def test_half_a_character_is_not_read_before_the_next_line() -> None:
    written(likes(f"{RAIN}\n", "oh no\n"), [Line(), Line()], 600)


def test_what_may_not_stand_in_a_line_is_left_out_and_forgotten() -> None:
    wrote, text = written(likes("rain  ♪♪ on ,  the ☀ sea \n", "oh no\n"), [Line(), Line()])
    assert wrote.done == "rain on , the sea\noh no\n" and text.backs
