"""A language model on torch: CUDA, Apple's MPS, CPU. The contract stands in `lm.py`.

On CUDA a whole step (both prompts, guidance, the draw) is one captured graph, in which nothing waits for the host.
On other devices the very same step runs eagerly.

Prompts are padded on the left, so that the rows of a batch write to the same column of the cache. A column that a row
has not written, or that is padding, is masked; the cache is zeroed for each request all the same, for 0 x NaN is NaN.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from causal_lm import Body, Cache
from lm import BEAT, NO_CODES, CodesAsked, Sampling, lost

if TYPE_CHECKING:
    import torch

log = logging.getLogger("ace.lm")

CHUNK = 128  # tokens of a prompt read at once; bounds what attention needs in between
ROUND = 512  # the cache of the codes grows in such steps, so that songs of like length share a graph


class _Knobs(NamedTuple):
    """A Sampling, and the guidance, as numbers on the device: what is captured once serves every request."""

    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    cfg: torch.Tensor


def _real(device: torch.device) -> torch.dtype:
    """For sums of probabilities. CUDA adds in no fixed order, which float64 hides; MPS has none."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64


def _numbers(how: Sampling, cfg: float, device: torch.device) -> torch.Tensor:
    """What `_Knobs` unpacks, [4]. Temperature 0 is the likeliest at any other temperature."""
    import torch

    top_k = 1 if how.temperature == 0 else how.top_k or float("inf")
    return torch.tensor([how.temperature or 1.0, how.top_p, top_k, cfg], dtype=_real(device), device=device)


def _pick(logits: torch.Tensor, chance: torch.Tensor, knobs: _Knobs) -> torch.Tensor:
    """The place [1] among float32 logits [n] that the chance [1] falls on; never one at -inf, unless all are."""
    import torch
    from torch.nn import functional as F

    z, order = logits.sort(descending=True, stable=True)
    mass = (z.to(knobs.temperature.dtype) / knobs.temperature).softmax(0).cumsum(0)
    before = F.pad(mass[:-1], (1, 0))
    kept = (before < knobs.top_p) & (torch.arange(len(z), device=z.device) < knobs.top_k) & (z > -torch.inf)
    last = kept.sum(0, keepdim=True).clamp(min=1) - 1
    place = (mass <= chance * mass.gather(0, last)).sum(0, keepdim=True)
    return order.gather(0, torch.minimum(place, last))  # by gather: an index on the device would wait for the host


@dataclass
class TorchText:
    """The `Text` of lm.py: one row, run eagerly."""

    body: Body
    masks: Mapping[str, torch.Tensor]
    cache: Cache
    read: int = 0
    state: torch.Tensor = field(init=False)

    def feed(self, ids: Sequence[int]) -> None:
        """Read these tokens, one or more. Raises ValueError where there is no room for them."""
        import torch

        after = self.read + len(ids)
        if after > self.cache.length:  # on CUDA a write past the end would take the whole process along
            raise ValueError(f"There is room for {self.cache.length} tokens, not for {after}.")
        for begin in range(0, len(ids), CHUNK):
            tokens = self.body.ids([ids[begin : begin + CHUNK]])
            columns = torch.arange(tokens.shape[1], device=tokens.device) + self.read
            self.state = self.body.read(self.cache, tokens, columns)
            self.read += tokens.shape[1]

    def mark(self) -> tuple[int, torch.Tensor]:
        """Where the text stands now, for `back`."""
        return self.read, self.state

    def back(self, mark: tuple[int, torch.Tensor]) -> None:
        """Forget what was read after `mark`: the columns after it are masked until they are written anew."""
        self.read, self.state = mark

    def pick(self, among: Sequence[int] | str, how: Sampling, chance: float, barred: Sequence[int] = ()) -> int:
        """The next token. Raises BadOutput when its logits are not finite."""
        import torch

        head = self.body.head
        named = isinstance(among, str)
        rows = head[: len(self.masks[among])] if named else head[self.body.ids(among)]
        z = self.body.logits(self.state, rows)[0]
        finite = z.isfinite().all().view(1)
        if named:
            z = z.masked_fill(~self.masks[among], -torch.inf)
        if barred:
            z[self.body.ids(barred if named else [among.index(i) for i in barred])] = -torch.inf
        knobs = _numbers(how, 1.0, z.device)
        place = _pick(z, knobs.new_tensor([chance]), _Knobs(*knobs))
        found, fine = torch.cat([place, finite.long()]).tolist()  # the only wait
        if not fine:
            raise lost()
        return found if named else int(among[found])


class _Codes:
    """Codes being written: the cache, and all that one step reads and writes, in tensors that stay where they are.

    It serves every request with as many rows (1 or 2), as long a cache, and the same code tokens `span` (first, size).
    """

    def __init__(self, body: Body, rows: int, length: int, span: tuple[int, int]) -> None:
        self.shape = (rows, length, span)
        self.body, self.rows, self.first = body, rows, span[0]
        self.head = body.head[span[0] : sum(span)]
        self.cache = Cache(body, rows, length)
        self.knobs = _numbers(Sampling(), 1.0, body.table.device)
        self.chances = self.knobs.new_zeros(length)
        self.codes = self.cache.pad.new_zeros(length)
        self.tokens, self.column, self.done = (self.codes.new_zeros(n) for n in (rows, 1, 1))
        self.finite = self.tokens.new_ones((), dtype=bool)
        self.replay: Callable[[], None] | None = None  # the step as a captured graph

    def begin(self, asked: CodesAsked) -> None:
        """Forget the request before, and read the prompts of this one but for their last tokens."""
        import torch

        prompts = [asked.prompt, asked.negative][: self.rows]
        width = max(map(len, prompts))
        pad = [width - len(prompt) for prompt in prompts]
        self.cache.clear(pad)
        tokens = self.body.ids([[0] * n + list(prompt) for n, prompt in zip(pad, prompts, strict=True)])
        for begin in range(0, width - 1, CHUNK):
            columns = torch.arange(begin, min(begin + CHUNK, width - 1), device=tokens.device)
            self.body.read(self.cache, tokens[:, begin : begin + len(columns)], columns)
        self.knobs.copy_(_numbers(asked.sampling, asked.cfg, tokens.device))
        self.chances[: len(asked.chances)] = torch.tensor(asked.chances).to(self.chances)
        self.start = (tokens[:, -1].clone(), width - 1)
        self.rewind()

    def rewind(self) -> None:
        """Stand before the first code again. What was written after it is masked until it is written anew."""
        tokens, column = self.start
        self.tokens.copy_(tokens)
        self.column.fill_(column)
        self.done.zero_()
        self.finite.fill_(True)

    def step(self) -> torch.Tensor:
        """Read the last token, draw and note the next code; its guided logits [size]. Nothing waits for the host."""
        knobs = _Knobs(*self.knobs)
        logits = self.body.logits(self.body.read(self.cache, self.tokens[:, None], self.column), self.head)
        self.finite.logical_and_(logits.isfinite().all())
        z = logits[0] if self.rows == 1 else logits[1] + knobs.cfg * (logits[0] - logits[1])
        code = _pick(z, self.chances.gather(0, self.done), knobs)
        self.codes.index_copy_(0, self.done, code)
        self.tokens.copy_(code + self.first)
        self.column += 1
        self.done += 1
        return z

    def capture(self) -> Callable[[], None]:  # pragma: no cover - CUDA's own; tests/test_lm_gpu.py
        """The step as a CUDA graph, held against the step itself. Raises RuntimeError where it cannot be had."""
        import torch

        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up at their first calls, which cannot be captured
            for _ in range(3):
                self.rewind()
                self.step()
        torch.cuda.current_stream().wait_stream(aside)
        self.rewind()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            replayed = self.step()
        expected = self.step().clone()
        self.rewind()
        graph.replay()
        off = (replayed - expected).abs().max() / expected.abs().max()
        if off > 0.01:  # NaN is not: it has its own error
            raise RuntimeError(f"The captured step is {off:.3f} off.")
        return graph.replay


class TorchLM:
    """The `LM` of lm.py over the weights of a model that `causal_lm.Body` reads, on its device and in its dtype. One request at a time.

    The model keeps working: its matrices become views of ours. `masks`: names and bool [n] over the first n tokens,
    True = allowed, for `Text.pick`. `capture`: whether the step is captured in a graph, which only CUDA can.
    """

    def __init__(self, model: Any, masks: Mapping[str, np.ndarray]) -> None:
        import torch

        self._here: Body | None = Body(model)
        self._away: Body | None = None  # the same weights in main memory, once they have left
        self._device = device = self._here.table.device
        self._masks = {name: torch.tensor(np.asarray(mask, bool), device=device) for name, mask in masks.items()}
        self._codes: _Codes | None = None  # only the latest: it holds a cache
        self.capture = device.type == "cuda"

    @property
    def _body(self) -> Body:
        """The weights on their device, fetched back if they have left."""
        if self._here is None:
            self._here = self._away.on(self._device)
        return self._here

    def leave(self) -> None:
        """Give the device's memory back, cache and graph included, until the next text or codes."""
        import torch

        self._codes = None
        self._away = self._away or self._body.on("cpu")
        self._here = None
        if self._device.type == "cuda":  # pragma: no cover - a card's own; tests/test_tiers_gpu.py
            torch.cuda.empty_cache()

    def text(self, prompt: Sequence[int], room: int) -> TorchText:
        """A prompt read, with room for so many tokens more."""
        text = TorchText(self._body, self._masks, Cache(self._body, 1, len(prompt) + room))
        text.feed(prompt)
        return text

    def codes(self, asked: CodesAsked, on_step: Callable[[int], None]) -> list[int]:
        """The codes. `on_step(done)` is called after every BEAT codes; what it raises ends the work.

        Raises BadOutput when the logits are not finite.
        """
        n = len(asked.chances)
        codes = self._begun(asked)
        step = codes.replay if self.capture else codes.step
        for done in range(1, n + 1):
            step()
            if done % BEAT == 0 or done == n:
                if not codes.finite.item():  # waits for the device, so that what the listener hears is true
                    raise lost(NO_CODES)
                if done % BEAT == 0:
                    on_step(done)
        return codes.codes[:n].tolist()

    def _begun(self, asked: CodesAsked) -> _Codes:
        """The codes of a request, its prompts read; those of the request before, if they are of that shape."""
        rows = 1 if asked.cfg == 1 else 2
        needed = max(map(len, (asked.prompt, asked.negative)[:rows])) + len(asked.chances)
        shape = (rows, -(-needed // ROUND) * ROUND, (asked.first, asked.size))
        if self._codes is None or self._codes.shape != shape:
            self._codes = None  # free before the next is made
            self._codes = _Codes(self._body, *shape)
        codes = self._codes
        codes.begin(asked)
        if self.capture and codes.replay is None:
            try:
                codes.replay = codes.capture()
            except Exception:  # whatever a driver may say: slower is better than not at all
                self.capture = False
                log.warning("The planner's step could not be captured; planning takes longer.", exc_info=True)
            codes.rewind()
        return codes
