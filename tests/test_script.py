"""The planner's writing: its prompts to the letter, thoughts that can always be read, lyrics that end."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import tiny_planner
import yaml
from tiny_planner import Led, dictated

import script
from errors import Stopped
from lm import Sampling
from script import CAPTION_TOKENS, Pen, Script, chat, thought
from vocabulary import FIELDS, VALUES, line, scalar

one_thread = tiny_planner.one_thread
VOCABULARY = tiny_planner.vocabulary()
PROMPT = VOCABULARY.encode(chat("generate", "# Caption\nrain\n\n# Lyric\nla la\n"))
END = VOCABULARY.special["<|im_end|>"]


def chances(seed: int) -> Iterator[float]:
    return iter(random.Random(seed).random, None)


def writer(lm: Any = None, seed: int = 0, heed: Callable[[], None] = lambda: None) -> Script:
    pen = Pen(lm or tiny_planner.planner().lm, VOCABULARY, PROMPT, 512)
    return Script(pen, Sampling(), chances(seed), heed)


def written(wrote: Script) -> str:
    return VOCABULARY.decode(wrote.pen.written)


# Prompts


PROMPTS = {
    ("generate", "# Caption\nrain\n\n# Lyric\n[Verse]\nla\n"): (
        "<|im_start|>system\n# Instruction\nGenerate audio semantic tokens based on the given conditions:\n\n<|im_end|>\n"
        "<|im_start|>user\n# Caption\nrain\n\n# Lyric\n[Verse]\nla\n<|im_end|>\n<|im_start|>assistant\n"
    ),
    ("inspire", "a sad song\n\ninstrumental: false"): (
        "<|im_start|>system\n# Instruction\n"
        "Expand the user's input into a more detailed and specific musical description:\n\n<|im_end|>\n"
        "<|im_start|>user\na sad song\n\ninstrumental: false<|im_end|>\n<|im_start|>assistant\n"
    ),
    ("format", "# Caption\nrain\n\n# Lyric\nla"): (
        "<|im_start|>system\n# Instruction\n"
        "Format the user's input into a more detailed and specific musical description:\n\n<|im_end|>\n"
        "<|im_start|>user\n# Caption\nrain\n\n# Lyric\nla<|im_end|>\n<|im_start|>assistant\n"
    ),
    ("understand", "<|audio_code_7|>"): (
        "<|im_start|>system\n# Instruction\n"
        "Understand the given musical conditions and describe the audio semantics accordingly:\n\n<|im_end|>\n"
        "<|im_start|>user\n<|audio_code_7|><|im_end|>\n<|im_start|>assistant\n"
    ),
}


@pytest.mark.parametrize("said, prompt", PROMPTS.items(), ids=lambda said: said[0])
def test_a_prompt_is_the_one_that_the_model_was_taught_to_the_letter(said: tuple[str, str], prompt: str) -> None:
    assert chat(*said) == prompt


def test_the_codes_follow_a_closed_thought_in_an_open_turn() -> None:
    values = {
        "timesignature": "4",
        "language": "no",
        "keyscale": "F# minor",
        "duration": "240",
        "caption": "A slow piano ballad: warm strings, a breathy female voice, brushed drums and a long fade.",
        "bpm": "92",
    }
    assert thought(values) == (
        "<think>\nbpm: 92\n"
        "caption: 'A slow piano ballad: warm strings, a breathy female voice, brushed drums\n  and a long fade.'\n"
        "duration: 240\nkeyscale: F# minor\nlanguage: 'no'\ntimesignature: 4\n</think>\n\n"
    )
    assert thought({"bpm": "92", "caption": "", "mood": "sad"}) == "<think>\nbpm: 92\n</think>\n\n"


def test_an_empty_thought_has_two_line_ends_as_qwens_template_has() -> None:
    assert thought({}) == "<think>\n\n</think>\n\n"
    assert chat("generate", script.NO_INPUT) + thought({}) == (
        "<|im_start|>system\n# Instruction\nGenerate audio semantic tokens based on the given conditions:\n\n<|im_end|>\n"
        "<|im_start|>user\nNO USER INPUT<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


# The pen


def test_a_pen_reads_what_is_certain_when_the_next_choice_is_due() -> None:
    led = Led()
    pen = Pen(led, VOCABULARY, PROMPT, 20)
    pen.force([5, 6])
    pen.force([7])
    assert led.prompts == [PROMPT] and led.texts[0].fed == []
    first = pen.choose([8, 9], Sampling(), 0.5)
    second = pen.choose([10, 11], Sampling(), 0.5)
    pen.force([12])
    assert led.texts[0].fed == [5, 6, 7, first] and pen.written == [5, 6, 7, first, second, 12]


# Thoughts


GIVEN = {
    "bpm": ["30", "120", "300"],
    "caption": ["rain", "A slow: one, with 'quotes'", "A long one, " * 9 + "with an end"],
    "duration": ["10", "600"],
    "keyscale": ["F# minor", "Bb major"],
    "language": ["no", "yue", "en"],
    "timesignature": ["2", "6"],
}


def read_back(text: str) -> dict[str, str]:
    """The fields of a written thought, by where their names stand."""
    assert text.startswith("<think>\n") and text.endswith("\n</think>") and text.count("think>") >= 2
    fields: dict[str, str] = {}
    for row in text.removeprefix("<think>\n").removesuffix("\n</think>").split("\n"):
        if not row or row[0] in " \t":
            fields[key] += "\n" + row  # noqa: F821 - a first row without a name is an error here
        else:
            key, _, value = row.partition(":")
            assert key not in fields
            fields[key] = value
    return {key: scalar(value) for key, value in fields.items()}


def check(wrote: Script, values: dict[str, str], fixed: dict[str, str], wanted: set[str]) -> None:
    """That all and only the fields asked for are there, in order, in range, and can be read from the text."""
    assert list(values) == [key for key in FIELDS if key in fixed or key in wanted] == sorted(values)
    assert read_back(written(wrote)) == values
    for key, value in values.items():
        if key in fixed:
            assert value == fixed[key] and line(key, value) in written(wrote)
        elif key != "caption":
            assert value in map(str, VALUES[key])
    special = [i for i in wrote.pen.written if i in VOCABULARY.special.values()]
    assert special == [VOCABULARY.special["<think>"], VOCABULARY.special["</think>"]]
    assert max(wrote.pen.written) < VOCABULARY.first_code


@pytest.mark.parametrize("group", range(6))
def test_of_300_thoughts_each_has_what_was_given_and_what_was_wanted_and_can_be_read(group: int) -> None:
    seen: set[tuple[str, str]] = set()
    for seed in range(50 * group, 50 * group + 50):
        dice = random.Random(seed)
        fixed = {key: dice.choice(some) for key, some in GIVEN.items() if dice.random() < 0.4}
        wanted = {key for key in FIELDS if dice.random() < (0.25 if key == "caption" else 0.6)}  # captions are long
        wrote = writer(seed=seed)
        values = wrote.think(fixed, wanted)
        check(wrote, values, fixed, wanted)
        seen |= {(key, value) for key, value in values.items() if key not in fixed}
    assert len(seen) > 25  # it was not one thought 50 times


def test_all_that_is_wanted_may_be_nothing() -> None:
    wrote = writer()
    assert wrote.think({}, set()) == {} and written(wrote) == "<think>\n</think>"
    wrote = writer()
    assert wrote.think({"bpm": "90", "caption": "rain"}, set()) == {"bpm": "90", "caption": "rain"}
    assert written(wrote) == "<think>\nbpm: 90\ncaption: rain\n</think>"


def test_the_same_chances_write_the_same_and_others_do_not() -> None:
    first, again, other = (writer(seed=seed).think({}, FIELDS) for seed in (1, 1, 2))
    assert first == again != other


def test_a_language_is_heard_not_drawn() -> None:
    hot = Sampling(temperature=2.0, top_p=1.0)
    heard = set()
    for seed in range(12):
        wrote = writer(seed=seed)
        wrote.how = hot
        heard.add(wrote.think({"bpm": "90"}, {"language"})["language"])
    assert len(heard) == 1
    drawn = {writer(seed=seed).think({}, {"keyscale"})["keyscale"] for seed in range(12)}
    assert len(drawn) > 3


@pytest.mark.parametrize("after", [FIELDS, ("caption",), ("caption", "timesignature")], ids=str)
@pytest.mark.parametrize("rows", [2, 7])
def test_a_caption_in_folded_lines_is_one_line_of_text(after: tuple[str, ...], rows: int) -> None:
    newlines, folds = VOCABULARY.newlines, []

    def way(mask: str, ids: list[int]) -> list[int]:
        """A line's end after every fifth token, and `rows` folds before the field may end."""
        if mask == "caption" and len(folds) <= rows:
            step = next(steps)
            return [i for i in ids if (newlines.get(i, 0) == 1) == (step % 5 == 4) and newlines.get(i, 0) < 2]
        blanks = [i for i in ids if i in VOCABULARY.indents]
        if not mask and blanks:
            folds.append(1)
            return blanks if len(folds) <= rows else [i for i in ids if i not in blanks]
        return ids

    for seed in range(8):
        steps = itertools.count()
        folds.clear()
        wrote = writer(Led(way), seed)
        values = wrote.think({}, set(after))
        check(wrote, values, {}, set(after))
        rest = written(wrote).partition("\ncaption:")[2]
        caption, *_ = rest.split("\n" + (after[after.index("caption") + 1 :] or ("</think>",))[0])
        assert caption.count("\n") >= rows and "\n" not in values["caption"] and "  " not in values["caption"]


def test_a_folded_caption_that_is_yaml_is_unquoted() -> None:
    led = Led(dictated("caption", "'Piano: ", "slow, it''s late", ".\n", "strings", "'\n"))
    picks = iter([False, True])

    def way(mask: str, ids: list[int]) -> Sequence[int]:
        if mask == "lead":
            return VOCABULARY.encode(" ")
        if not mask and set(VOCABULARY.indents) < set(ids):
            done = next(picks)
            return [i for i in ids if (i not in VOCABULARY.indents) == done]
        return dictation(mask, ids)

    dictation, led.way = led.way, way
    wrote = writer(led)
    assert wrote.think({}, {"caption", "bpm"})["caption"] == "Piano: slow, it's late. strings"
    assert yaml.safe_load(written(wrote)[len("<think>") : -len("</think>")])["caption"].startswith("Piano: slow")


def test_two_line_ends_in_one_token_end_a_caption_at_once() -> None:
    double = [i for i, count in VOCABULARY.newlines.items() if count == 2]

    def way(mask: str, ids: list[int]) -> list[int]:
        """A fold wherever one may be."""
        folds = [i for i in ids if i in VOCABULARY.indents] if not mask else []
        return double[:1] if mask == "caption" else folds or ids

    wrote = writer(Led(way))
    values = wrote.think({"duration": "60"}, {"caption", "keyscale"})
    check(wrote, values, {"duration": "60"}, {"caption", "keyscale"})
    assert "\n\nduration: 60\n" in written(wrote) and len(values["caption"]) > 0


@pytest.mark.parametrize("fold", [False, True])
def test_an_endless_caption_is_cut_and_the_fields_after_it_are_there(fold: bool) -> None:
    def way(mask: str, ids: list[int]) -> list[int]:
        if not mask and set(VOCABULARY.indents) < set(ids):
            return VOCABULARY.indents
        ends = [i for i in ids if VOCABULARY.newlines.get(i) == 1]
        return ends if fold and mask == "caption" else [i for i in ids if i not in VOCABULARY.newlines]

    wrote = writer(Led(lambda mask, ids: way(mask, ids) if mask == "caption" or len(ids) < 4 else ids))
    wanted = {"bpm", "caption", "duration", "language"}
    values = wrote.think({"timesignature": "3"}, wanted)
    check(wrote, values, {"timesignature": "3"}, wanted)
    before, _, after = written(wrote).partition("\nduration:")
    count = len(VOCABULARY.encode("<think>\n" + line("bpm", values["bpm"]) + "caption:"))
    tokens = len(wrote.pen.written) - len(VOCABULARY.encode("duration:" + after)) - count
    assert 160 == CAPTION_TOKENS <= tokens <= CAPTION_TOKENS + 2, before


def test_a_caption_never_ends_the_text_nor_writes_what_is_special() -> None:
    seen: set[int] = set()

    def way(mask: str, ids: list[int]) -> list[int]:
        if mask in ("lead", "caption"):
            seen.update(ids)
        return ids

    writer(Led(way)).think({}, FIELDS)
    assert seen and not seen & set(VOCABULARY.special.values())
    assert not any("`" in VOCABULARY.decode([i]) for i in seen)


def test_who_listens_hears_of_every_choice_and_may_stop_it() -> None:
    heard: list[int] = []
    choices: list[int] = []

    def heed() -> None:
        heard.append(len(choices))
        if len(heard) == 9:
            raise Stopped("Stopped.")

    def way(mask: str, ids: list[int]) -> list[int]:
        choices.append(1)
        return ids

    with pytest.raises(Stopped):
        writer(Led(way), heed=heed).think({}, FIELDS)
    assert heard == list(range(9)) and len(choices) == 8
