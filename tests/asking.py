"""Asking for a song at the one door, as the page and the endpoint do."""

from __future__ import annotations

from typing import Any

import pytest

from errors import KnobError, TextError
from song import KNOBS, Advanced, Generate


def ask(**values: Any) -> Generate:
    return Generate.parse({"prompt": "slow piano", **values})


def read(name: str, value: Any) -> Any:
    """What a control holds after the door."""
    asked = ask(**{name: value})
    home = asked.advanced if name in Advanced.model_fields else asked.lm if name in KNOBS else asked
    return getattr(home, name)


def refusal(**values: Any) -> str:
    """The one sentence of a refusal."""
    with pytest.raises((KnobError, TextError)) as refused:
        ask(**values)
    message = refused.value.message
    assert message[-1] == "." and "\n" not in message and len(message) < 200
    return message
