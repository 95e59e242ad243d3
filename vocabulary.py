"""What the planner's tokenizer makes of the texts that the planner writes: ids, trees of values, masks.

The song model's own text tokenizer has the planner's ids for all but the audio codes, and loads in a moment; with its
65,535 codes the planner's takes minutes in older libraries. Codes never pass through a tokenizer: they are numbers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from fields import LANGUAGES
from plans import CODE_COUNT

FIELDS = ("bpm", "caption", "duration", "keyscale", "language", "timesignature")  # the order the model was taught
VALUES: dict[str, Sequence[str | int]] = {
    "bpm": range(30, 301),
    "duration": range(10, 601),
    "keyscale": [f"{n}{a} {m}" for n in "ABCDEFG" for a in ("", "#", "b", "♯", "♭") for m in ("major", "minor")],
    "language": LANGUAGES,
    "timesignature": (2, 3, 4, 6),
}
END, START, STOP, THINK, THOUGHT = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"
SPECIAL = (END, START, STOP, THINK, THOUGHT)
_SPLIT = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")
QWEN = {END: 151643, START: 151644, STOP: 151645, THINK: 151667, THOUGHT: 151668}
QWEN_FIRST_CODE = 151669
QWEN_TEXTS = {"\n": [198], "\n\n": [271], " ": [220], ".\n": [624], "duration": [17021]}  # as upstream quotes them
NEWLINE, RETURN, SPACE, TAB = "ĊčĠĉ"  # how byte-level tokenizers write them

Tree = dict[int, "Tree"]


def line(key: str, value: str | int) -> str:
    """One field as the model reads it: a line of YAML, numbers bare, a caption folded at 80 columns."""
    bare = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    return yaml.dump({key: bare}, allow_unicode=True)


def scalar(text: str) -> str:
    """The value in a field's text, unquoted and unfolded, its white space single. What is no YAML is taken as it is."""
    try:
        value = yaml.load("x:" + text, Loader=yaml.BaseLoader)["x"]
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
        RecursionError,
        KeyError,
        TypeError,
    ):  # such as "\UFFFFFFFF", [[[[…
        value = text
    return " ".join((value if isinstance(value, str) and value.strip() else text).split())


@dataclass(frozen=True)
class Vocabulary:
    """A text tokenizer with the ids of the special tokens and of the first of `codes` audio codes."""

    tokenizer: Any
    special: Mapping[str, int]
    first_code: int
    codes: int = CODE_COUNT

    @classmethod
    def of(cls, tokenizer: Any, codes: int = CODE_COUNT) -> Vocabulary:
        """The vocabulary of a planner's own tokenizer, which knows the special tokens and the first code."""
        known = tokenizer.get_vocab()
        return cls(tokenizer, {token: known[token] for token in SPECIAL}, known["<|audio_code_0|>"], codes)

    @classmethod
    def qwen(cls, tokenizer: Any) -> Vocabulary:
        """The vocabulary of the published planners, over any text tokenizer."""
        return cls(tokenizer, QWEN, QWEN_FIRST_CODE)

    def encode(self, text: str) -> list[int]:
        """Token ids, special tokens included."""
        ids: list[int] = []
        for part in filter(None, _SPLIT.split(text)):
            known = self.special.get(part)
            ids += self._words(part) if known is None else [known]
        return ids

    def _words(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids that are no audio codes, special tokens included."""
        names, text, plain = {i: token for token, i in self.special.items()}, "", []
        for i in ids:
            if i in names:
                text += self._text(plain) + names[i]
                plain = []
            else:
                plain.append(i)
        return text + self._text(plain)

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) if ids else ""

    def name(self, key: str) -> list[int]:
        """The tokens of a field's name, colon included."""
        return self.encode(f"{key}:")

    @functools.cached_property
    def trees(self) -> dict[str, Tree]:
        """What may follow the name of each field that has a choice: the tokens of every value to the line's end.

        Raises ValueError when the tokenizer joins a name and its value.
        """
        trees: dict[str, Tree] = {}
        for key, values in VALUES.items():
            name, root = self.name(key), trees.setdefault(key, {})
            for value in values:
                ids, node = self.encode(line(key, value)), root
                if ids[: len(name)] != name:
                    raise ValueError(f"the tokenizer joins {key!r} and its value")
                for i in ids[len(name) :]:
                    node = node.setdefault(i, {})
        return trees

    @functools.cached_property
    def _tokens(self) -> dict[int, str]:
        """The ordinary text tokens in byte-level spelling."""
        barred = set(self.special.values()) | set(self.tokenizer.all_special_ids)
        words = self.tokenizer.get_vocab().items()
        return {i: t for t, i in words if i < self.first_code and i not in barred and not t.startswith("<|audio_code_")}

    @functools.cached_property
    def newlines(self) -> dict[int, int]:
        """The tokens with line ends in them, and how many."""
        return {i: token.count(NEWLINE) for i, token in self._tokens.items() if NEWLINE in token}

    @functools.cached_property
    def indents(self) -> list[int]:
        """The tokens of blanks alone: what a folded line goes on with."""
        return sorted(i for i, token in self._tokens.items() if set(token) <= {SPACE, TAB})

    @functools.cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """Which tokens before the audio codes may be written where: boolean arrays [first_code].

        `lead` begins a caption, `caption` goes on with it, `lyrics` are lyrics or their end.
        """
        caption = {i: token for i, token in self._tokens.items() if not {"`", RETURN} & set(token)}
        lead = [i for i, token in caption.items() if token[0] == SPACE and NEWLINE not in token]
        lyrics = [*self._tokens, self.special[STOP]]
        masks = {}
        for name, ids in (("lead", lead), ("caption", list(caption)), ("lyrics", lyrics)):
            masks[name] = np.zeros(self.first_code, bool)
            masks[name][ids] = True
        return masks


def is_qwen(tokenizer: Any) -> bool:
    """Whether a tokenizer gives the ids that the published planners were trained with."""
    known = tokenizer.get_vocab()
    return all(known.get(token) == i for token, i in QWEN.items()) and all(
        tokenizer(text, add_special_tokens=False).input_ids == ids for text, ids in QWEN_TEXTS.items()
    )
