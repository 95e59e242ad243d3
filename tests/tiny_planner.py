"""A planner at 100 k parameters: the true Qwen3 classes, with a tokenizer trained in a moment on a dozen lines.

Its weights are drawn wide: at the usual spread nearly every prompt has the same likeliest token, and equal outputs would
prove nothing. Its vocabulary is larger than the tokenizer's, as the real one's is.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm import LM, CodesAsked, Sampling, Text
from planner import Planner
from vocabulary import QWEN as QWEN_IDS
from vocabulary import Vocabulary

CODES, RESERVED = 64, 4
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LINES = [
    "<think>\nbpm: 120\ncaption: A slow piano ballad with warm strings.\n  It builds to a bright chorus.\n",
    "duration: 60\nkeyscale: C major\nlanguage: en\ntimesignature: 4\n</think>\n\n",
    "bpm: 92\ncaption: Fast drums, loud guitars and a female voice.\nduration: 240\nkeyscale: F# minor\n",
    "language: fr\ntimesignature: 3\nkeyscale: Bb major\nkeyscale: G minor\nkeyscale: A minor\nkeyscale: D major\n",
    "# Instruction\nGenerate audio semantic tokens based on the given conditions:\n\n# Caption\n\n# Lyric\n[Verse]\n",
    "la la la\noh oh oh\n[Chorus]\nrain on the window, rain on the sea.\n[Instrumental]\n",
    "language: 'no'\nlanguage: zh\nlanguage: unknown\nbpm: 30\nbpm: 300\nduration: 10\nduration: 600\n",
]


@functools.cache
def tokenizer() -> Any:
    """Qwen's way to split, a few hundred merges, Qwen's order of special tokens, 64 codes and 4 reserved ones."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=512, initial_alphabet=alphabet, show_progress=False))
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    core.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    core.add_tokens([AddedToken(f"<|audio_code_{n}|>", normalized=False) for n in range(CODES + RESERVED)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@functools.cache
def model(codes: int = CODES + RESERVED, seed: int = 0) -> Any:
    """The language model, on the CPU in float32, with rows for so many codes and a few. Nothing in it may change."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer()) - CODES - RESERVED + codes + 8,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        eos_token_id=tokenizer().eos_token_id,
        pad_token_id=tokenizer().pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Qwen3ForCausalLM(config).eval()
        with torch.no_grad():
            for matrix in made.parameters():
                matrix.normal_(1.0 if matrix.ndim == 1 else 0.0, 0.1 if matrix.ndim == 1 else 0.3)
    return made


def saved(folder: Path, codes: int = CODES + RESERVED) -> Path:
    """The planner as a folder, its weights named as on the Hub: without the prefix `model.`, without a head.

    With CODE_COUNT `codes` it understands every recording.
    """
    import json

    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save_pretrained(folder)
    whole = model(codes)
    whole.config.save_pretrained(folder)
    state = {n.removeprefix("model."): t for n, t in whole.state_dict().items() if not n.startswith("lm_head")}
    save_file({n: t.to(torch.float32).contiguous() for n, t in state.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "qwen3"
    return folder


@functools.cache
def qwen() -> Any:
    """A tokenizer of bytes with the few ids that upstream quotes of Qwen's: its special tokens, and four merges."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's order of the 256 bytes
    ids = {chr(c): i for i, c in enumerate([*printed, *range(256, 324)])}
    word, merges = "duration", [("Ċ", "Ċ"), (".", "Ċ")]
    merges += [(word[:n], word[n]) for n in range(1, len(word))]
    ids |= dict(zip(map("".join, merges), [271, 624, 302, 303, 304, 305, 306, 307, 17021], strict=True))
    core = Tokenizer(models.BPE(vocab=ids | QWEN_IDS, merges=merges))
    split = pre_tokenizers.Split(Regex(QWEN), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    core.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@functools.cache
def vocabulary() -> Vocabulary:
    """What the tiny tokenizer makes of the planner's texts."""
    return Vocabulary.of(tokenizer(), CODES)


@functools.cache
def planner() -> Planner:
    """One tiny planner for the whole test run, on torch."""
    from lm_torch import TorchLM

    return Planner(TorchLM(copy.deepcopy(model()), vocabulary().masks), vocabulary(), "tiny")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads than on one; a test file takes this by its name."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


Way = Callable[[str, list[int]], Sequence[int]]


@dataclass
class Led:
    """The tiny planner's model, listened to and led.

    `way(mask, ids)` narrows what may be picked, of a mask by its name or of ids under the name "": it can bring about
    only what the model might have chosen. A `size` lets it write the first so many of the codes alone.
    """

    way: Way = lambda mask, ids: ids
    size: Callable[[int], int] = lambda call: CODES
    lm: LM = field(default_factory=lambda: planner().lm)
    prompts: list[list[int]] = field(default_factory=list)
    texts: list[LedText] = field(default_factory=list)
    asked: list[CodesAsked] = field(default_factory=list)

    def text(self, prompt: Sequence[int], room: int) -> Text:
        """The model's own text, its picks led."""
        self.prompts.append(list(prompt))
        self.texts.append(LedText(self.lm.text(prompt, room), self.way))
        return self.texts[-1]

    def codes(self, asked: CodesAsked, on_step: Callable[[int], None]) -> list[int]:
        """The model's own codes."""
        self.asked.append(asked)
        return self.lm.codes(replace(asked, size=self.size(len(self.asked))), on_step)

    def planner(self) -> Planner:
        """A planner with this model."""
        return Planner(self, vocabulary(), "led")


@dataclass
class LedText:
    """The `Text` of a `Led`; `fed` is what it has read after its prompt, `hows` how it was drawn from."""

    text: Text
    way: Way
    fed: list[int] = field(default_factory=list)
    hows: list[Sampling] = field(default_factory=list)

    def feed(self, ids: Sequence[int]) -> None:
        """Read these tokens."""
        self.fed += ids
        self.text.feed(ids)

    def pick(self, among: Sequence[int] | str, how: Sampling, chance: float) -> int:
        """One of those that are allowed and on the way."""
        self.hows.append(how)
        named = isinstance(among, str)
        allowed = np.flatnonzero(vocabulary().masks[among]).tolist() if named else list(among)
        wanted = list(self.way(among if named else "", allowed))
        assert wanted and set(wanted) <= set(allowed), "the model may not write this"
        return self.text.pick(wanted, how, chance)


def dictated(mask: str, *pieces: str) -> Way:
    """A way that writes these pieces of text, each with the tokens of its own, where the mask of that name is asked."""
    ids = iter([i for piece in pieces for i in vocabulary().encode(piece)])
    return lambda name, allowed: [next(ids)] if name == mask else allowed
