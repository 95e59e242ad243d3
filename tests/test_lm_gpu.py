"""The captured step on CUDA: `pytest -m gpu tests/test_lm_gpu.py`. Weights are random; nothing is fetched."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from causal_lm import random_model
from errors import BadOutput, Stopped
from lm import BEAT, CodesAsked, Sampling
from lm_torch import TorchLM

FIRST, SIZE = 151_669, 64_000
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=["tiny", "1.7B"])
def lm(request: pytest.FixtureRequest) -> TorchLM:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    letters = np.zeros(FIRST, bool)
    letters[40:90] = True
    return TorchLM(random_model(request.param, "cuda", torch.bfloat16), {"letters": letters})


def asked(
    n: int = 100, seed: int = 0, cfg: float = 2.0, sampling: Sampling | None = None, length: int = 300
) -> CodesAsked:
    draw = np.random.default_rng(seed)
    prompt = np.random.default_rng(length).integers(0, FIRST, length).tolist()
    return CodesAsked(prompt, prompt[:33], FIRST, SIZE, draw.random(n, dtype=np.float32), sampling or Sampling(), cfg)


def codes(lm: TorchLM, song: CodesAsked, captured: bool = True) -> list[int]:
    lm.capture = captured
    found = lm.codes(song, lambda done: None)
    assert lm.capture is captured, "the step could not be captured"
    assert len(found) == len(song.chances) and all(0 <= code < SIZE for code in found)
    return found


@pytest.mark.parametrize(
    "song",
    [
        dict(),
        dict(cfg=1.0),
        dict(sampling=Sampling(temperature=0.0)),
        dict(sampling=Sampling(1.2, 1.0, 50), cfg=3.0),
        dict(n=1),
        dict(n=1000, length=700),
    ],
    ids=str,
)
def test_captured_codes_are_the_eager_ones(lm: TorchLM, song: dict[str, Any], caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        captured, eager = codes(lm, asked(**song)), codes(lm, asked(**song), captured=False)
    assert captured == eager and caplog.records == []


def test_one_graph_serves_other_requests(lm: TorchLM) -> None:
    first = codes(lm, asked())
    graph = lm._codes.replay
    others = [asked(seed=1), asked(cfg=3.0), asked(sampling=Sampling(2.0)), asked(n=60, length=90)]
    found = [codes(lm, song) for song in others]
    assert lm._codes.replay is graph
    assert found == [codes(lm, song, captured=False) for song in others]
    assert all(other[:60] != first[:60] for other in found)
    assert codes(lm, asked()) == first


def test_stopping_leaves_nothing(lm: TorchLM) -> None:
    before, heard = codes(lm, asked()), []

    def stop(done: int) -> None:
        heard.append(done)
        raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        lm.codes(asked(seed=5), stop)
    assert heard == [BEAT] and codes(lm, asked()) == before


def test_a_step_waits_for_nothing(lm: TorchLM) -> None:
    """torch raises where an operation of the step would wait for the device."""
    lm.capture = False
    step = lm._begun(asked())
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_text_picks_among_what_is_allowed(lm: TorchLM) -> None:
    text = lm.text(asked().prompt, 4)
    for chance in (0.0, 0.5, 0.99):
        assert 40 <= text.pick("letters", Sampling(), chance) < 90
        assert text.pick([7, 9], Sampling(), chance) in (7, 9)
    text.feed([1, 2, 3, 4])


def test_what_is_not_finite_is_an_error_from_a_graph_too() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    model = random_model("tiny", "cuda", torch.bfloat16)
    lm = TorchLM(model, {})
    codes(lm, asked())
    model.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(BadOutput):
        lm.codes(asked(), lambda done: None)
    assert lm.capture


def test_lyrics_of_seven_billion_random_weights_have_their_sections() -> None:
    """Right for plumbing and speed; the words are noise. The same seed gives the same ones."""
    import lyrics_lm
    from lyricists import LYRICISTS
    from lyrics import Lyrics
    from sections import broken

    lyricist = lyrics_lm.load(LYRICISTS["random:7B"], "cuda")
    request = Lyrics.parse({"brief": "rain", "structure": "intro, verse, chorus, verse, chorus", "seed": 3})
    one, same = (lyricist.write(request) for _ in range(2))
    assert broken(one.text, request.sections) == "" and one.text == same.text
    assert lyricist.facts["dtype"] == "bfloat16"
