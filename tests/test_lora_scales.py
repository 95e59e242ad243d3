"""Alpha over rank, wherever a trainer says it; and row L8 of the fault table: of a configuration only numbers are read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from errors import LoraError
from lora_scales import CONFIG, CONFIG_MAX_BYTES, HEADER_KEY, SCALE_MAX, Scaling, scaling

PATH, MODULE = "base_model.model.layers.1.self_attn.q_proj", "layers.1.self_attn.to_q"
PEFT = dict(peft_type="LORA", r=8, lora_alpha=16, use_rslora=False, rank_pattern={}, alpha_pattern={}, use_dora=False)


@pytest.fixture
def config(tmp_path: Path):
    def write(told: Any) -> Path:
        path = tmp_path / CONFIG
        path.write_bytes(told if isinstance(told, bytes) else json.dumps(told).encode())
        return path

    return write


def refused(metadata: Mapping[str, str], path: Path | None = None) -> str:
    """Why it cannot be used: words that fit behind "NAME cannot be used: ", and nothing of this machine."""
    with pytest.raises(LoraError) as error:
        scaling(metadata, path)
    message = error.value.message
    assert message[0].islower() and not message.endswith(".") and "\n" not in message and "Traceback" not in message
    assert str(Path.cwd()) not in str(error.value) and "/" not in str(error.value)
    return message


def scale_of(told: Scaling, rank: int = 8) -> float:
    """The scale of the module."""
    return told.of(PATH, MODULE, rank)


def test_without_a_word_the_weights_are_taken_as_they_are() -> None:
    told = scaling({})
    assert told == scaling({"format": "pt", "lora_alpha": "16"}) == Scaling() and told.source == ""
    assert [scale_of(told, rank) for rank in (1, 8, 256)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("alpha", [16, 8, 1, 0.5, 16.0])
def test_alpha_over_rank(alpha: float, config) -> None:
    told = scaling({}, config(PEFT | {"lora_alpha": alpha}))
    assert scale_of(told) == alpha / 8 and told.source == "config"
    assert scaling({}, str(config(PEFT | {"lora_alpha": alpha}))) == told, "a path may be text"


def test_alpha_over_the_root_of_the_rank_for_rslora(config) -> None:
    told = scaling({}, config(PEFT | {"use_rslora": True}))
    assert scale_of(told) == 16 / math.sqrt(8)
    for value in (False, None, "true", 1):
        assert scale_of(scaling({}, config(PEFT | {"use_rslora": value}))) == 2, "PEFT writes true or false"


def test_the_header_of_diffusers_says_the_same(config) -> None:
    for prefix in ("transformer.", ""):
        said = {HEADER_KEY: json.dumps({prefix + key: value for key, value in (PEFT | {"use_rslora": True}).items()})}
        told = scaling(said)
        assert scale_of(told) == 16 / math.sqrt(8) and told.source == "header"
    ours = scaling(said, config(PEFT | {"lora_alpha": 4}))
    assert scale_of(ours) == 0.5 and ours.source == "config", "the file beside it wins"


def test_a_configuration_without_alpha(config) -> None:
    told = scaling({}, config({"peft_type": "LORA", "r": 8}))
    assert scale_of(told) == 1 and told.alpha is None
    assert scaling({}, config({})) == Scaling(source="config")
    assert scale_of(scaling({}, config({"lora_alpha": 4, "r": None})), 2) == 2, "it need not say a rank"


@pytest.mark.parametrize(
    "key", [PATH, MODULE, "layers.1.self_attn.q_proj", "self_attn.q_proj", "q_proj", "to_q", "^q_proj", "^" + MODULE]
)
def test_alpha_and_rank_of_single_modules(key: str, config) -> None:
    told = scaling({}, config(PEFT | {"alpha_pattern": {"v_proj": 1, key: 2}, "rank_pattern": {key: 4}}))
    assert scale_of(told, 4) == 0.5
    assert told.of("base_model.model.layers.1.mlp.up_proj", "layers.1.mlp.up_proj", 8) == 2, "the others keep theirs"


def test_the_first_pattern_that_fits_counts_as_in_peft(config) -> None:
    told = scaling({}, config(PEFT | {"alpha_pattern": {"q_proj": 4, "layers.1.self_attn.q_proj": 2}}))
    assert scale_of(told) == 0.5
    told = scaling({}, config(PEFT | {"alpha_pattern": {"proj": 1, "_proj": 1, "1.self": 1}}))
    assert scale_of(told) == 2, "a piece of a word is no name"
    told = scaling({}, config(PEFT | {"alpha_pattern": {"q_proj": None}, "rank_pattern": None}))
    assert scale_of(told) == 1


def test_l6_a_rank_that_disagrees(config) -> None:
    for told, says in (({}, 8), ({"rank_pattern": {"q_proj": 16}}, 16), ({"r": 6.5}, 6.5), ({"r": math.nan}, "nan")):
        with pytest.raises(LoraError) as error:
            scale_of(scaling({}, config(PEFT | told)), 4)
        assert str(error.value) == f"its {CONFIG} is another LoRA's: it says rank {says}, {PATH} has 4"


@pytest.mark.parametrize("alpha", [0, -16, math.inf, -math.inf, math.nan, 1e300, SCALE_MAX * 8 + 0.1])
def test_l7_an_alpha_out_of_bounds(alpha: float, config) -> None:
    told = scaling({}, config(PEFT | {"lora_alpha": alpha}))
    with pytest.raises(LoraError, match=rf"^the alpha of {PATH} is \S+; at rank 8 it must be above 0 and at most 512$"):
        scale_of(told)
    assert scale_of(Scaling(alpha=SCALE_MAX * 8.0)) == SCALE_MAX and scale_of(Scaling(alpha=1e-3)) > 0


def test_l7_the_bound_of_rslora() -> None:
    with pytest.raises(LoraError, match=r" is 257; at rank 16 it must be above 0 and at most 256$"):
        Scaling(257.0, rslora=True).of(PATH, MODULE, 16)
    assert Scaling(256.0, rslora=True).of(PATH, MODULE, 16) == SCALE_MAX


def test_l8_numbers_that_are_none(config) -> None:
    for value in (b"true", b'"16"', b"[16]", b"{}", b"1" + b"0" * 400, b"false"):
        for name in (b"lora_alpha", b"r"):
            said = b'{"%s": %s}' % (name, value)
            assert refused({}, config(said)) == f"rank and alpha in its {CONFIG} must be numbers of a sensible size", (
                said
            )
            assert (
                refused({HEADER_KEY: said.decode()})
                == "rank and alpha in its header must be numbers of a sensible size"
            )
        for name in (b"alpha_pattern", b"rank_pattern"):
            assert "must be numbers of a sensible size" in refused(
                {}, config(b'{"%s": {"q_proj": %s}}' % (name, value))
            )
    with pytest.raises(LoraError, match="is inf; at rank 8"):
        scale_of(scaling({}, config(b'{"lora_alpha": 1e400}')))
    with pytest.raises(LoraError, match="it says rank inf"):
        scale_of(scaling({}, config(b'{"r": 1e400}')))


def test_a_pattern_that_is_no_name_is_not_passed_over(config) -> None:
    for key in ("layers\\.\\d+", ".*q_proj", "q_proj|v_proj", "", "(a+)+b"):
        for name in ("alpha_pattern", "rank_pattern"):
            told = refused({}, config(PEFT | {name: {key: 2}}))
            assert told == f"the patterns in its {CONFIG} must be names of modules"


@pytest.mark.parametrize("pattern", [[1], "q_proj", 4, True])
def test_l8_patterns_that_are_none(pattern: Any, config) -> None:
    for name in ("alpha_pattern", "rank_pattern"):
        assert refused({}, config(PEFT | {name: pattern})) == f"the patterns in its {CONFIG} cannot be used"


BROKEN = {
    "empty": b"",
    "text": b"rank: 8",
    "half": b'{"r": 8, "lora_al',
    "not UTF-8": b'{"r": "\xff\xfe\xff"}',
    "nested": b"[" * 200_000,
    "nested and closed": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "number of 5,000 digits": b'{"r": ' + b"9" * 5_000 + b"}",
    "pickle": b"\x80\x04\x95\x0f\x00",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_l8_a_configuration_that_is_not_json(content: bytes, config) -> None:
    assert refused({}, config(content)) == f"its {CONFIG} is not JSON"
    if content.isascii():
        assert refused({HEADER_KEY: content.decode()}) == "its header is not JSON"


@pytest.mark.parametrize("told", [[], [1, 2], "LORA", 8, None, True])
def test_l8_a_configuration_that_is_json_of_another_kind(told: Any, config) -> None:
    assert refused({}, config(told)) == f"its {CONFIG} is not one of PEFT's"


def test_l8_other_kinds_of_adapters(config) -> None:
    for other in ("LOKR", "LOHA", "IA3", 7, ["LORA"]):
        message = f"its {CONFIG} says {str(other)!r}; only plain LoRAs can be applied"
        assert refused({}, config(PEFT | {"peft_type": other})) == message
    assert scale_of(scaling({}, config(PEFT | {"peft_type": None}))) == 2
    assert len(refused({}, config(PEFT | {"peft_type": "x" * 900_000}))) < 100
    assert refused({}, config(PEFT | {"use_dora": True})) == "it is a DoRA, of which only plain LoRAs can be applied"
    assert scale_of(scaling({}, config(PEFT | {"use_dora": None}))) == 2


def test_l8_a_configuration_of_2_mb_is_not_opened(config) -> None:
    path = config(PEFT)
    os.truncate(path, 2_000_000)
    assert refused({}, path) == f"its {CONFIG} is larger than 1 MB"
    path = config(json.dumps(PEFT).encode().ljust(CONFIG_MAX_BYTES))
    assert scale_of(scaling({}, path)) == 2, "a whole MB is let in"


def test_l8_nothing_else_of_it_is_kept(config) -> None:
    """That no path in it is opened is watched in test_lora_faults.py."""
    foreign = dict(
        base_model_name_or_path="/etc/passwd", parent_library="os", revision="../..", loftq_config={"a": "b"}
    )
    foreign |= dict(auto_mapping={"base_model_class": "os"}, target_modules=["/etc"], modules_to_save=["x"])
    assert scaling({}, config(PEFT | foreign)) == Scaling(16.0, 8.0, False, {}, {}, "config")


def test_a16_a_configuration_that_is_gone_or_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / CONFIG, tmp_path, tmp_path / "a\0b"):
        assert refused({}, path) == f"its {CONFIG} could not be read"
    assert scaling({}, "") == scaling({}, None) == Scaling()
