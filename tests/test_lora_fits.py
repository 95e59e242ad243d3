"""No LoRA comes in that is for another model, or would change this one in part, in nothing, or beyond all bounds: L5 to L7."""

from __future__ import annotations

import re
from pathlib import Path

import lora_files
import numpy as np
import pytest
from lora_files import factors, write
from test_lora_faults import TINY, A, B, Q, good, plain, put, refused
from test_lora_layouts import CONFIGS, FOREIGN, KINDS

import lora_layouts
from errors import LoraError
from lora_scales import CONFIG
from lora_stack import Model, admit

V = "layers.1.cross_attn.to_v"
XL = Model("ACE-Step 1.5 XL", lora_layouts.targets(CONFIGS["XL"]))
DEMO = Model("the demo model", lora_layouts.targets(CONFIGS["demo"]))
B2 = dict(CONFIGS["XL"], hidden_size=2048, intermediate_size=6144, num_hidden_layers=24, num_attention_heads=16)
SMALL = Model("the 2B model", lora_layouts.targets(B2))
EXPECTED = "expected names such as 'layers.0.self_attn.q_proj.lora_A.weight'."


@pytest.mark.parametrize(("other", "key"), [(other, key) for other, keys in FOREIGN.items() for key in keys])
def test_l5_a_lora_for_another_model(other: str, key: str) -> None:
    ours = {name.replace(Q, "layers.1.self_attn.to_q"): tensor for name, tensor in good().items()}
    for tensors in ({key: good()[A]}, {key: good()[A], **ours}):
        assert refused(put(tensors)) == f"it was made for {other}, not for ACE-Step 1.5"


@pytest.mark.parametrize(("what", "key"), [(what, key) for what, keys in KINDS.items() for key in keys])
def test_l5_what_is_no_plain_lora(what: str, key: str) -> None:
    assert refused(put({key: good()[A], **good()})) == f"it is a {what}, of which only plain LoRAs can be applied"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("encoder.layers.0.weight", "it holds no LoRA"),
        ("base_model.model.language_model.0.to_q.lora_A.weight", "it is for modules that ACE-Step 1.5 does not have"),
    ],
)
def test_l5_what_else_a_file_may_hold(key: str, reason: str) -> None:
    path = put({key: good()[A]})
    assert refused(path) == reason
    with pytest.raises(LoraError) as error:
        admit(path, TINY)
    assert error.value.hint == f"Found {key!r}; {EXPECTED}"
    assert refused(put({})) == "it holds no LoRA"


@pytest.mark.parametrize("key", ["layers.0.self_attn.to_q.lora_B.bias", "layers.0.norm.weight", "x" * 9000])
def test_l5_more_than_a_lora(key: str) -> None:
    assert refused(put({**good(), key: good()[A]})) == "it holds more than a LoRA, and would be applied in part"


def test_l5_a_name_that_is_too_long() -> None:
    """It would be read in full by patterns that repeat, and shown in full."""
    for times, fits in ((22, True), (23, False)):  # 297 and 308 characters
        path = put({"decoder." * 2 + "base_model." * times + key: tensor for key, tensor in good().items()})
        if fits:
            assert admit(path, TINY).rank == 4
        else:
            assert refused(path) == "it holds no LoRA"


def test_l5_a_name_from_a_file_is_shown_as_text() -> None:
    for key in ("\x1b[2J\u202e\n<|im_start|>x", "é\0" * 2000, "lora_te'\"\\" * 100):
        with pytest.raises(LoraError) as error:
            admit(put({key: good()[A]}), TINY)
        assert plain(error.value) == "it holds no LoRA" and len(error.value.hint) < 450
        assert not [c for c in "\x1b\u202e\n\0" if c in str(error.value)] and "<|" not in str(error.value)


MADE_FOR = [
    (SMALL, XL, "the 2B model of ACE-Step 1.5", "Its layers are 2,048 wide, this model's 2,560."),
    (XL, DEMO, "the XL model of ACE-Step 1.5", "Its layers are 2,560 wide, this model's 288."),
    (DEMO, XL, "the demo model", "Its layers are 288 wide, this model's 2,560."),
    (TINY, XL, "another model", "Its layers are 32 wide, this model's 2,560."),
]


@pytest.mark.parametrize(("made_for", "model", "named", "hint"), MADE_FOR)
def test_l5_a_lora_for_another_size(made_for: Model, model: Model, named: str, hint: str, tmp_path) -> None:
    for modules in ([Q, V], ["layers.1.mlp.down_proj"], ["layers.0.self_attn.to_out.0"], ["layers.1.mlp.gate_proj", V]):
        path, _ = write(put(b""), "peft", factors(made_for, modules, rank=1))
        assert admit(path, made_for).rank == 1
        assert refused(path, model) == f"it was made for {named}, not for {model.name}"
        with pytest.raises(LoraError) as error:
            admit(path, model)
        assert error.value.hint == hint


def test_l5_a_language_model_as_wide_as_xl() -> None:
    """Qwen3-4B has XL's every shape: 2,560 wide, 4,096 of queries, 1,024 of keys and values, 9,728 within."""
    own = [m for m in XL.targets if m.startswith(("layers.0.self_attn", "layers.0.mlp"))]
    path, _ = write(put(b""), lora_files.Layout("base_model.model.model."), factors(XL, own, rank=1))
    assert refused(path, XL) == "it was made for a language model, not for ACE-Step 1.5"
    path, _ = write(put(b""), "peft", factors(XL, own, rank=1))
    assert len(admit(path, XL).scales) == 7, "but for its name it could be ours"
    content = path.read_bytes().replace(b"layers.0.", b"layers.35.").ljust(path.stat().st_size + 14)
    last = {f"layers.35.{m.split('.', 2)[2]}": pair for m, pair in factors(XL, own[:1], rank=1).items()}
    path, _ = write(put(content), "peft", last)
    assert refused(path, XL) == "ACE-Step 1.5 XL has no module base_model.model.layers.35.self_attn.q_proj", "it has 32"


def test_l5_shapes_that_only_look_right() -> None:
    for module, a, b, shown in ((Q, 32, 16, "16 x 32"), ("condition_embedder", 32, 32, "32 x 32")):
        path = put(
            {f"{module}.lora_A.weight": ("F32", np.ones((1, a))), f"{module}.lora_B.weight": ("F32", np.ones((b, 1)))}
        )
        fits = " x ".join(map(str, TINY.targets[module]))
        assert refused(path) == f"{module} is for a module of {shown}; that of the tiny model has {fits}"
    assert refused(put({k.replace("0.self_attn", "0.mlp"): v for k, v in good().items()})).endswith("mlp.to_q")


def test_l5_two_loras_in_one_file() -> None:
    path = put({**good(), A.replace("to_q", "q_proj"): good()[A]})
    twice = r"it holds two LoRAs: layers\.0\.self_attn\.(to_q|q_proj) is there twice"
    assert re.fullmatch(twice, refused(path)), "the library's order is any"


@pytest.mark.parametrize("rank", [0, 257, 512])
def test_l6_ranks_out_of_bounds(rank: int) -> None:
    path = put({A: ("F32", np.ones((rank, 32))), B: ("F32", np.ones((32, rank)))})
    assert refused(path) == f"{Q} has rank {rank}; 1 to 256 can be applied"


def test_l6_factors_that_do_not_fit_each_other() -> None:
    a, b = good()[A][1], good()[B][1]
    for one, other, shown in (
        (a[:3], b, "32 x 4 and 3 x 32"),
        (a, b[:, :, None], "32 x 4 x 1 and 4 x 32"),
        (a[0], b, "32 x 4 and 32"),
        (a[:, :, None], b, "32 x 4 and 4 x 32 x 1"),
        (b, a, "4 x 32 and 32 x 4"),
    ):
        said = refused(put({A: ("F32", one), B: ("F32", other)}))
        if one is b:  # both are 4 and 32: what is wrong shows first in how wide they are
            assert said == "it was made for another model, not for the tiny model"
        else:
            assert said == f"the two factors of {Q} do not fit each other ({shown})"


def test_l6_a_factor_without_the_other() -> None:
    for keys in ([A], [B]):
        path = put({key: good()[key] for key in keys})
        assert refused(path) == f"{Q} does not have both of its factors, A and B"
        path = put({f"base_model.model.decoder.{key}": good()[key] for key in keys})
        assert refused(path) == f"base_model.model.decoder.{Q} does not have both of its factors, A and B", (
            "in its own words"
        )


def test_l6_a_configuration_of_another_rank(tmp_path: Path) -> None:
    path, config = write(put(b""), "peft", factors(TINY, [Q]), 8, r=16)
    named = "base_model.model.layers.0.self_attn.q_proj"
    assert refused(path, config=config) == f"its {CONFIG} is another LoRA's: it says rank 16, {named} has 4"


def test_l7_numbers_that_are_no_floating_point() -> None:
    for kind in ("I64", "I32", "U8"):
        path = put({A: (kind, np.ones((4, 32))), B: good()[B]})
        assert refused(path) == f"{Q} holds {kind} numbers; floating-point ones can be applied"


@pytest.mark.parametrize("dtype", lora_files.DTYPES)
@pytest.mark.parametrize("at", [A, B])
def test_l7_weights_that_are_not_finite_or_huge(dtype: str, at: str) -> None:
    for value, said in ((np.nan, "not finite"), (np.inf, "not finite"), (-np.inf, "not finite"), (2000, "too large")):
        tensors = good(dtype)
        tensors[at][1][1, 2] = value
        assert refused(put(tensors)) == f"the weights of {Q} are {said}: its training went wrong"


def test_l7_weights_that_are_huge_together_or_in_double_precision() -> None:
    huge = f"the weights of {Q} are too large: its training went wrong"
    assert refused(put({A: ("F32", np.full((4, 32), 99)), B: ("F32", np.full((32, 4), 99))})) == huge
    double = good("F64")
    double[A] = ("F64", np.full((4, 32), 1e300))
    assert "are not finite" in refused(put(double)), "more than a float32 holds"
    path = put({**good(), f"{Q}.alpha": ("F32", np.array(256.0))})
    assert admit(path, TINY).scales[Q] == 64
    assert refused(put({**{k: ("F32", v * 80) for k, (_, v) in good().items()}, f"{Q}.alpha": ("F32", 256)})) == huge


@pytest.mark.parametrize("alpha", [0, -4, np.nan, np.inf, 257, 1e300])
def test_l7_alphas_out_of_bounds(alpha: float) -> None:
    shown = "inf" if alpha == 1e300 else f"{alpha:g}"  # more than a float32 holds
    path = put({**good(), f"{Q}.alpha": ("F64", np.array(alpha))})
    assert refused(path) == f"the alpha of {Q} is {shown}; at rank 4 it must be above 0 and at most 256"


def test_l7_alphas_that_are_no_number() -> None:
    for shape in ((0,), (2,), (4, 32)):
        path = put({**good(), f"{Q}.alpha": ("F32", np.ones(shape))})
        assert refused(path) == f"the alpha of {Q} is no single number"


def test_l7_weights_that_are_zero() -> None:
    nothing = "it changes nothing: it was never trained"
    for zero in ([A], [B], [A, B]):
        assert refused(put({key: (d, n * (key not in zero)) for key, (d, n) in good().items()})) == nothing
    other = {key.replace("to_q", "to_k"): (d, n[:16] if n.shape[1] == 4 else n) for key, (d, n) in good().items()}
    zero_and_not = {A: ("F32", good()[A][1] * 0), B: good()[B], **other}
    assert len(admit(put(zero_and_not), TINY).scales) == 2, "one that acts is enough"
