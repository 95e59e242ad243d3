"""A causal language model on torch: the weights of transformers' Qwen2, Qwen3 or Llama, a forward made for one new token.

A new token reads every weight once, so its floor is the memory's bandwidth. transformers' forward starts some 65
kernels a layer for it, this one about 20. The same forward reads prompts. It never waits for the host, so that a CUDA
graph can hold it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

_FAMILY: dict[str, Any] = dict(
    vocab_size=217_204,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
    max_position_embeddings=40_960,
    rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    eos_token_id=151_645,
    pad_token_id=151_643,
    bos_token_id=None,
)
# The published planners as arguments of Qwen3Config; `tiny` has their vocabulary and nothing else, for rehearsals.
# `7B` is Qwen 2.5, as arguments of Qwen2Config.
SIZES: dict[str, dict[str, Any]] = {
    "0.6B": _FAMILY | dict(hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16),
    "1.7B": _FAMILY | dict(hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16),
    "4B": _FAMILY | dict(hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32),
    "tiny": _FAMILY
    | dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    | dict(num_key_value_heads=2, head_dim=16),
    "7B": _FAMILY
    | dict(hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28)
    | dict(vocab_size=152_064, num_key_value_heads=4, tie_word_embeddings=False, max_position_embeddings=32_768),
}
QWEN2 = ("7B",)
READABLE = ("llama", "qwen2", "qwen3")  # the kinds of model that Body knows


def random_model(size: str, device: str, dtype: torch.dtype, seed: int = 0) -> Any:
    """A model of SIZES[size] with random weights: right for speed and memory, what it writes is noise.

    The same seed gives the same weights on the same device.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    config, kind = (Qwen2Config, Qwen2ForCausalLM) if size in QWEN2 else (Qwen3Config, Qwen3ForCausalLM)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        gpus = [torch.cuda.current_device()] if torch.device(device).type == "cuda" else []
        with torch.random.fork_rng(devices=gpus), torch.device(device):
            torch.manual_seed(seed)
            return kind(config(**SIZES[size])).eval()
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class _Layer:
    """One layer's weights [out, in]. `qkv`: the heads of q, then k, then v; `up`: the gate, then what it opens for.

    `bias` [out] is that of `qkv`, None without.
    """

    before: torch.Tensor
    qkv: torch.Tensor
    bias: torch.Tensor | None
    out: torch.Tensor
    between: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor


class _Places(NamedTuple):
    """Where a forward stands: columns [T], additive mask [rows kv, T group, L], turns [layers, rows, T, heads, d]."""

    columns: torch.Tensor
    mask: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor


class Cache:
    """What was read: keys and values [layers, rows, kv, L, d]. The first `pad` [rows] columns of a row are padding."""

    def __init__(self, body: Body, rows: int, length: int) -> None:
        shape = (len(body.layers), rows, body.kv, length, body.d)
        self.keys, self.values = (body.table.new_zeros(shape) for _ in range(2))
        self.pad = self.keys.new_zeros(rows, dtype=int)
        self.length = length

    def clear(self, pad: Sequence[int]) -> None:
        """Forget everything."""
        import torch

        self.keys.zero_()
        self.values.zero_()
        self.pad.copy_(torch.tensor(pad))


def _biases(attention: Any) -> torch.Tensor | None:
    """The biases of q, k and v in a row."""
    import torch

    parts = [part.bias for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
    return None if parts[0] is None else torch.cat([part.data for part in parts])


def unreadable(config: Any) -> str:
    """Why `Body` cannot read a model of this configuration of transformers; empty when it can."""
    if config.model_type not in READABLE:
        return f"it is a {config.model_type}, not a {', '.join(READABLE[:-1])} or {READABLE[-1]}"
    if getattr(config, "mlp_bias", False) or (config.model_type != "qwen2" and config.attention_bias):
        return "it has biases"
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    if config.hidden_act != "silu" or rope not in ("default", "llama3", "linear"):
        return f"it has {config.hidden_act} and RoPE of the kind {rope}"
    return "it looks back through a window" if getattr(config, "use_sliding_window", False) else ""


def fused(*parts: Any) -> torch.Tensor:
    """The weights of these linear layers as one matrix. Theirs become views of it: nothing is held twice."""
    import torch

    whole = torch.cat([part.weight.data for part in parts])
    for part, view in zip(parts, whole.split([len(part.weight) for part in parts]), strict=True):
        part.weight.data = view
    return whole


class Body:
    """The weights of a model of `READABLE` and the forward over them. `table` [vocab, D] embeds, `head` [vocab, D] is asked."""

    def __init__(self, model: Any) -> None:
        import torch

        config, stack = model.config, model.model
        self.heads, self.kv, self.eps = config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps
        self.d = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.table, self.norm = stack.embed_tokens.weight.data, stack.norm.weight.data
        self.head = model.lm_head.weight.data
        self.layers = [
            _Layer(
                before=layer.input_layernorm.weight.data,
                qkv=fused(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                bias=_biases(layer.self_attn),
                out=layer.self_attn.o_proj.weight.data,
                between=layer.post_attention_layernorm.weight.data,
                up=fused(layer.mlp.gate_proj, layer.mlp.up_proj),
                down=layer.mlp.down_proj.weight.data,
            )
            for layer in stack.layers
        ]
        # RoPE is w x cos + w' x' sin, where ' swaps the halves and negates one. The weights w of q's and k's norms (1
        # where there are none) and the sign go into the turn, which then costs a roll and two products for all heads.
        self.levels = config.model_type == "qwen3"
        one = self.table.new_ones(self.d)
        norms = [
            [layer.self_attn.q_norm.weight.data, layer.self_attn.k_norm.weight.data] if self.levels else [one, one]
            for layer in stack.layers
        ]
        self.straight = torch.stack([torch.stack([q] * self.heads + [k] * self.kv) for q, k in norms])[:, None, None]
        self.crossed = self.straight.roll(self.d // 2, -1)
        self.crossed[..., : self.d // 2].neg_()
        self.frequencies = stack.rotary_emb.inv_freq.float().repeat(2).to(self.table.device)

    def on(self, device: Any) -> Body:
        """The same weights on another device."""
        there: dict[tuple[int, Any], torch.Tensor] = {}  # tied weights stay one

        def moved(tensor: torch.Tensor | None) -> torch.Tensor | None:
            if tensor is None:
                return None
            key = (tensor.data_ptr(), tensor.shape)
            if key not in there:
                there[key] = tensor.to(device)
            return there[key]

        other = copy.copy(self)
        for name in ("table", "norm", "head", "straight", "crossed", "frequencies"):
            setattr(other, name, moved(getattr(self, name)))
        other.layers = [_Layer(**{name: moved(part) for name, part in vars(layer).items()}) for layer in self.layers]
        return other

    def ids(self, ids: Any) -> torch.Tensor:
        """Tokens on the device, int64."""
        import torch

        return torch.tensor(ids, dtype=torch.int64, device=self.table.device)

    def read(self, cache: Cache, tokens: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Read tokens [rows, T] into the columns [T]; what the model thinks after the last, [rows, hidden]."""
        from torch.nn import functional as F

        rows, length = tokens.shape
        places = self._places(cache, columns)
        x = F.embedding(tokens, self.table).flatten(0, 1)
        for n, layer in enumerate(self.layers):
            qkv = F.linear(F.rms_norm(x, x.shape[1:], layer.before, self.eps), layer.qkv, layer.bias)
            heard = self._attend(qkv.view(rows, length, -1, self.d), n, places, cache)
            x.addmm_(heard, layer.out.t())  # the sum is part of the product
            gate, up = (F.rms_norm(x, x.shape[1:], layer.between, self.eps) @ layer.up.t()).chunk(2, -1)
            x.addmm_(F.silu(gate) * up, layer.down.t())
        return F.rms_norm(x.view(rows, length, -1)[:, -1], x.shape[1:], self.norm, self.eps)

    def _places(self, cache: Cache, columns: torch.Tensor) -> _Places:
        """What all layers of a forward share."""
        import torch

        rows, dtype = len(cache.pad), self.table.dtype
        positions = (columns - cache.pad[:, None]).clamp(min=0)
        angles = positions[..., None, None] * self.frequencies
        keys = torch.arange(cache.length, device=columns.device)
        hidden = (keys > columns[:, None]) | (keys < cache.pad[:, None, None])
        # Not -inf: a padded token sees nothing at all, and must not become NaN.
        mask = torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min / 2)
        shape = (rows, self.kv, len(columns), self.heads // self.kv, cache.length)
        mask = mask[:, None, :, None].expand(shape).reshape(rows * self.kv, -1, cache.length)
        return _Places(columns, mask, angles.cos().to(dtype) * self.straight, angles.sin().to(dtype) * self.crossed)

    def _attend(self, qkv: torch.Tensor, n: int, places: _Places, cache: Cache) -> torch.Tensor:
        """Attention of layer n: [rows, T, heads + 2 kv, d] to [rows T, heads d]."""
        import torch
        from torch.nn import functional as F

        rows, length = qkv.shape[:2]
        turning = self.heads + self.kv
        level = F.rms_norm(qkv, (self.d,), None, self.eps) if self.levels else qkv
        crossed = level.roll(self.d // 2, -1)[:, :, :turning]
        turned = torch.addcmul(level[:, :, :turning] * places.cos[n], crossed, places.sin[n])
        keys, values = cache.keys[n], cache.values[n]
        keys.index_copy_(2, places.columns, turned[:, :, self.heads :].transpose(1, 2))
        values.index_copy_(2, places.columns, qkv[:, :, turning:].transpose(1, 2))
        # The queries that share a key are rows of one product: keys and values are read once, and never expanded.
        grouped = turned[:, :, : self.heads].unflatten(2, (self.kv, -1)).transpose(1, 2)
        q, k, v = grouped.reshape(rows * self.kv, -1, self.d), keys.flatten(0, 1), values.flatten(0, 1)
        scores = torch.baddbmm(places.mask, q, k.transpose(1, 2), alpha=self.d**-0.5)
        heard = torch.bmm(scores.softmax(-1), v)  # softmax reckons in float32 whatever it is given
        return heard.view(rows, self.kv, length, -1, self.d).transpose(1, 2).reshape(rows * length, -1)

    def logits(self, state: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [rows, n] in float32 of the tokens whose rows of the head these are, [n, hidden]."""
        import torch

        if state.is_cuda and state.dtype != torch.float32:  # pragma: no cover - bfloat16 would round 20 to an eighth
            return torch.mm(state, tokens.t(), out_dtype=torch.float32)
        return (state @ tokens.t()).float()
