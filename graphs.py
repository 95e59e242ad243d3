"""CUDA graphs of one function, by the shapes of what it reads: caught once, played again for whatever has these shapes."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

log = logging.getLogger("ace.graphs")

MOST = 6  # kept: four lengths of song, or three with and without guidance


@dataclass
class _Caught:
    """A graph, the tensors that it reads and the one that it writes. `held` is whose values the standing ones have."""

    graph: Any
    standing: Sequence[torch.Tensor]
    moving: Sequence[torch.Tensor]
    out: torch.Tensor
    held: Any


class Replays:
    """Calls of a function of tensors, replayed as CUDA graphs.

    The first call of a shape runs once as it is, for what libraries set up at their first call, and is captured then: its
    answer is a replay's, too, so that the first song of a length is to the bit what it is later. The graphs share one
    pool of memory; the least lately used goes when there are more than MOST. When one cannot be captured, all calls run as
    they are from then on, and the log says so.

    What a function reads has to be in its arguments, or stay where it is for good, as weights do.
    """

    def __init__(self, on: bool) -> None:
        self.on = on
        self.caught: OrderedDict[Hashable, _Caught] = OrderedDict()
        self.pool: Any = None

    def __call__(
        self, key: Hashable, function: Callable[..., torch.Tensor], standing: Any, moving: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """`function(standing, *moving)`.

        `standing` has `tensors()` and `of(tensors)`, and is the same from step to step; `moving` changes with each call.
        """
        if not self.on:
            return function(standing, *moving)
        return self._replayed(key, function, standing, moving)

    def _replayed(self, key: Any, function: Any, standing: Any, moving: Any) -> torch.Tensor:
        tensors = standing.tensors()
        key = (key, tuple((t.shape, t.dtype) for t in (*tensors, *moving)))
        if key not in self.caught:
            function(standing, *moving)
            try:
                self.caught[key] = self._catch(function, standing, moving)
            except RuntimeError:
                log.warning("A step could not be captured; songs take longer.", exc_info=True)
                self.on = False
                return function(standing, *moving)
            while len(self.caught) > MOST:
                self.caught.popitem(last=False)
        self.caught.move_to_end(key)
        caught = self.caught[key]
        if caught.held() is not standing:
            for here, there in zip(caught.standing, tensors, strict=True):
                here.copy_(there)
            caught.held = weakref.ref(standing)
        for here, there in zip(caught.moving, moving, strict=True):
            here.copy_(there)
        caught.graph.replay()
        return caught.out.clone()  # the next replay of any graph may write there

    def _catch(self, function: Any, standing: Any, moving: Any) -> _Caught:
        import torch

        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        own = [t.clone() for t in standing.tensors()]
        fresh = [t.clone() for t in moving]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            out = function(standing.of(own), *fresh)
        return _Caught(graph, own, fresh, out, weakref.ref(standing))
