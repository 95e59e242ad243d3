"""Nothing broken comes in as a LoRA: rows L1 to L4 and L8 of the fault table."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lora_files
import numpy as np
import pytest
from lora_files import factors, raw_file, safetensors_of, write

from errors import LoraError
from lora_scales import CONFIG, HEADER_KEY
from lora_stack import DAMAGED, Model, admit, weights

TINY = lora_files.tiny_model()
Q, V = "layers.0.self_attn.to_q", "layers.1.cross_attn.to_v"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
Tensors = Mapping[str, tuple[str, np.ndarray]]


def good(dtype: str = "F32") -> dict[str, tuple[str, np.ndarray]]:
    """A LoRA of one module that would be let in."""
    a, b = factors(TINY, [Q])[Q]
    return {A: (dtype, a), B: (dtype, b)}


def put(content: bytes | Tensors, name: str = "voice.safetensors", **metadata: str) -> Path:
    """A file as an upload: its bytes, or the tensors in it."""
    path = Path.cwd() / "uploads" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else safetensors_of(content, metadata))
    return path


def plain(error: LoraError, *places: Path) -> str:
    """What an error says, after "voice cannot be used: ": one sentence for a person, with nothing of this machine."""
    assert error.message.startswith("voice cannot be used: ") and error.message.endswith(".")
    said = error.message.removeprefix("voice cannot be used: ").removesuffix(".")
    assert said and said == said.strip() and ". " not in said and not said.endswith(".") and "\n" not in str(error)
    assert len(said) < 200 and "Error" not in str(error)
    assert not error.hint or error.hint.endswith(".")
    assert not [place for place in (*places, "/work", "/tmp", "/home", "uploads") if str(place) in str(error)]
    return said


def refused(path: Path, model: Model = TINY, config: Path | None = None) -> str:
    """Why a file is refused."""
    with pytest.raises(LoraError) as error:
        admit(path, model, config)
    return plain(error.value, path.parent)


def entry(start: int = 0, stop: int = 4, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    """A tensor in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


WHOLE = safetensors_of(good())
HEADERS = {
    "empty file": b"",
    "7 bytes": b"\2\0\0\0\0\0\0",
    "only a length": raw_file(b""),
    "no header": struct.pack("<Q", 0),
    "list": raw_file([]),
    "number": raw_file(7),
    "null": raw_file(None),
    "text": raw_file("LoRA"),
    "not JSON": raw_file(b"{'a': 1}"),
    "cut off": raw_file(b'{"a": {"dtype": "F32"'),
    "not UTF-8": raw_file(b'{"\xff\xfe": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', bytes(4)),
    "200,000 brackets": raw_file(b"[" * 200_000),
    "200,000 objects": raw_file(b'{"a":' * 40_000),
    "length past the end": raw_file({A: entry()}, bytes(4), length=10_000),
    "length of 2**64 - 1": raw_file({A: entry()}, bytes(4), length=2**64 - 1),
    "tensor that is a list": raw_file({A: [0, 4]}, bytes(4)),
    "no shape": raw_file({A: {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
    "shape of text": raw_file({A: entry(shape="1")}, bytes(4)),
    "shape that is negative": raw_file({A: entry(shape=[-1])}, bytes(4)),
    "shape of fractions": raw_file({A: entry(shape=[1.5])}, bytes(4)),
    "shape too large": raw_file({A: entry(shape=[2])}, bytes(4)),
    "shape that overflows": raw_file({A: entry(shape=[2**33, 2**33])}, bytes(4)),
    "shape of 2**64": raw_file({A: entry(shape=[2**64])}, bytes(4)),
    "offsets that are negative": raw_file({A: entry(-4, 0)}, bytes(4)),
    "offsets the wrong way round": raw_file({A: entry(4, 0)}, bytes(4)),
    "offsets past the end": raw_file({A: entry(0, 400, [100])}, bytes(4)),
    "offsets that overlap": raw_file({A: entry(0, 8, [2]), B: entry(4, 12, [2])}, bytes(12)),
    "offsets with a hole": raw_file({A: entry(), B: entry(8, 12)}, bytes(12)),
    "bytes behind the end": raw_file({A: entry()}, bytes(8)),
    "one offset": raw_file({A: {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, bytes(4)),
    "unknown type": raw_file({A: entry(dtype="F33")}, bytes(4)),
    "type that is a number": raw_file({A: entry(dtype=32)}, bytes(4)),
    "metadata that is a list": raw_file({"__metadata__": ["a"], A: entry()}, bytes(4)),
    "metadata that is text": raw_file({"__metadata__": "a", A: entry()}, bytes(4)),
    "metadata of numbers": raw_file({"__metadata__": {HEADER_KEY: 8}, A: entry()}, bytes(4)),
    "metadata of objects": raw_file({"__metadata__": {HEADER_KEY: {"r": 8}}, A: entry()}, bytes(4)),
    "a name twice": raw_file(b"{%s, %s}" % ((json.dumps({A: entry()})[1:-1].encode(),) * 2), bytes(4)),
    "an entry twice": WHOLE.replace(b'"dtype": "F32"', b'"dtype":"F32","dtype":"F32"', 1),
    "cut in the data": WHOLE[:-1],
    "cut in the header": WHOLE[:60],
    "noise": np.random.default_rng(0).bytes(5000),
    "html": b"<html><body>404: not found</body></html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 86133\n",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_l1_a_malformed_file(content: bytes) -> None:
    assert refused(put(content)) == DAMAGED


def test_l1_a_file_whose_header_hides_a_second_tensor_of_the_same_name() -> None:
    """The library takes the last of two; one that another program takes the first of would be another LoRA."""
    twice = json.dumps({A: entry(0, 4, [1, 1])})[1:-1] + ", " + json.dumps({A: entry(4, 8, [1, 1])})[1:-1]
    escaped = twice.replace('"data_offsets"', '"data\\u005foffsets"', 1)
    for header in (twice, escaped):
        assert refused(put(raw_file(b"{%s}" % header.encode(), bytes(8)))) == DAMAGED


def test_l1_ten_thousand_flipped_bits(tmp_path: Path) -> None:
    """Each is refused in a sentence, or gives a LoRA whose weights are finite: a flip in a weight is a weight."""
    model = Model("the tiny model", {Q: (3, 2), V: (2, 3)})
    made = factors(model, model.targets, rank=2)
    metadata = {HEADER_KEY: json.dumps({"transformer.r": 2, "transformer.alpha_pattern": {"to_v": 1}})}
    tensors = {f"{m}.lora_{f}.weight": ("BF16", made[m][at]) for m in made for at, f in enumerate("AB")}
    whole = safetensors_of(tensors | {f"{Q}.alpha": ("F16", np.array(2.0))}, metadata)
    path, rng, let_in, sentences = tmp_path / "voice.safetensors", np.random.default_rng(0), 0, set()
    for at, bit in zip(rng.integers(len(whole), size=10_000), rng.integers(8, size=10_000), strict=True):
        content = bytearray(whole)
        content[at] ^= 1 << bit
        path.write_bytes(content)
        try:
            lora = admit(path, model)
        except LoraError as error:
            sentences.add(plain(error, tmp_path))
        else:
            let_in += 1
            assert all(np.isfinite(factor).all() for pair in weights(lora).values() for factor in pair)
    assert 500 < let_in < 9_500 and DAMAGED in sentences and len(sentences) > 10


class Marker:
    """What a pickle may be: a call of any function, made when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickle-ran",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_l2_a_pickle_under_another_name_is_not_run(protocol: int) -> None:
    content = pickle.dumps({A: Marker(), "rest": "x" * 5000}, protocol)
    said = refused(put(content))
    assert said == ("it is a pickle or an archive under another name, which may run code" if protocol > 1 else DAMAGED)
    assert refused(put(WHOLE), config=put(content, CONFIG)) == f"its {CONFIG} is not JSON"
    for start in (WHOLE[:8], raw_file({A: entry()})):
        assert refused(put(start + content)) == DAMAGED
    assert not Path("pickle-ran").exists()
    pickle.loads(content)
    assert Path("pickle-ran").exists(), "the marker works"


def _archives() -> Iterator[tuple[str, bytes, bool]]:
    import torch

    checkpoint, archive, arrays = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({A: torch.zeros(4, 32)}, checkpoint)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("adapter_model.safetensors", WHOLE)
    np.savez(arrays, a=np.zeros(4))
    yield "torch", checkpoint.getvalue(), True
    yield "zip", archive.getvalue(), True
    yield "npz", arrays.getvalue(), True
    yield "gzip", gzip.compress(WHOLE), False
    yield "7-Zip", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(5000), False


def test_l3_archives_by_their_content() -> None:
    for name, content, known in _archives():
        named = "it is a pickle or an archive under another name, which may run code"
        assert refused(put(content)) == (named if known else DAMAGED), name


@pytest.mark.parametrize("end", [".bin", ".pt", ".ckpt", ".zip", ".pth", ".npz", ".safetensors.bin", ".json", ""])
def test_l3_other_formats_by_their_name(end: str) -> None:
    path = put(WHOLE, "voice" + end)
    with pytest.raises(LoraError, match=r"cannot be used: it must be a \.safetensors file\.$"):
        admit(path, TINY)
    with pytest.raises(LoraError, match=r"^The preset cannot be used: it must"):
        admit(path, TINY, name="The preset")


@pytest.fixture
def opened() -> Iterator[set[str]]:
    """What has been opened in this process since it was last cleared."""
    paths: set[str] = set()
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("open", "os.listdir", "os.scandir", "import"):
            paths.add(str(arguments[0]))

    sys.addaudithook(watch)  # for good: Python has no way to remove one
    yield paths
    watching = False


def test_l4_a_file_over_300_mb_is_not_opened(opened: set[str]) -> None:
    path = put(WHOLE)
    for size, shown in ((300_000_001, "301"), (5 * 10**12, "5,000,000")):
        os.truncate(path, size)  # sparse
        opened.clear()
        assert refused(path) == f"largest is 300 MB, it has {shown} MB" and str(path) not in opened
    put(WHOLE)
    opened.clear()
    assert admit(path, TINY) and str(path) in opened, "it would be noticed"


def test_l4_a_header_over_4_mb_is_not_parsed() -> None:
    path = put(raw_file(b"[", length=4_000_001))
    os.truncate(path, 5_000_000)
    assert refused(path) == "its header is larger than 4 MB"
    path = put(raw_file(b"[", length=4_000_000))
    os.truncate(path, 5_000_000)
    assert refused(path) == DAMAGED


def test_l4_a_file_of_60_000_tensors_is_not_parsed() -> None:
    names = (f'"{n}":{{"dtype":"F32","shape":[],"data_offsets":[0,0]}}' for n in range(60_000))
    path = put(raw_file(("{" + ",".join(names) + ", and this is no JSON").encode()))
    assert refused(path) == "it has more than 4,096 tensors"


def test_l8_nothing_that_a_configuration_names_is_opened(opened: set[str], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    marker.write_text("{}")
    told = dict(base_model_name_or_path=str(marker), revision=str(marker), parent_library=str(marker))
    told |= dict(auto_mapping={"base_model_class": "marker", "parent_library": "marker"}, tokenizer=str(marker))
    path, config = write(put(b""), "peft", factors(TINY, [Q]), 8, **told)
    opened.clear()
    lora = admit(path, TINY, config)
    weights(lora)
    assert {str(path), str(config)} <= opened and not opened & {str(marker), "marker"}
    assert lora.scales == {Q: 2.0} and str(marker) not in repr(lora)
    marker.read_text()
    assert str(marker) in opened, "it would be noticed"


CONFIGURATIONS = {
    b"{": "is not JSON",
    b"[" * 200_000: "is not JSON",
    b" " * 2_000_000: "is larger than 1 MB",
    b"[]": "is not one of PEFT's",
    b'{"peft_type": "LOKR"}': "says 'LOKR'; only plain LoRAs can be applied",
    b'{"alpha_pattern": 3}': "cannot be used",
    b'{"lora_alpha": "16"}': "must be numbers of a sensible size",
    b'{"lora_alpha": true}': "must be numbers of a sensible size",
    b'{"lora_alpha": 1%s}' % (b"0" * 400): "must be numbers of a sensible size",
    b'{"lora_alpha": 1e400}': f"the alpha of {Q} is inf; at rank 4 it must be above 0 and at most 256",
    b'{"lora_alpha": NaN}': f"the alpha of {Q} is nan; at rank 4 it must be above 0 and at most 256",
    b'{"lora_alpha": 0}': f"the alpha of {Q} is 0; at rank 4 it must be above 0 and at most 256",
    b'{"lora_alpha": 129, "use_rslora": true}': f"the alpha of {Q} is 129; at rank 4 it must be above 0 and at most 128",
    b'{"r": 16}': f"is another LoRA's: it says rank 16, {Q} has 4",
    b'{"use_dora": true}': "it is a DoRA, of which only plain LoRAs can be applied",
}


@pytest.mark.parametrize(("content", "reason"), CONFIGURATIONS.items(), ids=range(len(CONFIGURATIONS)))
def test_l8_a_configuration_that_cannot_be_used(content: bytes, reason: str) -> None:
    assert refused(put(WHOLE), config=put(content, CONFIG)).endswith(reason)
    if content.strip() and len(content) < 1000:
        assert refused(put(good(), **{HEADER_KEY: content.decode()})).endswith(reason)


def test_l8_a_configuration_that_is_gone_or_has_no_name(tmp_path: Path) -> None:
    for path in (tmp_path / CONFIG, tmp_path, tmp_path / "a\0b", put(WHOLE) / CONFIG):
        assert refused(put(WHOLE), config=path) == f"its {CONFIG} could not be read"


def test_a16_a_file_that_is_gone() -> None:
    path = put(WHOLE)
    path.unlink()
    assert refused(path) == "the upload has expired"
    with pytest.raises(LoraError) as error:
        admit(path, TINY)
    assert error.value.hint == "Please add it again."
    assert refused(put(WHOLE, "file") / "voice.safetensors") == "the upload has expired"


def test_only_plain_files_are_opened(opened: set[str], tmp_path: Path) -> None:
    path = put(b"")
    for make in (lambda: os.mkfifo(path), path.mkdir):
        path.unlink()
        make()
        opened.clear()
        assert refused(path) == "it is a folder or a device, not a file" and str(path) not in opened
    for odd in (tmp_path / "voice\0.safetensors", tmp_path / ("x" * 300) / "voice.safetensors"):
        with pytest.raises(LoraError) as error:
            admit(odd, TINY, name="voice")
        assert plain(error.value, tmp_path) == "it could not be read"
