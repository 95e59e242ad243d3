"""What the transformer hears in each mode, seen at its boundary on the tiny checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_sampler_changes import seen_by

import ace_pipeline
import conditioning
import random_checkpoint
from conditioning import Words
from errors import EngineMissing
from remakes import Cover, Edit, Extend
from song import Generate, SongRequest
from sound import HOP, AudioClip, Progress

ASKED = {"prompt": "slow piano", "seed": 3, "inference_steps": 10}


@pytest.fixture(scope="module")
def engine():
    return tiny.engine()


def clip(seconds: float = 2.0, seed: int = 0) -> AudioClip:
    """A recording with something new in every frame."""
    noise = np.random.default_rng(seed).standard_normal((2, round(seconds * 48_000)))
    return AudioClip((0.1 * noise).astype(np.float32), {"format": "WAV"})


def asked(mode: type[SongRequest], **values: Any) -> SongRequest:
    values = {"source_audio": clip(), **ASKED, **values}
    if mode is Edit:
        values = {"regions": [[0.5, 1.0]], **values}
    return mode.parse(values).heard()[0]


def latents(engine, request: SongRequest) -> torch.Tensor:
    with torch.no_grad():
        return engine.denoise(engine.conditioner.score(request), request)


def score(engine, request: SongRequest) -> conditioning.Score:
    with torch.no_grad():
        return engine.conditioner.score(request)


@pytest.mark.parametrize("strength, followed", [(1.0, 10), (0.93, 9), (0.5, 5), (0.05, 0), (0.0, 0)])
def test_the_first_steps_of_a_cover_hear_the_song_and_the_rest_the_words_alone(engine, strength, followed) -> None:
    request = asked(Cover, cover_strength=strength)
    of_song = score(engine, asked(Cover, cover_strength=1)).conditions.context
    silence = engine.conditioner.context(engine.conditioner.room(of_song.shape[1]))
    heard = seen_by(engine, lambda: latents(engine, request))
    assert len(heard) == 10  # no forward more than at strength 1
    assert [torch.equal(context, of_song) for context in heard] == [i < followed for i in range(10)]
    assert [torch.equal(context, silence) for context in heard] == [i >= followed for i in range(10)]


def test_a_cover_of_strength_nothing_is_a_song_from_words(engine) -> None:
    covered = latents(engine, asked(Cover, cover_strength=0, lyrics="la"))
    words = Generate.model_construct(**{**asked_words("la"), "duration_s": 2.0})
    assert torch.equal(covered, latents(engine, words))


def asked_words(lyrics: str) -> dict[str, Any]:
    request = Generate.parse({**ASKED, "lyrics": lyrics})
    return {name: getattr(request, name) for name in type(request).model_fields}


def test_a_cover_hears_tokens_of_the_song_and_not_its_latents(engine) -> None:
    ear, request = engine.conditioner, asked(Cover, source_audio=clip(2.02))  # 51 frames: tokens are of five
    context = score(engine, request).conditions.context
    with torch.no_grad():
        song = ear.listen(request.source_audio)
        tokens, _ = engine.pipe.audio_tokenizer.tokenize(song, ear.silence)
        expected = engine.pipe.audio_token_detokenizer(tokens)[:, :51]
    assert torch.equal(context[..., :8], expected) and not torch.equal(expected, song)
    assert (context[..., 8:] == 1).all()


def test_a_model_without_tokenizer_says_that_it_cannot_cover() -> None:
    pipe = tiny.pipeline()
    pipe.audio_tokenizer = None
    bare = ace_pipeline.Engine(pipe, tiny.engine().checkpoint, "cpu")
    with pytest.raises(EngineMissing, match="no audio tokenizer"):
        bare.sing(asked(Cover))


def test_a_timbre_reference_gives_sound_to_both_halves_of_a_cover(engine) -> None:
    plain, lent = (score(engine, asked(Cover, **given)) for given in ({}, {"reference_audio": clip(seed=5)}))
    assert not torch.equal(plain.conditions.cond, lent.conditions.cond)
    assert not torch.equal(plain.change.to.cond, lent.change.to.cond)
    assert torch.equal(plain.conditions.context, lent.conditions.context)


def test_a_reference_is_heard_at_its_beginning_middle_and_end(engine, monkeypatch) -> None:
    """Ten seconds each; a short one is repeated."""
    ear, heard, piece = engine.conditioner, [], 10 * 48_000
    listen = ear.listen
    monkeypatch.setattr(ear, "listen", lambda given: heard.append(given.samples) or listen(given.cut(0, 48_000)))
    long, short = clip(40), clip(0.5)
    with torch.no_grad():
        ear.timbre(long)
        ear.timbre(short)
        assert torch.equal(ear.timbre(None), ear.silence[:, :750])
    third = long.samples.shape[1] // 3
    pieces = [long.samples[:, at : at + piece] for at in (0, third, 30 * 48_000)]
    assert np.array_equal(heard[0], np.concatenate(pieces, axis=1))
    assert np.array_equal(heard[1], np.tile(short.samples, 60))


def test_a_repaint_hears_the_song_with_silence_in_the_regions(engine) -> None:
    ear, request = engine.conditioner, asked(Edit, regions=[[0.5, 1.0], [1.5, 1.61]])
    context = score(engine, request).conditions.context
    with torch.no_grad():
        song = ear.listen(request.source_audio)
    made = torch.zeros(50, dtype=torch.bool)
    made[12:25] = made[37:41] = True  # all frames that a region touches
    assert torch.equal(context[0, made, :8], ear.silence[0, :50][made])
    assert torch.equal(context[0, ~made, :8], song[0, ~made])
    assert torch.equal(context[0, :, 8:], made[:, None].float().expand(50, 8))


@pytest.mark.parametrize(
    "side, song_at, made", [("after", slice(0, 50), slice(50, 175)), ("before", slice(125, 175), slice(0, 125))]
)
def test_an_extension_hears_the_song_and_silence_beside_it(engine, side, song_at, made) -> None:
    ear, request = engine.conditioner, asked(Extend, side=side, extra_duration_s=5)
    context = score(engine, request).conditions.context
    with torch.no_grad():
        assert torch.equal(context[:, song_at, :8], ear.listen(request.source_audio))
    assert torch.equal(context[:, made, :8], ear.silence[:, made])
    assert (context[:, made, 8:] == 1).all() and (context[:, song_at, 8:] == 0).all()


@pytest.mark.parametrize("mode", [Extend, Edit])
def test_what_is_held_comes_out_of_the_loop_as_it_went_in(engine, mode) -> None:
    request = asked(mode, **({"repaint_mode": "conservative"} if mode is Edit else {"extra_duration_s": 5}))
    out, change = latents(engine, request), score(engine, request).change
    kept = change.mask[0, :, 0] == 0
    assert torch.equal(out[:, kept], change.source[:, kept])
    assert not torch.equal(out[:, ~kept], change.source[:, ~kept])


@pytest.mark.parametrize(
    "mode, values, held, ramp",
    [
        (Edit, {"repaint_mode": "conservative"}, 1.0, 25),
        (Edit, {"repaint_mode": "aggressive"}, 0.0, 0),
        (Edit, {"repaint_strength": 0.2}, 0.8, 20),
        (Edit, {}, 0.5, 12),
        (Extend, {}, 1.0, 0),
    ],
)
def test_repaint_modes_are_upstreams(engine, mode, values, held, ramp) -> None:
    change = score(engine, asked(mode, **values)).change
    assert (change.held, change.ramp) == (held, ramp)


def test_a_morph_of_equal_descriptions_gives_the_song_back(engine) -> None:
    same = {"source_caption": "slow piano", "source_lyrics": "la", "target_lyrics": "la"}
    out = latents(engine, asked(Edit, sub_mode="flow_edit", **same))
    with torch.no_grad():
        song = engine.conditioner.listen(clip())
    assert (out - song).abs().max() < 1e-5


def test_a_morph_hears_silence_and_tells_its_two_descriptions_apart(engine) -> None:
    made = score(engine, asked(Edit, sub_mode="flow_edit", source_caption="drums", source_lyrics="oh"))
    assert torch.equal(made.conditions.context[..., :8], engine.conditioner.room(50))
    assert torch.equal(made.conditions.context, made.origin.context) and (made.origin.context[..., 8:] == 1).all()
    assert made.conditions.cond.shape != made.origin.cond.shape


@pytest.mark.parametrize(
    "request_, instruction",
    [
        (lambda: asked(Cover), "Generate audio semantic tokens"),
        (lambda: asked(Extend), "Repaint the mask area"),
        (lambda: asked(Edit), "Repaint the mask area"),
        (lambda: asked(Edit, sub_mode="flow_edit"), "Fill the audio semantic mask"),
        (lambda: Generate.parse(ASKED), "Fill the audio semantic mask"),
    ],
)
def test_the_model_is_told_its_task_and_the_true_length(engine, request_, instruction) -> None:
    request = request_()
    text, _ = engine.conditioner.formatted(request, Words(request.prompt, request.sung, request.task))
    assert text.startswith(f"# Instruction\n{instruction}")
    assert f"- duration: {int(request.seconds)} seconds" in text


def test_a_recording_is_heard_alike_each_time_and_leaves_the_global_generator_alone(engine) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, second = (score(engine, asked(Cover, reference_audio=clip(seed=4))).conditions for _ in range(2))
    assert torch.equal(first.cond, second.cond) and torch.equal(first.context, second.context)
    assert torch.equal(torch.rand(1), expected)


def test_the_last_frame_is_filled_up_with_silence(engine) -> None:
    short = clip(1.01)
    filled = np.pad(short.samples, ((0, 0), (0, 26 * HOP - short.samples.shape[1])))
    with torch.no_grad():
        assert torch.equal(engine.conditioner.listen(short), engine.conditioner.listen(AudioClip(filled, {})))


def test_a_recording_of_many_tiles_is_heard_as_with_diffusers(engine) -> None:
    long, stock = clip(31), random_checkpoint.build(tiny.TINY, tiny.byte_tokenizer(), "cpu", torch.float32).vae
    with torch.no_grad():
        stock.encoder.conv2.weight_g.mul_(tiny.LOUDER)
        ours = engine.conditioner.listen(long)
        theirs = stock.encode(torch.from_numpy(long.samples)[None]).latent_dist.mode().transpose(1, 2)
    assert ours.shape == theirs.shape == (1, 31 * 25, 8)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(
    "mode, phases",
    [
        (Generate, ["Reading the words"]),
        *((m, ["Reading the words", "Listening to the song"]) for m in (Cover, Extend, Edit)),
    ],
)
def test_phases_are_told(engine, mode, phases) -> None:
    told: list[Progress] = []
    with torch.no_grad():
        engine.conditioner.score(Generate.parse(ASKED) if mode is Generate else asked(mode), told.append)
    assert [event.phase for event in told] == phases


@pytest.mark.parametrize("extra", [5, 5.03])
@pytest.mark.parametrize("side", ["after", "before"])
def test_the_engine_makes_what_is_heard_and_the_new_part_to_the_sample(engine, side, extra) -> None:
    sound = engine.sing(asked(Extend, side=side, extra_duration_s=extra))
    assert sound.samples.shape == (2, 96_000 + round(extra * 48_000))


@pytest.mark.parametrize("mode", [Cover, Edit])
def test_a_remake_is_as_long_as_its_source_to_the_sample(engine, mode) -> None:
    assert engine.sing(asked(mode, source_audio=clip(1.2345))).samples.shape == (2, 59_256)
