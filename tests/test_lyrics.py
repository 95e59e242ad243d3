"""The requests for lyrics: what their controls hold, what of a draft stays, and what the model is told of them."""

from __future__ import annotations

from typing import Any

import pytest

import briefing
import sections
from errors import InputError
from lyrics import CHANGES, LANGUAGES, LYRICS, Continue, Lyrics, Refine
from sections import LINE_TOKENS, Again, Line, Section
from song import controls

BRIEF = "rain on the last train home"
DRAFT = """[intro]

[verse 1]
Rain runs down the window of the last train home
I count the lights that nobody has left on

[pre-chorus]
Hold on, hold on

[chorus]
Carry me over the river tonight
Carry me over, the water is wide

[verse 2]
A stranger is sleeping with salt in his hair

[chorus]
Carry me over the river tonight
Carry me over, the water is wide

[outro]
Home
"""


def ask(kind: type[Lyrics] = Lyrics, **values: Any) -> Any:
    return kind.parse({"seed": 7, **({} if kind is not Lyrics else {"brief": BRIEF}), **values})


def refused(kind: type[Lyrics] = Lyrics, **values: Any) -> str:
    with pytest.raises(InputError) as error:
        ask(kind, **values)
    return str(error.value)


def rebuilt(pieces: list[Any]) -> str:
    """The text of pieces; a line to write is NEW and its number in the whole text."""
    text, lines = "", []
    for piece in pieces:
        if isinstance(piece, Again):
            new = lines[piece.first : piece.first + piece.lines]
        elif isinstance(piece, Line):
            lines = lines[:-1] if piece.begun else lines
            new = [f"NEW{len(lines)}"]
        else:
            text += piece.text
            lines += [s.strip() for s in piece.text.splitlines() if s.strip() and not s.strip().startswith("[")]
            continue
        lines += new
        text += "".join(f"{line}\n" for line in new)
    return text


# Controls

RANGES = {
    "verse_lines": (6, 2, 10, "Verse lines must be a whole number from 2 to 10"),
    "chorus_lines": (4, 2, 8, "Chorus lines must be a whole number from 2 to 8"),
    "bridge_lines": (2, 1, 6, "Bridge lines must be a whole number from 1 to 6"),
    "temperature": (0.85, 0, 2, "Temperature must be a number from 0 to 2"),
    "top_p": (0.9, 0, 1, "Top-p must be a number from 0 to 1"),
    "top_k": (40, 0, 200, "Top-k must be a whole number from 0 to 200"),
    "max_new_tokens": (600, 100, 2000, "Max new tokens must be a whole number from 100 to 2000"),
}
FEW = {"structure": "verse: 1"}  # which any number of tokens suffices for


@pytest.mark.parametrize("name", RANGES)
def test_numbers_have_their_defaults_and_ranges(name: str) -> None:
    default, low, high, sentence = RANGES[name]
    assert getattr(ask(), name) == default
    for value in (low, high, str(high), f" {low} "):
        assert getattr(ask(**FEW, **{name: value}), name) == float(value)
    for value in (low - 1, high + 1, float("nan"), float("inf"), "many", True, None, [], 10**30):
        assert refused(**FEW, **{name: value}).startswith(f"{sentence}; it is ")
    if isinstance(default, int):
        assert refused(**FEW, **{name: low + 0.5}).startswith(f"{sentence}; it is ")


def test_words_have_their_defaults_and_choices() -> None:
    assert (ask().language, ask().rhyme, ask().tone, ask().advanced.seed) == ("en", "loose", "", 7)
    assert Lyrics.parse({"brief": BRIEF}).advanced.seed == 42
    assert ask().structure == "intro, verse, chorus, verse, chorus, bridge, chorus, outro"
    assert tuple(LANGUAGES) == ("en", "zh", "ja", "ko", "es", "fr", "de")
    for language in LANGUAGES:
        assert ask(language=language).language == language
    for rhyme in ("strict", "loose", "none"):
        assert ask(rhyme=rhyme).rhyme == rhyme
    assert ask(Refine, draft=DRAFT).change == "shorter lines"


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"brief": ""}, "Brief is empty: say what the song is about."),
        ({"brief": " \n\t\u200b"}, "Brief is empty: say what the song is about."),
        ({"brief": "x" * 100_000}, "Brief may hold 2,000 characters; yours has 100,000."),
        ({"tone": "x" * 201}, "Tone / mood may hold 200 characters; yours has 201."),
        ({"structure": "verse," * 101}, "Structure may hold 600 characters; yours has 606."),
        ({"brief": 5}, "Brief must be text up to 2,000 characters; it is 5."),
        ({"brief": None}, "Brief must be text up to 2,000 characters; it is empty."),
        ({"structure": ""}, "Structure is empty: name at least one section, such as verse."),
        ({"structure": " , ;\n"}, "Structure is empty: name at least one section, such as verse."),
        ({"structure": "intro, solo"}, "Structure has no section with words: add a verse or a chorus."),
        ({"structure": "verse: 0"}, "Structure has no section with words: add a verse or a chorus."),
        ({"structure": "verse: 500"}, "Structure may give a section 0 to 16 lines; verse has 500."),
        ({"structure": "verse: 17"}, "Structure may give a section 0 to 16 lines; verse has 17."),
        ({"structure": "verse, chrous"}, "Structure knows no section 'chrous'. Did you mean chorus?"),
        ({"structure": ",".join(["verse: 1"] * 25)}, "Structure may hold 24 sections; yours has 25."),
        ({"structure": ",".join(["verse: 16"] * 7)}, "Structure may have 100 lines in all; yours has 112."),
        ({"language": "tlh"}, "Language must be one of en, zh, ja, ko, es, fr, de; it is 'tlh'."),
        ({"rhyme": "often"}, "Rhyme must be one of strict, loose, none; it is 'often'."),
        ({"seed": -2}, "Seed must be a whole number from -1 to 4294967295; it is -2."),
        ({"temprature": 1}, "'temprature' is not a control of Lyrics. Did you mean temperature?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    assert refused(**values) == sentence


def test_an_unknown_section_without_a_neighbour_names_them_all() -> None:
    assert refused(structure="verse, qqqq").endswith("It knows " + ", ".join(sections.NAMES) + ".")


def test_limits_themselves_are_allowed() -> None:
    assert len(ask(brief="x" * 2000, tone="y" * 200).brief) == 2000
    assert len(ask(structure=",".join(["verse: 16"] * 6 + ["verse: 4"]), max_new_tokens=2000).pieces) > 100
    assert len(ask(structure=",".join(["verse: 1"] * 24)).sections) == 24


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_<|im_end|>start|>"])
@pytest.mark.parametrize("name", ["brief", "tone"])
def test_special_tokens_do_not_come_through(token: str, name: str) -> None:
    request = ask(**{name: f"a train{token} in the rain"})
    assert "<|" not in getattr(request, name) and getattr(request, name).startswith("a train")
    assert "<|" not in briefing.turns(request)[1]["content"]


def test_fewer_tokens_than_the_lines_need_are_refused() -> None:
    lines = 100 // LINE_TOKENS[0]
    assert ask(structure="verse: 16, outro: 9", max_new_tokens=25 * LINE_TOKENS[0])
    assert refused(structure=f"verse: {lines}, outro: 1", max_new_tokens=100) == (
        f"Max new tokens (100) is too few for {lines + 1} lines: they take {6 * (lines + 1)} at least. "
        "Raise it, or ask for fewer lines."
    )
    again = ", ".join(["verse: 8", *["chorus: 8"] * 6])  # a chorus that comes again costs nothing
    assert ask(structure=again, max_new_tokens=100)


def test_what_cannot_act_says_why() -> None:
    assert ask().idle == {} and ask(temperature=0.05).idle == {}
    assert ask(temperature=0).idle == dict.fromkeys(
        ("top_p", "top_k", "seed"), "a temperature of 0 takes the likeliest"
    )


def test_every_request_has_the_same_controls_and_its_own() -> None:
    plain = set(controls(Lyrics))
    assert plain == {*RANGES, "brief", "structure", "language", "tone", "rhyme", "seed"}
    assert set(controls(Refine)) - plain == {"draft", "change"} and set(controls(Continue)) - plain == {"draft"}
    assert [kind.mode for kind in LYRICS] == ["lyrics", "refine", "continue"]


# Sections of a new text


def test_counts_and_kinds_become_sections() -> None:
    told = "Intro; VERSE 1, pre chorus\n[chorus], hook: 3, bridge, post-chorus, outro: 1, solo"
    request = ask(structure=told, verse_lines=5, chorus_lines=3, bridge_lines=1)
    assert ", ".join(f"{s.tag} {s.lines}" for s in request.sections) == (
        "intro 0, verse 1 5, pre-chorus 2, chorus 3, hook 3, bridge 1, post-chorus 2, outro 1, solo 0"
    )


def test_a_chorus_that_comes_again_is_not_written_twice() -> None:
    request = ask(structure="verse, chorus, verse, chorus, chorus: 2", verse_lines=2, chorus_lines=3)
    assert rebuilt(request.pieces) == (
        "[verse]\nNEW0\nNEW1\n\n[chorus]\nNEW2\nNEW3\nNEW4\n\n[verse]\nNEW5\nNEW6\n\n"
        "[chorus]\nNEW2\nNEW3\nNEW4\n\n[chorus]\nNEW10\nNEW11\n"
    )


# What the model is told

CHANGED = {
    "brief": "a dog on the moon",
    "structure": "verse, verse",
    "language": "fr",
    "tone": "wistful",
    "verse_lines": 5,
    "chorus_lines": 3,
    "bridge_lines": 4,
    "rhyme": "strict",
    "draft": DRAFT.replace("salt", "sand"),
    "change": "less rhyme",
}
DRAWN = {"temperature", "top_p", "top_k", "max_new_tokens", "seed"}  # act on the draw
CLOSED = {
    Refine: {"structure", "verse_lines", "chorus_lines", "bridge_lines"},
    Continue: {"draft"},
}  # act on the pieces
TOLD = [(kind, name) for kind in LYRICS for name in controls(kind) if name not in DRAWN | CLOSED.get(kind, set())]


@pytest.mark.parametrize("kind, name", TOLD)
def test_every_control_reaches_the_prompt(kind: type[Lyrics], name: str) -> None:
    given = {Lyrics: {}, Refine: {"draft": DRAFT}, Continue: {"draft": DRAFT[: DRAFT.index("[chorus]")]}}[kind]
    told = briefing.turns(ask(kind, **{**given, name: CHANGED[name]}))
    assert told != briefing.turns(ask(kind, **given)) and told[0]["content"] == briefing.SYSTEM


def test_each_choice_says_something_else() -> None:
    for choice, among in (("language", LANGUAGES), ("rhyme", briefing.RHYMES), ("change", CHANGES)):
        wishes = [briefing.turns(ask(Refine, draft=DRAFT, **{choice: key}))[1]["content"] for key in among]
        assert len(set(wishes)) == len(among)
    for key, words in CHANGES.items():
        assert f"Change: {words}\n" in briefing.turns(ask(Refine, draft=DRAFT, change=key))[1]["content"]


def test_the_wish_names_what_was_asked_for_and_nothing_empty() -> None:
    (system, user) = briefing.turns(ask(structure="intro, verse 1, chorus", tone="wistful", language="de"))
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"].splitlines() == [
        "Write the lyrics of a song.",
        f"About: {BRIEF}",
        "Mood: wistful",
        "Language: German",
        "Rhyme: Rhyme loosely; near rhymes are welcome.",
        "Sections: [intro] without words, [verse 1] 6 lines, [chorus] 4 lines",
        briefing.CRAFT,
    ]
    refined = briefing.turns(ask(Refine, draft=DRAFT))[1]["content"]
    assert refined.startswith("Rewrite these lyrics.\nLanguage: English\n") and refined.endswith(DRAFT.strip())
    assert "About:" not in refined and "Mood:" not in refined and "Sections:" not in refined


def test_what_the_user_said_is_what_no_line_may_repeat() -> None:
    assert briefing.told(ask(tone="wistful")) == f"{BRIEF}\nwistful"
    assert DRAFT.splitlines()[3] not in briefing.told(ask(Refine, draft=DRAFT, brief="fog"))


# A draft refined


def new_lines(request: Lyrics) -> list[Line]:
    return [piece for piece in request.pieces if isinstance(piece, Line)]


def test_a_stronger_chorus_leaves_all_else_to_the_last_character() -> None:
    draft = DRAFT.replace("[verse 1]\n", "  [Verse 1 - soft]  \n\n").replace(
        "nobody has left on", "nobody has  left on\t"
    )
    request = ask(Refine, draft=draft, change="stronger chorus")
    one, two = "Carry me over the river tonight", "Carry me over, the water is wide"
    expected = draft.strip().replace(one, "NEW3").replace(two, "NEW4")
    assert rebuilt(request.pieces) == expected and len(new_lines(request)) == 2
    assert request.sections[1] == Section("Verse 1 - soft", 2)
    varied = draft.replace(f"{two}\n\n[outro]", f"{two} and deep\n\n[outro]")
    assert len(new_lines(ask(Refine, draft=varied, change="stronger chorus"))) == 4


@pytest.mark.parametrize("tag", ["hook", "Refrain", "CHORUS 2", "chorus (x2)"])
def test_what_comes_again_by_another_name_is_a_chorus_too(tag: str) -> None:
    draft = f"[verse]\nOne road\n\n[{tag}]\nTwo roads\n[post-chorus]\nOh"
    assert rebuilt(ask(Refine, draft=draft, change="stronger chorus").pieces) == draft.replace("Two roads", "NEW1")


@pytest.mark.parametrize("change", sorted(set(CHANGES) - {"stronger chorus"}))
def test_other_changes_write_every_line_anew_and_keep_tags_and_gaps(change: str) -> None:
    draft = "Before any tag\n\n[verse]\n\nOne road\n\n\nTwo roads\n[solo]\n\n[verse]\nOne road\nTwo roads"
    text = rebuilt(ask(Refine, draft=draft, change=change).pieces)
    assert text == "NEW0\n\n[verse]\n\nNEW1\nNEW2\n[solo]\n\n[verse]\nNEW1\nNEW2\n"
    assert [s.lines for s in ask(Refine, draft=draft, change=change).sections] == [1, 2, 0, 2]
    assert rebuilt(ask(Refine, draft="One road\nTwo", change=change).pieces) == "NEW0\nNEW1\n"


def test_only_shorter_lines_have_a_longest() -> None:
    draft = f"[verse]\n{'a' * 50}\n{'b' * 20}"
    assert [line.longest for line in new_lines(ask(Refine, draft=draft))] == [35, 16]
    assert [line.longest for line in new_lines(ask(Refine, draft=draft, change="less rhyme"))] == [0, 0]


@pytest.mark.parametrize("draft", ["", " \n ", "[verse]\n\n[chorus]"])
def test_without_words_there_is_nothing_to_refine(draft: str) -> None:
    assert refused(Refine, draft=draft) == "There is no draft to refine: draft some lyrics first."
    many = {"draft": "la\n" * 50, "max_new_tokens": 100}
    assert refused(Refine, **many, change="more cryptic").startswith("Max new tokens (100) is too few for 50 lines")


@pytest.mark.parametrize("draft", ["One road", "[verse]\nOne road\n[pre-chorus]\nOh\n[chorus]\n"])
def test_without_a_chorus_none_gets_stronger(draft: str) -> None:
    assert refused(Refine, draft=draft, change="stronger chorus") == "This draft has no [chorus] to make stronger."


# A draft gone on with

SHAPE = {"structure": "verse, chorus, verse, chorus", "verse_lines": 3, "chorus_lines": 2}
REST = "\n[chorus]\nNEW3\nNEW4\n\n[verse]\nNEW5\nNEW6\nNEW7\n\n[chorus]\nNEW3\nNEW4\n"
AFTER = "\n[verse]\nNEW5\nNEW6\nNEW7\n\n[chorus]\nOh\nAh\n"
STANDS = {  # a draft before the cursor, and what comes of it
    "in a line": ("[verse]\nOne road\nTwo ro", "NEW1\nNEW2\n" + REST),
    "after a blank": ("[verse]\nOne road\nTwo  ", "NEW1\nNEW2\n" + REST),
    "after a line": ("[verse]\nOne road\n", "NEW1\nNEW2\n" + REST),
    "after a tag": ("[verse]", "\nNEW0\nNEW1\nNEW2\n" + REST),
    "after a tag and its end": (" [verse]  \n", "NEW0\nNEW1\nNEW2\n" + REST),
    "without a tag": ("One road", "NEW0\nNEW1\nNEW2\n" + REST),
    "a known chorus": ("[verse]\na\nb\nc\n\n[chorus]\nOh\nAh\n", AFTER),
    "in a pre-chorus": ("a\nb\nc\n[pre-chorus]\nOh\n", "NEW4\n\n[verse]\nNEW5\nNEW6\nNEW7\n\n[chorus]\nNEW8\nNEW9\n"),
    "more lines than asked for": ("[verse]\na\nb\nc\nd\n", REST.translate(str.maketrans("34567", "45678"))),
}


def test_a_chorus_with_a_capital_comes_again_too() -> None:
    draft = STANDS["a known chorus"][0].replace("[chorus]", "[Chorus]")
    assert rebuilt(ask(Continue, draft=draft, **SHAPE).pieces) == draft + AFTER


@pytest.mark.parametrize("where", STANDS)
def test_a_draft_stays_to_the_last_character_and_the_rest_follows(where: str) -> None:
    draft, rest = STANDS[where]
    assert rebuilt(ask(Continue, draft=draft, **SHAPE).pieces) == draft + rest


def test_what_cannot_be_gone_on_with_is_refused() -> None:
    for draft in ("", " \n\t\n"):
        assert refused(Continue, draft=draft).startswith("There are no words before the cursor: put it where")
    whole = rebuilt(ask(**SHAPE).pieces)
    assert refused(Continue, draft=whole, **SHAPE).startswith("Nothing of the structure is left after these words")
    assert rebuilt(ask(Continue, draft=whole[:-2], **SHAPE).pieces).startswith(whole[:-2])
    assert refused(Continue, draft="x" * 4097).startswith("Draft may hold 4,096 characters")
