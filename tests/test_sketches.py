"""A plan's audio codes on their way into the song, on the tiny checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_conditioning import clip

import ace_pipeline
from errors import EngineMissing
from plans import Plan
from song import Generate
from velocity import Plain

CODES = [int(code) for code in np.random.default_rng(2).integers(0, 64_000, 50)]
BASE = {"prompt": "slow piano", "lyrics": "la", "duration_s": 10, "seed": 3, "inference_steps": 8}
FACTS = {"bpm": 96, "keyscale": "C major", "timesignature": "4", "vocal_language": "en"}


def sketched(codes: list[int] = CODES, **values: Any) -> Generate:
    return Generate.parse({**BASE, "plan": {"codes": codes}, **values})


def latents(request: Generate) -> torch.Tensor:
    engine = tiny.engine()
    with torch.no_grad():
        return engine.denoise(engine.conditioner.score(request), request)


def test_a_sketched_song_equals_the_stock_call_with_the_same_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    request = sketched(**FACTS)
    stock = tiny.engine().pipe(
        prompt=request.prompt,
        lyrics=request.sung,
        audio_duration=10,
        vocal_language="en",
        bpm=96,
        keyscale="C major",
        timesignature="4",
        audio_codes="".join(f"<|audio_code_{code}|>" for code in CODES),
        num_inference_steps=8,
        guidance_scale=7.0,
        shift=1.0,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    )
    assert (latents(request) - stock.audios).norm() < 1e-4 * stock.audios.norm()
    monkeypatch.setattr(tiny.engine(), "field", Plain(tiny.engine().pipe.transformer))
    assert torch.equal(latents(request), stock.audios)


def test_codes_change_the_song_and_thinking_off_leaves_them_aside() -> None:
    plain, one, other = latents(Generate.parse(BASE)), latents(sketched()), latents(sketched(CODES[::-1]))
    assert not torch.equal(one, other) and not torch.equal(one, plain)
    assert torch.equal(latents(sketched(thinking=False)), plain)


def test_a_song_of_a_broken_length_gets_as_many_frames_as_it_has() -> None:
    request = sketched([*CODES, *CODES[:10]], duration_s=11.02)
    assert request.code_count == 0 and len(request.codes) == 60
    assert latents(request).shape[1] == 276 == -(-11.02 * 25 // 1)


def test_codes_of_a_recording_stand_for_what_a_cover_keeps_of_it() -> None:
    ear, recording = tiny.engine().conditioner, clip(2.02)
    codes = tiny.engine().codes(recording)
    assert len(codes) == 11 and all(0 <= code < 64_000 for code in codes) and len(set(codes)) > 1
    with torch.no_grad():
        kept, read = ear.structure(ear.listen(recording)), ear.sketched(codes)
    assert torch.allclose(read[:, : kept.shape[1]], kept, atol=1e-5)


@pytest.mark.parametrize("part", ["audio_tokenizer", "audio_token_detokenizer"])
def test_a_model_without_tokenizer_says_that_it_reads_no_codes(part: str) -> None:
    pipe = tiny.pipeline()
    setattr(pipe, part, None)
    bare = ace_pipeline.Engine(pipe, tiny.engine().checkpoint, "cpu")
    assert not bare.conditioner.sketches and tiny.engine().conditioner.sketches
    with pytest.raises(EngineMissing, match="cannot read a plan's codes"):
        bare.sing(sketched())
    with pytest.raises(EngineMissing, match="cannot describe a song"):
        bare.codes(clip())


def test_what_a_plan_fills_in_reaches_the_song_and_what_the_user_gave_stays() -> None:
    plan = Plan(caption="warm strings", **FACTS)
    filled = Generate.parse(BASE).planned(plan)
    assert torch.equal(latents(filled), latents(Generate.parse({**BASE, **FACTS, "prompt": "warm strings"})))
    own = {"bpm": 60, "keyscale": "A minor", "timesignature": "3", "vocal_language": "fr"}
    kept = Generate.parse({**BASE, **own, "use_cot_caption": False})
    assert torch.equal(latents(kept.planned(plan)), latents(kept))
