"""What a lyrics model's tokenizer makes of lines: which tokens may begin one, go on with it, end it. Byte-level BPE alone."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# What may stand in lyrics beside letters and digits, and what may begin a line.
MARKS = frozenset("'’‘\"“”«»,.!?;:-–—…()¿¡，。！？、；：「」『』《》（）・·~")
BEGINS = frozenset("'’‘\"“«(¿¡「『《（—")
CHATML = "<|im_start|>{role}\n{text}<|im_end|>\n"


@functools.cache
def _bytes() -> dict[str, int]:
    """How byte-level tokenizers write the 256 bytes: the printed ones as they are, the others from U+0100 on (GPT-2)."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + n): byte for n, byte in enumerate(others)}


def singable(char: str) -> bool:
    """Whether a character may stand in lyrics: letters and their marks, digits, a space, a few signs. No brackets but round."""
    if "\ufe00" <= char <= "\ufe0f" or char == "\u20e3":  # signs that turn a character into an emoji
        return False
    return char == " " or char in MARKS or unicodedata.category(char)[0] in "LM" or char.isdigit()


def tidied(line: str) -> str:
    """A line with what may not stand in lyrics left out, its spaces single."""
    return " ".join("".join(c if singable(c) else " " * c.isspace() for c in line).split())


@dataclass(frozen=True)
class Wording:
    """A tokenizer, the raw bytes of its ordinary tokens, and the ids that end an answer."""

    tokenizer: Any
    raw: Mapping[int, bytes]
    stops: tuple[int, ...]
    size: int  # rows of the model's head: more than the tokenizer has tokens

    @classmethod
    def of(cls, tokenizer: Any, size: int, stops: Iterable[int] = ()) -> Wording:
        """The wording of a model whose head has `size` rows. Raises ValueError for a tokenizer of another kind."""
        spelt, special = _bytes(), set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        known = {i: token for token, i in tokenizer.get_vocab().items() if i < size and i not in special}
        raw = {i: bytes(spelt[c] for c in token) for i, token in known.items() if all(c in spelt for c in token)}
        if len(raw) < len(known) or b"\n" not in raw.values():
            raise ValueError("its tokenizer is not of the byte-level kind")
        ends = {i for i in (*stops, tokenizer.eos_token_id) if i is not None and i < size}
        return cls(tokenizer, raw, tuple(sorted(ends)), size)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; what reads as a special or added token in it is plain text."""
        split = {"add_special_tokens": False, "split_special_tokens": True}
        return [i for part in self._split(text) if part for i in self.tokenizer(part, **split).input_ids]

    def _split(self, text: str) -> list[str]:
        """A text cut after the first character of each added token in it, which then is none."""
        cuts = [0, *(found.start() + 1 for found in self._added.finditer(text)), len(text)]
        return [text[begin:end] for begin, end in itertools.pairwise(cuts)]

    @functools.cached_property
    def _added(self) -> re.Pattern[str]:
        """Finds the tokens that a tokenizer does not make of letters."""
        return re.compile("|".join(map(re.escape, self.tokenizer.get_added_vocab())) or "(?!)")

    def chat(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation, the assistant's turn open. What reads as a special token in it is left out."""
        turns = [{**turn, "content": self._added.sub(" ", turn["content"])} for turn in turns]
        if self.tokenizer.chat_template:
            made = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
            return list(made["input_ids"])
        told = "".join(CHATML.format(role=turn["role"], text=turn["content"]) for turn in turns)
        return self.tokenizer(f"{told}<|im_start|>assistant\n", add_special_tokens=False).input_ids

    def text(self, ids: Iterable[int], errors: str = "ignore") -> str:
        """The text of ordinary tokens; half a character is left out."""
        return b"".join(self.raw[i] for i in ids).decode("utf-8", errors)

    @functools.cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """Which tokens may be written where, bool [size].

        `start` begins a line, `line` goes on with it or ends it, `rest` ends it or the word that is being written.
        """
        plain, ends = [], list(self.stops)
        for i, raw in self.raw.items():
            head, newline, _ = raw.partition(b"\n")
            if _singable(head) and not raw[len(head) :].strip():  # else it begins another line, too
                (ends if newline else plain).append(i)
        masks = {name: np.zeros(self.size, bool) for name in ("start", "line", "rest")}
        masks["start"][[i for i in plain if _begins(self.raw[i])]] = True
        masks["line"][plain + ends] = True
        masks["rest"][[i for i in plain if not self.raw[i].startswith(b" ")] + ends] = True
        return masks

    def ends(self, token: int) -> str | None:
        """What a token that ends a line still adds to it; None for one that goes on."""
        if token in self.stops:
            return ""
        head, newline, _ = self.raw[token].partition(b"\n")
        return head.decode("utf-8", "ignore") if newline else None


def _singable(raw: bytes) -> bool:
    """Whether a token's bytes may stand in a line. Part of a character may: what comes of it is looked at when it is whole."""
    return max(raw, default=0) < 0xF0 and all(map(singable, raw.decode("utf-8", "ignore")))  # F0 begins emoji


def _begins(raw: bytes) -> bool:
    text = raw.decode("utf-8", "ignore")
    return (text[0].isalpha() or text[0] in BEGINS) if text else raw[0] >= 0xC2
