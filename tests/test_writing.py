"""The Lyrics tab without a browser: variants and their edits, the caret, the way into a song."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest
import tiny_lyricist

import app
import backend
import lyrics_panel
import writing
from errors import BadOutput
from lyrics import CHANGES, Continue, Lyrics, Refine
from lyrics_panel import USES
from song import Generate, controls
from sound import Progress, Sheet

FORM = {"brief": "rain on the last train home", "structure": "verse: 2, chorus: 2"}
ONE, TWO = ({"text": text, "made": {"seed": n}} for n, text in enumerate(("la la", "oh oh")))


@pytest.fixture(autouse=True)
def tiny_studio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(backend, "get_lyricist", tiny_lyricist.lyricist)


def press(mode: type[Lyrics] = Lyrics, sheets: list[Any] | None = None, **values: Any) -> list[list[Any]]:
    """All that the page is told after a press: status, header, choice, draft, columns, recipe, variants, place."""
    given = {name: k.default for name, k in controls(Lyrics).items()} | {"seed": 42} | FORM
    given |= {"sheets": sheets or [], "at": 0, "draft": (sheets or [{"text": ""}])[0]["text"], **values}
    return list(writing.written(mode, given, lambda name: f"by {name}"))


def test_a_draft_becomes_the_first_variant() -> None:
    begin, *_, (status, header, choice, draft, columns, made, sheets, at) = press()
    assert "Starting" in begin[0] and begin[3] == "" and begin[6][-1] == {"text": "", "made": None}
    assert "tiny wrote this in" in status and "seed 42" in status and header == "by tiny"
    assert (choice.value, choice.visible, at) == ("v1", False, 0), "one variant is no choice"
    assert sheets == [{"text": draft, "made": made}] and draft.startswith("[verse]\n") and made["seed"] == 42
    assert draft.splitlines()[1][:5] in columns


def test_words_are_shown_while_they_come() -> None:
    told = [event[3] for event in press(structure="verse, verse")[1:-1] if isinstance(event[3], str)]
    assert told and all(words.startswith("[verse]") for words in told)


def test_what_stood_in_the_editor_stays_in_its_variant() -> None:
    *_, last = press(sheets=[ONE, TWO], at=1, draft="oh oh, edited")
    choice, sheets = last[2], last[6]
    assert [name for name, _ in choice.choices] == ["v1", "v2", "v3"] and choice.value == "v3" and choice.visible
    assert sheets[:2] == [ONE, {"text": "oh oh, edited", "made": None}], "the recipe is no longer the text's own"
    *_, last = press(draft="pasted words")
    assert last[6][0] == {"text": "pasted words", "made": None} and last[7] == 1


def test_the_same_words_are_no_new_variant() -> None:
    *_, first = press()
    *_, again = press(sheets=first[6])
    assert "These are the words of v1 again" in again[0] and again[6] == first[6] and again[7] == 0


def test_an_error_leaves_the_sheet_as_it_was() -> None:
    *_, last = press(sheets=[ONE], brief="")
    assert "Brief is empty" in last[0] and 'class="error"' in last[0]
    assert last[3] == "la la" and last[6] == [ONE] and last[5] == {"seed": 0}


def test_words_before_an_error_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def write(self, request: Any, report: Any) -> Sheet:
            report(Progress("Writing", 1, 4, text="[verse]\nthe first line"))
            raise BadOutput("The lyrics model goes in circles.")

    monkeypatch.setattr(backend, "get_lyricist", Stuck)
    *_, last = press(sheets=[ONE])
    assert "circles" in last[0] and last[3] == "[verse]\nthe first line" and len(last[6]) == 2


def test_refining_reads_the_editor_and_going_on_what_stands_before_the_caret() -> None:
    draft = "[verse]\nwalking home tonight\nunder the moon\n\n[chorus]\nrain on the sea\nrain on the window"
    *_, last = press(Refine, draft=draft, change="stronger chorus")
    assert last[3].startswith(draft.split("rain")[0]) and "rain on the sea" not in last[3]
    *_, last = press(Continue, draft=draft, caret=20)
    assert last[3].startswith(draft[:20]) and last[6][0]["text"] == draft


def test_each_button_asks_its_own() -> None:
    blocks = app.studio()
    (event,) = (one for one in blocks.fns.values() if one.api_name == "on_writing")
    stands = {part.elem_id: part.value for part in event.inputs}
    stands |= {f"lyrics-{name}": value for name, value in FORM.items()}
    stands |= {"draft": "[verse]\nwalking home\n\n[chorus]\nrain on the sea", None: 0}

    def told(button: str) -> list[Any]:
        target = next(part for part in blocks.blocks.values() if part.elem_id == button)
        values = [[] if part.value == [] else stands[part.elem_id] for part in event.inputs]
        *_, last = event.fn(gr.EventData(gr.Button(elem_id=target.elem_id), None), *values)
        return last

    changes = [told(f"refine-{change.replace(' ', '-')}")[5]["change"] for change in CHANGES]
    assert changes == list(CHANGES)
    assert told("draft-lyrics")[5]["seed"] == 42 != told("more")[5]["seed"]
    assert "There are no words before the cursor" in told("resume")[0]


@pytest.mark.parametrize(
    "draft, caret, before",
    [
        ("[verse]\nla la", 10, "[verse]\nla"),
        ("[verse]\nla", 3, "[verse]"),
        ("la\n[chorus]\noh", 6, "la\n[chorus]"),
        ("la\n[chorus]\noh", 3, "la\n"),
        ("🎵 la la", 5, "🎵 la"),
        ("la", 99, "la"),
        ("", 0, ""),
    ],
)
def test_the_caret_counts_as_browsers_do_and_takes_a_tag_whole(draft: str, caret: int, before: str) -> None:
    assert writing.upto(draft, caret) == before


def test_after_stop_the_words_are_a_variant_and_an_empty_one_is_gone() -> None:
    empty = {"text": "", "made": None}
    *_, sheets, at = writing.settled([ONE, empty], 1, "[verse]\nhalf")
    assert sheets == [ONE, {"text": "[verse]\nhalf", "made": None}] and at == 1
    *_, sheets, at = writing.settled([ONE, empty], 1, "")
    assert sheets == [ONE] and at == 0
    assert writing.settled([], 0, "")[1] == ""


def test_switching_keeps_edits() -> None:
    choice, draft, _, made, sheets, at = writing.switched("v2", [ONE, TWO], 0, "la la la")
    assert (draft, made, at, choice.value) == ("oh oh", {"seed": 1}, 1, "v2") and sheets[0]["text"] == "la la la"
    *_, made, sheets, at = writing.switched("v1", sheets, 1, "oh oh")
    assert made is None and at == 0 and sheets[1] == TWO


def test_words_are_handed_on_and_replaced_only_when_one_says_so() -> None:
    ask, fill = writing.user(Generate, True)
    status, row, tabs, lyrics, instrumental = ask("la la", " ")
    assert "These lyrics stand in Generate now." in status and not row.visible
    assert (tabs.selected, lyrics, instrumental) == ("generate-tab", "la la", False)
    assert ask("la la", "la la\n")[3] == "la la", "nothing is lost"
    _, row, *others = ask("la la", "mine")
    assert row.visible and others == [gr.skip()] * 3
    assert fill("la la")[3] == "la la" and "no lyrics yet" in ask(" ", "mine")[0]


def test_each_song_tab_takes_lyrics() -> None:
    for mode, name in USES.items():
        assert controls(mode)[name].high == 4096


def test_the_table_counts_sections_and_the_sum() -> None:
    table = lyrics_panel.counted("[verse]\nrain on the sea\n\n[<b>]\nla", "en")
    assert "<b>" not in table and "&lt;b&gt;" in table
    for cells in ("verse</th><td>1</td><td>4</td><td>≈ 2 s", "all</th><td>2</td><td>5</td>"):
        assert cells in table
    assert lyrics_panel.COUNTS in lyrics_panel.counted("", "en")


def test_variants_stand_in_columns_as_text() -> None:
    columns = lyrics_panel.compared([{"text": "<script>", "made": None}, TWO])
    assert "&lt;script&gt;" in columns and "<script" not in columns and columns.index("v1") < columns.index("v2")
