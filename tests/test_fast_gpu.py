"""The fast forward on CUDA against diffusers' own: `ACE_MODEL=random:xl-sft pytest -m gpu tests/test_fast_gpu.py`."""

from __future__ import annotations

from typing import Any

import conftest
import pytest
import torch

from benchmarks.fast import latents
from benchmarks.song import request
from song import Generate
from velocity import Fast, Plain

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def engine() -> Any:
    import ace_pipeline
    import checkpoints
    import settings

    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    return ace_pipeline.load(settings.checkpoint_for(conftest.MODEL, checkpoints.device()), "cuda")


@pytest.fixture(scope="module")
def fields(engine: Any) -> tuple[Fast, Plain]:
    return Fast(engine.pipe.transformer), Plain(engine.pipe.transformer)


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).float().norm() / expected.float().norm())


@pytest.mark.parametrize("asked", [request(60, 27, 7.0), request(21.4, 27, 7.0), request(10, 27, 1.0)])
def test_the_fast_latents_are_the_plain_ones_within_noise(engine, fields, asked: Generate) -> None:
    fast, plain = (latents(field, engine, asked) for field in fields)
    assert fields[0].dit is not None and fields[0].agreed, "the fast forward gave up"
    assert off(fast, plain) < 1e-2
    assert torch.equal(fast, latents(fields[0], engine, asked))
    assert fields[0].dit.replays.caught, "nothing was captured"


def test_graphs_give_what_the_steps_themselves_give(engine, fields) -> None:
    fast, asked = fields[0], request(15, 12, 7.0)
    replayed = latents(fast, engine, asked)
    fast.dit.replays.on = False
    try:
        assert off(latents(fast, engine, asked), replayed) < 1e-3
    finally:
        fast.dit.replays.on = True


def test_one_graph_serves_other_words_and_goes_back(engine, fields) -> None:
    asked = request(15, 12, 7.0)
    other = asked.model_copy(update={"prompt": "slow jazz with a long and winding description"})
    first, second = (latents(fields[0], engine, each) for each in (asked, other))
    graphs = len(fields[0].dit.replays.caught)
    assert not torch.equal(first, second)
    assert torch.equal(first, latents(fields[0], engine, asked))
    assert len(fields[0].dit.replays.caught) == graphs


def test_takes_together_are_the_takes_alone_within_noise(engine, fields) -> None:
    asked = request(20, 12, 7.0)
    together = latents(fields[0], engine, asked, takes=3)
    assert off(together[:1], latents(fields[0], engine, asked)) < 1e-2
    assert off(together, latents(fields[1], engine, asked, takes=3)) < 1e-2


def test_loras_sound_on_the_fast_path_as_on_the_plain_one(engine, fields, tmp_path) -> None:
    from benchmarks.loras import lora
    from fields import Stacked
    from lora_layouts import targets
    from lora_stack import Model

    model = Model("this model", targets(engine.pipe.transformer.config))
    stack = [Stacked(lora=lora(tmp_path, model, 16, seed), strength=0.7) for seed in range(2)]
    asked = request(15, 12, 7.0)
    bare = latents(fields[0], engine, asked)
    with engine.adapters.attached(stack):
        fast, plain = (latents(field, engine, asked) for field in fields)
    assert off(fast, plain) < 1e-2 and not torch.equal(fast, bare)
    assert torch.equal(bare, latents(fields[0], engine, asked))
