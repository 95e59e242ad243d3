"""From a row of the checkpoint table to a loaded pipeline, or to one sentence that says what is missing."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import oobleck
import processors
from errors import EngineMissing, in_our_words, out_of_memory
from random_checkpoint import XL_SFT, build
from settings import DEMO_FOLDER, Checkpoint, PlannerRow, read
from tiers import TIERS, WHOLE, Tier, out_of_room, place, tier_for

GIB = 2**30
XL = ("xl-sft", "xl-turbo")  # one architecture
WIDE = 2048  # the transformer of a published model is at least so wide; narrower ones fit any card

log = logging.getLogger("ace.checkpoints")


def device() -> str:
    """The best device of this machine: "cuda", "mps" or "cpu".

    On ZeroGPU torch is not asked: its CUDA is emulated in the main thread alone.
    """
    if read().zero_gpu:
        return "cuda"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def dtype_for(on: str) -> Any:
    """bfloat16 on CUDA and on MPS that has it (float16 overflows there), float32 elsewhere."""
    import torch

    if on == "mps":
        try:
            torch.ones(1, dtype=torch.bfloat16, device="mps") * 2
        except (RuntimeError, TypeError):
            return torch.float32
    return torch.float32 if on == "cpu" else torch.bfloat16


def free_gib(on: str) -> float:
    """Free memory of a device."""
    if read().zero_gpu:  # its GPU is emulated until a worker is forked, and large enough
        return float("inf")
    if on == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0] / GIB
    import psutil

    return psutil.virtual_memory().available / GIB


def folder(source: str, revision: str | None, within: str = "") -> Path:
    """Where the files of a language model are, fetched if need be: safetensors and text files alone.

    `source` is a folder, or a Hub id with the folder `within` it.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    start = f"{within}/" if within else ""
    wanted = [f"{start}{kind}" for kind in ("*.json", "*.txt", "*.jinja", "*.safetensors")]
    return Path(snapshot_download(source, revision=revision, allow_patterns=wanted)) / within


def tier(checkpoint: Checkpoint, on: str, local_only: bool = False) -> Tier:
    """How a checkpoint lives on a device: as ACE_TIER says, else by the memory that is free now; `local_only` as below.

    Raises EngineMissing when there is no room, or when nothing is known of the checkpoint.
    """
    # An Apple GPU has the machine's own memory: what leaves it goes nowhere. ZeroGPU's cards are larger than any tier, and
    # a worker is forked with its weights packed for them.
    if on != "cuda" or read().zero_gpu:
        return WHOLE
    if transformer_config(checkpoint, local_only).get("hidden_size", 0) < WIDE:
        return WHOLE
    return TIERS[read().tier] if read().tier else tier_for(free_gib(on), checkpoint.name)


def pipeline(checkpoint: Checkpoint, on: str, tier: Tier = WHOLE) -> Any:
    """The `AceStepPipeline` of a checkpoint on a device, in the way of a tier.

    Raises EngineMissing when its weights cannot be had.
    """
    dtype = dtype_for(on)
    if on == "cpu" and (threads := processors.threads()):
        import torch

        torch.set_num_threads(threads)
    if checkpoint.random:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER / "tokenizer")
        pipe = build(XL_SFT, tokenizer, "cpu" if tier.shares else on, dtype)
        oobleck.prepare(pipe.vae, on)
        return place(pipe, on, tier)
    from diffusers import AceStepPipeline

    try:
        if Path(checkpoint.source).is_dir():
            _complete(Path(checkpoint.source))
        # Safetensors only: pickled weights can run code.
        pipe = AceStepPipeline.from_pretrained(
            checkpoint.source, revision=checkpoint.revision, dtype=dtype, use_safetensors=True
        )
        pipe.set_progress_bar_config(disable=True)
        oobleck.prepare(pipe.vae, on)  # before it moves: on ZeroGPU what is on the GPU cannot be computed with yet
        return place(pipe, on, tier)
    except EngineMissing:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise out_of_room(tier) from error
        raise missing(checkpoint, error) from error


def transformer_config(checkpoint: Checkpoint, local_only: bool = False) -> Mapping[str, Any]:
    """The configuration of a checkpoint's transformer, without its weights; `local_only` asks no network.

    Raises EngineMissing when it cannot be had.
    """
    if checkpoint.random or checkpoint.key in XL:
        return XL_SFT["transformer"]
    from huggingface_hub import hf_hub_download

    try:
        folder = Path(checkpoint.source)
        if not folder.is_dir():
            own = {"revision": checkpoint.revision, "local_files_only": local_only}
            return json.loads(Path(hf_hub_download(checkpoint.source, "transformer/config.json", **own)).read_text())
        return json.loads((folder / "transformer" / "config.json").read_text())
    except Exception as error:
        raise missing(checkpoint, error) from error


def _complete(folder: Path) -> None:
    """Raise unless each part has its configuration: transformers makes up one of 30 GB for a text encoder without."""
    for part, kind in json.loads((folder / "model_index.json").read_text()).items():
        named = isinstance(kind, list) and kind[0]  # [null, null] stands for an optional part that is not there
        if named and not any((folder / part).glob("*config.json")):
            raise FileNotFoundError(f"{part} has no configuration")


def missing(checkpoint: Checkpoint | PlannerRow, error: BaseException) -> EngineMissing:
    """Why weights could not be loaded, and the command that fetches them."""
    if out_of_memory(error):
        raise in_our_words(error) from error
    log.warning("%s did not load", checkpoint.source, exc_info=error)
    if Path(checkpoint.source).is_dir():
        return EngineMissing(
            f"The checkpoint in {Path(checkpoint.source).name}/ is incomplete or damaged ({type(error).__name__}).",
            "Fetch or copy it again.",
        )
    size = f" ({checkpoint.size_gb:g} GB)" if checkpoint.size_gb else ""
    why = "there is no network, or the download is incomplete"
    kinds = {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
    if any(getattr(cause, "errno", None) == errno.ENOSPC for cause in _causes(error)):
        why = "the disk is full"
    elif kinds & {"RepositoryNotFoundError", "RevisionNotFoundError"}:  # a gated repository is a kind of not found
        why = "the Hub has no such repository or revision, or asks for a login"
    return EngineMissing(
        f"The weights of {checkpoint.name}, {checkpoint.source}{size}, could not be loaded: {why}.",
        f"Fetch them with: {checkpoint.fetch}",
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
