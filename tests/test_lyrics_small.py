"""The small model that the studio carries, with real briefs: what it writes may be plain, but it is lyrics."""

from __future__ import annotations

import functools
import re

import pytest
import tiny_lyricist
import tiny_planner

from lyricists import LYRICISTS
from lyrics import Lyrics
from sections import broken, parts, words
from sound import Sheet
from wording import singable

one_thread = tiny_planner.one_thread
BRIEFS = [
    "rain on the last train home",
    "A breakup told through the things she left in the kitchen",
    "Summer of 1999: bikes, the quarry lake, a first cigarette",
    "my grandmother's hands, kneading bread before sunrise",
    "An astronaut who misses the smell of rain and cannot say so",
    "A protest song about the factory that closed, angry but hopeful",
    "lullaby for a newborn; the city outside never sleeps",
    "Write me a **banger** about dancing alone at 3 am!!! #party",
    "The lighthouse keeper and the sea: they have not spoken since the storm",
    "losing my keys again, everything goes wrong on Monday, funny",
]
STRUCTURES = [  # a line takes more than half a second
    "verse: 2, chorus: 2",
    "intro, verse 1: 2, pre-chorus: 1, chorus: 1",
    "verse: 2, chorus: 1, bridge: 1, chorus: 1, outro: 0",
]


@functools.cache
def written(brief: str, structure: str) -> tuple[Lyrics, Sheet]:
    """What the model makes of a brief, once."""
    request = ask(brief, structure)
    return request, tiny_lyricist.small().write(request)


def ask(brief: str, structure: str, seed: int = 1) -> Lyrics:
    return tiny_lyricist.ask(brief=brief, structure=structure, seed=seed, max_new_tokens=100)


def english(lines: list[str]) -> bool:
    """Whether most words are of plain letters."""
    own = words(" ".join(lines))
    return 2 * sum(word.isascii() and word.isalpha() for word in own) > len(own)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("brief", BRIEFS, ids=lambda brief: brief[:16])
def test_it_writes_lyrics_in_the_sections_that_were_asked_for(brief: str, structure: str) -> None:
    request, sheet = written(brief, structure)
    assert broken(sheet.text, request.sections) == "" and sheet.warnings == ()
    assert sheet.text == sheet.text.strip() and "<|" not in sheet.text
    found = parts(sheet.text)
    assert [part.tag for part in found if part.tag] == [section.tag for section in request.sections]
    assert all(re.fullmatch(r"[a-z -]+\d*", part.tag) for part in found if part.tag)
    lines = [line for part in found for line in part.lines]
    assert english(lines)
    for line in lines:
        assert all(map(singable, line)) and not re.search(r"[*#_`<>|{}\[\]\\]", line)
        assert line == " ".join(line.split()) and len(line) < 150
        assert words(line) != words(brief)
    new = [" ".join(words(line)) for line in dict.fromkeys(lines)]
    assert len(set(new)) == len(new)  # none is said twice
    refrains = {part.lines for part in found if part.tag == "chorus"}
    assert len(refrains) == 1, "a chorus comes again word for word"


def test_a_seed_means_the_same_text_twice_and_another_another() -> None:
    same, other = (tiny_lyricist.small().write(ask(BRIEFS[-1], STRUCTURES[0], seed)).text for seed in (1, 2))
    assert written(BRIEFS[-1], STRUCTURES[0])[1].text == same != other


def test_the_brief_makes_the_text() -> None:
    assert len({written(brief, STRUCTURES[0])[1].text for brief in BRIEFS}) == len(BRIEFS)


def test_its_facts_say_which_model_it_is() -> None:
    small = tiny_lyricist.small()
    own = {"name": "SmolLM2 135M", "id": LYRICISTS["smollm2"].source, "revision": None}
    assert small.facts == own | {"library": "transformers", "dtype": "float32"} and small.instead == ""
    sheet = written(BRIEFS[1], STRUCTURES[0])[1]
    assert sheet.model == small.facts and sheet.timings["tokens"] >= 6
