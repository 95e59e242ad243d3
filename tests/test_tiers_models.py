"""Small cards: 8-bit weights, language models that leave the card, and what the page and the gate say of it."""

from __future__ import annotations

import sys
import tomllib
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import tiny
import tiny_lyricist
import tiny_planner
import torch
from test_composer import ask, quiet
from test_lora_adapters import stack
from test_planner import same
from test_tiers import NOISE, placed, request, tiny_lora
from test_ui import desk

import ace_pipeline
import backend
import checkpoints
import composer
import lyrics_lm
import planners
import tiers
import ui
from drafts import Describe, Write
from errors import EngineMissing, OutOfMemory
from lm_torch import TorchLM
from sampler import Guide, Schedule
from settings import CHECKPOINTS, PLANNERS, ROOT
from tiers import TIERS, WHOLE
from velocity import Plain

one_thread = tiny_planner.one_thread
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


def velocity(engine: ace_pipeline.Engine) -> torch.Tensor:
    """What the transformer answers for one song at three noise levels."""
    with torch.no_grad():
        conditions = engine.conditioner.score(request("a song")).conditions
        shape = conditions.context[..., : conditions.context.shape[-1] // 2].shape
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(conditions.context.dtype)
        guide = Guide(Plain(engine.pipe.transformer), conditions, Schedule(1, guidance=3.0))
        return torch.cat([guide.velocity(noise, t).float() for t in (1.0, 0.6, 0.2)])


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


# 8-bit weights


def test_eight_bits_stay_near_the_demo_models_own_answer_and_nearer_than_float8() -> None:
    exact, rounded, cast = (ace_pipeline.load(CHECKPOINTS["demo"], "cpu") for _ in range(3))
    true = velocity(exact)
    tiers.place(rounded.pipe, "cpu", TIERS["8"])
    cast.pipe.transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    error = off(velocity(rounded), true)
    assert 0 < error < 0.02  # bfloat16 alone, in which every GPU sings, is 0.03 off
    assert off(velocity(cast), true) > 2 * error


def test_eight_bits_halve_the_matrices_and_keep_the_dtype_around_them() -> None:
    engine = placed("8", torch.bfloat16)
    weight = engine.pipe.transformer.layers[0].self_attn.to_q.weight
    assert weight.qdata.dtype == torch.int8 and engine.conditioner.dtype == torch.bfloat16
    assert engine.describe()["weights"] == "int8" and "weights" not in tiny.engine().describe()


def test_loras_act_beside_eight_bit_weights_and_leave_nothing(tmp_path: Any) -> None:
    plain, shrunk, lora = tiny.engine(), placed("8"), tiny_lora(tmp_path)

    def heard(engine: ace_pipeline.Engine, *loras: Any) -> torch.Tensor:
        with engine.adapters.attached(stack(*loras)):
            return velocity(engine)

    with_lora, without = heard(plain, (lora, 0.7)), heard(plain)
    assert off(heard(shrunk, (lora, 0.7)), with_lora) < 0.1 * off(with_lora, without)
    assert torch.equal(heard(shrunk), velocity(placed("8")))


def test_without_torchao_the_smallest_tier_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(EngineMissing, match=r"needs torchao for its 8-bit weights\. Install it with: pip install"):
        checkpoints.pipeline(CHECKPOINTS["demo"], "cpu", TIERS["8"])


def test_a_checkpoint_that_does_not_fit_while_it_loads_names_the_next_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(checkpoints, "place", full)
    with pytest.raises(OutOfMemory, match="ACE_TIER=12"):
        checkpoints.pipeline(CHECKPOINTS["demo"], "cpu", TIERS["16"])


def test_the_sentence_names_the_version_that_the_project_pins() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [tiers.INSTALL.rpartition(" ")[2]] == extras["small"]


# Language models that leave


def test_a_planner_that_left_plans_as_before() -> None:
    mind = tiny_planner.planner()
    before = mind.plan(ask())
    mind.lm.leave()
    assert mind.lm._here is None and mind.lm._codes is None
    assert same(mind.plan(ask()), before)


def test_all_of_a_body_moves_and_tied_weights_stay_one() -> None:
    body = tiny_planner.planner().lm._body
    moved = body.on("meta")
    assert moved.table is moved.head and body.table.device.type == "cpu"
    tensors = [value for layer in moved.layers for value in vars(layer).values() if value is not None]
    tensors += [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert len(tensors) == len(moved.layers) * 6 + 6


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Who left the card."""
    gone: list[Any] = []
    leave = TorchLM.leave
    monkeypatch.setattr(TorchLM, "leave", lambda self: (gone.append(self), leave(self)))
    return gone


@pytest.mark.parametrize("asked", [ask(), Write.parse({"query": "rain"}), Describe.parse({"source_audio": NOISE})])
def test_the_planner_leaves_a_shared_card_and_no_other(asked: Any, left: list) -> None:
    mind = (
        tiny_planner.planner()
    )  # which cannot describe: it knows fewer codes than the tokenizer has, and leaves as well
    with suppress(EngineMissing):
        list(composer.answer(tiny.engine(), lambda: mind, asked, quiet))
    assert left == []
    with suppress(EngineMissing):
        list(composer.answer(placed("12"), lambda: mind, asked, quiet))
    assert left == [mind.lm]


def test_a_planner_that_takes_turns_needs_no_room_for_a_song(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: 5.0)
    with pytest.raises(EngineMissing, match="beside the song model"):
        planners.load(PLANNERS["1.7B"], "cuda", None)
    with pytest.raises(EngineMissing, match="could not be loaded"):  # there is no network: it got as far as that
        planners.load(PLANNERS["1.7B"], "cuda", None, shares=True)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with this engine, asked for its tier once."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    for name, empty in (("_engine", None), ("_tier", None), ("_lyricists", {})):
        monkeypatch.setattr(backend, name, empty)

    def choose(tier: tiers.Tier) -> list[Any]:
        asked: list[Any] = []
        monkeypatch.setattr(checkpoints, "tier", lambda *values: (asked.append(values), tier)[1])
        return asked

    return choose


@pytest.mark.parametrize("tier, leaves", [(WHOLE, 0), (TIERS["24"], 0), (TIERS["8"], 1)])
def test_who_writes_lyrics_leaves_a_shared_card(
    tier: Any, leaves: int, gate: Any, left: list, monkeypatch: Any
) -> None:
    gate(tier)
    backend.tier()
    monkeypatch.setattr(lyrics_lm, "load", lambda *_: tiny_lyricist.lyricist())
    list(backend.answer(tiny_lyricist.ask()))
    assert len(left) == leaves


# What is said


def test_the_tier_is_chosen_once_and_is_the_engines(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, loaded = gate(TIERS["12"]), []
    monkeypatch.setattr(ace_pipeline, "load", lambda *values: (loaded.append(values[2]), tiny.engine())[1])
    assert backend.tier_name() == "12 GB"
    backend.get_backend()
    assert loaded == [TIERS["12"]] and len(asked) == 1


def test_a_card_without_room_has_no_tier_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    room = [3.0, 11.0]
    monkeypatch.setenv("ACE_MODEL", "xl-sft")
    monkeypatch.setattr(backend, "_tier", None)
    monkeypatch.setattr(checkpoints, "device", lambda: "cuda")
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: room.pop(0))
    assert [backend.tier_name(), backend.tier_name(), backend.tier_name()] == ["", "12 GB", "12 GB"]


def test_a_song_that_does_not_fit_is_told_the_next_tier_at_the_gate(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        def takes(self, *_: Any) -> None:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    gate(TIERS["16"])
    monkeypatch.setattr(ace_pipeline, "load", lambda *_: Engine())
    with pytest.raises(OutOfMemory, match="start the studio with ACE_TIER=12"):
        list(backend.answer(request("a song")))


@pytest.mark.parametrize("tier, place", [("", "NVIDIA GPU ·"), ("12 GB", "NVIDIA GPU, 12 GB tier ·")])
def test_the_header_names_the_tier(tier: str, place: str) -> None:
    assert place in ui.header(replace(desk("xl-sft"), tier=tier), "cuda", "SmolLM2 135M")
