"""From a row of the table to a pipeline, or to one sentence. Rows D6 and D7 of the fault table; no network."""

from __future__ import annotations

import errno
import os
import pickle
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
import torch
import transformers
from diffusers import AceStepPipeline
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

import checkpoints
import oobleck
import processors
from errors import EngineMissing, OutOfMemory
from settings import CHECKPOINTS, DEMO_FOLDER, Checkpoint, checkpoint_for

NEEDED = sorted(str(p.relative_to(DEMO_FOLDER)) for p in DEMO_FOLDER.rglob("*.*") if p.name != "README.md")
WEIGHTS = [name for name in NEEDED if name.endswith(".safetensors")]
FETCH_XL = ["hf", "download", CHECKPOINTS["xl-sft"].source, "--revision", CHECKPOINTS["xl-sft"].revision]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The demo checkpoint as somebody's own folder; its files are links and may be replaced."""
    return shutil.copytree(DEMO_FOLDER, tmp_path / "own", copy_function=os.symlink)


def load(folder: Path) -> Any:
    return checkpoints.pipeline(checkpoint_for(str(folder), "cpu"), "cpu")


def command(error: EngineMissing) -> list[str]:
    return shlex.split(error.hint.removeprefix("Fetch them with: "))


class Loader:
    """In place of `AceStepPipeline.from_pretrained`: takes what that takes, then fails as it would."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked: dict[str, Any] = {}

    def __call__(self, source: str, *, revision: str | None, dtype: torch.dtype, use_safetensors: bool) -> None:
        self.asked = {"source": source, "revision": revision, "use_safetensors": use_safetensors}
        raise self.error


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    def install(error: Exception) -> Loader:
        loader = Loader(error)
        monkeypatch.setattr(AceStepPipeline, "from_pretrained", loader)
        return loader

    return install


# What loads


def test_the_demo_checkpoint_loads_without_network_in_full_precision(capfd: pytest.CaptureFixture[str]) -> None:
    pipe = checkpoints.pipeline(CHECKPOINTS["demo"], "cpu")
    assert isinstance(pipe, AceStepPipeline)
    models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert len(models) == 6
    for model in models:
        assert not model.training
        assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float32, "cpu")}
    capfd.readouterr()
    assert list(pipe.progress_bar(range(3))) == [0, 1, 2]
    assert capfd.readouterr().err == "", "a server's log is no place for a bar for each song"


def test_a_copy_of_it_loads_from_any_folder(own: Path) -> None:
    assert load(own).transformer.dtype == torch.float32


def test_random_weights_are_built_in_memory_in_the_devices_precision(monkeypatch: pytest.MonkeyPatch, failing) -> None:
    loader = failing(AssertionError("random weights come from nowhere"))
    monkeypatch.setattr(checkpoints, "XL_SFT", tiny.TINY)
    pipe = checkpoints.pipeline(CHECKPOINTS["random:xl-sft"], "cpu")
    assert pipe.transformer.dtype == torch.float32
    assert pipe.tokenizer("slow piano").input_ids
    assert not loader.asked


# Devices


@pytest.mark.parametrize(
    "cuda, mps, best", [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_best_device_is_chosen(cuda: bool, mps: bool, best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert checkpoints.device() == best


def test_on_zero_gpu_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert checkpoints.device() == "cuda"


def test_gpus_work_in_bfloat16_and_processors_in_float32() -> None:
    assert checkpoints.dtype_for("cuda") == torch.bfloat16
    assert checkpoints.dtype_for("cpu") == torch.float32


@pytest.mark.parametrize("error", [None, RuntimeError("no MPS"), TypeError("BFloat16 is not supported on MPS")])
def test_an_apple_gpu_without_bfloat16_works_in_float32(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ones(*shape: int, dtype: torch.dtype, device: str) -> torch.Tensor:
        assert (dtype, device) == (torch.bfloat16, "mps")
        if error:
            raise error
        return torch.zeros(*shape)

    monkeypatch.setattr(torch, "ones", ones)
    assert checkpoints.dtype_for("mps") == (torch.float32 if error else torch.bfloat16)


# D7: folders


@pytest.mark.parametrize("name", NEEDED)
def test_a_folder_with_a_file_missing_is_told_as_such(name: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers makes up a configuration of 30 GB where there is none: here that may only be noticed, not run."""
    made_up = []

    def init(self, config, *args, **kwargs) -> None:
        made_up.append(config.hidden_size)
        raise RuntimeError("30 GB")

    if name == "text_encoder/config.json":
        monkeypatch.setattr(transformers.Qwen3Model, "__init__", init)
    (own / name).unlink()
    with pytest.raises(EngineMissing) as missing:
        load(own)
    assert missing.value.message.startswith("The checkpoint in own/ is incomplete or damaged (")
    assert missing.value.hint == "Fetch or copy it again."
    assert made_up == []


@pytest.mark.parametrize("name", WEIGHTS)
def test_half_a_file_of_weights_is_told_as_such(name: str, own: Path) -> None:
    whole = (own / name).read_bytes()
    (own / name).unlink()
    (own / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EngineMissing, match="own/ is incomplete or damaged"):
        load(own)


def test_an_empty_folder_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match="is incomplete or damaged"):
        load(tmp_path)


class Marker:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "safe, pickled",
    [
        ("text_encoder/model.safetensors", "text_encoder/pytorch_model.bin"),
        ("condition_encoder/diffusion_pytorch_model.safetensors", "condition_encoder/diffusion_pytorch_model.bin"),
    ],
)
def test_weights_that_can_run_code_are_never_opened(safe: str, pickled: str, own: Path, tmp_path: Path) -> None:
    (own / safe).unlink()
    (own / pickled).write_bytes(pickle.dumps(Marker(tmp_path / "code ran")))
    with pytest.raises(EngineMissing):
        load(own)
    assert not (tmp_path / "code ran").exists()


# D5, D6: the Hub


def test_without_network_the_sentence_has_repository_size_and_command() -> None:
    begun = time.perf_counter()
    with pytest.raises(EngineMissing) as missing:
        checkpoints.pipeline(CHECKPOINTS["xl-sft"], "cpu")
    assert time.perf_counter() - begun < 10
    assert "ACE-Step/acestep-v15-xl-sft-diffusers (11.5 GB)" in missing.value.message
    assert "there is no network, or the download is incomplete" in missing.value.message
    assert command(missing.value) == FETCH_XL


def test_an_id_of_ones_own_without_a_revision_has_a_shorter_command(failing) -> None:
    failing(OSError("no such repository"))
    with pytest.raises(EngineMissing) as missing:
        checkpoints.pipeline(checkpoint_for("owner/model", "cpu"), "cpu")
    assert command(missing.value) == ["hf", "download", "owner/model"]
    assert "GB" not in missing.value.message


def test_the_pinned_commit_and_safe_weights_are_asked_for(failing) -> None:
    row = CHECKPOINTS["xl-sft"]
    loader = failing(OSError())
    with pytest.raises(EngineMissing):
        checkpoints.pipeline(row, "cpu")
    assert loader.asked == {"source": row.source, "revision": row.revision, "use_safetensors": True}


def chained(how: str) -> Exception:
    """The disk runs full inside the Hub's client, and a library on the way up tells something else."""
    try:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as inner:
            if how == "cause":
                raise OSError("Can't load the model") from inner
            raise OSError("Can't load the model")  # noqa: B904 - the implicit context is the point
    except OSError as outer:
        return outer


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), chained("cause"), chained("context")]
)
def test_a_full_disk_is_told_as_such_with_size_and_command(error: Exception, failing) -> None:
    failing(error)
    with pytest.raises(EngineMissing) as missing:
        checkpoints.pipeline(CHECKPOINTS["xl-sft"], "cpu")
    assert "(11.5 GB)" in missing.value.message and "the disk is full" in missing.value.message
    assert "network" not in missing.value.message
    assert command(missing.value) == FETCH_XL


@pytest.mark.parametrize("kind", [RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError])
def test_what_the_hub_does_not_show_is_not_blamed_on_the_network(kind: type[Exception], failing) -> None:
    failing(
        kind("404 Client Error.", response=httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid")))
    )
    with pytest.raises(
        EngineMissing, match="the Hub has no such repository or revision, or asks for a login"
    ) as missing:
        checkpoints.pipeline(CHECKPOINTS["xl-sft"], "cpu")
    assert "network" not in missing.value.message


def test_errors_that_cause_each_other_end(failing) -> None:
    first, second = OSError("first"), OSError("second")
    first.__cause__, second.__cause__ = second, first
    failing(first)
    with pytest.raises(EngineMissing, match="no network"):
        checkpoints.pipeline(CHECKPOINTS["xl-sft"], "cpu")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
    ],
    ids=["Python", "CUDA", "MPS"],
)
@pytest.mark.parametrize("row", [CHECKPOINTS["xl-sft"], CHECKPOINTS["demo"]], ids=["hub", "folder"])
def test_weights_that_do_not_fit_are_not_called_missing(error: Exception, row: Checkpoint, failing) -> None:
    failing(error)
    with pytest.raises(OutOfMemory):
        checkpoints.pipeline(row, "cpu")


def test_a_cpu_gets_a_thread_for_each_core_unless_the_user_decides(monkeypatch, own) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(processors, "_cores", lambda: 3)
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        load(own)
        assert torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr(processors, "_quota", lambda: 9.0)
        load(own)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_autoencoder_is_made_ready(own) -> None:
    vae = load(own).vae
    assert isinstance(vae.decoder.forward, oobleck.Decoder) and isinstance(vae.encoder.forward, oobleck.Encoder)
