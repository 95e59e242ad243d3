"""diffusers' `AutoencoderOobleck`, made ready to be used and no longer trained: the same function, many times as fast.

What weight normalisation computes in each forward is computed once. Each moment's channels lie side by side, which is how
convolutions read fastest. A snake takes one buffer instead of five. Above all, sound is made in short tiles that stay in the
cache, each with all that it can hear around it, so that there are no seams: on a CPU one tile a thread, and memory does not
grow with the song.

Architecture: Evans et al., "Long-form music generation with latent diffusion" (2024); snake: Liu Ziyin et al., "Neural networks
fail to learn periodic functions and how to fix it" (2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Layer = Callable[["torch.Tensor"], "torch.Tensor"]  # of [1, C, 1, T]

MADE_AT_ONCE, HEARD_AT_ONCE = (
    50,
    250,
)  # latents, by one thread of a CPU: a latent hears 9 on either side to be made, 7 to be heard
ON_A_GPU = 750  # latents at once: some 2 GiB for the XL model in bf16
CACHED = 2**18  # numbers that one layer makes at a time on a CPU, 1 MiB: a few of them stay in its cache
WHOLE = 2**62  # longer than any song


@dataclass(frozen=True)
class Layout:
    """How tensors lie in memory.

    `rows`: one row of channels for each moment, instead of one row of moments for each channel. Not on Apple's GPUs, whose
    convolutions have been wrong about it in more than one release of torch.
    """

    rows: bool

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """[N, C, T] as [N, C, 1, T] in this layout: 2-dimensional convolutions know it, 1-dimensional ones do not."""
        import torch

        format = torch.channels_last if self.rows else torch.contiguous_format
        return tensor[:, :, None].contiguous(memory_format=format)


@dataclass(frozen=True)
class Stage:
    """Layers between two changes of the sample rate, which is `rate` times as high on the side of the sound.

    `hears` is how many frames on that side a frame there hears of its past and of its future, at most; `width` the most
    channels there.
    """

    layers: tuple[Layer, ...]
    rate: int
    hears: int
    width: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def prepare(vae: Any, device: str) -> Any:
    """The same `AutoencoderOobleck` with another forward in its encoder and its decoder, for "cuda", "mps" or "cpu".

    To be called once, on whatever device the weights are. Results in float32 stay within 1e-5 of diffusers' own, untiled
    (sums in another order), and do not depend on the number of threads. The weights keep their names, not their shapes, and
    `use_tiling` is to stay off: there is nothing left for it to do. Raises ValueError for odd strides, with which a song
    would not be as long as its latents say; ACE-Step has none.
    """
    if any(stride % 2 for stride in vae.config.downsampling_ratios):
        raise ValueError(f"the autoencoder has odd strides: {vae.config.downsampling_ratios}")
    layout, encoder, decoder = Layout(rows=device != "mps"), vae.encoder, vae.decoder
    heard, made, cached = (HEARD_AT_ONCE, MADE_AT_ONCE, CACHED) if device == "cpu" else (ON_A_GPU, ON_A_GPU, None)
    encoder.forward = Encoder(_encoder_stages(encoder, layout), encoder.conv2.out_channels, layout, (heard, cached))
    decoder.forward = Decoder(_decoder_stages(decoder, layout), decoder.conv2.out_channels, layout, (made, cached))
    return vae.requires_grad_(False)


def _encoder_stages(encoder: Any, layout: Layout) -> list[Stage]:
    stages = [Stage((_conv(encoder.conv1, layout),), 1, 3, encoder.conv1.out_channels)]
    for block in encoder.block:
        units, hears = _units(block, layout)
        down, stride = block.conv1, block.conv1.stride[0]
        layers = (*units, _snake(block.snake1), _conv(down, layout))
        stages.append(Stage(layers, stride, hears + down.padding[0], down.in_channels))
    last = (_snake(encoder.snake1), _conv(encoder.conv2, layout))
    return [*stages, Stage(last, 1, 1, encoder.conv2.in_channels)]


def _decoder_stages(decoder: Any, layout: Layout) -> list[Stage]:
    stages = [Stage((_conv(decoder.conv1, layout),), 1, 3, decoder.conv1.out_channels)]
    for block in decoder.block:
        units, hears = _units(block, layout)
        up, stride = block.conv_t1, block.conv_t1.stride[0]
        layers = (_snake(block.snake1), _upsampling(up, layout), *units)
        stages.append(Stage(layers, stride, hears + stride, up.out_channels))
    last = (_snake(decoder.snake1), _conv(decoder.conv2, layout))
    return [*stages, Stage(last, 1, 3, decoder.conv2.in_channels)]


def _units(block: Any, layout: Layout) -> tuple[list[Layer], int]:
    """The residual units of a block, and how far they hear together."""
    units = (block.res_unit1, block.res_unit2, block.res_unit3)
    return [_unit(unit, layout) for unit in units], sum(unit.conv1.padding[0] for unit in units)


class Decoder:
    """Latents [B, C, T] to samples [B, channels, hop T]."""

    def __init__(self, stages: list[Stage], channels: int, layout: Layout, sizes: tuple[int, int | None]) -> None:
        self.stages, self.channels, self.layout = stages, channels, layout
        self.hop = math.prod(stage.rate for stage in stages)
        self.frames, cached = sizes
        self.margins: list[int] = []  # frames that each stage is given on either side of those it is asked for
        margin = 0
        for stage in reversed(stages):
            margin = -(-(margin + stage.hears) // stage.rate)
            self.margins.insert(0, margin)
        self.tiles = _tiles(stages, self.margins, cached)

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        length = latents.shape[-1]
        out = latents.new_empty(latents.shape[0], self.channels, length * self.hop)
        for one, sound in zip(latents[:, None], out, strict=True):
            x = self.layout.of(one)

            def make(first: int, x: torch.Tensor = x, sound: torch.Tensor = sound) -> None:
                last = min(first + self.frames, length)
                self._make(0, (x, 0), (first, last), sound)

            each(make, range(0, length, self.frames), latents.device.type)
        return out

    def _make(self, depth: int, given: tuple[torch.Tensor, int], asked: tuple[int, int], sound: torch.Tensor) -> None:
        """Write what becomes of the frames `asked` for, of those that are given from a start, from stage `depth` on.

        The outermost frames of what a stage makes are wrong where the song goes on; margins keep them out of what is asked.
        """
        x, begins = given
        if depth == len(self.stages):
            sound[:, slice(*asked)] = x[0, :, 0, asked[0] - begins : asked[1] - begins]
            return
        stage, margin = self.stages[depth], self.margins[depth]
        tile = _even(asked, self.tiles[depth])
        for first in range(*asked, tile):
            last = min(first + tile, asked[1])
            start, stop = _window(first, tile, margin, (begins, begins + x.shape[-1]))
            made = stage(x[..., start - begins : stop - begins])
            self._make(depth + 1, (made, start * stage.rate), (first * stage.rate, last * stage.rate), sound)


class Encoder:
    """Samples [B, C, hop T] to the parameters [B, channels, T] of the latents' distribution."""

    def __init__(self, stages: list[Stage], channels: int, layout: Layout, sizes: tuple[int, int | None]) -> None:
        self.stages, self.channels, self.layout = stages, channels, layout
        self.hop = math.prod(stage.rate for stage in stages)
        self.frames, cached = sizes
        self.margins = [-(-stage.hears // stage.rate) for stage in stages]
        self.tiles = _tiles(stages, self.margins, cached)

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        length = samples.shape[-1] // self.hop
        out = samples.new_empty(samples.shape[0], self.channels, length)
        for one, latents in zip(samples[:, None], out, strict=True):

            def hear(first: int, one: torch.Tensor = one, latents: torch.Tensor = latents) -> None:
                last = min(first + self.frames, length)
                latents[:, first:last] = self._heard(len(self.stages) - 1, (first, last), (one, length))[0, :, 0]

            each(hear, range(0, length, self.frames), samples.device.type)
        return out

    def _heard(self, depth: int, asked: tuple[int, int], song: tuple[torch.Tensor, int]) -> torch.Tensor:
        """The frames `asked` for of what comes out of stage `depth` when it hears a song [1, C, n] of so many latents."""
        import torch

        if depth < 0:
            return self.layout.of(song[0][..., slice(*asked)])
        stage, margin = self.stages[depth], self.margins[depth]
        tile = _even(asked, self.tiles[depth])
        whole = song[1] * math.prod(other.rate for other in self.stages[depth + 1 :])
        pieces = []
        for first in range(*asked, tile):
            last = min(first + tile, asked[1])
            start, stop = _window(first, tile, margin, (0, whole))
            made = stage(self._heard(depth - 1, (start * stage.rate, stop * stage.rate), song))
            pieces.append(made[..., first - start : last - start])
        return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]


def _tiles(stages: list[Stage], margins: list[int], cached: int | None) -> list[int]:
    """Frames that each stage is to work on at once: what the cache holds, but margins are to be a small part of it."""
    if cached is None:
        return [WHOLE] * len(stages)
    return [max(cached // (s.rate * s.width), 16 * margin) for s, margin in zip(stages, margins, strict=True)]


def _even(asked: tuple[int, int], tile: int) -> int:
    """Nearly this tile's size, so that what is asked for consists of tiles of one size."""
    length = asked[1] - asked[0]
    return -(-length // max(1, round(length / tile)))


def _window(first: int, tile: int, margin: int, within: tuple[int, int]) -> tuple[int, int]:
    """A tile from `first` on with its margins. At the ends there are as many frames, too: each new shape costs time."""
    begin, end = within
    start = max(begin, min(first - margin, end - tile - 2 * margin))
    return start, min(start + tile + 2 * margin, end)


def each(work: Callable[[int], None], items: Iterable[int], device: str) -> None:
    """Do `work` for each item: on a CPU one item a thread, on as many threads as torch may use here.

    Torch's own threads wait for each other after each operation, of which tiles have very many: on a machine with other work
    that takes longer than one thread alone. And what one thread makes does not depend on how many there are.
    """
    import torch

    def alone(item: int) -> None:
        with torch.no_grad():  # each thread has its own
            work(item)

    if device != "cpu":
        for item in items:
            alone(item)
        return
    threads = torch.get_num_threads()
    try:
        # One thread of torch in each of ours, and in all that begin meanwhile.
        with ThreadPoolExecutor(threads, "oobleck", torch.set_num_threads, (1,)) as pool:
            for _ in pool.map(alone, items):
                pass
    finally:
        torch.set_num_threads(threads)


def _weight(conv: Any) -> torch.Tensor:
    """A convolution's weight, its normalisation done once: diffusers does it before each forward, by the same function."""
    import torch

    if hasattr(conv, "weight_g"):
        torch.nn.utils.remove_weight_norm(conv)
    return conv.weight.detach()


def _set(module: Any, **values: torch.Tensor) -> None:
    """Give a module other parameters."""
    import torch

    for name, value in values.items():
        setattr(module, name, torch.nn.Parameter(value, requires_grad=False))


def _conv(conv: Any, layout: Layout) -> Layer:
    """A convolution over time."""
    import torch

    _set(conv, weight=layout.of(_weight(conv)))
    over = ((1, conv.stride[0]), (0, conv.padding[0]), (1, conv.dilation[0]))
    return lambda x: torch.nn.functional.conv2d(x, conv.weight, conv.bias, *over)


def _upsampling(conv: Any, layout: Layout) -> Layer:
    """A transposed convolution of twice as many taps as its stride.

    In rows it is a plain one of two taps with all the moments of a stride as its channels, which then already lie in order.
    """
    import torch

    stride, padding, weight = conv.stride[0], conv.padding[0], _weight(conv)  # [in, out, 2 stride]
    if not layout.rows:
        _set(conv, weight=layout.of(weight))
        over = ((1, stride), (0, padding))
        return lambda x: torch.nn.functional.conv_transpose2d(x, conv.weight, conv.bias, *over)
    taps = [half.permute(2, 1, 0).flatten(0, 1) for half in (weight[..., stride:], weight[..., :stride])]
    _set(conv, weight=layout.of(torch.stack(taps, dim=-1)), bias=conv.bias.detach().repeat(stride))

    def upsampled(x: torch.Tensor) -> torch.Tensor:
        moments, length = torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=(0, 1)), x.shape[-1]
        rows = moments.permute(0, 2, 3, 1).reshape(1, 1, (length + 1) * stride, -1)
        return rows[:, :, padding : padding + length * stride].permute(0, 3, 1, 2)

    return upsampled


def _snake(snake: Any) -> Layer:
    """x + sin(alpha x)^2 / beta, for each channel; the square root of 1 / beta is taken into the square."""
    import torch

    dtype = snake.alpha.dtype
    scales = (
        scale.detach().to(torch.promote_types(dtype, torch.float32))[..., None] for scale in (snake.alpha, snake.beta)
    )
    alpha, beta = (scale.exp() if snake.logscale else scale for scale in scales)
    _set(snake, alpha=alpha.to(dtype), beta=(beta + 1e-9).rsqrt().to(dtype))

    def snaked(x: torch.Tensor) -> torch.Tensor:
        wave = (x * snake.alpha).sin_().mul_(snake.beta)
        return torch.addcmul(x, wave, wave, out=wave)

    return snaked


def _unit(unit: Any, layout: Layout) -> Layer:
    """A residual unit. It may overwrite what it is given."""
    first, dilated, second = _snake(unit.snake1), _conv(unit.conv1, layout), _snake(unit.snake2)
    if not layout.rows:
        mixed = _conv(unit.conv2, layout)
        return lambda x: x.add_(mixed(second(dilated(first(x)))))
    mix = unit.conv2
    _set(mix, weight=_weight(mix)[..., 0].t().contiguous())

    def added(x: torch.Tensor) -> torch.Tensor:
        wave = second(dilated(first(x)))
        rows, heard = ((y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])) for y in (x.add_(_spread(mix.bias)), wave))
        return rows.addmm_(heard, mix.weight).view(1, 1, -1, rows.shape[1]).permute(0, 3, 1, 2)

    return added


def _spread(bias: torch.Tensor) -> torch.Tensor:
    return bias[:, None, None]
