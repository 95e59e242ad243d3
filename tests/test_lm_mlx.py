"""The planner over MLX, held against transformers' plain forward on the same tiny weights."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny_planner
import torch
from mlx.utils import tree_flatten
from safetensors.torch import load_file, save_file

import lm_mlx
from errors import BadOutput
from lm import BEAT, CodesAsked, Sampling
from lm_torch import TorchLM
from settings import ROOT

TOKENIZER = tiny_planner.tokenizer()
FIRST = TOKENIZER.convert_tokens_to_ids("<|audio_code_0|>")
PROMPT = TOKENIZER.encode("# Caption\nA slow piano ballad with warm strings.\n\n# Lyric\n[Verse]\nrain on the window\n")
NEGATIVE = TOKENIZER.encode("# Caption\nla la\n")
GREEDY, WARM = Sampling(temperature=0.0), Sampling()
MASKS = {"even": np.arange(FIRST) % 2 == 0, "low": np.arange(FIRST - 40) < 50}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_planner.saved(tmp_path_factory.mktemp("planner") / "tiny")


@pytest.fixture(scope="module")
def lm(folder: Path) -> lm_mlx.MlxLM:
    return lm_mlx.MlxLM(lm_mlx.load(folder), MASKS)


def chances(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n, dtype=np.float32)


def asked(n: int, sampling: Sampling = WARM, cfg: float = 2.0, seed: int = 0) -> CodesAsked:
    return CodesAsked(PROMPT, NEGATIVE, FIRST, tiny_planner.CODES, chances(n, seed), sampling, cfg)


def hush(done: int) -> None:
    pass


def true_logits(ids: list[int]) -> np.ndarray:
    """Logits after the last token, over the whole vocabulary, without a cache."""
    with torch.no_grad():
        return tiny_planner.model()(torch.tensor([ids])).logits[0, -1].numpy()


def true_draw(z: np.ndarray, how: Sampling, chance: float) -> int:
    """The contract of lm.py, word for word, in float64."""
    if how.temperature == 0:
        return int(z.argmax())
    p = np.exp((z.astype(np.float64) - z.max()) / how.temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")[: how.top_k or None]
    mass, before, kept = 0.0, 0.0, []
    for place in order:
        if before < how.top_p or not kept:
            kept.append(place)
        before += p[place]
    target = np.float32(chance) * sum(p[place] for place in kept)
    for place in kept:
        mass += p[place]
        if mass > target:
            return int(place)
    raise AssertionError("a chance of 1")


def true_codes(asked: CodesAsked) -> list[int]:
    prompt, negative, codes = list(asked.prompt), list(asked.negative), []
    window = slice(asked.first, asked.first + asked.size)
    for chance in asked.chances:
        z = true_logits(prompt)[window]
        if asked.cfg != 1:
            u = true_logits(negative)[window]
            z = u + np.float32(asked.cfg) * (z - u)
        codes.append(true_draw(z, asked.sampling, chance))
        prompt.append(asked.first + codes[-1])
        negative.append(asked.first + codes[-1])
    return codes


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` returns in a thread of its own, which is gone afterwards."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def copied(folder: Path, to: Path, config: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
    """The folder's config, changed, in another one; the weights are returned."""
    known = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(known | (config or {})))
    return load_file(folder / "model.safetensors")


def test_weights_with_the_prefix_in_shards_with_a_head_and_an_older_config(
    lm: lm_mlx.MlxLM, folder: Path, tmp_path: Path
) -> None:
    old = {"rope_parameters": None, "rope_theta": 1_000_000.0, "rope_scaling": None}
    state = {f"model.{name}": w for name, w in copied(folder, tmp_path, old).items()}
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    names = sorted(state)
    save_file({n: state[n] for n in names[:5]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({n: state[n] for n in names[5:]}, tmp_path / "model-00002-of-00002.safetensors")
    other = lm_mlx.MlxLM(lm_mlx.load(tmp_path), MASKS)
    assert other.codes(asked(20), hush) == lm.codes(asked(20), hush)


def test_a_folder_without_safetensors_is_refused(folder: Path, tmp_path: Path) -> None:
    torch.save(copied(folder, tmp_path), tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError, match=r"holds no model\*.safetensors"):
        lm_mlx.load(tmp_path)


def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    state = copied(folder, tmp_path)
    save_file({n: w for n, w in state.items() if n != "norm.weight"}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.norm\.weight"):
        lm_mlx.load(tmp_path)
    copied(folder, tmp_path, {"tie_word_embeddings": False})
    with pytest.raises(ValueError, match="a head of its own"):
        lm_mlx.load(tmp_path)


def test_half_precision_is_for_gpus_and_writes_codes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lm_mlx.load(folder).model.embed_tokens.weight.dtype == mx.float32
    with monkeypatch.context() as patch:
        patch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu, 0))
        model = lm_mlx.load(folder)
    assert {w.dtype for _, w in tree_flatten(model.parameters())} == {mx.bfloat16}
    codes = lm_mlx.MlxLM(model, MASKS).codes(asked(40), hush)
    assert len(codes) == 40 and all(0 <= code < tiny_planner.CODES for code in codes) and len(set(codes)) > 5


def test_logits_are_those_of_transformers_without_a_cache(folder: Path) -> None:
    """Past the 256 places by which MLX's cache grows, and with feeds of one token and of many."""
    model = lm_mlx.load(folder)
    table = model.model.embed_tokens.weight
    reader, read = lm_mlx.Reader(model, PROMPT), list(PROMPT)
    rng = np.random.default_rng(5)
    for length in (1, 1, 7, 1, 200, 1, 60, 1, 1):
        ids = rng.integers(0, FIRST + tiny_planner.CODES, length).tolist()
        reader.read(mx.array(ids, mx.int32))
        read += ids
        z = reader.logits(table)
        assert z.dtype == mx.float32
        np.testing.assert_allclose(np.array(z), true_logits(read), atol=1e-4, rtol=0)


# --- drawing ---------------------------------------------------------------------------------------------------------

FLAT = [(0.85, 0.9, 0), (1.0, 1.0, 0), (0.3, 1.0, 0), (2.0, 0.5, 0), (1.0, 1e-6, 0), (1.0, 0.0, 0)]
SHORT = [(0.85, 0.9, 5), (1.5, 1.0, 3), (1.0, 1.0, 1), (1.0, 0.9, 1000), (0.0, 0.9, 3)]


@pytest.mark.parametrize("how", [Sampling(*numbers) for numbers in FLAT + SHORT], ids=str)
def test_a_chance_finds_the_place_that_the_contract_names(how: Sampling) -> None:
    rng = np.random.default_rng(3)
    for chance in rng.random(100, dtype=np.float32):
        z = (3 * rng.standard_normal(50)).astype(np.float32)
        assert lm_mlx.draw(mx.array(z), how, float(chance)).item() == true_draw(z, how, chance)


@pytest.mark.parametrize("chance", [0.0, 0.5, float(np.nextafter(np.float32(1), np.float32(0))), 1 - 2**-53])
def test_no_chance_finds_what_is_forbidden(chance: float) -> None:
    for seed in range(20):
        z = np.random.default_rng(seed).standard_normal(5000).astype(np.float32)
        z[::3] = -np.inf
        found = lm_mlx.draw(mx.array(z), Sampling(1.0, 1.0, 0), chance).item()
        assert np.isfinite(z[found])


def test_greedy_codes_are_those_of_generate(lm: lm_mlx.MlxLM) -> None:
    def codes_only(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        kept = torch.full_like(scores, -torch.inf)
        kept[:, FIRST : FIRST + tiny_planner.CODES] = scores[:, FIRST : FIRST + tiny_planner.CODES]
        return kept

    n = 3 * BEAT + 5
    out = tiny_planner.model().generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        negative_prompt_ids=torch.tensor([NEGATIVE]),
        negative_prompt_attention_mask=torch.ones(1, len(NEGATIVE), dtype=torch.long),
        guidance_scale=2.0,
        do_sample=False,
        max_new_tokens=n,
        logits_processor=[codes_only],
    )
    codes = (out[0, len(PROMPT) :] - FIRST).tolist()
    assert len(set(codes)) > 5
    assert lm.codes(asked(n, GREEDY), hush) == codes


@pytest.mark.parametrize("cfg", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("how", [WARM, Sampling(1.2, 1.0, 8), GREEDY], ids=str)
def test_codes_are_those_of_the_contract(lm: lm_mlx.MlxLM, how: Sampling, cfg: float) -> None:
    wanted = asked(2 * BEAT + 3, how, cfg, seed=4)
    assert lm.codes(wanted, hush) == true_codes(wanted)


def test_a_long_row_outgrows_the_cache_and_its_spare_memory(lm: lm_mlx.MlxLM) -> None:
    wanted = asked(lm_mlx.TIDY + BEAT + 1)
    assert lm.codes(wanted, hush) == true_codes(wanted)


def test_guidance_acts_and_without_it_the_negative_is_not_read(lm: lm_mlx.MlxLM) -> None:
    plain = lm.codes(asked(32, cfg=1.0), hush)
    assert lm.codes(asked(32, cfg=2.0), hush) != plain
    assert lm.codes(dataclasses.replace(asked(32, cfg=1.0), negative=[]), hush) == plain


@pytest.mark.parametrize("n", [0, 1, BEAT - 1, BEAT, 3 * BEAT, 3 * BEAT + 1])
def test_the_listener_hears_of_every_beat(lm: lm_mlx.MlxLM, n: int) -> None:
    heard: list[int] = []
    assert len(lm.codes(asked(n), heard.append)) == n
    assert heard == list(range(BEAT, n + 1, BEAT))


def test_the_listener_may_stop_it_and_nothing_is_left_behind(lm: lm_mlx.MlxLM) -> None:
    class Enough(Exception):
        pass

    def stop(done: int) -> None:
        heard.append(done)
        if done > BEAT:
            raise Enough

    before, heard = lm.codes(asked(40), hush), []
    with pytest.raises(Enough):
        lm.codes(asked(200, seed=9), stop)
    assert heard == [BEAT, 2 * BEAT]
    assert lm.codes(asked(40), hush) == before


def test_a_request_does_not_change_the_next(lm: lm_mlx.MlxLM, folder: Path) -> None:
    text = lm.text(PROMPT, 8)
    lm.codes(asked(40, seed=7), hush)
    lm.text(NEGATIVE, 8).pick("even", WARM, 0.5)
    fresh = lm_mlx.MlxLM(lm_mlx.load(folder), MASKS)
    assert lm.codes(asked(40), hush) == fresh.codes(asked(40), hush)
    assert text.pick("even", WARM, 0.3) == fresh.text(PROMPT, 8).pick("even", WARM, 0.3)


@pytest.mark.parametrize("how", [WARM, GREEDY], ids=str)
@pytest.mark.parametrize("among", ["even", "low", [7, 3, 260, 11, 90], (5,), np.arange(20, 60, 3)], ids=str)
def test_a_text_is_picked_as_the_contract_says(lm: lm_mlx.MlxLM, how: Sampling, among: Any) -> None:
    text, read = lm.text(PROMPT, 40), list(PROMPT)
    allowed = np.flatnonzero(MASKS[among]) if isinstance(among, str) else np.array(among)
    for chance in chances(12, seed=2):
        picked = text.pick(among, how, float(chance))
        assert type(picked) is int and picked == text.pick(among, how, float(chance))  # a pick reads nothing
        assert picked == allowed[true_draw(true_logits(read)[allowed], how, chance)]
        forced = [] if picked % 2 else [3, 9]
        text.feed([picked, *forced])
        read += [picked, *forced]


def test_made_in_one_thread_and_used_in_others(lm: lm_mlx.MlxLM, folder: Path) -> None:
    made = elsewhere(lambda: lm_mlx.MlxLM(lm_mlx.load(folder), MASKS))
    codes, pick = lm.codes(asked(40), hush), lm.text(PROMPT, 4).pick("low", WARM, 0.6)
    for where in (elsewhere, lambda work: work(), elsewhere):
        assert where(lambda: made.codes(asked(40), hush)) == codes
        assert where(lambda: made.text(PROMPT, 4).pick("low", WARM, 0.6)) == pick


def test_a_text_may_wander_between_threads(lm: lm_mlx.MlxLM) -> None:
    text, wanderer = lm.text(PROMPT, 4), elsewhere(lambda: lm.text(PROMPT, 4))
    for chance in chances(6):
        picked = text.pick("even", WARM, float(chance))
        assert elsewhere(lambda c=chance: wanderer.pick("even", WARM, float(c))) == picked
        text.feed([picked, 4])
        elsewhere(lambda ids=picked: wanderer.feed([ids, 4]))


def test_threads_that_come_and_go_do_not_take_the_process_along(folder: Path, lm: lm_mlx.MlxLM) -> None:
    """MLX 0.32.4 crashes at exit here if it may compile: first met in a thread, then used in the main one and in others."""
    script = f"""
import pathlib, sys, threading, time
sys.path[:0] = {[str(ROOT), str(ROOT / "tests")]!r}
made, heard = [], []

def build():
    import lm_mlx
    made.append(lm_mlx.MlxLM(lm_mlx.load(pathlib.Path({str(folder)!r})), {{}}))

def use():
    from test_lm_mlx import asked, hush
    heard.append(made[0].codes(asked(20), hush))

def elsewhere(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

elsewhere(build)
use()
elsewhere(use)
time.sleep(0.5)  # a thread that ends along with the process is another matter
print(heard)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.strip() == str([lm.codes(asked(20), hush)] * 2)


def test_torch_writes_and_picks_the_same(lm: lm_mlx.MlxLM) -> None:
    other = TorchLM(tiny_planner.model(), MASKS)
    for seed, how in enumerate((WARM, GREEDY, Sampling(1.0, 1.0, 0), Sampling(1.3, 0.8, 12))):
        for cfg in (1.0, 2.0, 3.0):
            assert lm.codes(asked(50, how, cfg, seed), hush) == other.codes(asked(50, how, cfg, seed), hush)
        one, two = lm.text(PROMPT, 40), other.text(PROMPT, 40)
        for among, chance in zip(["even", "low", [5, 9, 300], "even"] * 4, chances(16, seed), strict=True):
            picked = one.pick(among, how, float(chance))
            assert two.pick(among, how, float(chance)) == picked
            one.feed([picked, 8])
            two.feed([picked, 8])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("n", [5, BEAT, 60])
def test_numbers_that_are_not_finite_are_told(folder: Path, poison: float, n: int) -> None:
    model = lm_mlx.load(folder)
    model.model.norm.weight = mx.full((64,), poison)
    broken, heard = lm_mlx.MlxLM(model, MASKS), []
    for how in (WARM, GREEDY):
        with pytest.raises(BadOutput) as told:
            broken.codes(asked(n, how), heard.append)
        assert str(told.value) == (
            "The language model lost its way (numbers that are not finite). Try another seed, or turn thinking off."
        )
        for among in ("even", [1, 2, 3]):
            with pytest.raises(BadOutput):
                broken.text(PROMPT, 1).pick(among, how, 0.5)
    assert heard == []
