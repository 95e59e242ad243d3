"""Which forward sings: the fast one while it agrees with diffusers', else diffusers', whatever the song."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import tiny
import torch
from test_dit import conditions, noise

import ace_pipeline
import velocity
from conditioning import Score
from sampler import Guide, Schedule, denoise
from song import Generate
from sound import Progress
from velocity import Fast, Plain

C, X = conditions(50), noise(50)


@pytest.fixture
def transformer() -> Any:
    return tiny.pipeline().transformer


def answer(field: Fast | Plain) -> torch.Tensor:
    with torch.no_grad():
        return field.hear(C)(X, 0.5, True)


@pytest.mark.parametrize("schedule", [Schedule(27), Schedule(12, 3.0, interval=(0.3, 0.6)), Schedule(12, adg=True)])
def test_a_whole_song_is_the_plain_one_within_rounding(transformer: Any, schedule: Schedule) -> None:
    fast, plain = (denoise(Guide(kind(transformer), C, schedule), X) for kind in (Fast, Plain))
    torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-3)
    assert torch.equal(fast, denoise(Guide(Fast(transformer), C, schedule), X))


def test_in_bfloat16_a_whole_song_is_the_plain_one_within_its_noise() -> None:
    transformer, c = tiny.pipeline(torch.bfloat16).transformer, conditions(250, dtype=torch.bfloat16)
    x = noise(250).bfloat16()
    fast, plain = (denoise(Guide(kind(transformer), c, Schedule(27)), x).float() for kind in (Fast, Plain))
    assert 0 < (fast - plain).norm() / plain.norm() < 1e-2


def test_takes_together_are_the_takes_alone(transformer: Any) -> None:
    schedule, x = Schedule(8), noise(50, 3)
    for field in (Fast(transformer), Plain(transformer)):
        together = denoise(Guide(field, C, schedule), x)
        alone = torch.cat([denoise(Guide(field, C, schedule), x[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_fast_forward_is_the_default_and_can_be_declined(transformer: Any, monkeypatch: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    assert isinstance(velocity.of(transformer), Fast)
    assert isinstance(velocity.of(transformer, fast=False), Plain)
    assert "as it was asked" in caplog.text
    transformer.norm_out.to(torch.float64)
    assert isinstance(velocity.of(transformer), Plain)
    assert "not of one kind" in caplog.text
    own = tiny.engine()
    assert isinstance(own.field, Fast)
    monkeypatch.setenv("ACE_FAST", "0")
    assert isinstance(ace_pipeline.Engine(own.pipe, own.checkpoint, "cpu").field, Plain)


def test_a_song_by_the_plain_forward_is_another_in_its_last_bits_alone(monkeypatch: Any) -> None:
    asked = Generate.parse({"prompt": "jazz", "duration_s": 10, "seed": 5, "inference_steps": 8})
    monkeypatch.setenv("ACE_FAST", "0")
    own = tiny.engine()
    plain, fast = (e.sing(asked).samples for e in (ace_pipeline.Engine(own.pipe, own.checkpoint, "cpu"), own))
    assert abs(plain - fast).max() < 1e-3 * abs(plain).max()


def test_the_first_answer_is_checked_where_kernels_are_the_devices_own(transformer: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    field, expected = Fast(transformer), answer(Plain(transformer))
    field.checks = True
    first = answer(field)
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-4)
    assert caplog.text.count("off the plain one") == 1
    assert torch.equal(first, answer(field)), "the first song of its kind is another than the second of its seed"
    assert caplog.text.count("off the plain one") == 1, "checked again"


@pytest.mark.parametrize(("x", "guided"), [(X, False), (noise(50, 2), True), (X[:, :48], True)])
def test_each_kind_of_song_is_checked(transformer: Any, caplog: Any, x: torch.Tensor, guided: bool) -> None:
    field, c = Fast(transformer), conditions(x.shape[1])
    field.checks = True
    answer(field)
    field.dit.out_bias = field.dit.out_bias + 10  # as a kernel that is wrong for this kind alone would be
    with torch.no_grad():
        found, expected = (each.hear(c)(x, 0.5, guided) for each in (field, Plain(transformer)))
    assert torch.equal(found, expected) and "cannot be used here" in caplog.text


def test_a_forward_that_disagrees_is_given_up_for_good(transformer: Any, caplog: Any) -> None:
    field, expected = Fast(transformer), answer(Plain(transformer))
    field.checks = True
    field.hear(C)  # reads the weights
    field.dit.tables = field.dit.tables + 1  # as a kernel that is wrong would be
    running = field.hear(C)
    assert torch.equal(answer(field), expected)
    assert field.dit is None and "cannot be used here" in caplog.text and "off." in caplog.text
    with torch.no_grad():
        assert torch.equal(running(X, 0.5, True), expected)  # a song that had begun
    assert torch.equal(answer(field), expected)


def test_a_forward_that_fails_while_it_listens_is_given_up(transformer: Any, caplog: Any) -> None:
    field, expected = Fast(transformer), answer(Plain(transformer))
    field.hear(C)
    del field.dit.into_context
    assert torch.equal(answer(field), expected)
    assert field.dit is None and "cannot be used here" in caplog.text


def test_running_out_of_memory_is_no_reason_to_be_slow(transformer: Any) -> None:
    class Full:
        def hear(self, *_: Any) -> None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    field = Fast(transformer)
    field.dit = Full()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        answer(field)
    assert field.dit is not None


@pytest.mark.parametrize("how", [{}, {"infer_method": "sde"}, {"cfg_interval_start": 0.5}])
def test_takes_in_one_batch_are_those_made_alone(how: dict[str, Any]) -> None:
    own = tiny.engine()
    engine = ace_pipeline.Engine(own.pipe, own.checkpoint, "cpu")
    engine.batches = True  # as on CUDA
    asked = {"prompt": "jazz", "duration_s": 10, "seed": 5, "inference_steps": 8, "takes": 3, **how}
    told: list[Progress] = []
    together = list(engine.takes(Generate.parse(asked), told.append))
    for found, alone in zip(together, own.takes(Generate.parse(asked)), strict=True):
        assert abs(found.samples - alone.samples).max() < 1e-3 * abs(alone.samples).max()
        assert found.together == {**alone.together, "batch": True}
    steps = [p for p in told if p.phase == "Denoising"]
    assert [p.step for p in steps] == list(range(9)) and steps[-1].of == 8  # once for all of them
    assert [(p.take, p.takes) for p in told if p.phase == "Decoding"] == [(1, 3), (2, 3), (3, 3)]


def test_long_takes_and_morphs_are_not_made_in_one_batch() -> None:
    engine = ace_pipeline.Engine(tiny.engine().pipe, tiny.engine().checkpoint, "cpu")
    engine.batches = True
    short, long, one = (
        Generate.parse({"prompt": "jazz", "duration_s": s, "takes": n}) for s, n in ((60, 4), (90, 3), (60, 1))
    )
    score, morph = Score(C), Score(C, origin=C)
    assert engine._batched(score, short)
    assert not any((engine._batched(score, long), engine._batched(score, one), engine._batched(morph, short)))
