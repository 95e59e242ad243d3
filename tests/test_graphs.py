"""Where there are no CUDA graphs, calls are calls; tests/test_fast_gpu.py has the rest."""

from __future__ import annotations

import torch

from graphs import Replays


def test_a_call_goes_straight_through_where_nothing_is_captured() -> None:
    replays, seen = Replays(on=False), []

    def double(standing: str, x: torch.Tensor) -> torch.Tensor:
        seen.append(standing)
        return 2 * x

    for _ in range(3):
        assert replays("key", double, "song", (torch.ones(2),)).tolist() == [2, 2]
    assert seen == ["song"] * 3 and not replays.caught
