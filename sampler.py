"""Noise to latents: our own denoising loop.

It knows tensors, a velocity field and numbers; nothing of prompts, audio or files. With the extras off and the plain field
it equals the loop of diffusers' `AceStepPipeline.__call__` bit for bit (a test says so). Beyond that loop it has: seeded SDE, ADG, retakes, the
switch of a cover, the held source of a repaint, flow edit, a step hook that may stop by raising, and no state outside the
call.

Shapes: latents [B, T, C] at 25 frames a second, B takes under the same conditions; conditions [1, L, D], context
[1, T, 2C]. Sigma is the noise level t, 1 = pure noise, 0 = song.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from velocity import Conditions, Fast, Plain, Velocity

if TYPE_CHECKING:
    import torch

ADG_MAX_ANGLE = 3.14 / 6  # radians; the original rounds pi, and so must we
APG_MOMENTUM = -0.75
APG_NORM_THRESHOLD = 2.5


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


class Noise:
    """Seeded noise for one purpose: that of `seed`, turned on the sphere towards the noise of each retake in order.

    A retake (other, v) makes cos(v pi / 2) old + sin(v pi / 2) new: 0 keeps the old, 1 is the new one, and between two
    Gaussians the blend is as Gaussian as they are (`retake_variance` of ACE-Step). CPU generators give the same noise on
    every machine; one for each purpose, so that drawing more for one does not change another.
    """

    def __init__(self, seed: int, retakes: Sequence[tuple[int, float]] = (), purpose: int = 0) -> None:
        import torch

        turns = ((seed, 0.0), *retakes)
        self.turns = [(torch.Generator("cpu").manual_seed(s ^ purpose), share) for s, share in turns]

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        """The next draw, in shape, dtype and on the device of `like`; drawn and turned in float32."""
        import torch

        noise = None
        for generator, share in self.turns:
            fresh = torch.randn(like.shape, generator=generator)
            angle = share * math.pi / 2
            noise = fresh if noise is None else math.cos(angle) * noise + math.sin(angle) * fresh
        return noise.to(device=like.device, dtype=like.dtype)


class Noises:
    """The noise of several takes, a row each: what each draws is what it would draw alone."""

    def __init__(self, takes: Sequence[Noise]) -> None:
        self.takes = takes

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        """The next draws, in shape [takes, T, C], dtype and on the device of `like`."""
        import torch

        return torch.cat([noise(row[None]) for noise, row in zip(self.takes, like, strict=True)])


@dataclass(frozen=True)
class Switch:
    """From step `at` on the transformer hears `to`: upstream's cover strength, at the price of no extra forward."""

    at: int
    to: Conditions


@dataclass(frozen=True)
class Repaint:
    """What stays of a source [1, T, C] where `mask` [1, T, 1] is 0.

    For the share `held` of the steps the source is put back there at the step's own noise level; in the end the
    two are blended over `ramp` frames outside the mask (`repaint` of ACE-Step).
    """

    source: torch.Tensor
    mask: torch.Tensor
    held: float = 1.0
    ramp: int = 0


class Guide:
    """The guided velocities of one run: field, conditions and guidance, with APG's momentum.

    Make a new one for each run: the momentum belongs to it.
    """

    def __init__(self, field: Fast | Plain, conditions: Conditions, schedule: Schedule) -> None:
        from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

        self.field = field
        self.schedule = schedule
        self.guided = schedule.guidance > 1.0
        self.momentum = MomentumBuffer(momentum=APG_MOMENTUM)
        self.hear(conditions)

    def hear(self, conditions: Conditions) -> None:
        """Go on with other conditions of the same length; the momentum stays."""
        self.heard: Velocity = self.field.hear(conditions)

    def velocity(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """The velocity [B, T, C] at noise level t."""
        cond, uncond = self.pair(x, t)
        if uncond is None:
            return cond
        if self.schedule.adg:
            return adg(x, cond, uncond, t, self.schedule.guidance)
        return self.apg(cond, uncond)

    def pair(self, x: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The conditional and the unconditional velocity; None for the second where guidance does not act."""
        start, end = self.schedule.interval
        if self.guided and start <= 1.0 - t <= end:
            return self.heard(x, t, True).chunk(2)
        return self.heard(x, t, False), None

    def apg(self, cond: torch.Tensor, uncond: torch.Tensor) -> torch.Tensor:
        """Adaptive projected guidance of two velocities; moves the momentum on."""
        from diffusers.guiders.adaptive_projected_guidance import normalized_guidance

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


OnStep = Callable[[int, int], None]


def denoise(
    guide: Guide,
    noise: torch.Tensor,
    on_step: OnStep = lambda step, of: None,
    along: Noise | Noises | None = None,
    change: Switch | Repaint | None = None,
) -> torch.Tensor:
    """Latents [B, T, C] from noise of the same shape.

    `on_step(done, of)` is called after each step; what it raises ends the run, and nothing is left behind. SDE draws its
    noise from `along`: x0 = x - sigma v, x' = (1 - sigma') x0 + sigma' eps
    (`FlowMatchEulerDiscreteScheduler` with stochastic sampling).
    """
    import torch

    schedule = guide.schedule
    # Sigmas stay 0-dimensional float32 tensors: with Python floats, bf16 products would round otherwise than the stock
    # scheduler's.
    levels = sigmas(schedule.steps, schedule.shift, noise.device)
    times = levels.tolist()
    x = noise
    with torch.no_grad():
        for i in range(schedule.steps):
            if isinstance(change, Switch) and i == change.at:
                guide.hear(change.to)
            v = guide.velocity(x, times[i])
            wide = x.to(torch.float32)
            if schedule.sde:
                wide = (1.0 - levels[i + 1]) * (wide - levels[i] * v) + levels[i + 1] * along(wide)
            else:
                wide = wide + (levels[i + 1] - levels[i]) * v
            x = wide.to(v.dtype)
            if isinstance(change, Repaint) and i < round(change.held * schedule.steps):
                held = levels[i + 1] * noise + (1.0 - levels[i + 1]) * change.source
                x = torch.where(change.mask > 0, x, held.to(x.dtype))
            on_step(i + 1, schedule.steps)
        if isinstance(change, Repaint) and change.ramp:
            # lerp leaves equal values and a share of 1 as they are, to the bit
            x = torch.lerp(change.source, x, ramps(change.mask, change.ramp).expand_as(x))
    return x


def ramps(mask: torch.Tensor, width: int) -> torch.Tensor:
    """A mask [1, T, 1] of 0 and 1 with slopes outside its ones, `width` frames long: 1 - d / (width + 1) at distance d."""
    import torch

    length = mask.shape[1]
    ones = mask[0, :, 0] > 0
    places = torch.arange(length, device=mask.device)
    before = torch.where(ones, places, -length).cummax(0).values
    after = torch.where(ones, places, 2 * length).flip(0).cummin(0).values.flip(0)
    distance = torch.minimum(places - before, after - places)
    return (1 - distance / (width + 1)).clamp(min=0).to(mask.dtype)[None, :, None]


@dataclass(frozen=True)
class Morph:
    """A song on its way from one description to another: the two guides, and the song itself [1, T, C].

    Steps `first` to before `last` move it, by the mean of `draws` draws of noise each.
    """

    source: Guide
    target: Guide
    song: torch.Tensor
    first: int
    last: int
    draws: int = 1


def flow_edit(morph: Morph, noise: Noise | Noises, on_step: OnStep = lambda step, of: None) -> torch.Tensor:
    """The morphed song [1, T, C]; equal guides give the very song back (flow edit of ACE-Step, FlowEdit 2412.08629).

    In each step from t to t' both guides look at the song under the same noise, the target's at the song as it has
    become, and it moves by (t' - t) (v_target - v_source). From `last` on the noised result is denoised for the
    target alone. Only the move is kept (`moved` = edit - song), so that where nothing moves nothing is rounded.
    """
    import torch

    schedule, song = morph.target.schedule, morph.song.to(torch.float32)
    levels = sigmas(schedule.steps, schedule.shift, song.device)
    times, dtype = levels.tolist(), morph.song.dtype
    moved = torch.zeros_like(song)
    with torch.no_grad():
        for i in range(morph.first, morph.last):
            t, step = times[i], levels[i + 1] - levels[i]
            seen = [(1 - t) * song + t * noise(song) for _ in range(morph.draws)]
            target = _mean(morph.target, [(z + moved).to(dtype) for z in seen], t)
            moved = moved + step * (target - _mean(morph.source, [z.to(dtype) for z in seen], t))
            on_step(i + 1, schedule.steps)
        if morph.last == schedule.steps:
            return (song + moved).to(dtype)
        t = times[morph.last]
        x = moved + (1 - t) * song + t * noise(song)
        for i in range(morph.last, schedule.steps):
            x = x + (levels[i + 1] - levels[i]) * morph.target.velocity(x.to(dtype), times[i]).float()
            on_step(i + 1, schedule.steps)
    return x.to(dtype)


def _mean(guide: Guide, seen: list[torch.Tensor], t: float) -> torch.Tensor:
    """The mean velocity over several noisy views, float32. APG's momentum moves once, by their mean difference."""
    before, differences, velocities = guide.momentum.running_average, [], []
    for z in seen:
        cond, uncond = guide.pair(z, t)
        guide.momentum.running_average = before
        velocities.append((cond if uncond is None else guide.apg(cond, uncond)).float())
        if uncond is not None:
            differences.append(cond - uncond)
    guide.momentum.running_average = before
    if differences:
        guide.momentum.update(sum(differences) / len(differences))
    return sum(velocities) / len(velocities)
