"""The tiers on a card made small: `ACE_MODEL=random:xl-sft pytest -m gpu tests/test_tiers_gpu.py`. Skipped by default."""

from __future__ import annotations

import conftest
import numpy as np
import pytest
import torch

import ace_pipeline
import checkpoints
import settings
import tiers
from errors import EngineMissing
from song import Generate
from tiers import TIERS, WHOLE
from velocity import Plain

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]
SMALL = ("16", "12", "8")


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    if checkpoints.device() != "cuda":
        pytest.fail("the tiers are tested on CUDA; this machine has none.")
    monkeypatch.setenv("ACE_MODEL", conftest.MODEL)


@pytest.mark.parametrize("key", TIERS)
def test_songs_stay_below_what_the_tier_needs_free(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.tiers import child, rows

    told = child(key, [60, 240], 8)
    if "skipped" in told:
        pytest.skip(told["skipped"])
    with capsys.disabled():
        print("\n" + "\n".join(rows(told)))
    for song in told["songs"]:
        assert song["reserved"] <= told["cap"] and song["planner"] == "", song


def test_parts_that_take_turns_make_the_song_of_a_large_card() -> None:
    row = settings.checkpoint_for(conftest.MODEL, "cuda")
    asked = Generate.parse({"prompt": "jazz", "duration_s": 20, "seed": 5, "inference_steps": 8})
    songs = {}
    for key in SMALL:
        engine = ace_pipeline.load(row, "cuda", TIERS[key])
        songs[key] = engine.sing(asked).samples
        stays = TIERS[key].resident
        assert {part.device.type for part in (engine.pipe.vae, engine.pipe.text_encoder)} == {"cpu"}
        assert engine.pipe.transformer.device.type == ("cuda" if stays else "cpu")
        assert torch.cuda.memory_allocated() / 2**30 < (8.5 if stays else 0.5)
        if key == "12":
            engine.pipe.remove_all_hooks()  # the same random weights, all of them on the card
            pipe = tiers.place(engine.pipe, "cuda", WHOLE)
            engine = ace_pipeline.Engine(pipe, row, "cuda")
            songs["whole"] = engine.sing(asked).samples
            engine.field = Plain(pipe.transformer)
            songs["plain"] = engine.sing(asked).samples
            del pipe
        del engine
        torch.cuda.empty_cache()
    assert np.array_equal(songs["16"], songs["whole"]) and np.array_equal(songs["12"], songs["plain"])
    assert np.isfinite(songs["8"]).all() and not np.array_equal(songs["8"], songs["whole"])


def test_a_planner_that_left_the_card_plans_as_before() -> None:
    from transformers import AutoTokenizer

    import planners
    from lm import CodesAsked, Sampling
    from settings import DEMO_FOLDER, PLANNERS

    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER / "tokenizer")
    try:
        mind = planners.load(PLANNERS["random:1.7B"], "cuda", tokenizer, shares=True)
    except EngineMissing as missing:
        pytest.skip(str(missing))
    chances = np.random.default_rng(0).random(32, np.float32)
    asked = CodesAsked([1, 2, 3], [1, 2], mind.vocabulary.first_code, 100, chances, Sampling())
    before, held = mind.lm.codes(asked, lambda done: None), torch.cuda.memory_allocated()
    mind.lm.leave()
    assert torch.cuda.memory_allocated() < held / 10
    assert mind.lm.codes(asked, lambda done: None) == before and mind.lm.capture
