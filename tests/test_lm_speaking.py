"""What lyrics ask of a language model, on torch and on MLX: texts that go back, tokens that are barred, whole models."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny_lyricist
import tiny_planner
import torch

import lm_mlx
import lm_torch
from errors import BadOutput
from lm import Sampling, Speaker, Text

one_thread = tiny_planner.one_thread
SIZE = tiny_lyricist.model().config.vocab_size
PROMPT = tiny_lyricist.tokenizer().encode("# Lyric\n[Verse]\nrain on the window, rain on the sea.\n")
LONG = np.random.default_rng(1).integers(0, 460, 2 * lm_mlx.CHUNK + 77).tolist()
GREEDY, WARM = Sampling(temperature=0.0), Sampling()
EVERY, FEW = np.ones(SIZE, bool), np.arange(SIZE) % 7 == 3
MASKS = {"every": EVERY, "few": FEW, "low": np.arange(SIZE) < 260}
IDS = [7, 3, 260, 11, 90]
KINDS = ("qwen2", "llama")
LOST = "The language model lost its way (numbers that are not finite). Try another seed."


def older(folder: Path) -> Path:
    """The folder with the config that the Hub has of Qwen2.5: mlx-lm reads no `rope_parameters`."""
    config = json.loads((folder / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": theta}))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: older(tiny_lyricist.saved(tmp_path_factory.mktemp(kind) / kind, kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def speakers(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Speaker]:
    made: dict[str, Speaker] = {"codes": lm_mlx.MlxLM(planned(tmp_path_factory.mktemp("planner")), MASKS)}
    for kind, folder in folders.items():
        made[f"torch {kind}"] = lm_torch.TorchLM(tiny_lyricist.model(kind), MASKS)
        made[f"mlx {kind}"] = lm_mlx.MlxSpeaker(lm_mlx.load_any(folder), MASKS)
    return made


def planned(folder: Path) -> Any:
    """The tiny planner through MLX: its texts, too, can go back."""
    return lm_mlx.load(tiny_planner.saved(folder))


def stock(kind: str, ids: list[int]) -> np.ndarray:
    """Logits after these tokens by transformers, without a cache."""
    with torch.no_grad():
        return tiny_lyricist.model(kind)(torch.tensor([ids]), use_cache=False).logits[0, -1].numpy()


def drawn(text: Text, n: int, how: Sampling = WARM, seed: int = 0, among: Any = "every") -> list[int]:
    """So many tokens drawn and read."""
    found = []
    for chance in np.random.default_rng(seed).random(n):
        found.append(text.pick(among, how, float(chance)))
        text.feed(found[-1:])
    return found


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` returns in a thread of its own, which is gone afterwards."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


WHO = ["torch qwen2", "torch llama", "mlx qwen2", "mlx llama", "codes"]


# Back


@pytest.mark.parametrize("who", WHO)
def test_after_going_back_a_text_goes_on_as_if_nothing_had_been(speakers: dict[str, Speaker], who: str) -> None:
    text = speakers[who].text(PROMPT, 400)
    drawn(text, 3, seed=5)
    mark = text.mark()
    first = drawn(text, 12)
    for seed, more in ((1, 1), (2, 40), (3, 300)):
        text.back(mark)
        assert drawn(text, more, seed=seed)[:12] != first
        text.back(mark)
        assert drawn(text, 12) == first
    text.back(mark)
    text.back(mark)  # twice is once
    assert drawn(text, 12) == first


@pytest.mark.parametrize("who", WHO)
def test_a_text_goes_back_to_each_of_its_marks(speakers: dict[str, Speaker], who: str) -> None:
    text = speakers[who].text(PROMPT, 100)
    marks, picks = [], []
    for token in (5, 90, 17, 200):
        marks.append(text.mark())
        picks.append([text.pick(among, WARM, 0.6) for among in ("every", "low", IDS)])
        text.feed([token, token + 1])
    assert len({tuple(each) for each in picks}) > 1
    for place in (3, 1, 0):
        text.back(marks[place])
        assert [text.pick(among, WARM, 0.6) for among in ("every", "low", IDS)] == picks[place]
    text.feed([5, 6])
    assert [text.pick(among, WARM, 0.6) for among in ("every", "low", IDS)] == picks[1]


@pytest.mark.parametrize("kind", KINDS)
def test_on_torch_the_numbers_after_going_back_are_the_very_same(speakers: dict[str, Speaker], kind: str) -> None:
    text: Any = speakers[f"torch {kind}"].text(PROMPT, 60)
    mark = text.mark()

    def logits() -> list[torch.Tensor]:
        text.back(mark)
        found = []
        for ids in ([3], [4, 5, 6], [9]):
            found.append(text.body.logits(text.state, text.body.head))
            text.feed(ids)
        return [*found, text.body.logits(text.state, text.body.head)]

    before = logits()
    text.feed([200] * 20)
    assert all(torch.equal(a, b) for a, b in zip(before, logits(), strict=True))
    text.back(mark)
    fresh: Any = speakers[f"torch {kind}"].text(PROMPT, 60)
    assert torch.equal(text.state, fresh.state)


def test_going_back_makes_room_again(speakers: dict[str, Speaker]) -> None:
    text = speakers["torch qwen2"].text(PROMPT, 10)
    mark = text.mark()
    for _ in range(3):
        text.feed([5] * 10)
        with pytest.raises(ValueError, match="There is room for"):
            text.feed([5])
        text.back(mark)


# Barred


def barring(*amongs: Any) -> list[Any]:
    """Who picks among what."""
    return [pytest.param(who, among, id=f"{who} {among}") for who in WHO for among in amongs]


@pytest.mark.parametrize("who, among", barring("every", "few", "low", IDS, tuple(IDS)))
def test_greedily_the_barred_leave_the_next_best(speakers: dict[str, Speaker], who: str, among: Any) -> None:
    text = speakers[who].text(PROMPT, 4)
    barred: list[int] = []
    for _ in range(4):
        barred.append(text.pick(among, GREEDY, 0.5, barred))
    assert len(set(barred)) == 4 and text.pick(among, GREEDY, 0.5) == barred[0]
    if who != "codes":
        z = stock(who.split()[1], PROMPT)
        allowed = np.flatnonzero(MASKS[among]) if isinstance(among, str) else np.array(among)
        assert barred == allowed[np.argsort(-z[allowed])[:4]].tolist()


@pytest.mark.parametrize("who, among", barring("few", IDS))
def test_what_is_barred_is_never_drawn(speakers: dict[str, Speaker], who: str, among: Any) -> None:
    text = speakers[who].text(PROMPT, 4)
    allowed = np.flatnonzero(FEW).tolist() if among == "few" else IDS
    hot = Sampling(2.0, 1.0, 0)
    chances = [*np.linspace(0, 1, 60, endpoint=False).tolist(), 1 - 2**-53]
    kept = allowed[::2]
    barred = [i for i in allowed if i not in kept]
    assert {text.pick(among, hot, chance) for chance in chances} & set(barred)
    found = {text.pick(among, hot, chance, barred) for chance in chances}
    assert found <= set(kept) and len(found) > 1
    assert text.pick(among, hot, 0.999, [i for i in allowed if i != allowed[1]]) == allowed[1]


# MLX against torch and transformers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [PROMPT, LONG[: lm_mlx.CHUNK], LONG[: lm_mlx.CHUNK + 1], LONG], ids=len)
def test_mlx_writes_what_torch_writes(speakers: dict[str, Speaker], kind: str, prompt: list[int]) -> None:
    one, two = (speakers[f"{library} {kind}"].text(prompt, 40) for library in ("mlx", "torch"))
    found, read = [], list(prompt)
    for _ in range(16):
        found.append(one.pick("every", GREEDY, 0.5))
        assert found[-1] == two.pick("every", GREEDY, 0.5) == int(stock(kind, read).argmax())
        one.feed(found[-1:])
        two.feed(found[-1:])
        read += found[-1:]
    assert len(set(found)) > 3
    for seed, how in enumerate((WARM, Sampling(1.3, 0.8, 12), Sampling(1.0, 1.0, 0))):
        for among in ("few", IDS):
            marks = one.mark(), two.mark()
            assert drawn(one, 6, how, seed, among) == drawn(two, 6, how, seed, among)
            one.back(marks[0])
            two.back(marks[1])


def test_a_tied_head_is_the_embedding(tmp_path: Path) -> None:
    model = tiny_lyricist.model("llama", tied=True)
    model.save_pretrained(tmp_path)
    one = lm_mlx.MlxSpeaker(lm_mlx.load_any(older(tmp_path)), MASKS).text(PROMPT, 9)
    two = lm_torch.TorchLM(model, MASKS).text(PROMPT, 40)
    assert drawn(one, 20, GREEDY) == drawn(two, 20, GREEDY)


def test_a_folder_as_transformers_writes_it_today_means_the_same_to_mlx(tmp_path: Path) -> None:
    text = lm_mlx.MlxSpeaker(lm_mlx.load_any(tiny_lyricist.saved(tmp_path)), MASKS).text(PROMPT, 9)
    other = lm_torch.TorchLM(tiny_lyricist.model(), MASKS).text(PROMPT, 40)
    assert drawn(text, 12, GREEDY) == drawn(other, 12, GREEDY)


@pytest.mark.parametrize("kind", KINDS)
def test_four_bits_are_loaded_as_four_bits_and_write(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    from mlx_lm.utils import quantize_model, save_config, save_model

    config = json.loads((folders[kind] / "config.json").read_text())
    model, config = quantize_model(lm_mlx.load_any(folders[kind]), config, group_size=32, bits=4)
    save_model(tmp_path, model)
    save_config(config, tmp_path / "config.json")
    loaded = lm_mlx.load_any(tmp_path)
    assert loaded.lm_head.weight.dtype == mx.uint32 and loaded.model.embed_tokens.weight.dtype == mx.uint32
    speaker = lm_mlx.MlxSpeaker(loaded, MASKS)
    text, read = speaker.text(PROMPT, 40), list(PROMPT)
    for _ in range(12):
        plain = model(mx.array([read], mx.int32))[0, -1]
        read.append(text.pick("every", GREEDY, 0.5))
        assert read[-1] == mx.argmax(plain).item()
        text.feed(read[-1:])
    assert len(set(read[-12:])) > 3
    assert (
        drawn(elsewhere(lambda: lm_mlx.MlxSpeaker(lm_mlx.load_any(tmp_path), MASKS)).text(PROMPT, 9), 12, GREEDY)
        == (read[-12:])
    )


def test_a_speaker_made_in_one_thread_writes_in_others(speakers: dict[str, Speaker], folders: dict[str, Path]) -> None:
    made = elsewhere(lambda: lm_mlx.MlxSpeaker(lm_mlx.load_any(folders["qwen2"]), MASKS))
    expected = drawn(speakers["mlx qwen2"].text(LONG, 30), 20)
    for where in (elsewhere, elsewhere, lambda work: work(), elsewhere):
        assert where(lambda: drawn(made.text(LONG, 30), 20)) == expected


def test_a_llama_of_today_made_in_one_thread_writes_in_others(folders: dict[str, Path], tmp_path: Path) -> None:
    """Its RoPE is worked out when it is made, and is none of its parameters."""
    config = json.loads((folders["llama"] / "config.json").read_text())
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config["rope_scaling"] = scaling | {"original_max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(folders["llama"] / "model.safetensors")
    expected = drawn(lm_mlx.MlxSpeaker(lm_mlx.load_any(tmp_path), MASKS).text(LONG, 30), 12)
    made = elsewhere(lambda: lm_mlx.MlxSpeaker(lm_mlx.load_any(tmp_path), MASKS))
    for where in (elsewhere, lambda work: work(), elsewhere):
        assert where(lambda: drawn(made.text(LONG, 30), 12)) == expected


@pytest.mark.parametrize("who", ["torch", "mlx"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_told(
    folders: dict[str, Path], tmp_path: Path, who: str, poison: float
) -> None:
    import copy

    if who == "mlx":
        model = lm_mlx.load_any(folders["qwen2"])
        model.model.norm.weight = mx.full((64,), poison)
        speaker: Speaker = lm_mlx.MlxSpeaker(model, MASKS)
    else:
        model = copy.deepcopy(tiny_lyricist.model())
        model.model.norm.weight.data.fill_(poison)
        speaker = lm_torch.TorchLM(model, MASKS)
    for among in ("every", "few", IDS):
        for barred in ((), [3]):
            with pytest.raises(BadOutput) as told:
                speaker.text(PROMPT, 4).pick(among, WARM, 0.5, barred)
            assert str(told.value) == LOST


@pytest.mark.parametrize("who", WHO)
def test_a_pick_reads_nothing_and_texts_do_not_hear_each_other(speakers: dict[str, Speaker], who: str) -> None:
    one, other = speakers[who].text(PROMPT, 40), speakers[who].text(PROMPT[:5], 40)
    alone = drawn(speakers[who].text(PROMPT, 40), 10)
    for n, chance in enumerate(np.random.default_rng(0).random(10)):
        other.pick("every", WARM, 0.3)
        assert one.pick("every", WARM, float(chance)) == one.pick("every", WARM, float(chance)) == alone[n]
        other.feed([9 + n])
        one.feed([alone[n]])
