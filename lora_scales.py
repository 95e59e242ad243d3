"""What a LoRA's factors are multiplied by: alpha / rank, or alpha / sqrt(rank) for rslora (Kalajdzievski 2023).

PEFT keeps alpha outside the weights, in `adapter_config.json`; diffusers in the header of the file; kohya beside each module.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import LoraError

CONFIG_MAX_BYTES = 1_000_000
SCALE_MAX = 64  # alpha / rank; trainers use 1/128 to 2
HEADER_KEY = "lora_adapter_metadata"  # where diffusers keeps PEFT's configuration
CONFIG = "adapter_config.json"
_WHERE = {"config": CONFIG, "header": "header"}
_NAME = re.compile(r"\^?[\w.]+\$?", re.ASCII)  # what a pattern may be: as regular expressions they are not read


@dataclass(frozen=True)
class Scaling:
    """Rank and alpha as they were told for a whole file; without alpha it is taken as the rank."""

    alpha: float | None = None
    rank: float | None = None
    rslora: bool = False
    alphas: Mapping[str, float] = field(default_factory=dict)  # PEFT's alpha_pattern
    ranks: Mapping[str, float] = field(default_factory=dict)  # PEFT's rank_pattern
    source: str = ""  # where it was told: "config", "header" or nowhere

    def of(self, path: str, module: str, rank: int) -> float:
        """The scale of one module, by its name in the file, diffusers' name and the rank of its factors.

        Raises LoraError when the rank is not the one that was told, and for a scale out of bounds.
        """
        told = _pattern(self.ranks, path, module, self.rank)
        if told not in (None, rank):
            raise LoraError(f"its {_WHERE[self.source]} is another LoRA's: it says rank {told:g}, {path} has {rank}")
        alpha = _pattern(self.alphas, path, module, self.alpha)
        if alpha is None:
            return 1.0
        divisor = math.sqrt(rank) if self.rslora else rank
        scale = alpha / divisor
        if not 0 < scale <= SCALE_MAX:  # not NaN either
            most = math.floor(SCALE_MAX * divisor)
            raise LoraError(f"the alpha of {path} is {alpha:g}; at rank {rank} it must be above 0 and at most {most:,}")
        return scale


def scaling(metadata: Mapping[str, str], config: str | Path | None = None) -> Scaling:
    """What an `adapter_config.json`, else the file's own header, tells. Raises LoraError for one that cannot be used."""
    if not config:
        return _told(metadata[HEADER_KEY], "header") if HEADER_KEY in metadata else Scaling()
    try:
        found = Path(config).stat()
        if found.st_size > CONFIG_MAX_BYTES:
            raise LoraError(f"its {CONFIG} is larger than {CONFIG_MAX_BYTES // 10**6} MB")
        text = Path(config).read_bytes() if stat.S_ISREG(found.st_mode) else None
    except (OSError, ValueError):  # such as a NUL in its name
        text = None
    if text is None:
        raise LoraError(f"its {CONFIG} could not be read", "Please add both again.")
    return _told(text, "config")


def _told(text: bytes | str, source: str) -> Scaling:
    """Rank and alpha out of a configuration of PEFT's; nothing else of it is looked at, no path is opened."""
    where = _WHERE[source]
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise LoraError(f"its {where} is not JSON") from None
    if not isinstance(config, dict):
        raise LoraError(f"its {where} is not one of PEFT's")
    config = {str(key).removeprefix("transformer."): value for key, value in config.items()}
    if (kind := config.get("peft_type") or "LORA") != "LORA":
        raise LoraError(f"its {where} says {str(kind)[:20]!r}; only plain LoRAs can be applied")
    if config.get("use_dora"):
        raise LoraError("it is a DoRA, of which only plain LoRAs can be applied")
    patterns = [config.get(name) or {} for name in ("alpha_pattern", "rank_pattern")]
    if not all(isinstance(pattern, dict) for pattern in patterns):
        raise LoraError(f"the patterns in its {where} cannot be used")
    if not all(_NAME.fullmatch(key) for pattern in patterns for key in pattern):
        raise LoraError(f"the patterns in its {where} must be names of modules")
    try:
        alphas, ranks = ({key: _number(value) for key, value in pattern.items()} for pattern in patterns)
        alpha, rank = _number(config.get("lora_alpha")), _number(config.get("r"))
    except (TypeError, OverflowError):  # JSON has no largest integer
        raise LoraError(f"rank and alpha in its {where} must be numbers of a sensible size") from None
    rslora = config.get("use_rslora") is True
    return Scaling(alpha, rank, rslora, alphas, ranks, source)


def _number(value: Any) -> float | None:
    """A number of a configuration, None for none. Raises TypeError or OverflowError."""
    if isinstance(value, bool | str | list | dict):
        raise TypeError(value)
    return None if value is None else float(value)


def _pattern(pattern: Mapping[str, Any], path: str, module: str, otherwise: Any) -> Any:
    """What a pattern says of a module. Its keys are the ends of names, as PEFT takes them."""
    for key, value in pattern.items():
        end = key.strip("^$")
        if any(name == end or name.endswith("." + end) for name in (path, module)):
            return value
    return otherwise
