"""A LoRA of any layout changes the model as its trainer meant it, and is called what it is."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lora_files
import numpy as np
import pytest
import tiny
from lora_files import CHOICES, DTYPES, LAYOUTS, chosen, factors, product, safetensors_of, write

import lora_stack
from errors import LoraError
from lora_scales import CONFIG, HEADER_KEY
from lora_stack import Model, admit, weights
from sound import Lora

MODEL = lora_files.tiny_model()
Q, K = "layers.0.self_attn.to_q", "layers.1.cross_attn.to_k"
ATTENTION = factors(MODEL, chosen(MODEL, "attention"))


def uneven(module: str) -> int:
    """A rank that differs from module to module: 2 to 6."""
    return 2 + len(module) % 5


def added(lora: Lora) -> dict[str, np.ndarray]:
    """What a LoRA adds to each module's weight, from factors as the engine gets them."""
    found = {}
    for module, (a, b) in weights(lora).items():
        out, wide = MODEL.targets[module]
        assert a.dtype == b.dtype == np.float32 and a.shape == (b.shape[1], wide) and b.shape[0] == out
        found[module] = b.astype(np.float64) @ a.astype(np.float64)
    return found


def same(found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> bool:
    """Whether two LoRAs add the same to the same modules, within 1e-6; and whether that is anything at all."""
    assert found.keys() == truth.keys()
    assert min(np.abs(weight).max() for weight in truth.values()) > 1e-3
    return max(np.abs(found[module] - truth[module]).max() for module in truth) < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_gives_the_same_lora(layout: str, dtype: str, tmp_path: Path) -> None:
    path, config = write(tmp_path / "a.safetensors", layout, ATTENTION, None, dtype)
    lora = admit(path, MODEL, config)
    assert config is None and lora.alpha == "" and set(lora.scales.values()) == {1.0}
    assert same(added(lora), product(ATTENTION)), "without alpha the weights are taken as they are"
    path, config = write(tmp_path / "a.safetensors", layout, ATTENTION, 10, dtype)
    lora = admit(str(path), MODEL, config)
    assert same(added(lora), product(ATTENTION, 10 / 4))
    assert lora.alpha == LAYOUTS[layout].alpha and (config is not None) == (lora.alpha == "config")


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_choice_of_modules(layout: str, choice: str, tmp_path: Path) -> None:
    """Of MLP alone, or v and o alone, diffusers takes nothing, and says so in its log alone."""
    made = factors(MODEL, chosen(MODEL, choice), rank=3, seed=1)
    lora = admit(*_placed(write(tmp_path / "a.safetensors", layout, made, 6)))
    assert list(lora.scales) == sorted(made) and same(added(lora), product(made, 2.0))


def _placed(written: tuple[Path, Path | None]) -> tuple[Path, Model, Path | None]:
    return written[0], MODEL, written[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_may_differ(layout: str, tmp_path: Path) -> None:
    made = factors(MODEL, chosen(MODEL, "attention and MLP"), uneven)
    lora = admit(*_placed(write(tmp_path / "a.safetensors", layout, made, 8)))
    scales = {module: 8 / rank for module, rank in lora_files.ranks(made).items()}
    assert lora.rank == max(map(uneven, made)) and len(set(scales.values())) > 3
    assert lora.scales == pytest.approx(scales) and same(added(lora), product(made, scales))


@pytest.mark.parametrize("layout", [name for name, layout in LAYOUTS.items() if layout.alpha != "file"])
def test_rslora_and_the_alphas_of_single_modules(layout: str, tmp_path: Path) -> None:
    made, pattern = factors(MODEL, chosen(MODEL, "attention"), uneven), {Q: 1, K: 32.0}
    told = write(tmp_path / "a.safetensors", layout, made, 8, use_rslora=True, alpha_pattern=pattern)
    scales = {module: pattern.get(module, 8) / math.sqrt(rank) for module, rank in lora_files.ranks(made).items()}
    assert same(added(admit(*_placed(told))), product(made, scales))


def test_alpha_in_the_file_counts_for_its_module_and_the_rest_is_told(tmp_path: Path) -> None:
    made = factors(MODEL, [Q, K])
    tensors = {f"{m}.lora_{part}.weight": ("BF16", made[m][at]) for m in made for at, part in enumerate("AB")}
    path = tmp_path / "a.safetensors"
    for dtype, alpha in (("F32", np.array(2.0)), ("BF16", np.array([2.0])), ("F64", np.array([[2.0]]))):
        path.write_bytes(safetensors_of(tensors | {f"{Q}.alpha": (dtype, alpha)}))
        lora = admit(path, MODEL)
        assert lora.alpha == "file" and lora.scales == {Q: 0.5, K: 1.0}
        (tmp_path / CONFIG).write_text(json.dumps(lora_files.config(made, 16)))
        assert admit(path, MODEL, tmp_path / CONFIG).scales == {Q: 0.5, K: 4.0}
        assert same(added(lora), product(made, {Q: 0.5, K: 1.0}))


@pytest.mark.parametrize("how", [{}, {"use_rslora": True}, {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"to_k": 3}}])
def test_a_lora_that_peft_and_diffusers_save(how: Mapping[str, Any], tmp_path: Path) -> None:
    """Their own files of the real transformer, against what PEFT itself would add to the weights."""
    from diffusers import AceStepPipeline
    from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig, get_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import save_file

    model = AceStepTransformer1DModel(**tiny.TINY["transformer"])
    ends = ["to_q", "to_k", "to_v", "to_out.0", "gate_proj"]
    model.add_adapter(LoraConfig(r=4, lora_alpha=16, target_modules=ends, init_lora_weights=False, **how))
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    truth = {name: layer.get_delta_weight("default").double().detach().numpy() for name, layer in layers.items()}
    state, told = get_peft_model_state_dict(model), _collate_lora_metadata({"transformer": model})
    AceStepPipeline.save_lora_weights(tmp_path, state, weight_name="diffusers.safetensors", **told)
    model.save_lora_adapter(tmp_path, weight_name="bare.safetensors")
    for name in ("diffusers", "bare"):
        lora = admit(tmp_path / f"{name}.safetensors", MODEL)
        assert same(added(lora), truth) and lora.alpha == "header"
    save_file({f"base_model.model.{key}": weight for key, weight in state.items()}, tmp_path / "peft.safetensors")
    model.peft_config["default"].save_pretrained(tmp_path)
    lora = admit(tmp_path / "peft.safetensors", MODEL, tmp_path / CONFIG)
    assert same(added(lora), truth) and lora.alpha == "config"


def test_the_facts(tmp_path: Path) -> None:
    made = factors(MODEL, [Q, K], lambda module: 8 if module == Q else 2)
    path, config = write(tmp_path / "My  voice.v2.safetensors", "peft", made, 16)
    lora = admit(path, MODEL, config)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (lora.path, lora.size) == (str(path), path.stat().st_size)
    assert json.loads(json.dumps(lora.facts)) == {
        "name": "My voice.v2",
        "sha256": digest,
        "bytes": path.stat().st_size,
        "rank": 8,
        "modules": 2,
        "alpha": "config",
        "scale": [2.0, 8.0],
    }
    assert admit(path, MODEL).facts["alpha"] == "unknown" and replace(lora, preset="warm").facts["preset"] == "warm"
    assert str(tmp_path) not in json.dumps(lora.facts)


def test_a_key_is_of_weights_and_scales_alone(tmp_path: Path) -> None:
    path, config = write(tmp_path / "a.safetensors", "peft", ATTENTION, 16)
    other = Path(shutil.copy(path, tmp_path / "b.safetensors"))
    assert admit(path, MODEL).key == admit(other, MODEL, name="Mine").key != admit(path, MODEL, config).key
    assert "." not in admit(path, MODEL).key, "PEFT forbids it"


def test_a_name_is_one_line_of_text(tmp_path: Path) -> None:
    content = write(tmp_path / "a.safetensors", "bare", ATTENTION)[0].read_bytes()
    for stem, shown in (
        ("Nœud 歌", "Nœud 歌"),
        ("a\nb\tc", "a b c"),
        ("\x1b[31mred\u202egnp", "redgnp"),
        ("x" * 200, "x" * lora_stack.NAME_LIMIT),
        ("\u202e", "LoRA"),
        (" ", "LoRA"),
    ):
        (tmp_path / f"{stem}.safetensors").write_bytes(content)
        assert admit(tmp_path / f"{stem}.safetensors", MODEL).name == shown
    assert admit(tmp_path / "a.safetensors", MODEL, name="The preset").name == "The preset"
    (tmp_path / "A.SafeTensors").write_bytes(content)
    assert admit(tmp_path / "A.SafeTensors", MODEL).name == "A"


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 19_280])
def test_a_header_may_have_any_length(length: int, tmp_path: Path) -> None:
    """The first bytes of a file are the length of its header, and these are the first bytes of pickles and archives."""
    made = factors(MODEL, [Q])
    tensors = {f"{Q}.lora_{part}.weight": ("F32", made[Q][at]) for at, part in enumerate("AB")}
    short = len(safetensors_of(tensors, {"pad": ""})) - sum(factor.nbytes for factor in made[Q]) - 8
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_of(tensors, {"pad": "x" * (length - short)}))
    assert path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
    assert same(added(admit(path, MODEL)), product(made))


def test_bounds_are_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest file, the largest header, the most tensors, the lowest and the highest rank."""
    made = factors(MODEL, [Q, K], lambda module: 256 if module == Q else 1)
    path, _ = write(tmp_path / "a.safetensors", "bare", made)
    assert admit(path, MODEL).rank == 256
    header = int.from_bytes(path.read_bytes()[:8], "little")
    limits = {"LORA_MAX_BYTES": path.stat().st_size, "HEADER_MAX_BYTES": header, "TENSORS_MAX": 4}
    for name, limit in limits.items():
        monkeypatch.setattr(lora_stack, name, limit)
    assert admit(path, MODEL).rank == 256
    for name, limit in limits.items():
        monkeypatch.setattr(lora_stack, name, limit - 1)
        with pytest.raises(LoraError, match=r"larger than|largest is|more than"):
            admit(path, MODEL)
        monkeypatch.setattr(lora_stack, name, limit)
    for weight, scale in ((1000, 1), (100, 64)):
        path.write_bytes(safetensors_of({f"{Q}.lora_{f}.weight": ("F64", _one(f, weight)) for f in "AB"}))
        (tmp_path / CONFIG).write_text(json.dumps({"lora_alpha": scale}))
        monkeypatch.setattr(lora_stack, "NORM_MAX", weight * scale)
        assert np.abs(added(admit(path, MODEL, tmp_path / CONFIG))[Q]).max() == weight * scale
        monkeypatch.setattr(lora_stack, "NORM_MAX", weight * scale - 1)
        with pytest.raises(LoraError, match="are too large"):
            admit(path, MODEL, tmp_path / CONFIG)


def _one(factor: str, weight: float) -> np.ndarray:
    """A factor of rank 1 with a single weight in it: `weight` in A, 1 in B."""
    numbers = np.zeros((1, 32) if factor == "A" else (32, 1))
    numbers[0, 0] = weight if factor == "A" else 1
    return numbers


def test_weights_of_a_file_that_is_not_what_it_was(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "a.safetensors", "bare", ATTENTION)
    content = path.read_bytes()
    lora = admit(path, MODEL)

    def changed() -> None:
        with pytest.raises(LoraError) as error:
            weights(lora)
        assert error.value.message == "a is not what it was: its file has changed or is gone."
        assert error.value.hint == "Add it again."

    last = bytearray(content)
    last[-1] ^= 1
    for other in (bytes(last), content + b"\0", content[:-1], b"", b"PK\3\4" + content):
        path.write_bytes(other)
        changed()
    write(path, "bare", factors(MODEL, chosen(MODEL, "attention"), seed=9))
    changed()
    path.unlink()
    changed()
    path.mkdir()
    changed()
    path.rmdir()
    path.write_bytes(content)
    os.utime(path, (0, 0))
    assert same(added(lora), product(ATTENTION)), "the same bytes are the same file"


def test_header_and_configuration_are_read_once(tmp_path: Path) -> None:
    """What counts is what was said when the file was let in: the configuration may be gone by then."""
    path, config = write(tmp_path / "a.safetensors", "peft", ATTENTION, 16)
    lora = admit(path, MODEL, config)
    config.write_text("{}")
    assert same(added(lora), product(ATTENTION, 4.0))
    path, _ = write(tmp_path / "a.safetensors", "diffusers", ATTENTION, 2)
    assert HEADER_KEY.encode() in path.read_bytes()
    assert same(added(admit(path, MODEL)), product(ATTENTION, 0.5))


def test_what_is_let_in_may_be_written_to(tmp_path: Path) -> None:
    for dtype in DTYPES:
        path, _ = write(tmp_path / "a.safetensors", "bare", ATTENTION, dtype=dtype)
        assert all(factor.flags.writeable for pair in weights(admit(path, MODEL)).values() for factor in pair), dtype
