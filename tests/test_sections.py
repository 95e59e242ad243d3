"""Structures read to the last item, lyrics taken apart and put together again, and what no line of them may be."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from errors import KnobError
from sections import (
    NAMES,
    REFRAINS,
    Again,
    Line,
    Part,
    Piece,
    Rules,
    Said,
    Section,
    broken,
    kind_of,
    parts,
    pieces,
    structure,
    words,
)

COUNTS = {"verse_lines": 6, "chorus_lines": 4, "bridge_lines": 3}
MANY = settings(max_examples=400, deadline=None, database=None)
LYRICS = (
    "\n[Intro]\n\n[verse 1]\n\n  Rain on the rails \nThe station is closed\n\n[Chorus]\nOh, take me home\n\n\n[outro]"
)
KINDS = (
    "verse>verse|Verse 1>verse| VERSE 2 - softly>verse|verse: spoken>verse|chorus x2>chorus|Pre-Chorus>pre-chorus"
    "|pre chorus 1>pre-chorus|prechorus>pre-chorus|PostChorus>post-chorus|post chorus, loud>post-chorus|break>break"
    "|breakdown>breakdown|Breakdown - drums>breakdown|guitar solo>guitar solo|verses>verses|the chorus>the chorus|>"
    "|Strophe 1>strophe 1"
)
ITEM = st.builds(
    "{}{}{}{}".format,
    st.sampled_from([*NAMES, "pre chorus", "prechorus", "ver-se", "break down", "strophe", "", "[verse", "VERSE"]),
    st.sampled_from(["", " 1", "2", " 99", " 100", " ²", " ٣", "]", " one"]),
    st.sampled_from(["", ":", ": 4", ":0", " : 16", ":17", ": 999", ":1000", ":-1", ": ٤", ":: 2"]),
    st.sampled_from(["", "]", " ", "\t", "\u00a0", "!"]),
)
LIST = st.lists(ITEM | st.text(max_size=6), max_size=30).flatmap(
    lambda items: st.sampled_from([",", ";", "\n", ", ", "\r\n", "\u2028"]).map(lambda sep: sep.join(items))
)
TEXT = st.lists(
    st.sampled_from(["[verse]", "[Chorus 2]", " [x] ", "[", "]", "[]", "[a[b]", "rain", " ", "\t", "\n", "\r\n", "\r"])
    | st.sampled_from(["\x0b", "\x1c", "\x85", "\u2028", "\u3000", "\n\n", "[a\nb]", "雨"])
    | st.text(max_size=3),
    max_size=20,
).map("".join)


def made(text: str) -> list[tuple[str, int]]:
    return [(section.tag, section.lines) for section in structure(text, COUNTS)]


def refused(text: str) -> str:
    """The sentence that a structure is refused with."""
    with pytest.raises(KnobError) as error:
        structure(text, COUNTS)
    assert error.value.message.startswith("Structure ") and "\n" not in str(error.value)
    return str(error.value)


# Kinds and structures


@pytest.mark.parametrize("said", KINDS.split("|"))
def test_the_kind_of_a_tag_is_its_name_alone(said: str) -> None:
    tag, kind = said.split(">")
    assert kind_of(tag) == kind


def test_every_name_is_its_own_kind_and_a_section() -> None:
    for name in NAMES:
        assert kind_of(name) == kind_of(f"[{name.title()} 2]"[1:-1]) == name
        assert made(f"{name}: 3") == [(name, 3)]
    assert {"chorus", "hook", "refrain"} == REFRAINS
    assert [s.refrain for s in (Section("Chorus 2", 4), Section("pre-chorus", 2), Section("", 4))] == [1, 0, 0]


def test_sections_come_in_the_order_they_were_asked_for_with_the_lines_of_their_controls() -> None:
    text = "intro, verse 1, pre-chorus, chorus, verse 2, bridge, hook, refrain, outro"
    lines = [0, 6, 2, 4, 6, 3, 4, 4, 2]
    assert made(text) == list(zip(text.split(", "), lines, strict=True))
    quiet = "instrumental, interlude, solo, break, breakdown, build, drop"
    assert made(f"{quiet}, post-chorus") == [*((name, 0) for name in quiet.split(", ")), ("post-chorus", 2)]


@pytest.mark.parametrize(
    "text, sections",
    {
        "verse 1; chorus": [("verse 1", 6), ("chorus", 4)],
        "verse\nchorus\r\n\n bridge ": [("verse", 6), ("chorus", 4), ("bridge", 3)],
        ",, verse ,;\n, ": [("verse", 6)],
        "[Verse 1] , [chorus]": [("verse 1", 6), ("chorus", 4)],
        "verse1, VERSE 02": [("verse 1", 6), ("verse 2", 6)],
        "verse: 3, outro: 4, intro:1": [("verse", 3), ("outro", 4), ("intro", 1)],
        "[verse 2]: 5": [("verse 2", 5)],
        "verse, chorus: 0, solo : 16": [("verse", 6), ("chorus", 0), ("solo", 16)],
        "pre chorus, prechorus": [("pre-chorus", 2)] * 2,
        "Pre-Chorus 2, postchorus": [("pre-chorus 2", 2), ("post-chorus", 2)],
    }.items(),
)
def test_a_structure_may_be_written_in_many_ways(text: str, sections: list[tuple[str, int]]) -> None:
    assert made(text) == sections


@pytest.mark.parametrize("text", ["", "  ", ",;\n ,", "\n"])
def test_an_empty_structure_is_refused(text: str) -> None:
    assert refused(text) == "Structure is empty: name at least one section, such as verse."


@pytest.mark.parametrize(
    "text, near",
    {
        "vers": "verse",
        "Chorsu": "chorus",
        "brigde 2": "bridge",
        "break down": "breakdown",
        "outtro: 3": "outro",
    }.items(),
)
def test_an_unknown_section_is_refused_with_the_nearest_name(text: str, near: str) -> None:
    assert refused(f"verse, {text}") == f"Structure knows no section {text.lower()!r}. Did you mean {near}?"


@pytest.mark.parametrize("text", ["xyz", "主歌", "123", "<b>"])
def test_a_section_that_is_near_to_none_is_refused_with_all_names(text: str) -> None:
    assert refused(text) == f"Structure knows no section {text!r}. It knows {', '.join(NAMES)}."
    assert f"{'q' * 40!r}. It" in refused("q" * 500), "what a visitor typed is not said back without end"


def test_too_much_of_anything_is_refused_and_the_most_is_let_in() -> None:
    assert len(made(", ".join(["verse: 1"] * 24))) == 24
    assert refused("verse," * 25) == "Structure may hold 24 sections; yours has 25."
    assert sum(lines for _, lines in made("verse: 16, " * 6 + "chorus")) == 100
    assert refused("verse: 16, " * 6 + "chorus: 5") == "Structure may have 100 lines in all; yours has 101."
    assert made("verse: 16") == [("verse", 16)]
    for lines in ("17", "999"):
        assert refused(f"verse: {lines}") == f"Structure may give a section 0 to 16 lines; verse has {lines}."


@pytest.mark.parametrize("text", ["intro", "intro, solo, drop", "verse: 0, chorus 2: 0"])
def test_a_structure_without_words_is_refused(text: str) -> None:
    assert refused(text) == "Structure has no section with words: add a verse or a chorus."


@MANY
@given(LIST)
@example("İ, ſolo, verse\x00")
def test_whatever_is_typed_is_sections_or_a_refusal(text: str) -> None:
    try:
        found = structure(text, COUNTS)
    except KnobError as error:
        assert error.message.startswith("Structure ")
        return
    assert 0 < len(found) <= 24 and 0 < sum(section.lines for section in found) <= 100
    assert all(kind_of(section.tag) in NAMES and 0 <= section.lines <= 16 for section in found)
    again = ", ".join(f"[{section.tag}]: {section.lines}" for section in found)
    assert structure(again, COUNTS) == found


# Parts


@MANY
@given(TEXT)
def test_the_texts_of_all_parts_are_the_whole_text(text: str) -> None:
    found = parts(text)
    assert "".join(part.raw for part in found) == text
    assert sum(not part.tag and not part.raw.lstrip().startswith("[") for part in found[1:]) == 0
    for part in found:
        assert all(line and line == line.strip() and line in part.raw for line in part.lines)
        if part.lines:
            head, tail = part.edges
            assert part.raw.startswith(head) and part.raw.endswith(tail)
            assert len(parts(part.raw[len(head) : len(part.raw) - len(tail)])[0].lines) == len(part.lines)
            assert not any(piece.lines for piece in parts(head) + parts(tail))


def test_lyrics_are_taken_apart_at_their_tags() -> None:
    verse = "[verse 1]\n\n  Rain on the rails \nThe station is closed\n\n"
    assert parts(LYRICS) == [
        Part("", "\n", ()),
        Part("Intro", "[Intro]\n\n", ()),
        Part("verse 1", verse, ("Rain on the rails", "The station is closed")),
        Part("Chorus", "[Chorus]\nOh, take me home\n\n\n", ("Oh, take me home",)),
        Part("outro", "[outro]", ()),
    ]
    assert parts("") == []
    assert [part.tag for part in parts("la\n [ Hook 2 ] \nla [verse] la\n[]\nla")] == ["", "Hook 2", ""]


def test_the_edges_of_a_part_are_what_is_not_its_words() -> None:
    verse, chorus = parts(LYRICS)[2:4]
    assert verse.edges == ("[verse 1]\n\n", "\n") and chorus.edges == ("[Chorus]\n", "\n\n")
    assert parts("one\n\ntwo")[0].edges == ("", "")


# Pieces


def text_of(made: list[Piece]) -> str:
    """What the pieces are with a number for every line that is written; a line that comes again keeps its own."""
    text, lines = "", []
    for piece in made:
        if isinstance(piece, Said):
            text += piece.text
        else:
            new = [f"line {len(lines)}"] if isinstance(piece, Line) else lines[piece.first : piece.first + piece.lines]
            lines += new
            text += "".join(f"{line}\n" for line in new)
    return text


def test_a_structure_becomes_tags_and_lines() -> None:
    made = pieces([Section("intro", 0), Section("verse 1", 2), Section("outro", 1)])
    assert made == [Said("[intro]\n"), Said("\n[verse 1]\n"), Line(), Line(), Said("\n[outro]\n"), Line()]
    assert pieces([]) == [] and pieces([Section("", 1)]) == [Said(""), Line()]


def test_a_refrain_comes_again_and_a_verse_is_written_anew() -> None:
    asked = structure("verse, chorus: 2, hook: 1, verse, chorus: 2, hook: 1, chorus: 3, chorus 2: 2, chorus: 2", COUNTS)
    agains = [piece for piece in pieces(asked) if isinstance(piece, Again)]
    assert agains == [Again(6, 2), Again(8, 1), Again(6, 2)], "only one of the same name and length comes again"
    assert sum(isinstance(piece, Line) for piece in pieces(asked)) == 6 + 2 + 1 + 6 + 3 + 2
    text = text_of(pieces(asked))
    assert broken(text, asked) == "" and text.count("line 6\nline 7\n") == 3 and text.count("line 8\n") == 2


def test_sections_before_are_counted_but_not_written() -> None:
    before = [Section("", 1), Section("verse 1", 3), Section("Chorus", 2)]
    wanted = [Section("verse 2", 1), Section("Chorus", 2), Section("outro", 1), Section("hook", 1), Section("hook", 1)]
    made = pieces(wanted, before)
    assert made[:4] == [Said("\n[verse 2]\n"), Line(), Said("\n[Chorus]\n"), Again(4, 2)]
    assert made[4:8] == [Said("\n[outro]\n"), Line(), Said("\n[hook]\n"), Line()]
    assert made[8:] == [Said("\n[hook]\n"), Again(10, 1)]


@MANY
@given(st.lists(st.builds(Section, st.sampled_from(["verse", "chorus", "hook 1", "intro"]), st.integers(0, 3))))
def test_what_is_made_of_a_structure_is_that_structure(asked: list[Section]) -> None:
    assert broken(text_of(pieces(asked)), asked) == ""


@pytest.mark.parametrize(
    "text, wrong",
    {
        "[verse]\none\ntwo\n\n[chorus]\nthree\n": "",
        "\n\n[verse]\n\none\n\ntwo\n[chorus]\nthree": "",
        "[verse]\none\n\n[chorus]\nthree\n": "line counts of ['verse']",
        "[verse]\none\n\n[chorus]\nthree\nfour": "line counts of ['verse', 'chorus']",
        "[chorus]\nthree\n\n[verse]\none\ntwo\n": "sections ['chorus', 'verse']",
        "[verse]\none\ntwo\n[chorus]\nthree\n[chorus]\n": "sections ['verse', 'chorus', 'chorus']",
        "so:\n[verse]\none\ntwo\n[chorus]\nthree": "sections ['', 'verse', 'chorus']",
        "[verse 1]\none\ntwo\n[chorus]\nthree": "sections ['verse 1', 'chorus']",
        "": "sections []",
    }.items(),
)
def test_what_is_broken_is_named(text: str, wrong: str) -> None:
    assert broken(text, [Section("verse", 2), Section("chorus", 1)]) == wrong


def test_the_words_of_a_text_are_folded() -> None:
    assert words("Straße, DON'T stop_me — 2 x!") == ["strasse", "don", "t", "stop", "me", "2", "x"]


# Rules


SEEN = ("Rain on the last train home", "La la la", "Ich gehe heim", "雨が降る")
REFUSED = {
    "no words": ["", "...", "1999", "— 12, 34!", "¿?", "「」"],
    "a heading": "Verse|Verse 2|verse 2:|(Chorus x2)|[Chorus]|**Bridge**|Bridge - softly|Pre-Chorus|pre chorus 1|Outro (fade)"
    "|Chorus: all together|Title: Last Train|Lyrics|# Intro|END|Hook 3.|The singer whispers:|サビ：|She said:  ",
    "talk": "Here are the lyrics|Here is a song about rain|Here's your song!|Sure, let me try|Certainly! A ballad"
    "|Of course, here you go|I hope this works for you|Feel free to change it|Let me know what you think|Note that it rhymes"
    "|This song is about rain|These lyrics tell of rain|As an AI I cannot ride|The second verse is sadder|(The last line repeats)"
    '|"Sure thing',
    "circles": "la la la la la|so na na na na na na now|Go, go! GO go... go|hey ho hey ho hey ho hey ho hey ho|no I no I no I no I no I",
    "said before": "Rain on the last train home|rain on the LAST train home!|The last train|home, home|la|heim|ich|雨が降る。|Some old line",
    "copied": "we write a song about the sea and its cold|A Song: about the sea, and its salt|song about the sea and its!",
}
REFUSED |= {why: lines.split("|") for why, lines in REFUSED.items() if isinstance(lines, str)}
GOOD = (
    "Walking through the rain with no umbrella|Hook, line and sinker, I fell|Break my heart again|Bridges burn behind us"
    "|End of the line, and nobody's waiting|Versed in goodbyes|(ooh) Take me home, take me home|Surely the river knows"
    "|I'm 17 and the night is on fire|The last train leaves at noon|La la la la, oh|Hey hey hey hey now|No"
    "|Noted in the margin of your hand|Song about the sea and us|Song about the sea and it|Lluvia en la ventana, ¿dónde estás?|¡Ay, corazón!"
    "|Je t'attends sous la pluie, mon amour|« Reste »|Über den Dächern wird es hell|Ich höre dich nicht|我在雨中等你"
    "|最后一班车|雨の夜に君を待つ|Привет, ночь|그대 없는 밤|यह रात"
).split("|")
WHOLE = {
    "en": "I walk the road to the>I walk the road|Waiting at home and>Waiting at home|I know that's>I know|The and of the>The and"
    "|of the>of the|Rain, rain,>Rain, rain|Stay with me.>Stay with me.|Mi amor y la>Mi amor y la|>|Go;–—->Go",
    "es": "Mi amor y la>Mi amor",
    "fr": "Je t'attends sous la>Je t'attends sous",
    "de": "Regen fällt auf die>Regen fällt",
    "ja": "Love of the>Love of the|雨の>雨の",
    "": "Love of the>Love of the",
}
RULES = Rules("Write a song about the sea and its salt.\nsad", ["Some old line"], "en")
LINES = st.text(max_size=30) | st.lists(st.sampled_from([*"aà雨:!—-, ", "la ", "verse ", "sure ", "the "])).map("".join)


@pytest.mark.parametrize("why, line", [(why, line) for why, lines in REFUSED.items() for line in lines])
def test_what_is_no_line_of_lyrics_is_refused_with_the_reason(why: str, line: str) -> None:
    assert RULES.refusal(line, SEEN) == why


@pytest.mark.parametrize("line", GOOD)
def test_a_line_of_lyrics_may_stand(line: str) -> None:
    assert RULES.refusal(line, SEEN) == Rules().refusal(line, ()) == ""
    assert RULES.refusal(line, [*SEEN, line]) == "said before"


@pytest.mark.parametrize("line", ["Drop-dead gorgeous in the morning light", "Break-up songs on the radio"])
def test_a_word_that_begins_like_a_section_is_no_heading(line: str) -> None:
    assert RULES.refusal(line, SEEN) == ""


def test_nothing_is_stale_or_copied_that_the_rules_were_not_told() -> None:
    assert [Rules().refusal(line, ()) for line in REFUSED["said before"] + REFUSED["copied"]] == [""] * 12
    assert RULES.refusal("Some old line again", ()) == "" == RULES.refusal("Some old", ())


@pytest.mark.parametrize("language, line", [(code, line) for code, all in WHOLE.items() for line in all.split("|")])
def test_a_cut_line_loses_the_words_that_lead_on(language: str, line: str) -> None:
    cut, whole = line.split(">")
    assert Rules(language=language).whole(cut) == whole


def test_a_cut_line_has_no_blank_at_its_end() -> None:
    assert Rules(language="en").whole("I walk the road — and") == "I walk the road"


@MANY
@given(LINES, st.lists(LINES, max_size=3), st.sampled_from(["en", "es", "fr", "de", "ja", ""]))
def test_whatever_a_line_is_it_stands_or_is_refused(line: str, earlier: list[str], language: str) -> None:
    rules = Rules(" ".join(earlier), earlier, language)
    assert rules.refusal(line, earlier) in ("", *REFUSED)
    assert line.startswith(rules.whole(line).rstrip())
