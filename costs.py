"""How long work takes: sums fitted to measured songs, phase by phase, and brought into line by those of this process."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from afters import Separate
from learning import Belief
from lyrics import Lyrics
from remakes import Cover, Remake
from settings import ROOT
from song import Asked, SongRequest

STORE = ROOT / "assets" / "costs.json"  # measured rows and what was fitted to them, by `python -m benchmarks.costs`
FITS = json.loads(STORE.read_text("utf-8"))["fits"]
COSTS: dict[str, dict[str, float]] = {device: fit["costs"] for device, fit in FITS.items()}

COLD_START_S = 15  # a fresh ZeroGPU worker streams all weights into memory first
# A task that is cut off has cost all its seconds for nothing, so ask for what 95 of 100 held-out runs stayed within; and
# never for less than two runs of one song on the same card differed by (docs/performance.md), for a worker's card is shared.
MARGIN = max(1.4, FITS["cuda"]["spread"])
DRAFT_THOUGHTS = 10  # a draft's lyrics are ten times as long as a thought
LYRICS_LOAD_S, LYRICS_TOKEN_S = 25, 0.02  # 15 GB read by each fresh worker; a token of 7 billion weights
STEMS_LOAD_S, STEMS_S_PER_S = 8, 0.03  # 84 MB read by each fresh worker; htdemucs runs at many times real time
DRAFT_S = {"cuda": 10, "mps": 30, "cpu": 45}  # lyrics of the default structure, by the model of such a machine
REFERENCE_S = 30  # a timbre reference is heard as three pieces of 10 s, however long it is
SHORT_S = 0.1  # a phase that should take less says little of the machine, and weighs nothing

_beliefs: dict[tuple[str, str, str], Belief] = {}  # by device, checkpoint and phase: as many as there are phases
_believing = threading.Lock()


@dataclass(frozen=True)
class Work:
    """What a song costs by: forwards of the transformer and whether they are guided; seconds that are made and that are
    heard first; codes, a thought, LoRAs; takes of one request; whether the model has to be loaded.
    """

    forwards: float
    seconds: float
    heard: float = 0.0
    guided: bool = True
    codes: int = 0
    thinks: bool = True
    loras: int = 0
    takes: int = 1
    cold: bool = False

    @classmethod
    def of(cls, request: SongRequest, planned: bool = True, cold: bool = False) -> Work:
        """The work of a request; `planned` says whether there is a planner, `cold` whether the model has to be loaded."""
        codes = request.code_count if planned else 0
        heard = request.source_audio.seconds if isinstance(request, Remake) else 0.0
        if isinstance(request, Cover) and request.reference_audio:
            heard += REFERENCE_S
        return cls(
            forwards=request.advanced.inference_steps * request.passes,
            seconds=request.seconds,
            heard=heard,
            guided=request.advanced.guidance_scale > 1,
            codes=codes,
            thinks=planned and bool(codes or request.open),
            loras=len(request.loras),
            takes=request.takes,
            cold=cold,
        )

    def parts(self) -> dict[str, dict[str, float]]:
        """How much of what it takes, by phase: what a machine's costs are multiplied with. Phases are those of `Sound.timings`.

        `assets/estimates.js` counts the same.
        """
        steps, batch = self.forwards * self.takes, 1 + self.guided
        return {
            "load": {"load_s": self.cold, "planner_load_s": self.cold * self.thinks},
            "thought": {"thought_s": self.thinks},
            "sketch": {"code_s": self.codes},
            "conditioning": {"read_s": 1, "heard_s": self.heard},
            "loras": {"lora_s": self.loras},
            "denoise": {
                "step_s": steps,
                "step_s_per_s": steps * self.seconds,
                "guided_s": steps * self.guided,
                "guided_s_per_s": steps * self.guided * self.seconds,
                "lora_step_s": steps * self.loras,
                "lora_step_s_per_s": steps * self.loras * batch * self.seconds,
            },
            "decode": {"decode_s": self.takes, "decode_s_per_s": self.takes * self.seconds},
        }

    def phases(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Seconds of each phase at these costs."""
        return {phase: sum(n * costs[name] for name, n in part.items()) for phase, part in self.parts().items()}


PHASE = {name: phase for phase, part in Work(0, 0).parts().items() for name in part}  # where each cost belongs


def expected(work: Work, device: str, model: str) -> float:
    """Seconds of a song on this machine, going by those that it has made."""
    return sum(_ratio(device, model, phase) * s for phase, s in work.phases(COSTS[device]).items())


def told(device: str, model: str) -> dict[str, float]:
    """The costs of this machine, all that `expected` goes by, for a browser that does the same sum."""
    return {name: cost * _ratio(device, model, PHASE[name]) for name, cost in COSTS[device].items()}


def learn(work: Work, device: str, model: str, timings: Mapping[str, float]) -> None:
    """A song of this machine took so many seconds by phase ("denoise_s", ...).

    Phases that it had no part of are left alone; from the first song after loading, which warms up, nothing is learned.
    """
    if work.cold:
        return
    with _believing:
        for phase, should in work.phases(COSTS[device]).items():
            took, key = timings.get(f"{phase}_s"), (device, model, phase)
            if took is not None and should >= SHORT_S:
                _beliefs[key] = _beliefs.get(key, Belief()).after(took / should)


def _ratio(device: str, model: str, phase: str) -> float:
    return _beliefs.get((device, model, phase), Belief()).ratio


def gpu_seconds(request: Asked, model: str = "") -> float:
    """Seconds of a ZeroGPU worker for a request, with its cold start and a margin; songs by those that `model` has made."""
    if isinstance(request, SongRequest):
        work = expected(Work.of(request), "cuda", model)
    elif isinstance(request, Lyrics):
        work = LYRICS_LOAD_S + request.max_new_tokens * LYRICS_TOKEN_S
    elif isinstance(request, Separate):
        work = STEMS_LOAD_S + request.song.seconds * STEMS_S_PER_S
    else:
        work = DRAFT_THOUGHTS * COSTS["cuda"]["thought_s"]
    return (COLD_START_S + work) * MARGIN


def about(seconds: float) -> str:
    """A time in words, no more exact than it can be."""
    if seconds >= 90:
        return f"about {math.floor(seconds / 60 + 0.5)} min"
    step = 1 if seconds < 10 else 5
    return f"about {max(1, math.ceil(seconds / step) * step)} s"
