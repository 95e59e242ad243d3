"""LoRAs as pairs of small matrices beside a large one: what they add to it, also where it is several made one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Low = tuple["torch.Tensor", "torch.Tensor"]  # A [rank, in] and B [out, rank], strengths in B


def base(part: Any) -> Any:
    """The transformer's own module, also where PEFT's layer stands around it."""
    return getattr(part, "base_layer", part)


def pairs(**parts: Sequence[Any]) -> dict[str, Low]:
    """What the LoRAs attached now add to linear layers, by name; those of one name hear the same and answer side by side."""
    found = {name: pair(*together) for name, together in parts.items()}
    return {name: low for name, low in found.items() if low}


def pair(*parts: Any) -> Low | None:
    """What they add to the answers of these layers side by side; None without any."""
    import torch

    a, b, begin, wide = [], [], 0, sum(len(base(part).weight) for part in parts)
    for part in parts:
        end = begin + len(base(part).weight)
        for key in getattr(part, "active_adapters", ()):
            if key in part.lora_A:
                a.append(part.lora_A[key].weight.data)
                b.append(a[-1].new_zeros(wide, len(a[-1])))
                b[-1][begin:end] = part.lora_B[key].weight.data * part.scaling[key]
        begin = end
    return (torch.cat(a), torch.cat(b, dim=1)) if a else None


def linear(x: torch.Tensor, weight: torch.Tensor, low: Low | None, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + bias, and what LoRAs add."""
    from torch.nn import functional as F

    y = F.linear(x, weight, bias)
    return y.addmm_(x @ low[0].T, low[1].T) if low else y
