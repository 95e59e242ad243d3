"""LoRAs beside the transformer's own weights, by diffusers and PEFT: attached for one song, detached after it.

What has been loaded stays in memory, switched off, so that the next song with it begins at once. A song without LoRAs hears
the model's own weights bit for bit.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import lora_stack
from errors import EngineRefused
from fields import Stacked
from sound import Lora

if TYPE_CHECKING:
    import torch

log = logging.getLogger("ace.lora")

KEPT_MAX_BYTES = 2**30  # of LoRAs in memory that the song at hand does not use


class Adapters:
    """The LoRAs of one pipeline, by `Lora.key`. Not thread-safe: one song at a time, as the engine."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.loaded: dict[str, int] = {}  # bytes by key, the least lately used first

    @contextmanager
    def attached(self, stack: Sequence[Stacked]) -> Iterator[None]:
        """While the block runs, the transformer plays with this stack of LoRAs, each at its strength.

        One of strength 0 is left out: adding nothing would still turn -0.0 into 0.0. Raises LoraError when a file is gone,
        EngineRefused when a LoRA changes nothing; whatever happens, nothing stays attached.
        """
        heard = [stacked for stacked in stack if stacked.strength]
        if not heard:
            yield
            return
        keys = [stacked.lora.key for stacked in heard]
        try:
            for stacked in heard:
                self._load(stacked.lora)
                self.loaded[stacked.lora.key] = self.loaded.pop(stacked.lora.key)  # the latest used
            self.pipe.enable_lora()
            self.pipe.set_adapters(keys, [stacked.strength for stacked in heard])
            yield
        finally:
            if self.loaded:
                self.pipe.disable_lora()
            self._forget(keys)

    def _load(self, lora: Lora) -> None:
        """Put a LoRA beside the weights, switched off, unless it is there; then see that it acts."""
        import torch
        from peft.utils.error import NoMatchingPeftModuleError

        if lora.key in self.loaded:
            return
        device, dtype = self.pipe.transformer.device, self.pipe.transformer.dtype  # each looks at every module
        tensors = {}
        for module, (a, b) in lora_stack.weights(lora).items():
            for factor, numbers in (("A", a), ("B", b)):
                tensors[f"transformer.{module}.lora_{factor}.weight"] = torch.from_numpy(numbers).to(device, dtype)
        try:
            with warnings.catch_warnings(), suppress(NoMatchingPeftModuleError):  # which is said below
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several at once are the point
                self.pipe.load_lora_weights(tensors, adapter_name=lora.key)
            self.loaded[lora.key] = sum(t.numel() * t.element_size() for t in tensors.values())
            self._see_it_act(lora)
        except BaseException:
            self._delete(lora.key)
            raise

    def _see_it_act(self, lora: Lora) -> None:
        """Raise EngineRefused unless every module of the LoRA holds it, and one at least sounds different with it."""
        import torch
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = {n: m for n, m in self.pipe.transformer.named_modules() if isinstance(m, BaseTunerLayer)}
        missing = [name for name in lora.scales if lora.key not in getattr(layers.get(name), "lora_A", ())]
        changed = 0
        if not missing:
            generator = torch.Generator().manual_seed(0)
            for name in lora.scales:
                changed += _differs(layers[name], lora.key, generator)
        log.info("%s: rank %d, %d modules, %d act", lora.name, lora.rank, len(lora.scales), changed)
        if not changed:
            reason = (
                f"{len(missing)} of its {len(lora.scales)} modules did not take it" if missing else "it acts nowhere"
            )
            raise EngineRefused(f"{lora.name} has no effect on this model: {reason}.", "Remove it from the stack.")

    def _forget(self, used: Sequence[str]) -> None:
        """Delete the longest unused until the others are within KEPT_MAX_BYTES."""
        for key in [key for key in self.loaded if key not in used]:
            if sum(size for other, size in self.loaded.items() if other not in used) <= KEPT_MAX_BYTES:
                break
            self._delete(key)

    def _delete(self, key: str) -> None:
        """Take a LoRA out of memory; with the last one the transformer is again what it was."""
        self.loaded.pop(key, None)
        if not self.loaded:
            self.pipe.unload_lora_weights()
        elif key in getattr(self.pipe.transformer, "peft_config", {}):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Adapter .* was active")  # each song says which are
                self.pipe.delete_adapters(key)


def _differs(layer: torch.nn.Module, key: str, generator: torch.Generator) -> bool:
    """Whether a module answers otherwise with an adapter than without."""
    import torch

    weight = layer.base_layer.weight
    heard = torch.randn(1, weight.shape[1], generator=generator).to(weight.device, weight.dtype)
    layer.enable_adapters(False)
    without = layer(heard)
    layer.enable_adapters(True)
    layer.set_adapter([key])
    differs = not torch.equal(layer(heard), without)
    layer.enable_adapters(False)
    return differs
