"""LoRA files that nobody vouches for: read, judged against the loaded model, and made plain for diffusers.

Only the safetensors library reads a file's content, after its size, the size of its header and the number of its tensors
are known to be in bounds. What is let in fits the model in every name and shape, is finite, and has its alpha folded in:
diffusers ignores alpha, and so plays most LoRAs at half their strength.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import lora_layouts
from errors import LoraError
from fields import clean
from lora_layouts import Part, Targets
from lora_scales import Scaling, scaling
from sound import Lora

LORA_MAX_BYTES = 300_000_000
HEADER_MAX_BYTES = 4_000_000
TENSORS_MAX = 4_096
KEY_LIMIT, SHOWN = 300, 80  # characters of a tensor's name
NAME_LIMIT = 80
RANKS = (1, 256)
WEIGHT_MAX = 1_000  # of one weight; trained ones stay below 10
NORM_MAX = 10_000  # of the product of a module's factors; the model's own weights measure some 65
DAMAGED = "it is damaged, or no safetensors file"
_REAL = ("F64", "F32", "F16", "BF16")
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}  # an alpha may be whole
_FOREIGN = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how archives and pickles begin


@dataclass(frozen=True)
class Model:
    """The model that LoRAs are let in for: what it is called, and the modules they may change."""

    name: str
    targets: Targets

    @cached_property
    def width(self) -> int:
        """How wide its layers are."""
        return lora_layouts.width_of({(module, "A"): (1, wide) for module, (_, wide) in self.targets.items()})


@dataclass(frozen=True)
class _Tensor:
    """A tensor as it lies in the file."""

    kind: str
    shape: tuple[int, ...]
    data: bytearray

    def numbers(self) -> np.ndarray:
        """Its values as float32; numpy has no bfloat16, whose bits are the upper half of a float32's."""
        raw = np.frombuffer(self.data, _TYPES[self.kind]).reshape(self.shape)
        if self.kind == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):
            return raw.astype(np.float32)


@dataclass(frozen=True)
class _Content:
    """What a file holds: its factors and alphas by module and part ("A", "B", "alpha"), and the header's metadata."""

    tensors: Mapping[tuple[str, str], _Tensor]
    paths: Mapping[str, str]  # of a module in the file's own words
    metadata: Mapping[str, str]
    sha256: str


def admit(path: str | Path, model: Model, config: str | Path | None = None, name: str = "") -> Lora:
    """The LoRA in a file, if it fits the model in every name and shape and its weights can be used.

    `config` is the `adapter_config.json` that belongs to it: of it only rank and alpha are read, as numbers. `name` stands
    in for the file's. Raises LoraError, whose words never hold the path.
    """
    name = name or _named(path)
    try:
        data = _bytes(path)
        content = _content(data)
        _judge(content, model)
        told = scaling(content.metadata, config)
        scales = {module: _scale(content, module, told) for module in content.paths}
        norms = [np.prod([_norm(content, (module, factor)) for factor in "AB"]) for module in scales]
        for (module, scale), norm in zip(scales.items(), norms, strict=True):
            if norm * scale > NORM_MAX:
                raise LoraError(f"the weights of {content.paths[module]} are too large: its training went wrong")
        if not any(norms):
            raise LoraError("it changes nothing: it was never trained")
    except LoraError as error:
        raise LoraError(f"{name} cannot be used: {error.message}.", error.hint) from None
    rank = max(content.tensors[module, "A"].shape[0] for module in scales)
    alpha = "file" if any(part == "alpha" for _, part in content.tensors) else told.alpha is not None and told.source
    return Lora(str(path), name, content.sha256, len(data), rank, scales, alpha or "")


def weights(lora: Lora) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A LoRA's factors by module: A [rank, in] and B [out, rank], float32, with its scale folded into B.

    What they add to a module's weight is B A. Raises LoraError when the file is no longer the one that was let in.
    """
    try:
        content = _content(_bytes(lora.path))
    except LoraError:
        content = None
    if content is None or content.sha256 != lora.sha256:
        raise LoraError(f"{lora.name} is not what it was: its file has changed or is gone.", "Add it again.")
    return {
        module: (content.tensors[module, "A"].numbers(), content.tensors[module, "B"].numbers() * np.float32(scale))
        for module, scale in lora.scales.items()
    }


def _named(path: str | Path) -> str:
    return " ".join(clean(Path(path).stem).split())[:NAME_LIMIT] or "LoRA"


def _bytes(path: str | Path) -> bytes:
    """A file whose size, header and number of tensors are in bounds."""
    if Path(path).suffix.lower() != ".safetensors":
        raise LoraError("it must be a .safetensors file")
    try:
        found = Path(path).stat()  # in the Hub's cache names are links; uploads are looked at where they come in
        if not stat.S_ISREG(found.st_mode):
            raise LoraError("it is a folder or a device, not a file")
        if found.st_size > LORA_MAX_BYTES:
            raise LoraError(f"largest is {LORA_MAX_BYTES // 10**6} MB, it has {math.ceil(found.st_size / 10**6):,} MB")
        with open(path, "rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if start[:2] in _FOREIGN and length > HEADER_MAX_BYTES:  # a header of 640 bytes begins as pickles do
                raise LoraError("it is a pickle or an archive under another name, which may run code")
            if len(start) < 8 or length + 8 > found.st_size:
                raise LoraError(DAMAGED)
            if length > HEADER_MAX_BYTES:
                raise LoraError(f"its header is larger than {HEADER_MAX_BYTES // 10**6} MB")
            header = file.read(length)
            if header.count(b'"data_offsets"') > TENSORS_MAX:
                raise LoraError(f"it has more than {TENSORS_MAX:,} tensors")
            return start + header + file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise LoraError("the upload has expired", "Please add it again.") from None
    except (OSError, ValueError):
        raise LoraError("it could not be read") from None


def _content(data: bytes) -> _Content:
    """What the library reads of a file, by modules of ACE-Step's."""
    import safetensors

    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    try:
        found = {key: _Tensor(t["dtype"], tuple(t["shape"]), t["data"]) for key, t in safetensors.deserialize(data)}
        metadata = json.loads(header).get("__metadata__") or {}
    except Exception:  # the library has several kinds
        raise LoraError(DAMAGED) from None
    if header.count(b'"data_offsets"') != len(found):
        raise LoraError(DAMAGED)  # a name that stands twice
    parts = {key: _part(key, found) for key in found}
    tensors: dict[tuple[str, str], _Tensor] = {}
    for key, part in parts.items():
        if (part.module, part.part) in tensors:
            raise LoraError(f"it holds two LoRAs: {part.path} is there twice")
        tensors[part.module, part.part] = found[key]
    paths = dict(sorted((part.module, part.path) for part in parts.values()))  # the library's order is any
    return _Content(tensors, paths, metadata, hashlib.sha256(data).hexdigest())


def _part(key: str, keys: Mapping[str, Any]) -> Part:
    """What a tensor of the file is. Raises LoraError that names what the file is instead of a LoRA for ACE-Step 1.5."""
    part = lora_layouts.part(key) if len(key) <= KEY_LIMIT else None
    if part and part.module:
        return part
    shown = clean(key)[:SHOWN]
    hint = f"Found {shown!r}; expected names such as 'layers.0.self_attn.q_proj.lora_A.weight'."
    if other := lora_layouts.foreign(k[:KEY_LIMIT] for k in keys):
        raise LoraError(f"it was made for {other}, not for ACE-Step 1.5", hint)
    if kind := lora_layouts.kind(k[:KEY_LIMIT] for k in keys):
        raise LoraError(f"it is a {kind}, of which only plain LoRAs can be applied", hint)
    if not any(lora_layouts.part(k[:KEY_LIMIT]) for k in keys):
        raise LoraError("it holds no LoRA", hint)
    if part:
        raise LoraError("it is for modules that ACE-Step 1.5 does not have", hint)
    raise LoraError("it holds more than a LoRA, and would be applied in part", hint)


def _judge(content: _Content, model: Model) -> None:
    """Raise LoraError unless every module is the model's, with two factors that fit it and each other."""
    if not content.paths:
        raise LoraError("it holds no LoRA")
    if other := lora_layouts.foreign(content.paths.values()):
        raise LoraError(f"it was made for {other}, not for ACE-Step 1.5")
    shapes = {place: tensor.shape for place, tensor in content.tensors.items()}
    width = lora_layouts.width_of(shapes)
    if width not in (0, model.width):
        raise LoraError(
            f"it was made for {lora_layouts.made_for(width)}, not for {model.name}",
            f"Its layers are {width:,} wide, this model's {model.width:,}.",
        )
    for module, path in content.paths.items():
        a, b = shapes.get((module, "A"), ()), shapes.get((module, "B"), ())
        if module not in model.targets:
            raise LoraError(f"{model.name} has no module {path}")
        if not a or not b:
            raise LoraError(f"{path} does not have both of its factors, A and B")
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            raise LoraError(f"the two factors of {path} do not fit each other ({_size(b)} and {_size(a)})")
        if not RANKS[0] <= a[0] <= RANKS[1]:
            raise LoraError(f"{path} has rank {a[0]:,}; {RANKS[0]} to {RANKS[1]} can be applied")
        if (b[0], a[1]) != model.targets[module]:
            fits = _size(model.targets[module])
            raise LoraError(f"{path} is for a module of {_size((b[0], a[1]))}; that of {model.name} has {fits}")
    for (module, part), tensor in content.tensors.items():
        if tensor.kind not in (_TYPES if part == "alpha" else _REAL):
            raise LoraError(f"{content.paths[module]} holds {tensor.kind} numbers; floating-point ones can be applied")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _scale(content: _Content, module: str, told: Scaling) -> float:
    """What B A is multiplied by: from the alpha beside it, else from what was told of the file."""
    rank, tensor = content.tensors[module, "A"].shape[0], content.tensors.get((module, "alpha"))
    if tensor is None:
        return told.of(content.paths[module], module, rank)
    if math.prod(tensor.shape) != 1:
        raise LoraError(f"the alpha of {content.paths[module]} is no single number")
    return Scaling(alpha=float(tensor.numbers().reshape(()))).of(content.paths[module], module, rank)


def _norm(content: _Content, place: tuple[str, str]) -> float:
    """The Frobenius norm of a factor. Raises LoraError for one that is not finite, or with a weight out of all bounds."""
    numbers = content.tensors[place].numbers()
    peak = float(np.abs(numbers).max(initial=0))
    if not math.isfinite(peak):
        raise LoraError(f"the weights of {content.paths[place[0]]} are not finite: its training went wrong")
    if peak > WEIGHT_MAX:
        raise LoraError(f"the weights of {content.paths[place[0]]} are too large: its training went wrong")
    return float(np.linalg.norm(numbers))
