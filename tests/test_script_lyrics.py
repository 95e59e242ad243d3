"""The planner's lyrics: where they end, what is taken off, and when they go in circles."""

from __future__ import annotations

import itertools

import pytest
import tiny_planner
from hypothesis import given, settings
from hypothesis import strategies as st
from test_script import END, VOCABULARY, writer, written
from tiny_planner import Led, dictated

import script
from errors import Stopped
from script import BLOCK_REPEATS, LINE_REPEATS, Script, circle, heading_off

one_thread = tiny_planner.one_thread


def sung(*pieces: str) -> tuple[str, bool, Script]:
    wrote = writer(Led(dictated("lyrics", *pieces, "<|im_end|>")))
    wrote.pen.force(VOCABULARY.encode("</think>"))
    return *wrote.lyrics(), wrote


def test_lyrics_end_where_the_model_ends_them() -> None:
    lyrics, circles, wrote = sung("\n\n[Verse]\nla la\n\noh oh\n")
    assert (lyrics, circles) == ("[Verse]\nla la\n\noh oh", False)
    assert END not in wrote.pen.written and written(wrote).endswith("oh oh\n")


@pytest.mark.parametrize("heading", ["# Lyric", "# Lyrics", "# lyric:", "  # LYRICS  "])
def test_lyrics_come_without_their_heading(heading: str) -> None:
    assert sung(f"\n\n{heading}\n\n[Verse]\nla\n")[0] == "[Verse]\nla"
    assert heading_off(f"{heading}\nla\n# Lyric\nla") == "la\n# Lyric\nla"
    assert heading_off(heading) == heading_off(f"\n{heading}\n") == ""


@pytest.mark.parametrize("text", ["", " \n", "[Verse]\nla", "# Lyrical\nla", "Lyrics\nla", "# Caption\nla"])
def test_what_is_no_heading_stays(text: str) -> None:
    assert heading_off(text) == text.strip()


def test_endless_lyrics_are_cut_at_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "LYRIC_TOKENS", 50)
    wrote = writer(Led(lambda mask, ids: [i for i in ids if i != END and i not in VOCABULARY.newlines]))
    lyrics, circles = wrote.lyrics()
    assert len(wrote.pen.written) == 50 and not circles
    assert lyrics == written(wrote).strip()


def test_stopping_ends_lyrics_at_once() -> None:
    heard: list[int] = []

    def heed() -> None:
        heard.append(1)
        if len(heard) == 5:
            raise Stopped("Stopped.")

    wrote = writer(Led(lambda mask, ids: [i for i in ids if i != END]), heed=heed)
    with pytest.raises(Stopped):
        wrote.lyrics()
    assert len(wrote.pen.written) == 4


def test_a_line_sung_over_and_over_is_cut_to_once() -> None:
    lyrics, circles, wrote = sung("\n\n# Lyric\n[Verse]\nrain\n", *["oh oh\n"] * 50)
    assert (lyrics, circles) == ("[Verse]\nrain\noh oh", True)
    assert written(wrote).count("oh oh") == LINE_REPEATS + 1  # it was stopped there


CHORUS = "[Chorus]\nrain\nsea\nla"


def test_a_block_sung_over_and_over_is_cut_to_once_and_what_was_before_stays() -> None:
    song = f"\n\n[Verse]\none\n\n{CHORUS}\n\n[Verse]\ntwo\n\n"
    lyrics, circles, wrote = sung(song, *[f"{CHORUS}\n\n"] * 9)
    assert (lyrics, circles) == (f"[Verse]\none\n\n{CHORUS}\n\n[Verse]\ntwo\n\n{CHORUS}", True)
    assert written(wrote).count(CHORUS) == 1 + BLOCK_REPEATS


def test_where_a_text_goes_in_circles() -> None:
    assert circle("a\n" * LINE_REPEATS) == 0 and circle("a\n" * (LINE_REPEATS + 1)) == 1
    assert circle("b\n" + "a\n" * (LINE_REPEATS + 1)) == len("b\na")
    assert circle("\n" * 50) == circle("") == circle("a\n\n" * 50) == 0  # short blocks, blank lines
    short = "\n".join("abc") + "\n\n"
    assert circle(short * 20) == 0
    block = "a\nb\nc\nd"
    assert circle(f"{block}\n\n" * 2) == 0 and circle(f"{block}\n\n" * 3) == len(block)
    assert circle(f"\n\n\n{block}\n\n\n{block}\n\n{block}") == len(f"\n\n\n{block}")
    assert circle(f"{block}\n\n" * 3 + "e\n") == 0  # it found out again
    assert circle(f"x {block} y\n\n" + f"{block}\n\n" * 3) == len(f"x {block} y\n\n{block}")


WORDS = st.lists(st.sampled_from("rain sea la oh [Chorus] night".split()), min_size=1, max_size=4).map(" ".join)
BLOCKS = st.lists(WORDS, min_size=1, max_size=6).map("\n".join)


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(BLOCKS, min_size=1, max_size=6), st.lists(st.integers(0, 5), max_size=12))
def test_a_song_whose_blocks_come_twice_in_a_row_at_most_is_not_cut(blocks: list[str], order: list[int]) -> None:
    song: list[str] = []
    for i in order:
        block = blocks[i % len(blocks)]
        if song[-2:] != [block, block]:
            song.append(block)
    lines = "\n\n".join(song).split("\n")
    if max((len(list(same)) for text, same in itertools.groupby(lines) if text), default=0) <= LINE_REPEATS:
        assert circle("\n\n".join(song)) == 0
