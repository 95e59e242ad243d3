"""What the planner and the lyrics ask of a language model, whichever library runs it: `lm_torch.py` or `lm_mlx.py`.

Chance comes from outside as numbers in [0, 1), one for each token, so that a seed means the same on every machine, and a
token is found from its number on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from errors import BadOutput

BEAT = 16  # codes between two words to the listener, who may stop the song by raising
NO_CODES = "Try another seed, or turn thinking off."


def lost(hint: str = "Try another seed.") -> BadOutput:
    """What is said of numbers that are not finite."""
    return BadOutput("The language model lost its way (numbers that are not finite).", hint)


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits z: softmax(z / temperature), the `top_k` likeliest (0 = all), and of these the ones
    before which the likelier ones add up to less than `top_p` of the whole; the likeliest stays. Temperature 0 takes it.
    """

    temperature: float = 0.85
    top_p: float = 0.9
    top_k: int = 0


@dataclass(frozen=True)
class CodesAsked:
    """A row of audio codes to be written: code c is the token `first + c`, for 0 <= c < `size`.

    One code for each number of `chances` (float32 [n]). With `cfg` s other than 1 the logits are u + s (c - u) of the two
    prompts, in float32, before anything else; with 1 `negative` is not read.
    """

    prompt: Sequence[int]
    negative: Sequence[int]
    first: int
    size: int
    chances: np.ndarray
    sampling: Sampling
    cfg: float = 2.0


class Text(Protocol):
    """A text that is being written: a prompt in a cache of its own, forgotten with it."""

    def feed(self, ids: Sequence[int]) -> None:
        """Read these tokens, one or more. Raises ValueError where there is no room for them."""

    def pick(self, among: Sequence[int] | str, how: Sampling, chance: float, barred: Sequence[int] = ()) -> int:
        """The next token: one of these ids, or of the mask of that name, none of `barred`. It is not read yet.

        Raises BadOutput when its logits are not finite.
        """

    def mark(self) -> Any:
        """Where the text stands now, for `back`."""

    def back(self, mark: Any) -> None:
        """Forget what was read after `mark`."""


class Speaker(Protocol):
    """A causal language model on its device, kept from request to request and without memory of any. One at a time."""

    def text(self, prompt: Sequence[int], room: int) -> Text:
        """A prompt read, with room for so many tokens more."""


class LM(Speaker, Protocol):
    """One that writes audio codes, too."""

    def codes(self, asked: CodesAsked, on_step: Callable[[int], None]) -> list[int]:
        """The codes. `on_step(done)` is called after every BEAT codes, not after a last few; what it raises ends the work.

        Raises BadOutput when the logits are not finite.
        """
