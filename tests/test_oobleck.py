"""The autoencoder made ready: what diffusers' own class gives, in tiles without seams, whatever the threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tiny
import torch
from diffusers import AutoencoderOobleck

import oobleck
from settings import DEMO_FOLDER

LAYOUTS = ("cpu", "mps")  # rows and plain; both run on a CPU
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


def stock(dtype: torch.dtype = torch.float64, **other: Any) -> Any:
    """diffusers' own class with random weights, the snakes different in each channel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderOobleck(**{**tiny.TINY["vae"], **other})
        for name, parameter in vae.named_parameters():
            if name.endswith(("alpha", "beta")):
                torch.nn.init.normal_(parameter, std=0.5)
    return vae.to(dtype).eval()


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def made(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return vae.decode(latents).sample


def heard(vae: Any, samples: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return vae.encode(samples).latent_dist.parameters


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, as a part of the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many tiles in each stage that every kind of seam is there."""
    for name, size in {"MADE_AT_ONCE": 7, "HEARD_AT_ONCE": 11, "ON_A_GPU": 13, "CACHED": 300}.items():
        monkeypatch.setattr(oobleck, name, size)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("length", [1, 6, 7, 8, 40])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_have_no_seams(layout, length) -> None:
    """In double precision nothing but a wrong tile could be seen."""
    theirs, ours = stock(), oobleck.prepare(stock(), layout)
    latents, samples = noise(1, 8, length), noise(1, 2, 1920 * length)
    assert error(made(ours, latents), made(theirs, latents)) < 1e-12
    assert error(heard(ours, samples), heard(theirs, samples)) < 1e-12


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_no_margin_is_wider_than_needed_by_half(part) -> None:
    """What a tile is given beside itself is heard: without the outer half of it the song is another."""
    theirs, ours = stock(), oobleck.prepare(stock(), "cpu")
    run, given = (heard, noise(1, 2, 1920 * 40)) if part == "encoder" else (made, noise(1, 8, 40))
    expected, coder = run(theirs, given), getattr(ours, part).forward
    for depth, margin in enumerate(coder.margins):
        coder.margins[depth] = margin // 2
        assert error(run(ours, given), expected) > 1e-12, depth
        coder.margins[depth] = margin


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_demo_sounds_as_with_diffusers(layout) -> None:
    theirs, ours = (AutoencoderOobleck.from_pretrained(DEMO_FOLDER / "vae").eval() for _ in range(2))
    oobleck.prepare(ours, layout)
    latents = noise(1, 24, 60, dtype=torch.float32)
    song = made(theirs, latents)
    assert error(made(ours, latents), song) < 1e-5
    assert error(heard(ours, song), heard(theirs, song)) < 1e-5


def test_bfloat16_is_as_near_to_the_truth_as_with_diffusers() -> None:
    latents, samples = noise(1, 8, 20, dtype=torch.bfloat16), noise(1, 2, 1920 * 20, dtype=torch.bfloat16)
    exact, theirs = stock(torch.bfloat16).double(), stock(torch.bfloat16)
    ours = oobleck.prepare(stock(torch.bfloat16), "cuda")
    for run, given in ((made, latents), (heard, samples)):
        true = run(exact, given.double())
        assert error(run(ours, given).double(), true) < 1.5 * error(run(theirs, given).double(), true)
        assert run(ours, given).dtype == torch.bfloat16


def test_each_song_of_a_batch_is_as_if_alone() -> None:
    ours = oobleck.prepare(stock(), "cpu")
    latents, samples = noise(2, 8, 9), noise(2, 2, 1920 * 9)
    for run, given in ((made, latents), (heard, samples)):
        assert torch.equal(run(ours, given), torch.cat([run(ours, one[None]) for one in given]))


@pytest.mark.usefixtures("small_tiles")
def test_the_number_of_threads_changes_nothing_and_is_left_as_it_was() -> None:
    ours = oobleck.prepare(stock(torch.float32), "cpu")
    latents, samples = noise(1, 8, 40, dtype=torch.float32), noise(1, 2, 1920 * 40, dtype=torch.float32)
    before, songs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            songs.append((made(ours, latents), heard(ours, samples)))
            assert torch.get_num_threads() == threads == begun_now()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for song in songs[1:] for a, b in zip(song, songs[0], strict=True))


def begun_now() -> int:
    """How many threads torch uses in a thread that begins now."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_error_in_a_tile_comes_out_and_threads_are_as_before(device) -> None:
    before, done = torch.get_num_threads(), []

    def work(item: int) -> None:
        assert not torch.is_grad_enabled()
        done.append(item)
        if item == 2:
            raise MemoryError("too long a song")

    with pytest.raises(MemoryError, match="too long a song"):
        oobleck.each(work, range(3), device)
    assert sorted(done) == [0, 1, 2] and torch.get_num_threads() == before == begun_now()


def test_nothing_is_normalised_any_more() -> None:
    vae = oobleck.prepare(stock(torch.float32), "cpu")
    names = {name.rsplit(".", 1)[1] for name, _ in vae.named_parameters()}
    assert names == {"weight", "bias", "alpha", "beta"} and not any(p.requires_grad for p in vae.parameters())
    assert vae.dtype == torch.float32


def test_it_moves_to_another_precision_with_its_pipeline() -> None:
    latents = noise(1, 8, 9)
    moved = oobleck.prepare(stock(torch.float32), "cpu").double()
    assert error(made(moved, latents), made(stock(torch.float32).double(), latents)) < 1e-6


def test_odd_strides_are_refused() -> None:
    with pytest.raises(ValueError, match=r"odd strides: \[3, 4\]"):
        oobleck.prepare(stock(downsampling_ratios=[3, 4], channel_multiples=[1, 1]), "cpu")
