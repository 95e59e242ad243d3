"""The velocity field that the sampler follows: diffusers' own forward, or the one of `dit.py` where it can be had.

Both hear the conditions of a song once and are then asked for velocities of its noisy latents, step by step.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dit
from errors import out_of_memory

if TYPE_CHECKING:
    import torch

log = logging.getLogger("ace.velocity")

AGREED = 0.03  # relative error of one forward; two right ones differ by less than 0.01 in bfloat16

# Velocities of latents [B, T, C] at noise level t: [B, T, C], or guided [2 B, T, C], the unconditional last.
Velocity = Callable[["torch.Tensor", float, bool], "torch.Tensor"]


@dataclass(frozen=True)
class Conditions:
    """What the transformer hears: `cond` [1, L, D], learned `null` [1, 1, D], `context` [1, T, 2C] (latents and mask)."""

    cond: torch.Tensor
    null: torch.Tensor
    context: torch.Tensor


class Plain:
    """diffusers' forward as it is."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    def hear(self, conditions: Conditions) -> Velocity:
        """The velocities of a song under these conditions, which are put side by side once."""
        import torch

        @functools.cache
        def beside(songs: int, guided: bool) -> tuple[torch.Tensor, torch.Tensor]:
            cond, rows = conditions.cond.expand(songs, -1, -1), songs * (2 if guided else 1)
            if guided:
                null = conditions.null.expand_as(cond)
                cond = torch.cat([cond, null])
            return cond, conditions.context.repeat(rows, 1, 1)

        def velocity(x: torch.Tensor, t: float, guided: bool) -> torch.Tensor:
            cond, context = beside(len(x), guided)
            x = torch.cat([x, x]) if guided else x
            level = t * x.new_ones((x.shape[0],))
            return self.transformer(
                hidden_states=x,
                timestep=level,
                timestep_r=level,
                encoder_hidden_states=cond,
                context_latents=context,
                return_dict=False,
            )[0]

        return velocity


class Fast:
    """The forward of `dit.py`, for as long as it agrees with diffusers'; nobody is kept waiting for a reason why not.

    On a device with kernels of its own its first answer to a kind of song (length, takes, guidance, what LoRAs change) is
    held against the plain one, for other kernels may answer another kind. When they differ, or it fails for want of a
    kernel, the plain one sings from then on, and the log says so.
    """

    def __init__(self, transformer: Any) -> None:
        self.plain = Plain(transformer)
        self.dit: dit.Dit | None = None
        self.checks = transformer.device.type != "cpu"  # where the tests hold it to the plain one
        self.agreed: set[Hashable] = set()  # the kinds of song that were checked

    def hear(self, conditions: Conditions) -> Velocity:
        """The velocities of a song under these conditions, with the LoRAs that are attached now."""
        slow = self.plain.hear(conditions)
        try:
            self.dit = self.dit or dit.Dit(self.plain.transformer)  # late: a ZeroGPU worker has its own weights
            heard = self.dit.hear(conditions.cond, conditions.null, conditions.context)
        except Exception as error:
            self._give_up(error)
            return slow

        def velocity(x: torch.Tensor, t: float, guided: bool) -> torch.Tensor:
            if self.dit is None:
                return slow(x, t, guided)
            kind = (x.shape, guided, heard.parts)
            if not self.checks or kind in self.agreed:
                return self.dit.velocity(heard, x, t, guided)
            expected = slow(x, t, guided)
            try:
                found = self.dit.velocity(heard, x, t, guided)
                compare(found, expected)
            except Exception as error:
                self._give_up(error)
                return expected
            self.agreed.add(kind)
            return found  # a seed's song is the same whether it is the first of its kind or not

        return velocity if self.dit else slow

    def _give_up(self, error: Exception) -> None:
        if out_of_memory(error):
            raise error
        log.warning("Songs take longer: the fast forward cannot be used here.", exc_info=error)
        self.dit, self.hear = None, self.plain.hear


def compare(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Raises RuntimeError where velocities are further off the expected ones than rounding explains."""
    off = float((found - expected).float().norm() / expected.float().norm())
    if not off < AGREED:
        raise RuntimeError(f"The fast forward is {off:.3f} off.")
    log.info("fast forward: %.4f off the plain one", off)


def of(transformer: Any, fast: bool = True) -> Fast | Plain:
    """The field of a transformer: the fast one unless it is not wanted, or the transformer is none that it knows."""
    if why := dit.unreadable(transformer) if fast else "as it was asked":
        log.info("diffusers' own forward sings: %s", why)
    return Plain(transformer) if why else Fast(transformer)
