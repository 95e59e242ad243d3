"""LoRAs in the true pipeline at tiny size: they sound as if merged, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from lora_files import Layout, chosen, factors, tiny_model, write
from safetensors.numpy import load_file

import ace_pipeline
import lora_adapters
import lora_stack
from errors import EngineRefused, LoraError, Stopped
from fields import Stacked
from song import Generate
from sound import Lora, Progress

BASE = {"prompt": "slow piano", "lyrics": "[verse]\nla la la", "duration_s": 10, "seed": 11, "inference_steps": 8}
MODEL = tiny_model()
ATTENTION, VALUES, MLP, EMBEDDINGS = (
    dict.fromkeys(chosen(MODEL, choice), 4) for choice in ("attention", "v and o", "MLP", "embeddings")
)
EVERYTHING = dict.fromkeys(MODEL.targets, 2)
Q, UP = "layers.0.self_attn.to_q", "layers.1.mlp.up_proj"
CONDITION = {"condition_embedder": 4}
RANKS = {Q: 1, "layers.1.self_attn.to_q": 8, UP: 3, "time_embed.linear_1": 8}


class Made(Exception):
    """The latents are there: the second that decoding takes is saved."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model is slower with more
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    return latents(new_engine())  # the song of an engine that never saw a LoRA


@pytest.fixture
def engine() -> ace_pipeline.Engine:
    return new_engine()


@pytest.fixture
def lora(tmp_path: Path) -> Any:
    """Makes a LoRA in a file of its own, of modules and their ranks; `size` multiplies each factor."""

    def make(modules: dict[str, int], seed: int = 1, size: float = 2, alpha: float | None = None) -> Lora:
        made = factors(MODEL, modules, modules.__getitem__, seed)
        made = {module: (a * np.float32(size), b * np.float32(size)) for module, (a, b) in made.items()}
        path = tmp_path / f"v1.{seed} of {len(list(tmp_path.iterdir()))}.safetensors"
        return lora_stack.admit(write(path, Layout("transformer.", own=False, alpha="file"), made, alpha)[0], MODEL)

    return make


def new_engine(dtype: torch.dtype = torch.float32) -> ace_pipeline.Engine:
    return ace_pipeline.Engine(tiny.pipeline(dtype), tiny.engine().checkpoint, "cpu")


def stack(*loras: Any) -> tuple[Stacked, ...]:
    """LoRAs, or pairs of one and its strength."""
    pairs = [entry if isinstance(entry, tuple) else (entry, 1.0) for entry in loras]
    return tuple(Stacked(lora=lora, strength=strength) for lora, strength in pairs)


def latents(engine: ace_pipeline.Engine, *loras: Any) -> torch.Tensor:
    """The latents of a song with a stack of LoRAs."""
    caught = []

    def decode(x: torch.Tensor) -> torch.Tensor:
        caught.append(x)
        raise Made

    engine.decode = decode
    with pytest.raises(Made):
        engine.sing(Generate.parse({**BASE, "loras": stack(*loras)}))
    del engine.decode
    return caught[0].float()


def velocity(engine: ace_pipeline.Engine, *loras: Any) -> torch.Tensor:
    """What the transformer alone answers."""
    generator = torch.Generator().manual_seed(5)
    x, heard, context = (torch.randn(1, *size, generator=generator) for size in ((50, 8), (7, 24), (50, 16)))
    at = torch.tensor([0.6])
    with torch.no_grad(), engine.adapters.attached(stack(*loras)):
        return engine.pipe.transformer(x, at, at, heard, context).sample


def merged(*loras: tuple[Lora, float], alpha: float = 0) -> ace_pipeline.Engine:
    """An engine whose own weights are W + strength · alpha / rank · B A, of the files as they lie there."""
    engine = new_engine()
    for lora, strength in loras:
        tensors = load_file(lora.path)
        for name in {key.split(".lora_")[0] for key in tensors if ".lora_" in key}:
            a, b = (torch.from_numpy(tensors[f"{name}.lora_{factor}.weight"]).double() for factor in "AB")
            weight = engine.pipe.transformer.get_submodule(name.removeprefix("transformer.")).weight
            with torch.no_grad():
                weight.copy_(weight.double() + strength * (alpha / len(a) if alpha else 1) * (b @ a))
    return engine


def layers(engine: ace_pipeline.Engine) -> dict[str, Any]:
    """PEFT's layers, in their places or not."""
    return {name: place.layer for name, place in engine.adapters.places.items()}


def heard(engine: ace_pipeline.Engine) -> set[str]:
    """The modules where one of PEFT's layers stands."""
    return {name for name, module in engine.pipe.transformer.named_modules() if hasattr(module, "lora_A")}


def at(engine: ace_pipeline.Engine, module: str, lora: Lora) -> int:
    return layers(engine)[module].lora_A[lora.key].weight.data_ptr()  # where it lies


def assert_clean(engine: ace_pipeline.Engine, plain: torch.Tensor) -> None:
    """Nothing is attached, and a song without LoRAs is what it always was."""
    assert not heard(engine)
    assert engine.adapters.loaded.keys() == getattr(engine.pipe.transformer, "peft_config", {}).keys()
    assert torch.equal(latents(engine), plain)


# What it sounds like


@pytest.mark.parametrize(
    "modules, alpha",
    [(ATTENTION, 0), (VALUES, 0), (MLP, 8), (EMBEDDINGS, 0), (CONDITION, 0), (RANKS, 0), (RANKS, 4), (EVERYTHING, 0)],
    ids=["attention", "v/o", "MLP, alpha 8", "embeddings", "condition", "ranks", "ranks, alpha 4", "everything"],
)
def test_a_lora_sounds_as_if_merged_into_the_weights(engine, plain, lora, modules, alpha) -> None:
    before, played = velocity(engine), (lora(modules, alpha=alpha or None), 0.7)
    whole = merged(played, alpha=alpha)
    assert (velocity(engine, played) - velocity(whole)).abs().max() < 1e-5
    assert (velocity(engine, played) - before).abs().max() > 1e-3
    assert (latents(engine, played) - latents(whole)).abs().max() < 1e-5
    assert (latents(engine, played) - plain).abs().max() > 1e-3
    assert torch.equal(velocity(engine), before)


def test_a_stack_is_the_sum_in_any_order(engine, lora) -> None:
    one, two, three = lora(ATTENTION, 1), lora({**MLP, Q: 2}, 2), lora(EMBEDDINGS, 3)
    played = [(one, 0.9), (two, 0.5), (three, 1.5)]
    whole = latents(merged(*played))
    for order in (played, played[::-1], [played[1], played[0], played[2]]):
        assert (latents(engine, *order) - whole).abs().max() < 1e-5
    assert (latents(engine, *played[:2]) - whole).abs().max() > 1e-3


def test_more_strength_is_more_of_it(engine, plain, lora) -> None:
    one = lora(ATTENTION)
    far = [float((latents(engine, (one, strength)) - plain).norm()) for strength in (0.1, 0.5, 1.0)]
    assert 0 < far[0] < far[1] < far[2]


def test_strength_0_is_no_lora_bit_for_bit(engine, plain, lora) -> None:
    one, two = lora(ATTENTION, 1), lora(EVERYTHING, 2)
    assert torch.equal(latents(engine, (one, 0.0)), plain)
    assert not layers(engine)  # it was not even loaded
    alone = latents(engine, (one, 0.8))
    assert torch.equal(latents(engine, (one, 0.8), (two, 0.0)), alone)
    latents(engine, one, two)
    assert torch.equal(latents(engine, (two, 0.0), (one, 0.8)), alone)  # nor does it act when it is in memory
    assert torch.equal(latents(engine, (two, 0.0), (one, 0.0)), plain)


@pytest.mark.parametrize("modules", [ATTENTION, EVERYTHING], ids=["attention", "everything"])
def test_in_bfloat16_it_acts_and_leaves_nothing(lora, modules) -> None:
    half = new_engine(torch.bfloat16)
    before, one, two = latents(half), lora(modules, 1), lora(MLP, 2)
    assert not torch.equal(latents(half, one, two), before)
    weights = [w for layer in layers(half).values() for part in (layer.lora_A, layer.lora_B) for w in part.parameters()]
    assert len(weights) >= 2 * len({**modules, **MLP}) and {w.dtype for w in weights} == {torch.bfloat16}
    assert sum(half.adapters.loaded.values()) == sum(2 * w.numel() for w in weights)
    assert_clean(half, before)


# What stays behind


def test_without_a_lora_the_song_is_as_before_and_in_the_end_so_is_the_model(engine, plain, lora) -> None:
    def modules() -> dict[str, type]:
        return {name: type(module) for name, module in engine.pipe.transformer.named_modules()}

    kinds, weights = modules(), {k: w.clone() for k, w in engine.pipe.transformer.state_dict().items()}
    one, two = lora(EVERYTHING, 1), lora(ATTENTION, 2)
    latents(engine, one, two)
    assert "." in one.name and all(name.isalnum() for name in engine.pipe.transformer.peft_config)  # PEFT takes no dot
    assert_clean(engine, plain)
    engine.adapters._delete(one.key)
    assert list(engine.adapters.loaded) == [two.key]
    assert_clean(engine, plain)
    engine.adapters._delete(two.key)
    assert_clean(engine, plain)
    assert modules() == kinds and not hasattr(engine.pipe.transformer, "peft_config")
    after = engine.pipe.transformer.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(after[name], weights[name]) for name in weights)
    assert not torch.equal(latents(engine, one), plain)  # and it may be loaded again


def test_only_the_modules_that_a_stack_changes_are_other_than_the_models_own(engine, plain, lora) -> None:
    one, two = lora(ATTENTION, 1), lora(MLP, 2)
    for row, modules in (((one,), ATTENTION), ((two,), MLP), ((one, two), {**ATTENTION, **MLP}), ((), {})):
        with engine.adapters.attached(stack(*row)):
            assert heard(engine) == modules.keys()
    assert_clean(engine, plain)


def test_nothing_stays_attached_after_an_error_or_a_stop(engine, plain, lora) -> None:
    one, seen = lora(ATTENTION), []
    with pytest.raises(ZeroDivisionError), engine.adapters.attached(stack(one)):
        seen += heard(engine)
        1 / 0  # noqa: B018
    assert set(seen) == ATTENTION.keys()  # it was attached
    assert_clean(engine, plain)

    def stop(event: Progress) -> None:
        if event.step == 2:
            raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        engine.sing(Generate.parse({**BASE, "loras": stack(one)}), stop)
    assert_clean(engine, plain)


def test_a_file_that_is_gone_leaves_the_first_of_two_detached(engine, plain, lora) -> None:
    one, gone = lora(ATTENTION, 1), lora(MLP, 2)
    Path(gone.path).unlink()
    for row in ((one, gone), (gone, one), (gone,)):
        with pytest.raises(LoraError, match="its file has changed or is gone"):
            engine.sing(Generate.parse({**BASE, "loras": stack(*row)}))
        assert list(engine.adapters.loaded) == [one.key]
        assert_clean(engine, plain)


# What is refused


def refused(engine: ace_pipeline.Engine, *loras: Any) -> str:
    phases: list[str] = []
    with pytest.raises(EngineRefused) as error:
        engine.sing(Generate.parse({**BASE, "loras": stack(*loras)}), lambda event: phases.append(event.phase))
    assert phases[-1] == "Attaching the LoRAs"  # no song was begun
    assert error.value.hint == "Remove it from the stack."
    return error.value.message


def test_a_lora_that_changes_no_number_is_refused(engine, plain, lora) -> None:
    one, faint = lora(ATTENTION, 1), lora(ATTENTION, 2, size=1e-9)
    for row in ((faint,), (one, faint), (faint, one)):
        assert refused(engine, *row) == f"{faint.name} has no effect on this model: it acts nowhere."
        assert list(engine.adapters.loaded) == [one.key] * (row != (faint,))
        assert_clean(engine, plain)


def test_what_acts_in_float32_may_be_lost_in_bfloat16(engine, plain, lora) -> None:
    faint = lora({Q: 4}, size=1e-3)
    assert not torch.equal(latents(engine, faint), plain)
    assert "acts nowhere" in refused(new_engine(torch.bfloat16), faint)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize("modules, missing", [({Q: 4, UP: 4}, "1 of its 2"), ({UP: 4}, "1 of its 1")])
def test_a_lora_for_modules_that_are_not_there_is_refused(engine, lora, modules, missing, beside) -> None:
    engine.pipe.transformer.layers = engine.pipe.transformer.layers[:1]
    before, one, other = latents(engine), lora(modules, 1), lora({Q: 2}, 2)
    row = (other, one) if beside else (one,)
    assert refused(engine, *row) == f"{one.name} has no effect on this model: {missing} modules did not take it."
    assert list(engine.adapters.loaded) == [other.key] * beside
    assert_clean(engine, before)


# What stays in memory


def test_the_same_stack_again_reads_no_file(engine, lora) -> None:
    one, two = lora(ATTENTION, 1), lora(MLP, 2)
    first, places = latents(engine, one, two), (at(engine, Q, one), at(engine, UP, two))
    for row in (one, two):
        Path(row.path).unlink()
    assert torch.equal(latents(engine, one, two), first)
    latents(engine)
    assert torch.equal(latents(engine, one, two), first)
    assert not torch.equal(latents(engine, (one, 0.5), (two, 1.2)), first)  # another strength is no other LoRA
    assert places == (at(engine, Q, one), at(engine, UP, two))


def test_what_was_in_memory_plays_as_what_is_fresh(engine, lora) -> None:
    one, two, three = lora(ATTENTION, 1), lora(MLP, 2), lora(EVERYTHING, 3)
    latents(engine, one, two)
    place = at(engine, Q, one)
    changed = latents(engine, one, (three, 0.6))
    assert at(engine, Q, one) == place and list(engine.adapters.loaded) == [two.key, one.key, three.key]
    assert torch.equal(changed, latents(new_engine(), one, (three, 0.6)))


def test_beyond_the_bound_the_least_lately_used_goes(engine, plain, lora, monkeypatch) -> None:
    a, b, c, d = (lora({Q: 4}, seed) for seed in range(4))
    size = 4 * (4 * 32 + 32 * 4)
    monkeypatch.setattr(lora_adapters, "KEPT_MAX_BYTES", size)

    def kept(*loras: Any) -> str:
        latents(engine, *loras)
        assert set(engine.adapters.loaded.values()) == {size}
        return "".join("abcd"[[a.key, b.key, c.key, d.key].index(key)] for key in engine.adapters.loaded)

    assert [kept(row) for row in (a, b, c, b, d)] == ["a", "ab", "bc", "cb", "bd"]
    assert kept(a, b, c) == "dabc"  # all that plays, and one beside it
    assert kept() == "c"
    assert kept(d) == "cd"
    monkeypatch.setattr(lora_adapters, "KEPT_MAX_BYTES", 0)
    assert kept(a, b) == "ab"
    Path(c.path).unlink()
    with pytest.raises(LoraError):
        engine.sing(Generate.parse({**BASE, "loras": stack(c)}))
    assert_clean(engine, plain)
    assert not layers(engine)
