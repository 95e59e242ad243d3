"""Noise to latents: our own denoising loop.

It knows tensors, a transformer and numbers; nothing of prompts, audio or files. With the extras off it equals the loop of
diffusers' `AceStepPipeline.__call__` bit for bit (a test says so). Beyond that loop it has: seeded SDE, ADG, a step hook
that may stop by raising, and no state outside the call.

Shapes: latents [1, T, C] at 25 frames a second, conditions [1, L, D], context [1, T, 2C]. Sigma is the noise level t,
1 = pure noise, 0 = song.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ADG_MAX_ANGLE = 3.14 / 6  # radians; the original rounds pi, and so must we
APG_MOMENTUM = -0.75
APG_NORM_THRESHOLD = 2.5


@dataclass(frozen=True)
class Conditions:
    """What the transformer hears: `cond` and learned `null` [1, L, D], `context` [1, T, 2C] (latents and mask)."""

    cond: torch.Tensor
    null: torch.Tensor
    context: torch.Tensor


@dataclass(frozen=True)
class Schedule:
    """How to get from noise to song.

    `interval` is the part of the way in which guidance acts, as the share of noise removed: 0 = pure noise at the start,
    1 = the finished song. A step at noise level t is guided when start <= 1 - t <= end. (diffusers' meaning. The
    original code tests t itself, so its [a, b] is our [1 - b, 1 - a].)
    """

    steps: int
    shift: float = 1.0
    guidance: float = 7.0
    interval: tuple[float, float] = (0.0, 1.0)
    adg: bool = False
    sde: bool = False


def sigmas(steps: int, shift: float, device: Any = "cpu") -> torch.Tensor:
    """The noise levels of a run, float32 [steps + 1], from 1 down to 0.

    sigma = shift * t / (1 + (shift - 1) * t) on a linear t: shift > 1 spends more steps near the noise.
    """
    import torch

    t = torch.linspace(1.0, 0.0, steps + 1, device=device, dtype=torch.float32)
    if shift != 1.0:
        t = shift * t / (1 + (shift - 1) * t)
    return t


def adg(x: torch.Tensor, cond: torch.Tensor, uncond: torch.Tensor, sigma: float, scale: float) -> torch.Tensor:
    """Angle domain guidance: turn the predicted song away from the unconditional one, per latent frame.

    x, cond, uncond: [B, T, C] noisy latents and the two velocities; returns a velocity of the same shape. Source:
    `adg_forward` of ACE-Step 1.5 (`apg_guidance.py`). The angle is computed in float64, on MPS (which has none) in
    float32.
    """
    import torch

    real = torch.float32 if x.device.type == "mps" else torch.float64
    x_, c, u = (v.to(real) for v in (x, cond, uncond))
    c, u = x_ - sigma * c, x_ - sigma * u
    weight = max(scale - 1, 0) + 1e-3
    cosine = torch.nn.functional.cosine_similarity(c, u, dim=-1).unsqueeze(-1).clamp(-1 + 1e-6, 1 - 1e-6)
    theta = torch.acos(cosine)
    turned = (weight * theta).clamp(-ADG_MAX_ANGLE, ADG_MAX_ANGLE)
    away = c - u
    away = away - (away * u).sum(-1, keepdim=True) / (u.square().sum(-1, keepdim=True) + 1e-8) * u
    sine = theta.sin()
    gain = torch.where(sine > 1e-3, turned.sin() / sine, torch.full_like(sine, weight))
    song = turned.cos() * c + away * gain
    return ((x_ - song) / sigma).to(cond.dtype)


class Guide:
    """The velocity field of one run: transformer, conditions and guidance, with APG's momentum.

    Make a new one for each run: the momentum belongs to it.
    """

    def __init__(self, transformer: Any, conditions: Conditions, schedule: Schedule) -> None:
        import torch
        from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

        self.transformer = transformer
        self.one = conditions
        self.schedule = schedule
        self.guided = schedule.guidance > 1.0
        self.momentum = MomentumBuffer(momentum=APG_MOMENTUM)
        if self.guided:
            null = conditions.null.expand_as(conditions.cond)
            self.cond2 = torch.cat([conditions.cond, null])
            self.context2 = torch.cat([conditions.context, conditions.context])

    def velocity(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """The velocity [B, T, C] at noise level t."""
        start, end = self.schedule.interval
        if self.guided and start <= 1.0 - t <= end:
            return self._guided(x, t)
        return self._forward(x, t, self.one.cond, self.one.context)

    def _guided(self, x: torch.Tensor, t: float) -> torch.Tensor:
        import torch
        from diffusers.guiders.adaptive_projected_guidance import normalized_guidance

        cond, uncond = self._forward(torch.cat([x, x]), t, self.cond2, self.context2).chunk(2)
        if self.schedule.adg:
            return adg(x, cond, uncond, t, self.schedule.guidance)
        return normalized_guidance(
            pred_cond=cond,
            pred_uncond=uncond,
            guidance_scale=self.schedule.guidance - 1.0,
            momentum_buffer=self.momentum,
            eta=0.0,
            norm_threshold=APG_NORM_THRESHOLD,
            use_original_formulation=True,
            norm_dim=(1,),
        )

    def _forward(self, x: torch.Tensor, t: float, cond: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        level = t * x.new_ones((x.shape[0],))
        return self.transformer(
            hidden_states=x,
            timestep=level,
            timestep_r=level,
            encoder_hidden_states=cond,
            context_latents=context,
            return_dict=False,
        )[0]


def denoise(
    guide: Guide,
    noise: torch.Tensor,
    on_step: Callable[[int, int], None] = lambda step, of: None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Latents [1, T, C] from noise of the same shape.

    `on_step(done, of)` is called after each step; what it raises ends the run, and nothing is left behind. SDE draws its
    noise from `generator`, on that generator's device, in float32: x0 = x - sigma v, x' = (1 - sigma') x0 + sigma' eps
    (`FlowMatchEulerDiscreteScheduler` with stochastic sampling).
    """
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    schedule = guide.schedule
    # Sigmas stay 0-dimensional float32 tensors: with Python floats, bf16 products would round otherwise than the stock
    # scheduler's.
    levels = sigmas(schedule.steps, schedule.shift, noise.device)
    times = levels.tolist()
    x = noise
    with torch.no_grad():
        for i in range(schedule.steps):
            v = guide.velocity(x, times[i])
            wide = x.to(torch.float32)
            if schedule.sde:
                fresh = randn_tensor(wide.shape, generator=generator, device=wide.device, dtype=wide.dtype)
                wide = (1.0 - levels[i + 1]) * (wide - levels[i] * v) + levels[i + 1] * fresh
            else:
                wide = wide + (levels[i + 1] - levels[i]) * v
            x = wide.to(v.dtype)
            on_step(i + 1, schedule.steps)
    return x
