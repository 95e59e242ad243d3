"""What travels between the floors: a recording, a LoRA, a song's progress, an engine's sound, the finished take, its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

SAMPLE_RATE = 48_000  # Hz, everywhere inside the studio
LATENT_RATE = 25  # latent frames per second
HOP = SAMPLE_RATE // LATENT_RATE  # samples in a latent frame


@dataclass(frozen=True, eq=False)
class AudioClip:
    """A recording that was let in: float32 samples [2, n] at 48 kHz, and what is known of its file.

    `file` holds `sha256` (of the bytes), `format` ("WAV", "MP3", ...), `sample_rate` (Hz) and `channels`.
    """

    samples: np.ndarray
    file: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return self.samples.shape[1] / SAMPLE_RATE

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a recipe says of it: hash and length of the samples, and the file's own facts."""
        own = {"sha256": sha256(self.samples), "samples": self.samples.shape[1], "seconds": self.seconds}
        return {**own, "file": dict(self.file)}

    def cut(self, start: int, stop: int) -> AudioClip:
        """The samples from `start` to before `stop`, as a recording of its own."""
        return AudioClip(self.samples[:, start:stop].copy(), self.file)


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA file that was let in. `lora_stack.admit` makes one.

    `scales` has alpha / rank (or alpha / sqrt(rank)) of each module it changes, by diffusers' name; `alpha` says where that
    is from ("config", "file", "header"), or is empty when the file does not say and its weights are taken as they are.
    """

    path: str
    name: str
    sha256: str
    size: int  # bytes
    rank: int  # the highest of its modules
    scales: Mapping[str, float]
    alpha: str = ""
    preset: str = ""  # its key, if it came with the studio

    @property
    def facts(self) -> dict[str, Any]:
        """What a recipe says of it."""
        own = {"name": self.name, "sha256": self.sha256, "bytes": self.size, "rank": self.rank}
        scale = sorted(set(self.scales.values()))
        own |= {"modules": len(self.scales), "alpha": self.alpha or "unknown", "scale": scale}
        return own | ({"preset": self.preset} if self.preset else {})

    @cached_property
    def key(self) -> str:
        """The same for the same weights at the same scales."""
        told = json.dumps([self.sha256, sorted(self.scales.items())])
        return hashlib.sha256(told.encode()).hexdigest()


def sha256(samples: np.ndarray) -> str:
    """The hash of samples [2, n] in the order of a WAV file: float32, little-endian, interleaved."""
    return hashlib.sha256(np.ascontiguousarray(samples.T, dtype="<f4").data).hexdigest()


@dataclass(frozen=True)
class Progress:
    """Where a song stands. `of` is 0 in phases without steps; `left_s` is None while unknown.

    `text` is what there is of lyrics so far. Where several takes are made it is about the one numbered `take` of `takes`,
    those before it being finished, while its steps are counted over all of them.
    """

    phase: str
    step: int = 0
    of: int = 0
    left_s: float | None = None
    text: str = ""
    take: int = 1
    takes: int = 1

    @property
    def words(self) -> str:
        """The phase, and of which take."""
        return f"{self.phase}, take {self.take} of {self.takes}" if self.takes > 1 else self.phase


@dataclass(frozen=True)
class Sound:
    """What an engine returns: `samples` is a float32 array [2, n] at `sample_rate`.

    `planner` is what a recipe says of the plan behind it: its `name`, what it has `chosen`, the `plan`; or why it is
    `missing`. `together` says of one of several takes which `take` it is `of` how many; `batch` in it is true where they were
    denoised in one batch, in which a take differs in its last bits from the same one made alone. Each of them has as
    `timings` its own share: `total_s` is the time since the take before it, of the first with what all have in common.
    """

    samples: np.ndarray
    sample_rate: int
    timings: Mapping[str, float]
    model: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    planner: Mapping[str, Any] | None = None
    together: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Sheet:
    """Lyrics as the lyrics model wrote them; `timings` in seconds, with the `tokens` that were drawn; `model` says who."""

    text: str
    timings: Mapping[str, float]
    model: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """Finished lyrics with the recipe that makes them again."""

    text: str
    metadata: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Stems:
    """What a separator made of a song: float32 samples [2, n] at 48 kHz by name, which add up to the song."""

    samples: Mapping[str, np.ndarray]
    timings: Mapping[str, float]
    model: Mapping[str, Any]


@dataclass(frozen=True)
class Take:
    """A finished song: the file, what is known of it, and the recipe that makes it again and travels in every file of it."""

    path: str
    metadata: Mapping[str, Any] = field(hash=False)
    recipe: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Files:
    """What became of a take: the files by name, and what was measured while they were made."""

    paths: Mapping[str, str] = field(hash=False)
    metadata: Mapping[str, Any] = field(hash=False)
