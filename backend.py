"""The gate to the GPU: one engine, one planner, one lock, one `@spaces.GPU` function for every request.

On a ZeroGPU Space the body of `run_gpu` runs in a forked worker, and only plain values cross: a frozen request and a
two numbers in; `Progress`, `Sound`, `Draft`, `Sheet` or `Stems`, and `Failure` out. Elsewhere the decorator is the identity and the same
code runs in this process. What needs no GPU happens outside, in `modes.py`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import ace_pipeline
import checkpoints
import composer
import costs
import lora_layouts
import lyrics_lm
import planners
import stems
import tiers
from afters import Separate
from errors import (
    EngineMissing,
    Failure,
    GpuAborted,
    Stopped,
    StudioError,
    as_failure,
    out_of_memory,
)
from lora_stack import Model
from lyricists import LYRICISTS, LyricistRow, lyricist_for
from lyrics import Lyrics
from plans import Draft, Plan
from quotas import of_zero_gpu
from settings import Checkpoint, PlannerRow, checkpoint_for, planner_for, read
from song import Asked, SongRequest
from sound import Progress, Sheet, Sound, Stems

if sys.platform == "linux":
    import spaces  # before torch: on ZeroGPU it patches torch's CUDA
else:
    spaces = None

log = logging.getLogger("ace.backend")

BEAT_S = 0.5  # a generator can be stopped only when it yields: in long phases the last event is told again
Answer = Sound | Draft | Sheet | Stems
END = None  # what the engine's thread says last

_lock = threading.Lock()  # one song at a time
_building = threading.Lock()
_engine: Any = None
_planner: Any = None
_tier: tiers.Tier | None = None  # chosen once, so that the header keeps its word
_lyricists: dict[str, lyrics_lm.Lyricist] = {}  # by the key of their row
_separators: dict[str, stems.Separator] = {}  # likewise


def checkpoint() -> Checkpoint:
    """The checkpoint this machine sings with. Raises SettingError when ACE_MODEL names nothing."""
    model = read().model
    return checkpoint_for(model, checkpoints.device() if not model else "cpu")


def loaded() -> bool:
    """Whether the engine of this process is there: the next song does not wait for it."""
    return _engine is not None


def tier(local_only: bool = False) -> tiers.Tier:
    """How the song model lives on this machine's device, by what was free when it was first asked.

    Raises EngineMissing when there is no room, or when nothing is known of the model; `local_only` asks no network.
    """
    global _tier
    if _tier is None:
        _tier = checkpoints.tier(checkpoint(), checkpoints.device(), local_only)
    return _tier


def tier_name() -> str:
    """What the page calls that tier, without asking the network; empty where there is none or none can be told yet."""
    try:
        return tier(local_only=True).name
    except EngineMissing:  # which the first song says
        return ""


def get_backend() -> Any:
    """The one engine of this process, built by the first caller. A failed build is not remembered.

    Raises EngineMissing when the weights cannot be had.
    """
    global _engine
    with _building:
        if _engine is None:
            _engine = ace_pipeline.load(checkpoint(), checkpoints.device(), tier())
        return _engine


def model(local_only: bool = False) -> Model:
    """What LoRAs have to fit: the loaded engine, or the one that would be; `local_only` asks no network about it.

    Raises EngineMissing when that is unknown.
    """
    row, engine = checkpoint(), _engine
    config = engine.pipe.transformer.config if engine else checkpoints.transformer_config(row, local_only)
    name = "the demo model" if row.key == "demo" else row.name
    return Model(name, lora_layouts.targets(config))


def planner_row() -> PlannerRow | None:
    """The planner this machine thinks with, if any. Raises SettingError when ACE_PLANNER names nothing."""
    return planner_for(read().planner, checkpoint())


def get_planner() -> Any:
    """The one planner of this process, built by the first caller after the engine, whose tokenizer it borrows.

    Raises EngineMissing when its weights cannot be had, or when there is no room for them.
    """
    global _planner
    row, engine = planner_row(), get_backend()
    with _building:
        if _planner is None:
            _planner = planners.load(row, engine.device, engine.pipe.tokenizer, engine.tier.shares)
        return _planner


def lyricist_row() -> LyricistRow:
    """The model this machine writes lyrics with. Raises SettingError when ACE_LYRICS_MODEL names nothing."""
    wanted = read().lyrics_model
    return lyricist_for(wanted, "" if wanted else checkpoints.device())


def get_lyricist() -> lyrics_lm.Lyricist:
    """The one lyricist of this process, built by the first who asks for lyrics; song calls do not carry it.

    Where the machine's own choice cannot be had, the small one that comes with the studio stands in and says why. Raises
    EngineMissing when neither can be had, or not the one that ACE_LYRICS_MODEL names.
    """
    row, on = lyricist_row(), checkpoints.device()
    with _building:
        try:
            return _lyricist(row, on)
        except EngineMissing as error:
            if read().lyrics_model:
                raise
            with contextlib.suppress(EngineMissing):
                return replace(_lyricist(LYRICISTS["smollm2"], on), instead=str(error))
            raise


def _lyricist(row: LyricistRow, on: str) -> lyrics_lm.Lyricist:
    if row.key not in _lyricists:
        _lyricists[row.key] = lyrics_lm.load(row, on)
    return _lyricists[row.key]


def stems_row() -> stems.StemsRow:
    """The model this machine takes songs apart with. Raises SettingError when ACE_STEMS_MODEL names nothing."""
    return stems.row_for(read().stems_model)


def get_separator() -> stems.Separator:
    """The one separator of this process, built by the first who asks for stems; song calls do not carry it.

    Raises EngineMissing when its weights cannot be had.
    """
    row = stems_row()
    with _building:
        if row.key not in _separators:
            _separators[row.key] = stems.load(row, checkpoints.device())
        return _separators[row.key]


def gpu_seconds(request: Asked, multiplier: float = 1.0, done: int = 0, *_: Any, **__: Any) -> int:
    """Seconds of GPU to ask for: cold start, steps and decoding with a margin, within the bounds of the settings.

    ZeroGPU calls it in the main process with the very arguments of `run_gpu`, before queueing: it must be quick and must
    not raise.
    """
    bounds = read()
    key = checkpoint_for(bounds.model, "cuda").key  # without asking torch what device there is
    left = request.model_copy(update={"takes": request.takes - done}) if done else request
    estimate = max(int(costs.gpu_seconds(left, key)), bounds.gpu_min_s)
    return int(min(estimate * multiplier, bounds.gpu_max_s))


def on_gpu(function: Any) -> Any:
    """`spaces.GPU`, which is the identity off ZeroGPU; the package exists for Linux only."""
    return spaces.GPU(duration=gpu_seconds)(function) if spaces else function


@on_gpu
def run_gpu(request: Asked, multiplier: float = 1.0, done: int = 0) -> Iterator[Progress | Answer | Failure]:
    """Answer one request: progress by step, and what it asks for or a Failure. Closing the generator stops it soon.

    Of several takes each comes as it is finished; the first `done` of them are left out.

    The engine works in a thread, so that its steps can be told while they happen. Errors are values here: an exception
    would end the ZeroGPU worker and lose its words.
    """
    events: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()

    def report(progress: Progress) -> None:
        if stop.is_set():
            raise Stopped("Stopped.")
        events.put(progress)

    threading.Thread(target=_answer, args=(request, done, report, events.put), daemon=True).start()
    told = Progress("Starting")
    try:
        while True:
            try:
                event = events.get(timeout=BEAT_S)
            except queue.Empty:
                event = told
            if event is END:
                return
            told = event if isinstance(event, Progress) else told
            yield event
    finally:
        # The thread is not waited for: the next song waits for it at the lock, and a page's event loop must not.
        stop.set()


def _answer(request: Asked, done: int, report: Any, put: Any) -> None:
    try:
        while not _lock.acquire(timeout=0.5):
            report(Progress("Waiting for the song before yours"))
        try:
            for made in _made(request, done, report):
                put(made)
        except BaseException as error:  # a panic in a Rust extension is no Exception, and silence would hang the page
            _free_memory(error)
            put(as_failure(tiers.out_of_room(_tier) if _tier and out_of_memory(error) else error))
        finally:
            _lock.release()
    except Stopped as error:
        put(as_failure(error))
    finally:
        put(END)


def _made(request: Asked, done: int, report: Any) -> Iterator[Answer]:
    if isinstance(request, Lyrics):
        if lyricist_row().key not in _lyricists:
            report(Progress("Loading the lyrics model; the first draft takes longer"))
        lyricist = get_lyricist()
        try:
            yield lyricist.write(request, report)
        finally:
            if _tier and _tier.shares:
                lyricist.lm.leave()
    elif isinstance(request, Separate):
        if stems_row().key not in _separators:
            report(Progress("Loading the stems model; the first stems take longer"))
        yield get_separator().separate(request.song, report)
    else:
        if _engine is None:
            report(Progress("Loading the model; the first song takes longer"))
        planner = get_planner if planner_row() else None
        yield from composer.answer(get_backend(), planner, request, report, done)


def _free_memory(error: BaseException) -> None:
    """After running out of memory, give back what the failed song held, so that the next one finds room."""
    torch = sys.modules.get("torch")
    if torch and out_of_memory(error):
        error.__traceback__ = None  # its frames hold the song's tensors
        _lyricists.clear()  # songs come first; they are loaded again when they are asked
        _separators.clear()
        getattr(torch.get_device_module(), "empty_cache", lambda: None)()  # torch.cuda, torch.mps; torch.cpu has none


def answer(request: Asked) -> Iterator[Progress | Answer]:
    """Answer one request through the gate: progress events, then the Draft or the Sheet of words, the Stems, or in between
    the Sound of each take of a song.

    Raises StudioError in the user's words. A GPU task that was aborted is tried once more at twice the estimate, for the
    takes that are missing, after the plan of those that came.
    """
    made, planner = 0, None
    try:
        for event in _attempt(request, 1.0):
            yield event
            if not isinstance(event, Progress):
                made, planner = made + 1, getattr(event, "planner", None)
    except GpuAborted:
        if made == getattr(request, "takes", 1):
            return
        log.warning("GPU task aborted within %d s; trying once more", gpu_seconds(request))
        yield Progress("The GPU stopped early. Trying once more with more time")
        yield from _attempt(_planned(request, planner), 2.0, made, planner)


def _planned(request: Asked, planner: Mapping[str, Any] | None) -> Asked:
    """A request with the plan of a song that was made of it."""
    plan = (planner or {}).get("plan")
    return request.model_copy(update={"plan": Plan.model_validate(plan)}) if plan else request


def _attempt(
    request: Asked, multiplier: float, done: int = 0, planner: Mapping[str, Any] | None = None
) -> Iterator[Progress | Answer]:
    cold, spent = not loaded(), Counter()
    try:
        for event in run_gpu(request, multiplier, done):
            if isinstance(event, Failure):
                raise event.error()
            if isinstance(event, Sound):
                spent.update(event.timings)
                event = replace(event, planner=planner) if planner else event
            yield event
    except StudioError:
        raise
    except Exception as error:
        raise of_zero_gpu(error) from error
    if spent and not done:
        _compare(request, spent, gpu_seconds(request, multiplier), cold)


def _compare(request: SongRequest, spent: Mapping[str, float], asked: int, cold: bool) -> None:
    """Learn from the times a song's takes took together, and say in the log when they came near what was asked of ZeroGPU."""
    took = spent.get("total_s", 0)
    work = costs.Work.of(request, planner_row() is not None, cold)
    costs.learn(work, checkpoints.device(), checkpoint().key, spent)
    if read().zero_gpu and took > 0.8 * asked:
        log.warning("song took %.0f s of the %d s asked for", took, asked)
