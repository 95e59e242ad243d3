"""The denoising loop against its sources: diffusers' stock pipeline, its scheduler, and the published ADG formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import sampler
from errors import Stopped
from sampler import Guide, Noise, Schedule, denoise
from song import Generate
from velocity import Conditions, Plain

SECONDS = 2.0
WORDS = {"prompt": "slow piano", "lyrics": "[verse]\nla la"}


@pytest.fixture(scope="module")
def engine():
    return tiny.engine()


def stock_field(engine) -> Plain:
    return Plain(engine.pipe.transformer)


def conditions(engine) -> Conditions:
    request = Generate.model_construct(**WORDS, duration_s=SECONDS, instrumental=False)
    with torch.no_grad():
        return engine.conditioner.score(request).conditions


def noise_for(c: Conditions, seed: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    frames, width = c.context.shape[1], c.context.shape[2] // 2
    return torch.randn((1, frames, width), generator=generator, dtype=c.context.dtype)


def stock(pipe, schedule: Schedule, seed: int = 7) -> torch.Tensor:
    return pipe(
        **WORDS,
        audio_duration=SECONDS,
        vocal_language="unknown",
        num_inference_steps=schedule.steps,
        guidance_scale=schedule.guidance,
        shift=schedule.shift,
        cfg_interval_start=schedule.interval[0],
        cfg_interval_end=schedule.interval[1],
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).audios


@pytest.mark.parametrize("shift", [1.0, 0.7, 3.0])
@pytest.mark.parametrize(
    "guidance, interval", [(7.0, (0.0, 1.0)), (1.0, (0.0, 1.0)), (4.5, (0.25, 0.6)), (7.0, (1.0, 1.0))]
)
def test_equals_the_stock_loop_bit_for_bit(engine, shift, guidance, interval) -> None:
    schedule = Schedule(8, shift, guidance, interval)
    c = conditions(engine)
    ours = denoise(Guide(stock_field(engine), c, schedule), noise_for(c))
    assert torch.equal(ours, stock(engine.pipe, schedule))


def test_equals_the_stock_loop_in_bfloat16() -> None:
    import ace_pipeline

    engine = ace_pipeline.Engine(tiny.pipeline(torch.bfloat16), tiny.engine().checkpoint, "cpu")
    schedule = Schedule(8, shift=3.0)
    c = conditions(engine)
    ours = denoise(Guide(stock_field(engine), c, schedule), noise_for(c))
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, stock(engine.pipe, schedule))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_sde_equals_the_schedulers_stochastic_step(engine, shift) -> None:
    schedule = Schedule(6, shift, guidance=1.0, sde=True)
    c = conditions(engine)
    ours = denoise(Guide(stock_field(engine), c, schedule), noise_for(c), along=Noise(3))

    stepper = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0, stochastic_sampling=True)
    stepper.set_timesteps(sigmas=sampler.sigmas(6, shift)[:-1].tolist())
    generator, guide, x = torch.Generator().manual_seed(3), Guide(stock_field(engine), c, schedule), noise_for(c)
    with torch.no_grad():
        for t in stepper.timesteps:
            x = stepper.step(guide.velocity(x, float(t)), t, x, generator=generator, return_dict=False)[0]
    assert torch.equal(ours, x)


def test_sde_follows_its_seed(engine) -> None:
    schedule, c = Schedule(4, sde=True), conditions(engine)

    def run(seed: int) -> torch.Tensor:
        return denoise(Guide(stock_field(engine), c, schedule), noise_for(c), along=Noise(seed))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_noise_is_the_stock_draw_whatever_the_dtype() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        like = torch.empty((1, 300, 64), dtype=dtype)
        expected = torch.randn(like.shape, generator=torch.Generator().manual_seed(9), dtype=dtype)
        assert torch.equal(Noise(9)(like), expected)


def test_a_retake_turns_the_noise_on_the_sphere() -> None:
    like = torch.empty((1, 4000, 64))
    old, new = Noise(1)(like), Noise(2)(like)
    for variance in (0.25, 0.5, 0.9):
        turned = Noise(1, [(2, variance)])(like)
        angle = variance * math.pi / 2
        torch.testing.assert_close(turned, math.cos(angle) * old + math.sin(angle) * new)
        assert turned.std().item() == pytest.approx(1, abs=0.01)  # as much noise as before
        assert torch.corrcoef(torch.stack([turned.flatten(), old.flatten()]))[0, 1].item() == pytest.approx(
            math.cos(angle), abs=0.01
        )
    assert torch.equal(Noise(1, [(2, 0.0)])(like), old)
    torch.testing.assert_close(Noise(1, [(2, 1.0)])(like), new, rtol=0, atol=1e-6)
    twice = Noise(1, [(2, 0.5), (3, 0.5)])(like)
    torch.testing.assert_close(twice, math.sqrt(0.5) * (Noise(1, [(2, 0.5)])(like) + Noise(3)(like)))


def test_each_purpose_has_noise_of_its_own() -> None:
    like = torch.empty((1, 10, 8))
    assert not torch.equal(Noise(1)(like), Noise(1, purpose=7)(like))


def adg_by_frame(x, cond, uncond, sigma: float, scale: float) -> np.ndarray:
    """The published formula written out for one frame at a time, in float64."""
    out = np.empty_like(x)
    for t in range(x.shape[0]):
        c, u = x[t] - sigma * cond[t], x[t] - sigma * uncond[t]
        weight = max(scale - 1, 0) + 1e-3
        cosine = np.dot(c, u) / (np.linalg.norm(c) * np.linalg.norm(u))
        theta = np.arccos(np.clip(cosine, -1 + 1e-6, 1 - 1e-6))
        turned = np.clip(weight * theta, -3.14 / 6, 3.14 / 6)
        difference = c - u
        across = difference - np.dot(difference, u) / (np.dot(u, u) + 1e-8) * u
        ratio = np.sin(turned) / np.sin(theta) if np.sin(theta) > 1e-3 else weight
        out[t] = (x[t] - (np.cos(turned) * c + across * ratio)) / sigma
    return out


@pytest.mark.parametrize("spread", [2.0, 0.3, 1e-5])  # wide and small angles, and the branch near zero
@pytest.mark.parametrize("scale", [1.0, 3.0, 15.0])
def test_adg_equals_the_published_formula(spread, scale) -> None:
    rng = np.random.default_rng(5)
    x, cond = rng.standard_normal((2, 40, 64))
    uncond = cond + spread * rng.standard_normal((40, 64))
    ours = sampler.adg(*(torch.tensor(v[None]) for v in (x, cond, uncond)), 0.6, scale)[0].numpy()
    np.testing.assert_allclose(ours, adg_by_frame(x, cond, uncond, 0.6, scale), rtol=1e-9, atol=1e-10)


def test_adg_replaces_apg_in_the_run(engine) -> None:
    c = conditions(engine)
    plain, turned = (
        denoise(Guide(stock_field(engine), c, Schedule(4, guidance=5.0, adg=adg)), noise_for(c))
        for adg in (False, True)
    )
    assert torch.isfinite(turned).all()
    assert not torch.equal(plain, turned)


def test_a_hook_that_raises_ends_the_run_and_leaves_nothing_behind(engine) -> None:
    c, schedule = conditions(engine), Schedule(8)
    before = denoise(Guide(stock_field(engine), c, schedule), noise_for(c))
    seen = []

    def stop_at_three(step: int, of: int) -> None:
        seen.append((step, of))
        if step == 3:
            raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        denoise(Guide(stock_field(engine), c, schedule), noise_for(c), stop_at_three)
    assert seen == [(1, 8), (2, 8), (3, 8)]
    assert torch.equal(before, denoise(Guide(stock_field(engine), c, schedule), noise_for(c)))


def test_guidance_acts_only_inside_its_interval(engine) -> None:
    """Counted at the transformer's boundary: a guided step runs a batch of two."""
    batches = []
    hook = engine.pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: batches.append(kwargs["hidden_states"].shape[0]), with_kwargs=True
    )
    try:
        c = conditions(engine)
        denoise(Guide(stock_field(engine), c, Schedule(10, interval=(0.3, 0.65))), noise_for(c))
    finally:
        hook.remove()
    assert batches == [1, 1, 1, 2, 2, 2, 2, 1, 1, 1]  # 1 - t of step i is i / 10


@pytest.mark.parametrize("shift, first", [(1.0, 0.9), (3.0, 27 / 28), (0.5, 9 / 11)])
def test_sigmas_run_from_one_to_zero_with_shift(shift, first) -> None:
    levels = sampler.sigmas(10, shift)
    assert levels[0] == 1 and levels[-1] == 0 and len(levels) == 11
    assert levels[1].item() == pytest.approx(first, rel=1e-6)
    assert (levels.diff() < 0).all()
