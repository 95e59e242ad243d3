"""Guidance, draw, codes and text against transformers and numpy, on the tiny planner."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_planner
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_causal_lm import FIRST, LONG, SHORT, changed, stock

import lm_torch
from causal_lm import random_model
from errors import BadOutput, Stopped
from lm import BEAT, CodesAsked, Sampling
from lm_torch import CHUNK, TorchLM

GREEDY = Sampling(temperature=0.0)


def chances(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n, dtype=np.float32)


def asked(n: int = 40, seed: int = 0, **changes: Any) -> CodesAsked:
    song = CodesAsked(LONG, SHORT, FIRST, tiny_planner.CODES, chances(n, seed), Sampling())
    return replace(song, **changes)


def quiet(done: int) -> None:
    """Nobody listens."""


def made(model: Any = None) -> TorchLM:
    letters = np.zeros(FIRST, bool)
    letters[10:90] = True
    return TorchLM(model or tiny_planner.model(), {"letters": letters, "all": np.ones(FIRST, bool)})


@pytest.fixture(scope="module")
def lm() -> TorchLM:
    return made()


def ours(text: lm_torch.TorchText) -> torch.Tensor:
    return text.body.logits(text.state, text.body.table)[0]


# The logits


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1])
def test_a_prompt_read_in_chunks_and_tokens_after_it_give_the_logits_of_transformers(lm, length: int) -> None:
    text, read = lm.text(LONG[:length], 9), LONG[:length]
    for ids in ([], [5], [6, 7, 8], [9, 10, 11, 12, 13]):
        if ids:
            text.feed(ids)
        read = read + ids
        assert (ours(text) - stock(read)).abs().max() < 1e-4


@pytest.mark.parametrize("prompts", [(LONG, SHORT), (SHORT, LONG), (SHORT, SHORT), (LONG, [3]), ([3], [4])])
@pytest.mark.parametrize("cfg", [1.0, 2.0, 0.0, 3.5])
def test_guided_logits_of_every_step_equal_the_uncached_ones(lm, prompts: tuple, cfg: float) -> None:
    wanted = asked(5, prompt=prompts[0], negative=prompts[1], cfg=cfg)
    codes = lm._begun(wanted)
    for n in range(5):
        z = codes.step()
        written = [FIRST + code for code in codes.codes[:n].tolist()]
        cond, uncond = (stock(prompt + written)[FIRST : FIRST + tiny_planner.CODES] for prompt in prompts)
        assert z.dtype == torch.float32
        assert (z - (uncond + cfg * (cond - uncond))).abs().max() < 1e-4 * max(1, cfg)


def test_greedy_codes_equal_generate_with_guidance() -> None:
    from transformers import LogitsProcessor

    class Codes(LogitsProcessor):
        def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            kept = torch.full_like(scores, -torch.inf)
            window = slice(FIRST, FIRST + tiny_planner.CODES)
            kept[:, window] = scores[:, window]
            return kept

    n, model = 50, tiny_planner.model()
    out = model.generate(
        torch.tensor([LONG]),
        attention_mask=torch.ones(1, len(LONG), dtype=torch.long),
        negative_prompt_ids=torch.tensor([SHORT]),
        guidance_scale=2.0,
        do_sample=False,
        max_new_tokens=n,
        logits_processor=[Codes()],
    )
    expected = (out[0, len(LONG) :] - FIRST).tolist()
    assert made().codes(asked(n, sampling=GREEDY), quiet) == expected
    assert len(set(expected)) > 5


def test_a_checkpoint_without_prefix(tmp_path, lm) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_planner.saved(tmp_path / "planner"))
    # Not to the bit: how a product is summed may depend on where in memory the weights lie.
    torch.testing.assert_close(ours(made(model).text(LONG, 0)), ours(lm.text(LONG, 0)))
    assert made(model).codes(asked(), quiet) == lm.codes(asked(), quiet)


def test_bfloat16_follows_transformers_in_bfloat16(lm) -> None:
    model = changed(lambda model: model.to(torch.bfloat16))
    narrow = made(model)
    exact, theirs, mine = stock(LONG), stock(LONG, model).float(), ours(narrow.text(LONG, 0))
    assert mine.dtype == torch.float32
    assert (mine - exact).abs().mean() < 1.5 * (theirs - exact).abs().mean()
    for cfg in (1.0, 2.0):
        codes = narrow.codes(asked(cfg=cfg), quiet)
        assert len(codes) == 40 and all(0 <= code < tiny_planner.CODES for code in codes)
    assert 10 <= narrow.text(SHORT, 0).pick("letters", Sampling(), 0.5) < 90


# The draw


def drawn(z: np.ndarray, how: Sampling, chance: float) -> int:
    """The place by numpy, as lm.py has it in words."""
    z = z.astype(np.float64)
    if how.temperature == 0:
        return int(z.argmax())
    p = np.exp((z - z.max()) / how.temperature)
    p /= p.sum()
    order = np.argsort(-z, kind="stable")
    kept: list[int] = []
    for place in order[: how.top_k or None]:
        if kept and p[kept].sum() >= how.top_p:
            break
        kept.append(place)
    target = float(np.float32(chance)) * p[kept].sum()
    return int(kept[min(np.searchsorted(p[kept].cumsum(), target, side="right"), len(kept) - 1)])


def pick(z: np.ndarray, how: Sampling, chance: float) -> int:
    knobs = lm_torch._Knobs(*lm_torch._numbers(how, 1.0, torch.device("cpu")))
    return lm_torch._pick(torch.tensor(z, dtype=torch.float32), torch.tensor([chance]), knobs).item()


HOWS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.1, 0.85, 1.0, 2.0]),
    top_p=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 50, 1000]),
)


@settings(max_examples=300, deadline=None)
@given(HOWS, st.integers(0, 10**6), st.integers(1, 200), st.floats(0, 1, exclude_max=True, width=32))
def test_every_draw_is_the_one_of_numpy(how: Sampling, seed: int, size: int, chance: float) -> None:
    z = np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)
    assert pick(z, how, chance) == drawn(z, how, chance)


def test_many_draws_have_the_shares_of_the_softmax() -> None:
    z = np.log(np.array([0.05, 0.4, 0.25, 0.2, 0.1], np.float32))
    many = (np.arange(2000) + 0.5) / 2000

    def shares(**how: Any) -> list[float]:
        found = [pick(z, Sampling(**({"temperature": 1.0, "top_p": 1.0} | how)), chance) for chance in many]
        return (np.bincount(found, minlength=5) / 2000).round(3).tolist()

    assert shares() == pytest.approx([0.05, 0.4, 0.25, 0.2, 0.1], abs=2e-3)
    assert shares(top_k=2) == pytest.approx([0, 0.4 / 0.65, 0.25 / 0.65, 0, 0], abs=2e-3)
    assert shares(top_p=0.66) == pytest.approx([0, 0.4 / 0.85, 0.25 / 0.85, 0.2 / 0.85, 0], abs=2e-3)
    # top_p counts shares of all, not of the top_k: 0.4 + 0.25 is less than 0.7, and 3 of 0.85 stay
    assert shares(top_k=3, top_p=0.7) == pytest.approx([0, 0.4 / 0.85, 0.25 / 0.85, 0.2 / 0.85, 0], abs=2e-3)
    assert shares(temperature=0.5)[1] == pytest.approx(0.16 / 0.275, abs=2e-3)


@pytest.mark.parametrize("chance", [0.0, 0.5, float(np.nextafter(np.float32(1), np.float32(0)))])
def test_the_ends_of_chance_never_fall_on_what_has_no_mass(chance: float) -> None:
    z = np.array([-np.inf, 1.0, -np.inf, 0.0, -np.inf, -np.inf], np.float32)
    assert pick(z, Sampling(1.0, 1.0), chance) == (1 if chance < 0.7 else 3)


def test_of_equals_the_first() -> None:
    assert pick(np.zeros(100_000, np.float32), GREEDY, 0.99) == 0


# The codes


def test_the_same_chances_are_the_same_codes_and_others_are_others(lm) -> None:
    first = lm.codes(asked(), quiet)
    assert lm.codes(asked(), quiet) == made().codes(asked(), quiet) == first
    assert lm.codes(asked(seed=1), quiet) != first
    assert len(first) == 40 and len(set(first)) > 5


def test_every_way_to_take_the_likeliest(lm) -> None:
    ways = [GREEDY, Sampling(0.85, 1.0, top_k=1), Sampling(0.85, 0.0), Sampling(1e-4, 1.0)]
    greedy, *others = (lm.codes(asked(sampling=how), quiet) for how in ways)
    assert all(other == greedy for other in others)
    assert lm.codes(asked(), quiet) != greedy


def test_every_knob_acts(lm) -> None:
    before = lm.codes(asked(), quiet)
    for how in (Sampling(2.0), Sampling(top_p=0.2), Sampling(top_k=2)):
        assert lm.codes(asked(sampling=how), quiet) != before
    assert lm.codes(asked(cfg=3.0), quiet) != before


def test_without_guidance_the_negative_is_not_read(lm) -> None:
    alone = lm.codes(asked(cfg=1.0), quiet)
    assert lm.codes(asked(cfg=1.0, negative=[]), quiet) == alone
    assert lm.codes(asked(negative=LONG), quiet) == alone  # u + s (c - u) with u = c
    assert lm.codes(asked(), quiet) != alone
    assert lm.codes(asked(negative=SHORT[::-1]), quiet) != lm.codes(asked(), quiet)


def test_all_codes_are_in_range_though_others_are_likelier(lm) -> None:
    window = range(3, 11)
    song = asked(60, first=FIRST + window.start, size=len(window), sampling=Sampling(1.5, 1.0))
    codes = [code + window.start for code in lm.codes(song, quiet)]
    assert set(codes) <= set(window)
    likeliest = [stock(LONG + [FIRST + c for c in codes[:n]]).argmax().item() - FIRST for n in range(0, 60, 10)]
    assert not set(likeliest) & set(window)


@pytest.mark.parametrize("n", [0, 1, BEAT - 1, BEAT, BEAT + 1, 3 * BEAT])
def test_a_word_after_every_beat(lm, n: int) -> None:
    heard: list[int] = []
    assert len(lm.codes(asked(n), heard.append)) == n
    assert heard == list(range(BEAT, n + 1, BEAT))


def test_a_cache_filled_to_its_last_column() -> None:
    n = lm_torch.ROUND - len(LONG)
    song, lm = asked(n), made()
    codes = lm.codes(song, quiet)
    assert len(codes) == n and lm._codes.shape[1] == lm_torch.ROUND
    lm._codes = lm_torch._Codes(lm._body, 2, 2 * lm_torch.ROUND, (FIRST, tiny_planner.CODES))
    lm._codes.begin(song)
    for _ in range(n):
        lm._codes.step()
    assert lm._codes.codes[:n].tolist() == codes  # what is left of the cache makes no difference


def test_stopping_ends_the_work_within_a_beat_and_leaves_nothing(lm) -> None:
    before = made().codes(asked(), quiet)
    heard: list[int] = []

    def stop(done: int) -> None:
        heard.append(done)
        raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        lm.codes(asked(200, seed=3), stop)
    assert heard == [BEAT] and lm._codes.done.item() == BEAT
    assert lm.codes(asked(), quiet) == before


def test_a_request_sees_nothing_of_an_earlier_one() -> None:
    short = asked(20, prompt=SHORT, negative=SHORT[:5])
    before, lm = made().codes(short, quiet), made()
    lm.codes(asked(150), quiet)
    kept = lm._codes
    assert lm.codes(short, quiet) == before and lm._codes is kept
    for held in (kept.cache.keys, kept.cache.values, kept.chances):
        held.fill_(torch.nan)
    assert lm.codes(short, quiet) == before
    lm.codes(asked(20, cfg=1.0), quiet)
    assert lm._codes is not kept  # only the latest shape is held
    assert lm.codes(short, quiet) == before


def test_a_text_and_codes_do_not_meet(lm) -> None:
    text = lm.text(SHORT, 4)
    assert len({text.pick("all", Sampling(), 0.3) for _ in range(3)}) == 1  # a pick is not read
    before = lm.codes(asked(), quiet)
    text.feed([5, 6])
    assert (ours(text) - stock([*SHORT, 5, 6])).abs().max() < 1e-4
    lm.text(LONG, 1).feed([1])
    assert (ours(text) - stock([*SHORT, 5, 6])).abs().max() < 1e-4
    assert lm.codes(asked(), quiet) == before


@pytest.mark.parametrize("n", [3, 200])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_what_is_not_finite_is_an_error_and_soon(n: int, cfg: float) -> None:
    heard: list[int] = []
    broken = made(changed(lambda model: model.model.layers[1].mlp.up_proj.weight[0].fill_(torch.nan)))
    with pytest.raises(BadOutput, match=r"not finite.*Try another seed"):
        broken.codes(asked(n, cfg=cfg), heard.append)
    assert heard == []
    with pytest.raises(BadOutput):
        broken.text(SHORT, 0).pick([1, 2], Sampling(), 0.5)


def test_a_bad_number_among_later_codes_is_noticed(lm) -> None:
    """The flag stays down: only one code, and only one row of it, is out of order."""
    codes = lm._begun(asked(30))
    codes.step()
    codes.cache.keys[:, 1, :, len(LONG) - 3] = torch.nan
    codes.step()
    codes.cache.keys.nan_to_num_()
    codes.cache.values.nan_to_num_()
    codes.step()
    assert not codes.finite.item() and codes.codes[:3].max() < tiny_planner.CODES


def test_where_no_graph_can_be_captured_the_codes_are_the_same(lm, caplog) -> None:
    eager = made()
    eager.capture = True  # this machine has no CUDA: the attempt fails for real
    with caplog.at_level(logging.WARNING, "ace.lm"):
        assert [eager.codes(asked(), quiet) for _ in range(2)] == [lm.codes(asked(), quiet)] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert eager.capture is False


# The text


def test_a_pick_is_among_what_is_allowed(lm) -> None:
    text = lm.text(LONG, 0)
    z = stock(LONG).numpy()
    for how in (Sampling(), Sampling(1.0, 1.0), GREEDY, Sampling(top_k=4)):
        for chance in chances(20).tolist():
            ids = [40, 3, FIRST + 2, 77]
            assert text.pick(ids, how, chance) == ids[drawn(z[ids], how, chance)]
            assert text.pick("letters", how, chance) == 10 + drawn(z[10:90], how, chance)
            assert text.pick("all", how, chance) == drawn(z[:FIRST], how, chance)
            assert text.pick([9], how, chance) == 9


def test_more_than_there_is_room_for(lm) -> None:
    text = lm.text(SHORT, 2)
    text.feed([1, 2])
    with pytest.raises(ValueError, match=f"room for {len(SHORT) + 2} tokens, not for {len(SHORT) + 3}"):
        text.feed([3])


def test_a_random_planner_writes_codes() -> None:
    lm = TorchLM(random_model("tiny", "cpu", torch.float32), {})
    codes = lm.codes(asked(20, prompt=[5, 151_669, 217_203], negative=[7], first=151_669, size=64_000), quiet)
    assert len(set(codes)) > 10 and max(codes) < 64_000
