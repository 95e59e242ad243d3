"""Waiting for what another thread or process does, with patience that ends."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(true: Callable[[], bool], seconds: float = 5) -> None:
    """Return as soon as `true()`; fail when that took longer than `seconds`."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"waited in vain for {seconds} s"
        time.sleep(0.02)
