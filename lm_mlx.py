"""Language models on Apple silicon: MLX. The contract stands in `lm.py`.

MLX is lazy, and a stream belongs to the thread that made it: what one thread leaves unevaluated, no other can compute. So
all that is kept from request to request is evaluated where it is made, and the rest ends with its request.
`mlx_lm.generate` is not used: it has a stream and a sampler of its own, and computes a head of which we need a part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lm import BEAT, NO_CODES, CodesAsked, Sampling, lost

if TYPE_CHECKING:
    import mlx.core as mx

CHUNK = 512  # tokens of a prompt read at once
TIDY = 256  # codes between two times that MLX hands back its spare memory, a multiple of BEAT; mlx-lm does as much


def load(folder: Path) -> Any:
    """The Qwen3 model of a folder with `config.json` and `model*.safetensors`, ready for every thread.

    bfloat16 on a GPU, float32 on the CPU. The keys may lack the prefix `model.`, as they do on the Hub. Raises
    FileNotFoundError without weights, ValueError where weights and config do not fit.
    """
    import mlx.core as mx
    from mlx_lm.models import qwen3

    # What MLX compiles it keeps for each thread, with Python's objects in it, and drops it when the thread ends, which has
    # taken whole processes along (mlx #4347, #4110). Threads come and go under a page; a fused activation is worth less.
    mx.disable_compile()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder.name} holds no model*.safetensors.")
    model = qwen3.Model(qwen3.ModelArgs.from_dict(config))
    if not model.args.tie_word_embeddings:
        raise ValueError(f"{folder.name} has a head of its own; the planner has its embedding for one.")
    dtype = mx.bfloat16 if mx.default_device().type == mx.gpu else mx.float32
    weights = {_prefixed(name): w.astype(dtype) for file in files for name, w in mx.load(str(file)).items()}
    model.load_weights(list(model.sanitize(weights).items()), strict=True)
    mx.eval(model.eval().parameters())
    return model


def _prefixed(name: str) -> str:
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def load_any(folder: Path) -> Any:
    """Any model that mlx-lm knows, in the precision of its files: four bits, if it was made so. Raises what mlx-lm raises."""
    import mlx.core as mx
    from mlx_lm.utils import load_model

    mx.disable_compile()  # as in `load`
    # transformers 5 names RoPE otherwise than mlx-lm reads it, which would go on with a wrong one and not say so.
    rope = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("rope_parameters")
    scaling = None if not rope or rope["rope_type"] == "default" else rope
    own = {"rope_theta": rope["rope_theta"], "rope_scaling": scaling} if rope else {}
    model = load_model(folder, model_config=own)[0]
    # Not the parameters alone: what a module has computed for itself is lazy, too, and bound to this thread.
    mx.eval([part for module in model.modules() for part in module.values() if isinstance(part, mx.array)])
    return model


def draw(z: mx.array, how: Sampling, chance: mx.array | float) -> mx.array:
    """The place (int32 []) that a chance in [0, 1) takes among float32 logits [n], -inf where forbidden."""
    import mlx.core as mx

    if how.temperature == 0:
        return mx.argmax(z).astype(mx.int32)
    order = mx.argsort(-z).astype(mx.int32)
    p = mx.softmax(z / how.temperature)[order]
    mass = mx.cumsum(p)
    # What has no mass is never kept: a parallel sum may wander by a bit, and must not wander into the forbidden.
    kept = ((mass - p < how.top_p) & (p > 0)).sum()
    last = mx.clip(kept, 1, how.top_k or z.size).astype(mx.int32) - 1
    place = (mass <= chance * mass[last]).sum().astype(mx.int32)
    return order[mx.minimum(place, last)]


class Reader:
    """Tokens read so far: a cache of their own, and what the model thinks after the last of them, [D]."""

    def __init__(self, model: Any, prompt: Sequence[int]) -> None:
        from mlx_lm.models.cache import make_prompt_cache

        self._body = model.model
        self._cache = make_prompt_cache(model)
        self.read(_ids(prompt))

    def read(self, ids: mx.array) -> None:
        """Read these tokens, int32 [n]. The body alone: the head over the whole vocabulary is not computed."""
        self._state = self._body(ids[None], cache=self._cache)[0, -1]

    def mark(self) -> tuple[int, mx.array]:
        """How much was read, and what the model thinks there."""
        return self._cache[0].offset, self._state

    def back(self, mark: tuple[int, mx.array]) -> None:
        """Forget what was read after `mark`."""
        from mlx_lm.models.cache import trim_prompt_cache

        offset, self._state = mark
        trim_prompt_cache(self._cache, self._cache[0].offset - offset)

    def start(self) -> None:
        """Compute what was read without waiting for it."""
        import mlx.core as mx

        mx.async_eval(self._state)

    def logits(self, rows: mx.array) -> mx.array:
        """Logits of the next token for rows [n, D] of the embedding: float32 [n]."""
        import mlx.core as mx

        return (self._state @ rows.T).astype(mx.float32)

    def asked(self, head: Callable[[mx.array], mx.array]) -> mx.array:
        """What a head makes of it: float32 [n]."""
        import mlx.core as mx

        return head(self._state[None])[0].astype(mx.float32)


class MlxText:
    """The `Text` of lm.py. `masks` are bool [n] over the first n tokens."""

    def __init__(self, reader: Reader, table: mx.array, masks: Mapping[str, mx.array]) -> None:
        self._reader, self._table, self._masks = reader, table, masks
        reader.start()

    def feed(self, ids: Sequence[int]) -> None:
        """Read these tokens, one or more."""
        self._reader.read(_ids(ids))
        self._reader.start()

    def pick(self, among: Sequence[int] | str, how: Sampling, chance: float, barred: Sequence[int] = ()) -> int:
        """The next token. Raises BadOutput when its logits are not finite."""
        named = isinstance(among, str)
        rows = self._table[: self._masks[among].size] if named else self._table[_ids(among)]
        return _picked(self._reader.logits(rows), among, self._masks, (how, chance, barred))

    def mark(self) -> tuple[int, mx.array]:
        """Where the text stands now, for `back`."""
        return self._reader.mark()

    def back(self, mark: tuple[int, mx.array]) -> None:
        """Forget what was read after `mark`."""
        self._reader.back(mark)


def _picked(z: mx.array, among: Sequence[int] | str, masks: Mapping[str, mx.array], draws: tuple) -> int:
    """The token drawn from the logits of a mask's tokens, or of these ids; `draws` are sampling, chance, barred tokens."""
    import mlx.core as mx

    how, chance, barred = draws
    named = isinstance(among, str)
    open_ = mx.where(masks[among], z, -mx.inf) if named else mx.array(z)
    if barred:
        open_[_ids(barred if named else [among.index(i) for i in barred])] = -mx.inf
    (found,) = _heard([draw(open_, how, chance)], mx.isfinite(z).all(), "Try another seed.")
    return found if named else int(among[found])


class MlxLM:
    """The `LM` of lm.py over a model of `load`. Made in one thread, it may be used in others, one at a time.

    `masks`: names and bool [n] over the first n tokens, True = allowed, for `Text.pick`.
    """

    def __init__(self, model: Any, masks: Mapping[str, np.ndarray]) -> None:
        import mlx.core as mx

        self._model = model
        self._table = model.model.embed_tokens.weight
        self._masks = {name: mx.array(mask) for name, mask in masks.items()}
        mx.eval(self._masks)

    def text(self, prompt: Sequence[int], room: int) -> MlxText:
        """A prompt read. MLX's caches grow as they must, so `room` makes no difference."""
        return MlxText(Reader(self._model, prompt), self._table, self._masks)

    def codes(self, asked: CodesAsked, on_step: Callable[[int], None]) -> list[int]:
        """The codes. `on_step(done)` is called after every BEAT codes; what it raises ends the work.

        Raises BadOutput when the logits are not finite.
        """
        import mlx.core as mx

        try:
            return self._codes(asked, on_step)
        finally:
            mx.clear_cache()  # torch is next, and lives in the same memory

    def _codes(self, asked: CodesAsked, on_step: Callable[[int], None]) -> list[int]:
        import mlx.core as mx

        # Two passes of one row, not one of two: upstream found that faster on Apple's GPUs.
        prompts = [asked.prompt] if asked.cfg == 1 else [asked.prompt, asked.negative]
        readers = [Reader(self._model, prompt) for prompt in prompts]
        rows = self._table[asked.first : asked.first + asked.size]
        chances = mx.array(np.asarray(asked.chances, np.float32))
        done: list[int] = []
        beat: list[mx.array] = []
        fine = mx.array(True)
        for step in range(chances.size):
            z, *negative = (reader.logits(rows) for reader in readers)
            if negative:
                z = negative[0] + asked.cfg * (z - negative[0])
            beat.append(draw(z, asked.sampling, chances[step]))
            fine = fine & mx.isfinite(z).all()
            mx.async_eval(beat[-1], fine)  # the GPU goes on while Python builds the next step
            for reader in readers if step + 1 < chances.size else ():
                reader.read(beat[-1][None] + asked.first)
            if len(beat) == BEAT:
                done += _heard(beat, fine)
                beat = []
                if len(done) % TIDY == 0:
                    mx.clear_cache()
                on_step(len(done))
        return done + _heard(beat, fine)


class MlxSpeaker:
    """The `Speaker` of lm.py over a model of `load_any`. Made in one thread, it may be used in others, one at a time.

    `masks`: as of `MlxLM`, as long as the model's head has rows.
    """

    def __init__(self, model: Any, masks: Mapping[str, np.ndarray]) -> None:
        import mlx.core as mx

        self._model = model
        self._masks = {name: mx.array(mask) for name, mask in masks.items()}
        mx.eval(self._masks)

    def text(self, prompt: Sequence[int], room: int) -> MlxSpeech:
        """A prompt read. MLX's caches grow as they must, so `room` makes no difference."""
        return MlxSpeech(self._model, prompt, self._masks)


class MlxSpeech:
    """The `Text` of lm.py over the whole model, its head included, which may be quantised.

    It has a stream of its own: one that another thread made cannot be waited for here.
    """

    def __init__(self, model: Any, prompt: Sequence[int], masks: Mapping[str, mx.array]) -> None:
        import mlx.core as mx

        self._masks, self._stream = masks, mx.new_stream(mx.default_device())
        self._head = model.model.embed_tokens.as_linear if model.args.tie_word_embeddings else model.lm_head
        with mx.stream(self._stream):
            self._reader = Reader(model, prompt[:CHUNK])
        for begin in range(CHUNK, len(prompt), CHUNK):
            self.feed(prompt[begin : begin + CHUNK])

    def feed(self, ids: Sequence[int]) -> None:
        """Read these tokens, one or more."""
        import mlx.core as mx

        with mx.stream(self._stream):
            self._reader.read(_ids(ids))
            self._reader.start()

    def pick(self, among: Sequence[int] | str, how: Sampling, chance: float, barred: Sequence[int] = ()) -> int:
        """The next token. Raises BadOutput when its logits are not finite."""
        import mlx.core as mx

        with mx.stream(self._stream):
            z = self._reader.asked(self._head)
            named = isinstance(among, str)
            return _picked(z if named else z[_ids(among)], among, self._masks, (how, chance, barred))

    def mark(self) -> tuple[int, mx.array]:
        """Where the text stands now, for `back`."""
        return self._reader.mark()

    def back(self, mark: tuple[int, mx.array]) -> None:
        """Forget what was read after `mark`."""
        self._reader.back(mark)


def _ids(ids: Sequence[int]) -> mx.array:
    """Tokens as int32 [n]: gathering by 64-bit numbers has crashed Metal."""
    import mlx.core as mx

    return mx.array(np.asarray(ids, np.int32))


def _heard(places: list[mx.array], fine: mx.array, hint: str = NO_CODES) -> list[int]:
    """The numbers of int32 [] arrays, waited for. Raises BadOutput unless `fine` (bool [])."""
    import mlx.core as mx

    mx.eval(places, fine)
    if not fine.item():
        raise lost(hint)
    return [place.item() for place in places]
