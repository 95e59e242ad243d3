"""The fast forward as CUDA has it, packed and replayed, by the stand-ins of `like_cuda`; on a card: test_fast_gpu.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from like_cuda import graphs, packed
from lora_files import Layout, chosen, factors, tiny_model, write
from test_dit import conditions, noise

import dit
import lora_stack
from attend import Packed
from fields import Stacked
from lora_adapters import Adapters
from sampler import Guide, Schedule, denoise
from velocity import Conditions, Fast, Plain

__all__ = ["graphs", "packed"]

FRAMES, HALF = 130, torch.bfloat16


@pytest.fixture
def pipe() -> Any:
    return tiny.pipeline(HALF)


@pytest.fixture
def fast(pipe: Any, packed: None, graphs: list[Any], monkeypatch: pytest.MonkeyPatch) -> Fast:
    """As on a card: packed, replayed, its first answers checked."""
    monkeypatch.setattr(dit, "over", Packed)
    field = Fast(pipe.transformer)
    field.checks = True
    field.dit = dit.Dit(pipe.transformer)
    field.dit.replays.on = True
    return field


def words(count: int = 17, seed: int = 0) -> Conditions:
    return conditions(FRAMES, count, seed, HALF)


def sung(field: Fast | Plain, c: Conditions, schedule: Schedule, takes: int = 1) -> torch.Tensor:
    with torch.no_grad():
        return denoise(Guide(field, c, schedule), noise(FRAMES, takes).to(HALF)).float()


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("schedule", [Schedule(27), Schedule(12, 3.0, interval=(0.3, 0.6)), Schedule(12, adg=True)])
@pytest.mark.parametrize("takes", [1, 3])
def test_a_song_is_the_plain_one_within_noise(
    pipe: Any, fast: Fast, graphs: list[Any], schedule: Schedule, takes: int
) -> None:
    found = sung(fast, words(), schedule, takes)
    assert fast.dit is not None, "the fast forward gave up"
    assert off(found, sung(Plain(pipe.transformer), words(), schedule, takes)) < 0.02
    caught = len(graphs)
    assert caught == len(fast.agreed) == (1 if schedule.interval == (0, 1) else 2)  # with guidance and without
    assert sum(graph.replays for graph in graphs) == schedule.steps
    assert torch.equal(found, sung(fast, words(), schedule, takes)), "the first song of a length is another"
    assert len(graphs) == caught


def test_a_graph_serves_other_words_and_goes_back(pipe: Any, fast: Fast, graphs: list[Any]) -> None:
    schedule, plain = Schedule(8), Plain(pipe.transformer)
    first, other = (sung(fast, each, schedule) for each in (words(), words(200, seed=9)))
    assert off(other, sung(plain, words(200, seed=9), schedule)) < 0.02
    assert torch.equal(sung(fast, words(), schedule), first)
    assert len(graphs) == 1
    assert off(sung(fast, words(300), schedule), sung(plain, words(300), schedule)) < 0.02
    assert len(graphs) == 2  # more than 256 words


def test_loras_sound_and_leave_with_the_song(pipe: Any, fast: Fast, graphs: list[Any], tmp_path: Any) -> None:
    model = tiny_model()
    made = factors(model, dict.fromkeys(chosen(model, "attention"), 4), lambda _: 4, 1)
    path = write(tmp_path / "one.safetensors", Layout("transformer.", own=False, alpha="file"), made, None)[0]
    schedule, adapters = Schedule(8), Adapters(pipe)
    lora = lora_stack.admit(path, model)
    bare = sung(fast, words(), schedule)
    songs = []
    for strength in (1.0, 0.5):
        with adapters.attached([Stacked(lora=lora, strength=strength)]):
            songs.append(sung(fast, words(), schedule))
            assert off(songs[-1], sung(Plain(pipe.transformer), words(), schedule)) < 0.02
    assert off(songs[0], bare) > 0.02 and not torch.equal(*songs)
    assert torch.equal(sung(fast, words(), schedule), bare)
    assert len(graphs) == 2  # one with LoRAs, whatever their strength, and one without


def test_a_step_that_asks_the_card_is_called_as_it_is(
    pipe: Any, fast: Fast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step: Callable[..., Any] = fast.dit._step
    monkeypatch.setattr(fast.dit, "_step", lambda heard, level: step(heard, torch.full_like(level, float(level))))
    found = sung(fast, words(), Schedule(8))
    assert "could not be captured" in caplog.text and not fast.dit.replays.caught
    assert fast.dit is not None and off(found, sung(Plain(pipe.transformer), words(), Schedule(8))) < 0.02
