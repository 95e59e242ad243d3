"""How long work takes: a rough model of each kind of machine, brought into line by the songs that this process has made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from afters import Separate
from lyrics import Lyrics
from song import Asked, SongRequest

COLD_START_S = 15  # a fresh ZeroGPU worker streams all weights into memory first
THINK_S, CODE_S = (
    3,
    0.006,
)  # the planner: a thought, or a draft's lyrics ten times as long; a captured step for each code
LYRICS_LOAD_S, LYRICS_TOKEN_S = 25, 0.02  # 15 GB read by each fresh worker; a token of 7 billion weights
STEMS_LOAD_S, STEMS_S_PER_S = 8, 0.03  # 84 MB read by each fresh worker; htdemucs runs at many times real time
LORA_S = 2  # reading one of 100 MB and putting it beside the weights
LISTEN_S_PER_S = 0.004  # a source is encoded first
MARGIN = 1.3
LEARNING = 0.5  # how much the last song counts in what is expected of the next


@dataclass(frozen=True)
class Cost:
    """Seconds that a kind of machine takes: for a guided step, for each second of song in it, to decode one.

    `unguided` is the share of a step that is left without guidance.
    """

    step_s: float
    step_s_per_s: float
    decode_s_per_s: float
    unguided: float


COSTS = {
    "cuda": Cost(0.22, 0.0007, 0.004, 1.0),  # XL in bf16: bound by kernel launches, docs/performance.md
    "mps": Cost(0.8, 0.004, 0.02, 0.6),  # a guess, until the first song
    "cpu": Cost(0.01, 0.0041, 0.22, 0.5),  # the demo checkpoint on two cores, docs/performance.md
}
DRAFT_S = {"cuda": 10, "mps": 30, "cpu": 45}  # lyrics of the default structure, by the model of such a machine
_learned: dict[str, float] = {}  # how much longer than the model says, by device and checkpoint


@dataclass(frozen=True)
class Work:
    """What a song costs by: forwards of the transformer and whether they are guided, seconds that are made, codes, a thought,
    LoRAs.
    """

    forwards: float
    seconds: float
    guided: bool = True
    codes: int = 0
    thinks: bool = True
    loras: int = 0

    @classmethod
    def of(cls, request: SongRequest, planned: bool = True) -> Work:
        """The work of a request; `planned` says whether there is a planner."""
        forwards = request.advanced.inference_steps * request.passes
        guided = request.advanced.guidance_scale > 1
        codes = request.code_count if planned else 0
        return cls(forwards, request.seconds, guided, codes, planned, len(request.loras))

    def on(self, cost: Cost) -> float:
        """Its seconds on a machine."""
        song = self.forwards * (cost.step_s + self.seconds * cost.step_s_per_s)
        song *= 1 if self.guided else cost.unguided
        song += self.seconds * (cost.decode_s_per_s + LISTEN_S_PER_S)
        return song + self.thinks * THINK_S + self.codes * CODE_S + self.loras * LORA_S


def gpu_seconds(request: Asked) -> float:
    """Seconds of a ZeroGPU worker for a request, with its cold start and a margin."""
    if isinstance(request, SongRequest):
        work = Work.of(request).on(COSTS["cuda"])
    elif isinstance(request, Lyrics):
        work = LYRICS_LOAD_S + request.max_new_tokens * LYRICS_TOKEN_S
    elif isinstance(request, Separate):
        work = STEMS_LOAD_S + request.song.seconds * STEMS_S_PER_S
    else:
        work = 10 * THINK_S
    return (COLD_START_S + work) * MARGIN


def expected(work: Work, device: str, model: str) -> float:
    """Seconds of a song on this machine, going by those that it has made."""
    return work.on(COSTS[device]) * _learned.get(f"{device} {model}", 1.0)


def told(device: str, model: str) -> dict[str, float]:
    """All that `expected` goes by, for a browser that does the same sum."""
    general = {"think_s": THINK_S, "code_s": CODE_S, "lora_s": LORA_S, "listen_s_per_s": LISTEN_S_PER_S}
    return asdict(COSTS[device]) | general | {"learned": _learned.get(f"{device} {model}", 1.0)}


def learn(work: Work, device: str, model: str, took: float) -> None:
    """A song of this machine took so many seconds, its model loaded."""
    key = f"{device} {model}"
    ratio = took / max(work.on(COSTS[device]), 0.1)
    _learned[key] = ratio if key not in _learned else (1 - LEARNING) * _learned[key] + LEARNING * ratio


def about(seconds: float) -> str:
    """A time in words, no more exact than it can be."""
    if seconds >= 90:
        return f"about {math.floor(seconds / 60 + 0.5)} min"
    step = 1 if seconds < 10 else 5
    return f"about {max(1, math.ceil(seconds / step) * step)} s"
