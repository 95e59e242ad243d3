"""The engine on the tiny checkpoint: every knob acts, words fit, nothing stays behind."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

import ace_pipeline
import random_checkpoint
from conditioning import TEXT_TOKENS, Words
from errors import BadOutput, Stopped
from lora_layouts import targets
from lora_stack import Model, admit
from plans import Plan
from remakes import Cover, Edit, Extend
from song import Generate
from sound import AudioClip, Progress

SONG = torch.sin(torch.arange(7 * 48_000) / 20).repeat(2, 1).numpy() * np.float32(0.3)
CLIP, LONG = (AudioClip(SONG[:, : seconds * 48_000], {}) for seconds in (2, 7))
MODES = {
    "generate": (Generate, {"lyrics": "[verse]\nla", "duration_s": 10}),
    "cover": (Cover, {"source_audio": CLIP, "lyrics": "[verse]\nla"}),
    "extend": (Extend, {"source_audio": LONG, "extra_duration_s": 5, "context_s": 5}),
    "repaint": (Edit, {"source_audio": CLIP, "target_lyrics": "ah", "regions": [[0.5, 1.2]]}),
    "morph": (Edit, {"source_audio": CLIP, "sub_mode": "flow_edit", "source_caption": "drums"}),
}
BASE = {"prompt": "slow piano", "lyrics": "[verse]\nla la la", "duration_s": 10, "seed": 11, "inference_steps": 8}


@pytest.fixture(scope="module")
def engine():
    return tiny.engine()


def latents(engine, **values) -> torch.Tensor:
    """The latents of a song: what every knob acts on, without the second that decoding takes."""
    caught = []

    class Caught(Exception):
        pass

    def catch(x: torch.Tensor) -> torch.Tensor:
        caught.append(x)
        raise Caught

    engine.decode = catch
    try:
        with pytest.raises(Caught):
            engine.sing(Generate.parse({**BASE, **values}))
    finally:
        del engine.decode
    return caught[0]


def test_the_same_request_is_the_same_song_to_the_sample(engine) -> None:
    first, second = (engine.sing(Generate.parse(BASE)).samples for _ in range(2))
    assert first.dtype == np.float32 and first.shape == (2, 480_000)
    assert np.array_equal(first, second)


def test_equals_the_stock_call_up_to_its_normalisation(engine) -> None:
    knobs = Generate.parse({**BASE, "bpm": 120, "keyscale": "C major", "timesignature": "4"}).advanced
    stock = engine.pipe(
        prompt=BASE["prompt"],
        lyrics=BASE["lyrics"],
        audio_duration=10,
        vocal_language="unknown",
        num_inference_steps=8,
        guidance_scale=knobs.guidance_scale,
        shift=knobs.shift,
        generator=torch.Generator().manual_seed(11),
        bpm=120,
        keyscale="C major",
        timesignature="4",
        output_type="pt",
    ).audios[0]
    ours = engine.sing(Generate.parse({**BASE, "bpm": 120, "keyscale": "C major", "timesignature": "4"})).samples
    ratio = np.abs(stock.numpy()).max() / np.abs(ours).max()
    np.testing.assert_allclose(ours * ratio, stock.numpy(), rtol=0, atol=2e-6)
    assert ratio != pytest.approx(1, abs=0.01)  # the stock call normalises to -1 dBFS, ours must not


def test_progress_tells_phases_steps_and_time_left(engine) -> None:
    events: list[Progress] = []
    sound = engine.sing(Generate.parse(BASE), events.append)
    assert [e.phase for e in events if not e.of] == ["Reading the words", "Decoding"]
    steps = [e for e in events if e.of]
    assert [(e.step, e.of) for e in steps] == [(i, 8) for i in range(9)]
    assert steps[0].left_s is None and steps[-1].left_s == 0 and all(e.left_s >= 0 for e in steps[1:])
    assert set(sound.timings) == {"conditioning_s", "denoise_s", "decode_s", "total_s", "per_step_s"}


def test_stop_raises_and_the_next_song_is_identical(engine) -> None:
    before = latents(engine)

    def stop(event: Progress) -> None:
        if event.step == 2:
            raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        engine.sing(Generate.parse(BASE), stop)
    assert torch.equal(before, latents(engine))


def test_a_song_changes_nothing_in_the_engine(engine) -> None:
    def fingerprint() -> str:
        digest = hashlib.sha256()
        for name in ("transformer", "condition_encoder", "vae", "text_encoder"):
            for tensor in getattr(engine.pipe, name).state_dict().values():
                digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    before = fingerprint()
    engine.sing(Generate.parse({**BASE, "infer_method": "sde", "use_adg": True}))
    assert fingerprint() == before


def test_seeds_do_not_touch_the_global_generator(engine) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    latents(engine, infer_method="sde")
    assert torch.equal(torch.rand(1), expected)


def test_a_long_caption_is_shortened_so_that_tempo_and_key_survive(engine) -> None:
    request = Generate.parse({**BASE, "prompt": "word " * 100, "bpm": 77, "keyscale": "D minor"})
    ear = engine.conditioner
    words = ear.fit(request, Words(request.prompt, request.sung, "text2music"))
    text = ear.formatted(request, words)[0]
    ids = engine.pipe.tokenizer(text, truncation=True, max_length=TEXT_TOKENS).input_ids
    read = engine.pipe.tokenizer.decode(ids)
    assert "bpm: 77" in read and "D minor" in read and "duration: 10 seconds" in read
    kept = len(words.caption)
    assert kept > 20 and request.prompt.startswith(words.caption)
    longer = ear.formatted(request, Words(request.prompt[: kept + 1], words.lyrics, words.task))[0]
    assert len(engine.pipe.tokenizer(longer).input_ids) > TEXT_TOKENS  # not a character was wasted
    assert words.warnings == (f"The model read the first {kept} of 499 characters of the style prompt.",)


def test_lyrics_beyond_the_model_are_told(engine) -> None:
    warned = engine.conditioner.score(Generate.parse({**BASE, "lyrics": "la " * 1300})).warnings
    assert len(warned) == 1 and "about the first 52 %" in warned[0]
    assert engine.conditioner.score(Generate.parse(BASE)).warnings == ()


def test_instrumental_replaces_the_lyrics(engine) -> None:
    assert torch.equal(latents(engine, instrumental=True), latents(engine, instrumental=True, lyrics="other words"))


def test_the_prompt_tells_the_true_duration(engine) -> None:
    request = Generate.parse({**BASE, "duration_s": 37})
    assert "- duration: 37 seconds\n" in engine.conditioner.formatted(request, Words("x", "", "text2music"))[0]


def test_numbers_that_are_not_finite_are_refused_with_the_seed() -> None:
    pipe = tiny.pipeline()
    with torch.no_grad():
        pipe.transformer.proj_out_conv.weight.fill_(float("nan"))
    broken = ace_pipeline.Engine(pipe, tiny.engine().checkpoint, "cpu")
    with pytest.raises(BadOutput, match="seed 11"):
        broken.sing(Generate.parse(BASE))


def test_turbo_runs_without_guidance() -> None:
    arch = {**tiny.TINY, "transformer": {**tiny.TINY["transformer"], "is_turbo": True}}
    pipe = random_checkpoint.build(arch, tiny.byte_tokenizer(), "cpu", torch.float32)
    turbo = ace_pipeline.Engine(pipe, tiny.engine().checkpoint, "cpu")
    assert torch.equal(latents(turbo, guidance_scale=7.0), latents(turbo, guidance_scale=1.0))


def test_a_song_of_many_tiles_sounds_as_with_diffusers(engine) -> None:
    latents = torch.randn((1, 21 * 25, 8), generator=torch.Generator().manual_seed(0))
    stock = random_checkpoint.build(tiny.TINY, tiny.byte_tokenizer(), "cpu", torch.float32).vae
    with torch.no_grad():
        theirs = stock.decode(latents.transpose(1, 2)).sample[0]
    ours = engine.decode(latents)
    assert ours.shape == (2, 21 * 48_000) and ours.dtype == torch.float32
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_a_recipe_names_the_model(engine) -> None:
    assert engine.describe() == {"key": "tiny", "id": "tiny", "revision": None, "device": "cpu", "dtype": "float32"}
    demo = ace_pipeline.Engine(engine.pipe, replace(engine.checkpoint, key="demo", source="/somewhere/demo"), "cpu")
    assert demo.describe()["id"] == "demo"  # never a path of this machine


def test_the_random_xl_architecture_has_the_published_size() -> None:
    with torch.device("meta"):
        parts = random_checkpoint.components(random_checkpoint.XL_SFT)
    count = {name: sum(p.numel() for p in model.parameters()) for name, model in parts.items()}
    assert count["transformer"] == 4_168_897_088
    published = ("transformer", "condition_encoder", "audio_tokenizer", "audio_token_detokenizer")
    assert sum(count[name] for name in published) == 4_987_310_726
    assert round(count["text_encoder"] / 1e6) == 596 and round(count["vae"] / 1e6) == 169


def test_random_weights_follow_their_seed() -> None:
    first, again, other = (tiny.pipeline(seed=s).transformer.proj_in_conv.weight for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_sings_with_loras_and_the_next_song_is_without(engine, mode, tmp_path) -> None:
    model = Model("tiny", targets(engine.pipe.transformer.config))
    stack = [{"lora": admit(tiny.lora(tmp_path / "warm.safetensors"), model), "strength": 0.9}]
    parse, values = MODES[mode][0].parse, {"prompt": "fast drums", "seed": 3, "inference_steps": 8, **MODES[mode][1]}
    events, songs = [], []
    for loras in ((), stack, ()):
        request, _ = parse({**values, "loras": loras}).heard()
        songs.append(engine.sing(request.planned(Plan()), events.append))
    before, stacked, after = songs
    assert np.isfinite(stacked.samples).all() and np.abs(before.samples - stacked.samples).max() > 1e-6
    assert np.array_equal(after.samples, before.samples)
    assert "loras_s" not in before.timings and stacked.timings["loras_s"] >= 0
    told = [event.phase for event in events if event.phase in ("Attaching the LoRAs", "Decoding")]
    assert told == ["Decoding", "Attaching the LoRAs", "Decoding", "Decoding"]


@pytest.mark.filterwarnings("default")
def test_what_an_apple_gpu_leaves_to_the_cpu_is_said_with_the_song(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny.engine()
    words = "The operator 'aten::_fft_r2c' is not currently supported on the MPS backend and will fall back to run on the CPU."
    decode = engine.decode

    def warned(latents: torch.Tensor) -> torch.Tensor:
        warnings.warn(words, UserWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
        return decode(latents)

    monkeypatch.setattr(engine, "decode", warned)
    with pytest.warns(UserWarning, match="something else") as others:
        sound = engine.sing(Generate.parse({"prompt": "calm piano", "duration_s": 10, "inference_steps": 8}))
    assert sound.warnings == ("This Mac left aten::_fft_r2c to its CPU: the song is right, and took longer.",)
    assert [str(other.message) for other in others] == ["something else"]


def test_what_others_ignore_meanwhile_stays_ignored() -> None:
    with contextlib.ExitStack() as song:
        song.enter_context(ace_pipeline.left_to_cpu(set()))
        with warnings.catch_warnings():  # a page that is built in another thread
            warnings.simplefilter("ignore")
            song.close()
            warnings.warn("theirs", stacklevel=1)
