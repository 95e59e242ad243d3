"""How a song model lives on a card: all of it, or part by part, by how much of the card's memory is free.

diffusers moves the parts: its offload brings each to the card for its turn, so that the numbers are those of a large card.
Only the smallest tier changes them, through torchao's 8-bit weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from errors import EngineMissing, OutOfMemory

INSTALL = "Install it with: pip install torchao==0.18.0"


@dataclass(frozen=True)
class Tier:
    """One way to live on a card.

    `needs_gib` is the free memory from which it is chosen, and all that a song of four minutes may take in it; `does` says
    what it does. `resident`: the transformer's weights stay on the card, as they are and where they are. `shares`: the other
    parts and the language models take turns. `eight_bit`: the transformer's matrices have 8-bit weights.
    """

    name: str
    needs_gib: float = 0.0
    does: str = ""
    resident: bool = True
    shares: bool = False
    eight_bit: bool = False


WHOLE = Tier("")  # where nothing is chosen: on processors, Apple GPUs and ZeroGPU, and for small models
# By ACE_TIER, the roomiest first. Needs are below what a card is sold as: a desktop, CUDA itself and other programs take theirs.
TIERS: Mapping[str, Tier] = {
    "full": Tier("full", 26.0, "everything stays on the card, any planner beside it"),
    "24": Tier("24 GB", 20.5, "everything stays on the card, the 1.7B planner beside it"),
    "16": Tier("16 GB", 14.0, "the transformer stays, all else takes turns", shares=True),
    "12": Tier("12 GB", 10.5, "all parts take turns", resident=False, shares=True),
    "8": Tier("8 GB", 7.0, "all parts take turns, the transformer in 8 bits", resident=False, shares=True, eight_bit=True),
}  # fmt: skip


def tier_for(free_gib: float, name: str = "The model") -> Tier:
    """The roomiest tier for so much free memory. Raises EngineMissing below the smallest; `name` is the model's."""
    for tier in TIERS.values():
        if free_gib >= tier.needs_gib:
            return tier
    raise EngineMissing(
        f"There is no room for {name} on this GPU: it needs {tier.needs_gib:.1f} GiB, {free_gib:.1f} are free.",
        "Close what else uses the GPU, or take the demo model with ACE_MODEL=demo.",
    )


def out_of_room(tier: Tier) -> OutOfMemory:
    """What is said of a song that did not fit in a tier: which one asks for less."""
    smaller = (key for key, other in TIERS.items() if other.shares and other.needs_gib < tier.needs_gib)
    less = next(smaller, "")
    hint = f"Try a shorter one, or start the studio with ACE_TIER={less}: slower, in less memory." if less else ""
    return OutOfMemory("The song does not fit into this machine's memory.", hint or "Try a shorter one.")


def place(pipe: Any, on: str, tier: Tier) -> Any:
    """A pipeline on a device ("cuda", "mps", "cpu") in the way of a tier; for one that shares it comes from the CPU.

    Raises EngineMissing where 8-bit weights are wanted and torchao is not there.
    """
    if not tier.shares:
        return pipe.to(on)
    if tier.eight_bit:
        _in_eight_bits(pipe.transformer)
    if tier.resident:
        pipe.model_cpu_offload_seq = pipe.model_cpu_offload_seq.replace("->transformer", "")
        pipe._exclude_from_cpu_offload = ["transformer"]
    pipe.enable_model_cpu_offload(device=on)
    return pipe


def _in_eight_bits(transformer: Any) -> None:
    """Its matrices in int8 with a scale for each row: half of bfloat16, and nothing small is lost, as it is in float8.

    LoRAs stay beside them in the transformer's own dtype.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise EngineMissing("The 8 GB tier needs torchao for its 8-bit weights.", INSTALL) from error
    quantize_(transformer, Int8WeightOnlyConfig())


def woken(part: Any) -> Any:
    """A part of a pipeline on its card, for what is called on it past `forward`: the offload sees that alone."""
    if hook := getattr(part, "_hf_hook", None):
        hook.pre_forward(part)
    return part


@contextmanager
def leaving(pipe: Any) -> Iterator[None]:
    """While the block runs, parts that take turns may come to the card; after it they have left, whatever happened."""
    try:
        yield
    finally:
        if hooks := getattr(pipe, "_all_hooks", ()):
            import torch

            for hook in hooks:
                hook.offload()
            if torch.cuda.is_available():  # pragma: no cover - a card's own; tests/test_tiers_gpu.py
                torch.cuda.empty_cache()
