"""One real song on a GPU, with whatever ACE_MODEL names: `ACE_MODEL=... pytest -m gpu`. Skipped by default."""

from __future__ import annotations

import conftest
import numpy as np
import pytest
import torch

SECONDS = 30
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def engine():
    import ace_pipeline
    import checkpoints
    import settings

    device = checkpoints.device()
    if device == "cpu":
        pytest.fail("`pytest -m gpu` needs CUDA or MPS; this machine has neither.")
    return ace_pipeline.load(settings.checkpoint_for(conftest.MODEL, device), device)


def test_thirty_seconds_of_song(engine, capsys) -> None:
    from song import Generate

    request = Generate.parse(
        {"prompt": "folk ballad, guitar", "lyrics": "[verse]\nla la", "duration_s": SECONDS, "seed": 5}
    )
    engine.sing(request)  # kernels load and caches fill once
    if engine.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    sound = engine.sing(request)
    assert sound.samples.shape == (2, SECONDS * 48_000) and sound.sample_rate == 48_000
    assert np.isfinite(sound.samples).all() and np.abs(sound.samples).max() > 1e-3
    assert sound.timings["total_s"] < 60
    peak = torch.cuda.max_memory_allocated() / 2**30 if engine.device == "cuda" else 0.0
    assert peak < 16
    with capsys.disabled():
        print(f"\n{engine.describe()}\n{sound.timings}, peak {peak:.1f} GiB")


def test_the_same_seed_is_the_same_song_on_the_gpu(engine) -> None:
    from song import Generate

    request = Generate.parse(
        {"prompt": "jazz", "duration_s": 10, "seed": 5, "infer_method": "sde", "inference_steps": 8}
    )
    first, second = (engine.sing(request).samples for _ in range(2))
    assert np.array_equal(first, second)


def test_a_stack_of_loras_acts_leaves_nothing(engine, tmp_path, capsys) -> None:
    from benchmarks.loras import BUDGET_MS, lora, milliseconds
    from fields import Stacked
    from lora_layouts import targets
    from lora_stack import Model
    from song import Generate

    model = Model("this model", targets(engine.pipe.transformer.config))
    stack = [{"lora": lora(tmp_path, model, 16, seed), "strength": 0.7} for seed in range(2)]
    asked = {"prompt": "jazz", "duration_s": 10, "seed": 5, "inference_steps": 8}
    plain, stacked = Generate.parse(asked), Generate.parse({**asked, "loras": stack})
    before = engine.sing(plain).samples
    assert not np.array_equal(engine.sing(stacked).samples, before)
    assert np.array_equal(engine.sing(plain).samples, before)

    def apply() -> None:
        with engine.adapters.attached([Stacked(**entry) for entry in stack]):
            pass

    again = min(milliseconds(apply, engine.sync) for _ in range(5))
    with capsys.disabled():
        print(f"\nunchanged stack applied in {again:.1f} ms of {BUDGET_MS}")


def test_our_loop_equals_the_stock_one_in_bfloat16(engine) -> None:
    from benchmarks.song import request, stock
    from velocity import Plain

    asked = request(10, 8, 7.0)
    caught, decode, field = [], engine.decode, engine.field

    def catch(latents: torch.Tensor) -> torch.Tensor:
        caught.append(latents)
        return decode(latents)

    engine.decode, engine.field = catch, Plain(engine.pipe.transformer)
    try:
        engine.sing(asked)
    finally:
        del engine.decode
        engine.field = field
    # Batched conditions are concatenated once instead of at each step; the numbers must not notice.
    assert torch.equal(caught[0], stock(engine, asked))


def noise(seconds: float):
    from sound import AudioClip

    samples = 0.1 * np.random.default_rng(3).standard_normal((2, round(seconds * 48_000)))
    return AudioClip(samples.astype(np.float32), {"format": "WAV"})


def test_listening_to_four_minutes_fits_a_small_card(engine, capsys) -> None:
    if engine.device != "cuda":
        pytest.skip("only CUDA tells its peak")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        latents = engine.conditioner.listen(noise(240))
    peak = torch.cuda.max_memory_allocated() / 2**30
    assert latents.shape[1] == 6000 and bool(torch.isfinite(latents).all()) and peak < 16
    with capsys.disabled():
        print(f"\nlistening to 240 s: peak {peak:.1f} GiB")


def test_what_a_repaint_and_an_extension_hold_comes_back_bit_for_bit(engine) -> None:
    from remakes import Edit, Extend

    known = {"source_audio": noise(12), "prompt": "jazz", "seed": 5, "inference_steps": 8}
    for mode, own in ((Edit, {"regions": [[4, 7]], "repaint_mode": "conservative"}), (Extend, {"extra_duration_s": 5})):
        request, _ = mode.parse({**known, **own}).heard()
        with torch.no_grad():
            score = engine.conditioner.score(request)
            out = engine.denoise(score, request)
        kept = score.change.mask[0, :, 0] == 0
        assert torch.equal(out[:, kept], score.change.source[:, kept])
        assert not torch.equal(out[:, ~kept], score.change.source[:, ~kept])


def test_a_morph_between_equal_descriptions_is_the_song_itself(engine) -> None:
    from remakes import Edit

    same = {"prompt": "jazz", "source_caption": "jazz", "source_lyrics": "la", "target_lyrics": "la"}
    request = Edit.parse({"source_audio": noise(10), "sub_mode": "flow_edit", "inference_steps": 8, **same})
    with torch.no_grad():
        score = engine.conditioner.score(request)
        out = engine.denoise(score, request)
    assert (out - score.song).abs().max() < 1e-5


def test_a_cover_switches_without_another_forward(engine) -> None:
    from benchmarks.remakes import forwards
    from remakes import Cover

    known = {"source_audio": noise(10), "prompt": "jazz", "seed": 5, "inference_steps": 8}
    half, whole = (Cover.parse({**known, "cover_strength": strength}) for strength in (0.5, 1.0))
    assert forwards(engine, half) == forwards(engine, whole) == 8
    assert not np.array_equal(engine.sing(half).samples, engine.sing(whole).samples)
