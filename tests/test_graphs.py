"""Calls caught once and replayed, on graphs as `like_cuda` has them; where there are none, calls are calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from like_cuda import graphs

import graphs as own
from graphs import Replays

__all__ = ["graphs"]


@dataclass
class Song:
    words: torch.Tensor

    def tensors(self) -> list[torch.Tensor]:
        return [self.words]

    def of(self, tensors: list[torch.Tensor]) -> Song:
        return Song(*tensors)


def sung(song: Song, x: torch.Tensor) -> torch.Tensor:
    return (song.words * x).add_(1)


def ones(n: int, value: float = 1) -> torch.Tensor:
    return torch.full((n,), value)


def test_a_call_goes_straight_through_where_nothing_is_captured() -> None:
    replays, seen = Replays(on=False), []

    def double(standing: str, x: torch.Tensor) -> torch.Tensor:
        seen.append(standing)
        return 2 * x

    for _ in range(3):
        assert replays("key", double, "song", (torch.ones(2),)).tolist() == [2, 2]
    assert seen == ["song"] * 3 and not replays.caught


def test_one_graph_serves_all_songs_of_a_shape(graphs: list[Any]) -> None:
    replays, first, other = Replays(on=True), Song(ones(2, 3)), Song(ones(2, 5))
    answers = [
        replays("key", sung, song, (ones(2, x),)) for song, x in ((first, 1), (first, 2), (other, 2), (first, 2))
    ]
    assert [a.tolist() for a in answers] == [[4, 4], [7, 7], [11, 11], [7, 7]]  # none overwritten by a later one
    assert len(graphs) == 1 and graphs[0].replays == 4, "the first answer is not a replay's"
    assert first.words.tolist() == [3, 3] and other.words.tolist() == [5, 5]


@pytest.mark.parametrize("key, n", [("other", 2), ("key", 3)])
def test_other_shapes_and_keys_have_graphs_of_their_own(graphs: list[Any], key: str, n: int) -> None:
    replays = Replays(on=True)
    replays("key", sung, Song(ones(2, 3)), (ones(2),))
    assert replays(key, sung, Song(ones(n, 3)), (ones(n),)).tolist() == [4] * n
    assert len(graphs) == 2


def test_the_least_lately_used_graph_goes(graphs: list[Any]) -> None:
    replays = Replays(on=True)
    for n in [*range(1, own.MOST + 1), 1, own.MOST + 1, 1, 2]:  # 2 went for the one too many
        replays("key", sung, Song(ones(n, 3)), (ones(n),))
    assert len(replays.caught) == own.MOST and len(graphs) == own.MOST + 2


def test_what_cannot_be_captured_is_called(graphs: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    replays = Replays(on=True)

    def asks(song: Song, x: torch.Tensor) -> torch.Tensor:
        return sung(song, x) * float(x.sum())

    for _ in range(2):
        assert replays("key", asks, Song(ones(2, 3)), (ones(2),)).tolist() == [8, 8]
    assert not replays.caught and caplog.text.count("could not be captured") == 1


def test_a_number_that_python_holds_is_caught_with_the_rest(graphs: list[Any]) -> None:
    """What tests of graphs rest on: who reads anything but the arguments is found out."""
    replays, number = Replays(on=True), 2.0

    def wrong(song: Song, x: torch.Tensor) -> torch.Tensor:
        return sung(song, x) * number

    replays("key", wrong, Song(ones(2, 3)), (ones(2),))
    number = 3.0
    assert replays("key", wrong, Song(ones(2, 3)), (ones(2),)).tolist() == [8, 8]
