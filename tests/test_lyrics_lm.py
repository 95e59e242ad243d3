"""From a row of the lyrics table to a model or to one sentence, and what the loaded model writes."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_lyricist
import tiny_planner
from test_lm_speaking import older
from test_lyrics import DRAFT

import checkpoints
import lm_mlx
import lm_torch
import lyrics_lm
from errors import BadOutput, EngineMissing, OutOfMemory, Stopped
from lyricists import LYRICISTS, LyricistRow
from lyrics import Continue, Lyrics, Refine
from lyrics_lm import Lyricist
from sections import Rules, broken, parts
from sound import Progress

one_thread = tiny_planner.one_thread
SHORT = {"structure": "intro, verse 1, chorus, verse 2, chorus, outro: 1", "verse_lines": 3, "chorus_lines": 2}
DAMAGED = "The checkpoint in mine/ is incomplete or damaged"
ROOMY = "ACE_LYRICS_MODEL=smollm2 needs little."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return older(tiny_lyricist.saved(tmp_path_factory.mktemp("lyricist") / "tiny"))


@pytest.fixture(scope="module", params=["transformers", "mlx-lm"])
def lyricist(request: pytest.FixtureRequest, folder: Path) -> Lyricist:
    loaded = lyrics_lm.load(row_of(folder), "cpu" if request.param == "transformers" else "mps")
    assert loaded.facts["library"] == request.param
    return loaded


def row_of(folder: Path) -> LyricistRow:
    return LyricistRow(str(folder), folder.name, str(folder))


def ask(kind: type[Lyrics] = Lyrics, **values: Any) -> Any:
    return kind.parse({"brief": "rain on the last train home", "seed": 7, **SHORT, **values})


def refused(row: LyricistRow, on: str = "cpu") -> str:
    with pytest.raises(EngineMissing) as missing:
        lyrics_lm.load(row, on)
    return str(missing.value)


def no_apple(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """There is no such device here: what is sent to it stays where it is; the devices are returned."""
    import transformers

    moved: list[str] = []
    monkeypatch.setattr(transformers.Qwen2ForCausalLM, "to", lambda model, where: moved.append(where) or model)
    return moved


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python package is not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: find(name, *rest) if name != package else None)


def full(*_: Any) -> None:
    """Memory runs out."""
    raise MemoryError


# Loading


def test_a_folder_loads_through_transformers_and_writes_as_the_model_in_memory(folder: Path) -> None:
    loaded = lyrics_lm.load(row_of(folder), "cpu")
    assert isinstance(loaded.lm, lm_torch.TorchLM) and loaded.instead == ""
    own = {"name": "tiny", "id": str(folder), "revision": None}
    assert loaded.facts == own | {"library": "transformers", "dtype": "float32"}
    assert loaded.write(ask()).text == tiny_lyricist.lyricist().write(ask()).text


def test_large_models_stay_in_half_precision_on_a_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: 99.0)
    for size, dtype in ((1.9, "float32"), (2.0, "bfloat16")):
        loaded = lyrics_lm.load(replace(row_of(folder), size_gb=size), "cpu")
        assert loaded.facts["dtype"] == dtype


def test_apples_gpus_are_asked_through_mlx_and_write_the_same(folder: Path) -> None:
    loaded = lyrics_lm.load(row_of(folder), "mps")
    assert isinstance(loaded.lm, lm_mlx.MlxSpeaker)
    assert loaded.facts == {"name": "tiny", "id": str(folder), "revision": None, "library": "mlx-lm"}
    for seed in (1, 2):
        assert loaded.write(ask(seed=seed)).text == tiny_lyricist.lyricist().write(ask(seed=seed)).text


def test_apples_gpus_take_the_row_that_was_made_for_them(folder: Path) -> None:
    row = LyricistRow("big", "Big", "owner/big", size_gb=1e6, apple=replace(row_of(folder), name="Big, 4 bit"))
    assert lyrics_lm.load(row, "mps").facts["name"] == "Big, 4 bit"


def test_where_mlx_cannot_transformers_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(folder: Path) -> Any:
        raise ValueError("Model type qwen9 not supported.")

    moved = no_apple(monkeypatch)
    monkeypatch.setattr(lm_mlx, "load_any", unknown)
    loaded = lyrics_lm.load(row_of(folder), "mps")
    assert isinstance(loaded.lm, lm_torch.TorchLM) and loaded.facts["library"] == "transformers" and moved == ["mps"]


def test_without_mlx_transformers_is_asked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlx_lm" else find(name, *rest)
    )
    monkeypatch.setattr(lm_mlx, "load_any", lambda folder: pytest.fail("MLX is not there"))
    moved = no_apple(monkeypatch)
    assert isinstance(lyrics_lm.load(row_of(folder), "mps").lm, lm_torch.TorchLM) and moved == ["mps"]


# What cannot be loaded


@pytest.mark.parametrize("cut", [None, 100], ids=["missing", "damaged"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_is_not_whole_is_refused(folder: Path, tmp_path: Path, name: str, cut: int | None) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    rest = (mine / name).read_bytes()[:cut]
    (mine / name).unlink() if cut is None else (mine / name).write_bytes(rest)
    for on in ("cpu", "mps"):
        sentence = refused(row_of(mine), on)
        assert sentence.startswith(f"{DAMAGED} (") and sentence.endswith("). Fetch or copy it again.")


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    import torch

    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    (mine / "model.safetensors").unlink()
    torch.save(tiny_lyricist.model().state_dict(), mine / "pytorch_model.bin")
    for on in ("cpu", "mps"):
        assert refused(row_of(mine), on).startswith(DAMAGED)


def other_kind(folder: Path, kind: str) -> Path:
    """A tiny model of a kind that cannot be led, with its tokenizer."""
    import transformers

    size = len(tiny_lyricist.tokenizer())
    gpt2 = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=size)
    mistral = transformers.MistralConfig(**tiny_lyricist.SHAPE, vocab_size=size)
    made = {"gpt2": (transformers.GPT2LMHeadModel, gpt2), "mistral": (transformers.MistralForCausalLM, mistral)}[kind]
    model: Any = made[0](made[1])
    model.save_pretrained(folder)
    tiny_lyricist.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["mistral", "gpt2"])
def test_a_model_that_cannot_be_led_says_why(kind: str, tmp_path: Path) -> None:
    assert refused(row_of(other_kind(tmp_path / kind, kind))) == (
        f"{kind} cannot write lyrics here: it is a {kind}, not a llama, qwen2 or qwen3. "
        "Choose another with ACE_LYRICS_MODEL."
    )


def test_a_tokenizer_of_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    core = Tokenizer(models.WordLevel({"<unk>": 0, "▁rain": 1, "▁train": 2, "\n": 3}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="\n", unk_token="<unk>").save_pretrained(mine)
    assert "(ValueError)" in refused(row_of(mine))


@pytest.mark.parametrize("on", ["cpu", "cuda", "mps"])
def test_where_there_is_no_room_both_sizes_are_named(on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda where: 3.25 if where == on else 99.0)
    row = replace(LYRICISTS["qwen2.5-7b"], apple=None)
    assert refused(row, on) == f"There is no room for Qwen 2.5 7B: it needs 15.7 GiB, 3.2 are free. {ROOMY}"


def test_a_folder_of_unknown_size_is_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: 0.0)
    assert lyrics_lm.load(row_of(folder), "cpu").lm


def test_memory_that_runs_out_while_it_loads_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_torch, "TorchLM", full)
    assert refused(row_of(folder)) == f"There is no room for tiny. {ROOMY}"


# Writing


def test_a_seed_means_the_same_sheet_twice_and_another_another(lyricist: Lyricist) -> None:
    one, same, other = (lyricist.write(ask(seed=seed)) for seed in (1, 1, 2))
    assert one.text == same.text != other.text and broken(one.text, ask().sections) == ""
    assert one.model == lyricist.facts and 50 < one.timings["tokens"] == same.timings["tokens"]
    assert 0 < one.timings["first_word_s"] < one.timings["total_s"] and len(one.timings) == 3
    cold = {lyricist.write(ask(seed=seed, temperature=0)).text for seed in (1, 2)}
    assert len(cold) == 1


@pytest.mark.parametrize(
    "control", [{"temperature": 1.9}, {"top_p": 0.3}, {"top_k": 3}, {"max_new_tokens": 100}], ids=str
)
def test_every_control_of_the_draw_changes_the_text(lyricist: Lyricist, control: dict[str, Any]) -> None:
    assert lyricist.write(ask(**control)).text != lyricist.write(ask()).text


def test_a_budget_makes_lines_short(lyricist: Lyricist) -> None:
    tight, wide = (lyricist.write(ask(max_new_tokens=n)).timings["tokens"] for n in (100, 2000))
    assert tight < 100 + 9 * 6 < wide  # the word at a line's end may still be written


def test_the_text_is_told_while_it_grows(lyricist: Lyricist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lyrics_lm, "TOLD_EVERY_S", -1.0)
    heard: list[Progress] = []
    sheet = lyricist.write(ask(), heard.append)
    first, *rest = heard
    assert first == Progress("Reading the brief", 0, 9) and len(rest) > 50
    assert {(p.phase, p.of) for p in rest} == {("Writing", 9)}
    assert [p.step for p in rest] == sorted(p.step for p in rest) and {p.step for p in rest} == set(range(9))
    whole = [p.text[: p.text.rfind("\n") + 1] for p in rest]
    assert all(after.startswith(before) for before, after in pairwise(whole)) and sheet.text.startswith(whole[-1])
    assert len({p.text for p in rest}) > 50
    monkeypatch.setattr(lyrics_lm, "TOLD_EVERY_S", 1e6)
    heard.clear()
    lyricist.write(ask(), heard.append)
    assert [p.phase for p in heard] == ["Reading the brief", "Writing"]


@pytest.mark.parametrize("at", [1, 2])
def test_who_listens_may_stop_it_and_nothing_is_left_behind(lyricist: Lyricist, at: int) -> None:
    def stop(progress: Progress) -> None:
        heard.append(progress)
        if len(heard) == at:
            raise Stopped("Stopped.")

    before, heard = lyricist.write(ask()).text, []
    with pytest.raises(Stopped):
        lyricist.write(ask(seed=3), stop)
    assert len(heard) == at and lyricist.write(ask()).text == before


def test_a_line_that_needs_no_word_more_is_whole() -> None:
    draft = "[verse]\nOne road\nTwo roads"
    for seed in range(9):  # some of them end the line with their first token
        request = ask(
            Continue, draft=draft, structure="verse", verse_lines=2, seed=seed, temperature=2, top_p=1, top_k=0
        )
        assert tiny_lyricist.lyricist().write(request).text.startswith(draft)


DOUBTS = {
    "Chinese": [("zh", "[verse]\nrain 雨"), ("zh", "雨 ab")],
    "Japanese": [("ja", "비가 내린다"), ("ja", "rain")],
    "Korean": [("ko", "あめ")],
    "": [
        ("zh", "[a long tag]\n雨落在窗上"),
        ("zh", "雨 a"),
        ("zh", ""),
        ("ja", "あめがふる雨"),
        ("ko", "비가 oh"),
        ("en", "雨"),
    ],
}


@pytest.mark.parametrize("named", DOUBTS)
def test_a_text_in_another_script_is_told(named: str) -> None:
    for language, text in DOUBTS[named]:
        told = (f"These words do not look like {named}.",) if named else ()
        assert lyrics_lm._doubts(text, language) == told


def test_warnings_say_who_stands_in_and_what_is_doubtful() -> None:
    stand_in = replace(tiny_lyricist.lyricist(), instead="Why.")
    warnings = ("tiny wrote these words. Why.", "These words do not look like Chinese.")
    assert stand_in.write(ask(language="zh")).warnings == warnings
    assert tiny_lyricist.lyricist().write(ask()).warnings == ()


def test_what_goes_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(OutOfMemory, match=r"These lyrics do not fit .* fewer lines"):
        patch.setattr(lm_torch.TorchLM, "text", full)
        tiny_lyricist.lyricist().write(ask())
    monkeypatch.setattr(lyrics_lm, "broken", lambda text, wanted: "sections []")
    with pytest.raises(BadOutput, match=r"did not come out as they were asked for\. Try another seed\."):
        tiny_lyricist.lyricist().write(ask())


def words_of(text: str) -> list[str]:
    return [line for part in parts(text) for line in part.lines]


LONG = "\n".join(f"{line} and {line} again" if line and line[0] != "[" else line for line in DRAFT.splitlines())


@pytest.mark.parametrize("seed", range(3))
def test_shorter_lines_are_shorter_and_none_comes_back(lyricist: Lyricist, seed: int) -> None:
    text = lyricist.write(ask(Refine, draft=LONG, seed=seed)).text
    assert [(p.tag, len(p.lines)) for p in parts(text)] == [(p.tag, len(p.lines)) for p in parts(LONG)]
    assert sum(map(len, words_of(text))) < 0.8 * sum(map(len, words_of(LONG)))
    other = lyricist.write(ask(Refine, draft=LONG, seed=seed, change="more cryptic", max_new_tokens=2000)).text
    for refined in (text, other):
        assert not set(words_of(refined)) & set(words_of(LONG))


def test_the_rules_are_those_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(lyrics_lm, "Rules", lambda *rules: given.append(rules) or Rules(*rules))
    for kind, draft, stale in ((Lyrics, {}, []), (Refine, {"draft": DRAFT}, words_of(DRAFT))):
        tiny_lyricist.lyricist().write(ask(kind, **draft, language="fr", tone="blue"))
        assert given.pop() == ("rain on the last train home\nblue", stale, "fr")


def test_a_stronger_chorus_changes_the_chorus_alone(lyricist: Lyricist) -> None:
    text = lyricist.write(ask(Refine, draft=DRAFT, change="stronger chorus")).text
    old, new = parts(DRAFT.strip()), parts(text)
    same = [a.raw == b.raw for a, b in zip(old, new, strict=True)]
    assert same == [part.tag != "chorus" for part in old]
    assert new[3].lines == new[5].lines and not set(new[3].lines) & set(old[3].lines)


@pytest.mark.parametrize("end", ["count", "count  ", "nobody", "on\n", "Hold", "[chorus]", "wide\n\n"], ids=repr)
def test_a_draft_that_is_gone_on_with_stays_to_the_last_character(lyricist: Lyricist, end: str) -> None:
    whole = DRAFT.replace("count the", "count   the")
    draft = whole[: whole.index(end) + len(end)]
    request = ask(Continue, draft=draft)
    text = lyricist.write(request).text
    assert text.startswith(draft) and len(words_of(text)) > len(words_of(draft)) and not broken(text, request.sections)
