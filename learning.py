"""How much slower or faster this machine is than the one that was measured: a ratio of times, learned from song to song."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Standard deviations of a ratio's logarithm: before anything was seen (a machine may be 20 times as slow), of one song at a
# machine that has other work too, and of the machine from one song to the next.
DOUBT, NOISE, DRIFT = 1.5, 0.2, 0.1
ODD = 2.5  # what lies so many standard deviations off is not believed at once
LIMITS = (1e-3, 1e3)


@dataclass(frozen=True)
class Belief:
    """What is believed of a ratio: mean and variance of its logarithm, by a Kalman filter of one number.

    The first song is believed almost wholly, later ones by a third or so. One that is odd (it shared the machine with
    something else) changes nothing but how sure the belief is: the next song then decides alone, so that a machine that
    really changed is believed at the second song.
    """

    mean: float = 0.0
    variance: float = DOUBT**2

    @property
    def ratio(self) -> float:
        """What to multiply the model's seconds with."""
        return math.exp(self.mean)

    def after(self, seen: float) -> Belief:
        """The belief once a ratio of 0 or more was seen."""
        surprise = math.log(min(max(seen, LIMITS[0]), LIMITS[1])) - self.mean
        before = min(self.variance + DRIFT**2, DOUBT**2)
        total = before + NOISE**2
        if before < DOUBT**2 and abs(surprise) > ODD * math.sqrt(total):
            return Belief(self.mean)
        gain = before / total
        return Belief(self.mean + gain * surprise, (1 - gain) * before)
