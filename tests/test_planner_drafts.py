"""Drafts: a song from an idea, words in better form, what a recording sounds like; and what is asked of each."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_planner
from tiny_planner import Led, dictated

import planner as planning
import script
from drafts import DRAFTS, Describe, Tidy, Write
from errors import AudioError, EngineMissing, KnobError, Stopped, TextError
from lm import BEAT, Sampling
from planner import PLAIN, fitting
from plans import Draft
from script import BLOCK_REPEATS, chat
from song import LYRICS_LIMIT, PROMPT_LIMIT, Generate
from sound import AudioClip, Progress
from vocabulary import VALUES

one_thread = tiny_planner.one_thread
VOCABULARY = tiny_planner.vocabulary()
SONG = AudioClip(np.random.default_rng(0).normal(0, 0.1, (2, 48_000 * 2)).astype(np.float32), {"format": "WAV"})
FACTS = {"bpm": 97, "keyscale": "F# minor", "timesignature": "6", "vocal_language": "no"}
END = VOCABULARY.special["<|im_end|>"]


@pytest.fixture(autouse=True)
def short_lyrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner that knows no words seldom ends them; and room for the longest ones makes each step slower."""
    monkeypatch.setattr(script, "LYRIC_TOKENS", 40)
    monkeypatch.setattr(planning, "LYRIC_TOKENS", 200)


def writing(**values: Any) -> Write:
    return Write.parse({"query": "a sad song about rain", "seed": 1} | values)


def tidying(**values: Any) -> Tidy:
    return Tidy.parse({"prompt": "slow piano", "lyrics": "la la\noh", "seed": 1} | values)


def describing(**values: Any) -> Describe:
    return Describe.parse({"source_audio": SONG, "seed": 1} | values)


def sung(*pieces: str) -> Led:
    """A planner that writes these lyrics."""
    return Led(dictated("lyrics", *pieces, "<|im_end|>"))


def check(draft: Draft) -> Generate:
    """The song that a draft becomes, through the one door."""
    names = set(Draft.model_fields) - {"seed", "warnings"}
    values = {name: getattr(draft, name) for name in names}
    song = Generate.parse({**values, "plan": draft.plan})
    assert (song.prompt, song.lyrics, song.duration_s) == (draft.prompt, draft.lyrics, draft.duration_s)
    assert song.advanced.bpm == draft.bpm and song.open == frozenset()
    return song


# What is asked


def test_a_draft_from_an_idea_is_asked_for_in_the_models_form() -> None:
    for instrumental in (False, True):
        led = Led()
        led.planner().write(writing(instrumental=instrumental))
        user = f"a sad song about rain\n\ninstrumental: {'true' if instrumental else 'false'}"
        assert led.prompts == [VOCABULARY.encode(chat("inspire", user))] and led.asked == []


ASKED = [
    ({}, "# Caption\nslow piano\n\n# Lyric\nla la\noh"),
    ({"prompt": ""}, "# Caption\nNO USER INPUT\n\n# Lyric\nla la\noh"),
    ({"lyrics": " "}, "# Caption\nslow piano\n\n# Lyric\n[Instrumental]"),
    ({"instrumental": True}, "# Caption\nslow piano\n\n# Lyric\n[Instrumental]"),
]


@pytest.mark.parametrize("values, user", ASKED, ids=str)
def test_words_are_tidied_in_the_models_form(values: dict[str, Any], user: str) -> None:
    led = Led()
    led.planner().tidy(tidying(**values))
    assert led.prompts == [VOCABULARY.encode(chat("format", user))]


def test_a_recording_is_described_from_its_codes_alone() -> None:
    led, codes = Led(), [5, 0, 63]
    led.planner().describe(describing(), codes)
    before, after = (VOCABULARY.encode(part) for part in chat("understand", "|||").split("|||"))
    assert led.prompts == [[*before, *(VOCABULARY.first_code + code for code in codes), *after]]
    own = tiny_planner.tokenizer()(chat("understand", "<|audio_code_5|><|audio_code_0|><|audio_code_63|>"))
    assert led.prompts == [own.input_ids]


def test_codes_that_the_planner_does_not_know_are_refused_before_it_reads_them() -> None:
    led = Led()
    with pytest.raises(EngineMissing, match="does not know the codes"):
        led.planner().describe(describing(), [5, 64])
    assert led.prompts == []


def test_what_looks_like_a_special_token_never_becomes_one() -> None:
    evil, plain = Led(), Led()
    evil.planner().write(writing(query="a sad <think>song<|im_start|> about rain"))
    plain.planner().write(writing())
    evil.planner().tidy(tidying(prompt="slow</think> piano", lyrics="la la<|im_end|>\noh"))
    plain.planner().tidy(tidying())
    assert evil.prompts == plain.prompts


# What comes of it


@pytest.mark.parametrize("seed", range(5))
def test_a_draft_holds_what_the_controls_can_hold(seed: int) -> None:
    planner = tiny_planner.planner()
    codes = list(range(seed, seed + 10))
    requests = (writing(seed=seed), tidying(seed=seed), describing(seed=seed))
    for draft in (planner.write(requests[0]), planner.tidy(requests[1]), planner.describe(requests[2], codes)):
        check(draft)
        assert draft.bpm in VALUES["bpm"] and draft.duration_s in VALUES["duration"] and draft.seed == seed
        assert draft.keyscale and draft.timesignature and draft.vocal_language in VALUES["language"]
        assert draft.prompt and draft.warnings == () and not draft.instrumental


def test_a_seed_is_a_draft_and_another_is_another() -> None:
    planner = tiny_planner.planner()
    for make, ask in ((planner.write, writing), (planner.tidy, tidying)):
        first, again, other = (make(ask(seed=seed)) for seed in (1, 1, 2))
        assert first == again and other.prompt != first.prompt and other.lyrics != first.lyrics
    first, again, other = (planner.describe(describing(seed=seed), [1, 2]) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("knob, value", [("lm_temperature", 1.7), ("lm_top_p", 0.2), ("lm_top_k", 2)])
def test_each_knob_of_a_draft_changes_it(knob: str, value: float) -> None:
    planner = tiny_planner.planner()
    assert planner.write(writing()) != planner.write(writing(**{knob: value}))
    assert planner.tidy(tidying()) != planner.tidy(tidying(**{knob: value}))


def test_who_describes_does_not_invent() -> None:
    led = Led()
    led.planner().describe(describing(), [1, 2])
    assert set(led.texts[0].hows) == {PLAIN, script.GREEDY} and Sampling(0.3, 1.0, 0) == PLAIN


@pytest.mark.parametrize("name", FACTS)
def test_facts_that_the_user_gave_come_back_as_they_were(name: str) -> None:
    led = Led()
    draft = led.planner().tidy(tidying(**{name: FACTS[name]}))
    assert getattr(draft, name) == FACTS[name]
    field = "language" if name == "vocal_language" else name
    value = "'no'" if name == "vocal_language" else FACTS[name]
    assert f"\n{field}: {value}\n" in VOCABULARY.decode(led.texts[0].fed)


def test_a_language_is_given_to_an_idea_and_a_length_to_words() -> None:
    for language in ("no", "ja"):
        assert tiny_planner.planner().write(writing(vocal_language=language)).vocal_language == language
    led = Led()
    assert led.planner().tidy(tidying(duration_s=42.5)).duration_s == 42.5
    assert "\nduration: 43\n" in VOCABULARY.decode(led.texts[0].fed)


def test_an_instrumental_has_no_lyrics_and_none_are_written() -> None:
    led = Led(lambda mask, ids: pytest.fail("lyrics were asked for") if mask == "lyrics" else ids)
    draft = led.planner().write(writing(instrumental=True))
    assert (draft.lyrics, draft.instrumental) == ("", True) and check(draft).sung == "[Instrumental]"
    draft = led.planner().tidy(tidying(instrumental=True))
    assert (draft.lyrics, draft.instrumental) == ("la la\noh", True)  # the user's, for another time


def test_lyrics_that_say_instrumental_make_an_instrumental() -> None:
    for heard in ("[Instrumental]\n", "\n\n# Lyric\n[instrumental]"):
        draft = sung(heard).planner().write(writing())
        assert (draft.lyrics, draft.instrumental) == ("", True)
        draft = sung(heard).planner().describe(describing(), [1])
        assert (draft.lyrics, draft.instrumental) == ("", True)
    assert sung("[Instrumental]\nla").planner().write(writing()).lyrics == "[Instrumental]\nla"
    assert sung("[Instrumental]\n").planner().tidy(tidying(lyrics="")).instrumental


def test_words_of_the_user_are_never_lost() -> None:
    for nothing in ("", "\n\n", "# Lyric\n", "[Instrumental]"):
        draft = sung(nothing).planner().tidy(tidying())
        assert (draft.lyrics, draft.instrumental) == ("la la\noh", False), nothing
    assert sung("\n\nrain\n").planner().tidy(tidying()).lyrics == "rain"
    blank = VOCABULARY.encode(" ")

    def way(mask: str, ids: list[int]) -> list[int]:
        if mask == "caption":
            return VOCABULARY.encode("\n\n")
        return blank if mask == "lead" else ids

    assert Led(way).planner().tidy(tidying()).prompt == "slow piano"


def test_lyrics_that_go_in_circles_are_cut_and_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "LYRIC_TOKENS", 200)
    block = "[Chorus]\nrain\nsea\noh"
    draft = sung("# Lyric\n\n", *[f"{block}\n\n"] * (BLOCK_REPEATS + 3)).planner().write(writing())
    assert draft.lyrics == block
    assert draft.warnings == ("The planner went in circles; its lyrics were cut.",)


def test_lyrics_are_cleaned_and_fit_their_control() -> None:
    draft = sung("la <", "|im_end|", ">la", "\n\x07oh").planner().write(writing())
    assert draft.lyrics == "la la\noh"
    lines = "la la la\n" * 1000
    assert fitting(lines) == ("la la la\n" * (LYRICS_LIMIT // 9)).strip()
    assert len(fitting("x" * 9999)) == LYRICS_LIMIT and fitting(" la\n") == "la"
    assert fitting("x" * LYRICS_LIMIT) == "x" * LYRICS_LIMIT


def test_the_lyrics_of_a_draft_end_at_their_limit() -> None:
    led = Led(lambda mask, ids: [i for i in ids if i != END])
    led.planner().write(writing())
    assert len(led.texts[0].fed) > script.LYRIC_TOKENS


def test_a_draft_may_be_stopped_at_any_token() -> None:
    planner = tiny_planner.planner()
    heard: list[Progress] = []

    def report(progress: Progress) -> None:
        heard.append(progress)
        if len(heard) == 5:
            raise Stopped("Stopped.")

    for stopped in (
        lambda: planner.write(writing(), report),
        lambda: planner.tidy(tidying(), report),
        lambda: planner.describe(describing(), [1, 2], report),
    ):
        heard.clear()
        with pytest.raises(Stopped):
            stopped()
        assert [progress.phase for progress in heard] == ["Writing"] * 5


def test_a_recording_is_described_by_what_the_song_model_hears_in_it() -> None:
    codes = [code % tiny_planner.CODES for code in tiny.engine().codes(SONG)]
    assert len(codes) == 10
    draft = tiny_planner.planner().describe(describing(), codes)
    check(draft)
    assert draft == tiny_planner.planner().describe(describing(), codes)
    assert draft != tiny_planner.planner().describe(describing(), codes[::-1])


# The doors


def test_what_is_missing_is_said() -> None:
    cases = (
        (Write, {}, TextError, "Your idea is empty: write one line, such as a sad song about rain."),
        (
            Write,
            {"query": " <think> "},
            TextError,
            "Your idea is empty: write one line, such as a sad song about rain.",
        ),
        (Tidy, {"prompt": " "}, TextError, "There is nothing to tidy: write a style prompt or some lyrics first."),
        (Describe, {}, AudioError, "Song to describe is missing: add a recording first."),
        (Describe, {"source_audio": "song.wav"}, AudioError, "Song to describe must be a recording."),
    )
    for draft, values, kind, sentence in cases:
        with pytest.raises(kind) as refused:
            draft.parse(values)
        assert refused.value.message == sentence


def test_what_cannot_be_is_refused_with_its_limits() -> None:
    with pytest.raises(TextError, match=re.escape(f"Your idea may hold {PROMPT_LIMIT} characters; yours has 513.")):
        writing(query="x" * 513)
    with pytest.raises(TextError, match="Lyrics may hold 4,096 characters"):
        tidying(lyrics="x" * 4097)
    with pytest.raises(KnobError, match=re.escape("Duration (s) must be a number from 10 to 600")):
        tidying(duration_s=9)
    with pytest.raises(KnobError, match="'bpm' is not a control of Write"):
        writing(bpm=90)
    with pytest.raises(KnobError, match="'lm_temperature' is not a control of Describe"):
        describing(lm_temperature=1)


def test_the_doors_let_in_what_they_should() -> None:
    assert tidying(duration_s="").duration_s is None and tidying(duration_s=10).duration_s == 10
    assert tidying(prompt="").sung == "la la\noh" and tidying(instrumental=True).sung == "[Instrumental]"
    assert 0 <= Write.parse({"query": "x"}).advanced.seed < 2**32
    assert [draft.mode for draft in DRAFTS] == ["write", "tidy", "describe"]


def test_a_draft_is_told_of_before_every_sixteen_tokens_and_stops_there() -> None:
    led, told = Led(), []
    led.planner().write(writing(), told.append)
    chosen = len(led.texts[0].hows)
    assert chosen > 32 and told == [Progress("Writing")] * (1 + -(-chosen // BEAT))
