"""LoRAs beside the transformer's own weights, by diffusers and PEFT: attached for one song, detached after it.

What has been loaded stays in memory, out of the transformer, so that the next song with it begins at once. Between songs, and in
a song without LoRAs, the transformer consists of its own modules alone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lora_stack
from errors import EngineRefused
from fields import Stacked
from sound import Lora

if TYPE_CHECKING:
    import torch

log = logging.getLogger("ace.lora")

KEPT_MAX_BYTES = 2**30  # of LoRAs in memory that the song at hand does not use
EXPECTED = (  # what PEFT warns of, and why it need not
    "Already found a `peft_config`",  # several at once are the point
    "TorchaoLoraLinear was",  # nothing is ever merged into 8-bit weights
    "Adapter .* was active",  # each song says which are
)


@dataclass(frozen=True)
class Place:
    """Where PEFT's layer stands around one of the transformer's own modules."""

    parent: Any
    name: str
    layer: Any  # a BaseTunerLayer: the module with its adapters

    def fill(self, module: Any) -> None:
        """Put a module there."""
        setattr(self.parent, self.name, module)


class Adapters:
    """The LoRAs of one pipeline, by `Lora.key`. Not thread-safe: one song at a time, as the engine."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.loaded: dict[str, int] = {}  # bytes by key, the least lately used first
        self.places: dict[str, Place] = {}  # by the module's name

    @contextmanager
    def attached(self, stack: Sequence[Stacked]) -> Iterator[None]:
        """While the block runs, the transformer plays with this stack of LoRAs, each at its strength.

        One of strength 0 is left out: adding nothing would still turn -0.0 into 0.0. Raises LoraError when a file is gone,
        EngineRefused when a LoRA changes nothing; whatever happens, nothing stays attached.
        """
        heard = {stacked.lora.key: stacked for stacked in stack if stacked.strength}
        try:
            for key, stacked in heard.items():
                self._load(stacked.lora)
                self.loaded[key] = self.loaded.pop(key)  # the latest used
            self._play({key: stacked.strength for key, stacked in heard.items()})
            yield
        finally:
            self._play({})
            self._forget(heard)

    def _play(self, strengths: Mapping[str, float]) -> None:
        """Let the transformer hear these adapters: their layers where they have any, elsewhere its own modules."""
        for place in self.places.values():
            if any(key in place.layer.lora_A for key in strengths):
                place.layer.set_adapter(list(strengths))
                for key, strength in strengths.items():
                    place.layer.set_scale(key, strength)
                place.fill(place.layer)
            else:
                place.fill(place.layer.base_layer)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """While the block runs, every layer of PEFT's stands in its place, so that adapters can come and go."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for words in EXPECTED:  # for the process: `catch_warnings` would take from other threads what they ignore
            warnings.filterwarnings("ignore", words)
        for place in self.places.values():
            place.fill(place.layer)
        try:
            yield
        finally:
            modules = dict(self.pipe.transformer.named_modules())
            layers = {name: layer for name, layer in modules.items() if isinstance(layer, BaseTunerLayer)}
            split = {name: name.rpartition(".") for name in layers}
            self.places = {name: Place(modules[split[name][0]], split[name][2], layers[name]) for name in layers}
            self._play({})

    def _load(self, lora: Lora) -> None:
        """Put a LoRA beside the weights, unless it is there, and see that it acts."""
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
            with self._opened(), suppress(NoMatchingPeftModuleError):  # which is said below
                # Past the pipeline, which would set up its offload anew, with every part leaving the card.
                names = {"adapter_name": lora.key, "low_cpu_mem_usage": True}
                self.pipe.load_lora_into_transformer(tensors, self.pipe.transformer, **names)
            self.loaded[lora.key] = sum(t.numel() * t.element_size() for t in tensors.values())
            self._see_it_act(lora)
        except BaseException:
            self._delete(lora.key)
            raise

    def _see_it_act(self, lora: Lora) -> None:
        """Raise EngineRefused unless every module of the LoRA holds it, and one at least sounds different with it."""
        import torch

        layers = [self.places[name].layer for name in lora.scales if name in self.places]
        layers = [layer for layer in layers if lora.key in layer.lora_A]
        missing, changed, generator = len(lora.scales) - len(layers), 0, torch.Generator().manual_seed(0)
        if not missing:
            changed = sum(_differs(layer, lora.key, generator) for layer in layers)
        log.info("%s: rank %d, %d modules, %d act", lora.name, lora.rank, len(lora.scales), changed)
        if not changed:
            reason = f"{missing} of its {len(lora.scales)} modules did not take it" if missing else "it acts nowhere"
            raise EngineRefused(f"{lora.name} has no effect on this model: {reason}.", "Remove it from the stack.")

    def _forget(self, used: Collection[str]) -> None:
        """Delete the longest unused until the others are within KEPT_MAX_BYTES."""
        for key in [key for key in self.loaded if key not in used]:
            if sum(size for other, size in self.loaded.items() if other not in used) <= KEPT_MAX_BYTES:
                break
            self._delete(key)

    def _delete(self, key: str) -> None:
        """Take a LoRA out of memory; with the last one nothing of PEFT's is left."""
        self.loaded.pop(key, None)
        with self._opened():
            if not self.loaded:
                self.pipe.unload_lora_weights()
            elif key in getattr(self.pipe.transformer, "peft_config", {}):
                self.pipe.delete_adapters(key)


def _differs(layer: Any, key: str, generator: torch.Generator) -> bool:
    """Whether a module answers otherwise with an adapter than without."""
    import torch

    weight = layer.base_layer.weight
    heard = torch.randn(1, weight.shape[1], generator=generator).to(weight.device, weight.dtype)
    layer.set_adapter([key])
    return not torch.equal(layer(heard), layer.base_layer(heard))
