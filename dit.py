"""The transformer's forward, made for songs: the weights of diffusers' `AceStepTransformer1DModel`, fewer and larger steps.

What does not change from step to step is worked out once for a song: keys and values of the words, what the context
adds to the latents, the turns of the rotary embedding. The unconditional half hears one learned vector in every place of
the words, so that attention to them can only answer with that vector's value: it is added, and nothing attended.
Against diffusers' forward only roundings differ.

Tokens are patches of latents. M = rows x N tokens lie one after another, [M, D]; guided, the conditional rows come
first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attend import Blocks, Field, Packed, over
from causal_lm import fused
from graphs import Replays
from low_rank import Low, base, linear, pairs

if TYPE_CHECKING:
    import torch

EMBEDDING = ("linear_1", "linear_2", "time_proj")  # the parts of the embedding of the noise level
FIELDS = 8  # attentions kept by rows and length


@dataclass(frozen=True)
class _Layer:
    """One block's matrices [out, in] and norms. `kv` and `up` hold two each: keys and values, gate and what it opens for."""

    block: Any
    near: bool
    q: torch.Tensor
    kv: torch.Tensor
    out: torch.Tensor
    read: torch.Tensor
    told: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor

    @classmethod
    def of(cls, block: Any, near: bool) -> _Layer:
        """A block of diffusers'; its own matrices become views of these, so that nothing is held twice."""
        own, other, mlp = block.self_attn, block.cross_attn, block.mlp
        return cls(
            block,
            near,
            q=base(own.to_q).weight.data,
            kv=fused(base(own.to_k), base(own.to_v)),
            out=base(own.to_out[0]).weight.data,
            read=base(other.to_q).weight.data,
            told=base(other.to_out[0]).weight.data,
            up=fused(base(mlp.gate_proj), base(mlp.up_proj)),
            down=base(mlp.down_proj).weight.data,
        )

    def lows(self) -> dict[str, Low]:
        """What the LoRAs attached now add to each."""
        own, other, mlp = self.block.self_attn, self.block.cross_attn, self.block.mlp
        return pairs(
            q=[own.to_q],
            kv=[own.to_k, own.to_v],
            out=[own.to_out[0]],
            read=[other.to_q],
            told=[other.to_out[0]],
            up=[mlp.gate_proj, mlp.up_proj],
            down=[mlp.down_proj],
        )


@dataclass(frozen=True)
class Heard:
    """What one song hears, the same in every step. `length` is in latent frames; `lows` has a mapping for each layer
    and one for the embedding of the noise level.

    keys, values [layers, words, kv, d] and their `ends` (0, words); `still` [layers, D] is what the unconditional half
    gets from the words; `context` [N, D]; cos, sin [N, 1, d / 2]; `past` [D] and [6, D] the embedding of r = t.
    """

    length: int
    keys: torch.Tensor
    values: torch.Tensor
    ends: torch.Tensor
    still: torch.Tensor
    context: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    past: tuple[torch.Tensor, torch.Tensor]
    lows: Sequence[dict[str, Low]]

    def tensors(self) -> list[torch.Tensor]:
        """All of them, in an order of their own."""
        own = [t for lows in self.lows for pair in lows.values() for t in pair]
        return [self.keys, self.values, self.ends, self.still, self.context, self.cos, self.sin, *self.past, *own]

    @property
    def parts(self) -> tuple[Any, ...]:
        """What tells it from others of the same shapes: its length, and what the LoRAs change."""
        return (self.length, *map(tuple, self.lows))

    def of(self, tensors: Sequence[torch.Tensor]) -> Heard:
        """The same with these in their places."""
        mine = iter(tensors)
        seven, past = [next(mine) for _ in range(7)], (next(mine), next(mine))
        lows = [{name: (next(mine), next(mine)) for name in lows} for lows in self.lows]
        return Heard(self.length, *seven, past, lows)


@dataclass(frozen=True)
class _Step:
    """What the noise level does to the layers: shifts and gates [layers, D] of attention and MLP; norms with their scale."""

    norm: torch.Tensor
    shift: torch.Tensor
    gate: torch.Tensor
    mlp_norm: torch.Tensor
    mlp_shift: torch.Tensor
    mlp_gate: torch.Tensor
    out_norm: torch.Tensor
    out_shift: torch.Tensor


def unreadable(transformer: Any) -> str:
    """Why `Dit` cannot read a transformer; empty when it can."""
    import torch

    config, kind = transformer.config, type(transformer).__name__
    if kind != "AceStepTransformer1DModel":
        return f"it is a {kind}"
    if config.attention_bias:
        return "its attention has biases"
    if config.num_attention_heads % config.num_key_value_heads:
        return "its heads do not share keys evenly"
    kinds = {(type(p.data), p.device, p.dtype) for p in transformer.parameters()}
    if len(kinds) > 1 or next(iter(kinds))[0] is not torch.Tensor:
        return "its weights are not of one kind in one place"
    return ""


class Dit:
    """The weights of a transformer and the forward over them. One song at a time; see `unreadable`."""

    def __init__(self, transformer: Any) -> None:
        import torch

        config = transformer.config
        self.transformer = transformer
        self.heads, self.kv, self.d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.eps, self.patch, self.window = config.rms_norm_eps, transformer.patch_size, config.sliding_window
        near = [kind == "sliding_attention" for kind in transformer.layer_types]
        self.layers = [_Layer.of(block, n) for block, n in zip(transformer.layers, near, strict=True)]
        self.norms = torch.stack([b.self_attn_norm.weight.data for b in transformer.layers])
        self.mlp_norms = torch.stack([b.mlp_norm.weight.data for b in transformer.layers])
        self.tables = torch.cat([b.scale_shift_table.data for b in transformer.layers])  # [layers, 6, D]
        # Convolutions whose stride is their width are matrices over patches, each frame's channels together.
        into, out = transformer.proj_in_conv.weight.data, transformer.proj_out_conv.weight.data
        self.channels = out.shape[1]
        split = into.shape[1] - self.channels
        self.into_context, self.into = (w.movedim(1, 2).flatten(1) for w in (into[:, :split], into[:, split:]))
        self.out, self.out_bias = out.permute(2, 1, 0).flatten(0, 1), transformer.proj_out_conv.bias.repeat(self.patch)
        self.fields: OrderedDict[Field, Packed | Blocks] = OrderedDict()
        self.replays = Replays(on=self.tables.is_cuda)

    def hear(self, cond: torch.Tensor, null: torch.Tensor, context: torch.Tensor) -> Heard:
        """What a song hears: words [1, L, E], the learned vector of no words [1, 1, E], context [1, T, 2C]."""
        import torch

        length = context.shape[1]
        patches = self._patches(context)[0]
        level = context.new_zeros(1)
        past, projected = self.transformer.time_embed_r(level)  # of t - r, which is 0
        words = self.transformer.condition_embedder(torch.cat([cond, null], dim=1))[0]
        keys, values, still = self._words(words)
        attention = self._attention(Field(1, len(patches), self.window))
        missing = attention.room(cond.shape[1]) - cond.shape[1]
        keys, values = (torch.nn.functional.pad(t, (0, 0, 0, 0, 0, missing)) for t in (keys, values))
        cos, sin = self._turns(len(patches))
        return Heard(
            length,
            keys,
            values,
            torch.tensor([0, cond.shape[1]], dtype=torch.int32, device=keys.device),
            still,
            torch.addmm(self.transformer.proj_in_conv.bias, patches, self.into_context.T),
            cos,
            sin,
            (past[0], projected[0]),
            [layer.lows() for layer in self.layers] + [self._embedding_lows()],
        )

    def _embedding_lows(self) -> dict[str, Low]:
        """What the LoRAs attached now add to the embedding of the noise level."""
        return pairs(**{name: [getattr(self.transformer.time_embed, name)] for name in EMBEDDING})

    def _words(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys and values of all words but the last, [layers, L, kv, d], and what the last alone answers, [layers, D]."""
        import torch
        from torch.nn import functional as F

        keys, values, still = [], [], []
        for layer in self.layers:
            other = layer.block.cross_attn
            key, value = (part(words).unflatten(-1, (self.kv, self.d)) for part in (other.to_k, other.to_v))
            keys.append(F.rms_norm(key[:-1], (self.d,), other.norm_k.weight, self.eps))
            values.append(value[:-1])
            still.append(other.to_out[0](value[-1].repeat_interleave(self.heads // self.kv, 0).flatten()[None])[0])
        return torch.stack(keys), torch.stack(values), torch.stack(still)

    def _turns(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rotary embedding of N tokens as diffusers has it, half of each: the other half is the same."""
        import torch
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        places = torch.arange(n, device=self.tables.device, dtype=torch.float32)
        theta = self.transformer.rope_theta
        turns = get_1d_rotary_pos_embed(self.d, places, theta=theta, use_real=True, repeat_interleave_real=False)
        cos, sin = (t.to(self.tables.dtype)[:, None, : self.d // 2].contiguous() for t in turns)
        return cos, sin

    def _patches(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [B, T, C] as tokens [B, N, patch x C], zeros after the end."""
        from torch.nn import functional as F

        missing = -frames.shape[1] % self.patch
        return F.pad(frames, (0, 0, 0, missing)).unflatten(1, (-1, self.patch)).flatten(2)

    def _attention(self, field: Field) -> Packed | Blocks:
        """The attention for so many rows and tokens; the latest are kept."""
        if field not in self.fields:
            self.fields[field] = over(field, self.tables)
            while len(self.fields) > FIELDS:
                self.fields.popitem(last=False)
        self.fields.move_to_end(field)
        return self.fields[field]

    def velocity(self, heard: Heard, x: torch.Tensor, t: float, guided: bool) -> torch.Tensor:
        """Velocities of noisy latents [B, T, C] at noise level t: [B, T, C], or guided [2 B, T, C], unconditional last."""
        level = t * x.new_ones(1)
        n = -(-x.shape[1] // self.patch)
        attention = self._attention(Field(len(x) * (2 if guided else 1), n, self.window))
        return self.replays(
            (attention.field, heard.parts),
            lambda heard, x, level: self._forward(heard, x, level, attention),
            heard,
            (x, level),
        )

    def _forward(self, heard: Heard, x: torch.Tensor, level: torch.Tensor, attention: Packed | Blocks) -> torch.Tensor:
        import torch
        from torch.nn import functional as F

        rows = attention.field.rows
        step = self._step(heard, level)
        h = torch.add(self._patches(x) @ self.into.T, heard.context)
        h = h.repeat(rows // len(x), 1, 1).flatten(0, 1)
        told = len(x) * attention.field.length  # tokens that hear the words
        for i in range(len(self.layers)):
            self._look(heard, step, i, h, attention)
            self._listen(heard, i, h[:told], attention)
            h[told:].add_(heard.still[i])
            self._think(heard, step, i, h)
        h = F.rms_norm(h, h.shape[-1:], step.out_norm, self.eps).add_(step.out_shift)
        out = torch.addmm(self.out_bias, h, self.out.T)
        return out.unflatten(0, (rows, -1)).unflatten(2, (self.patch, -1)).flatten(1, 2)[:, : x.shape[1]]

    def _step(self, heard: Heard, level: torch.Tensor) -> _Step:
        own = self.transformer
        embedded, projected = self._embedded(level, heard.lows[-1])
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (self.tables + (projected + heard.past[1])).unbind(1)
        out_shift, out_scale = (own.scale_shift_table[0] + (embedded + heard.past[0])).unbind(0)
        return _Step(
            self.norms * (1 + scale),
            shift,
            gate,
            self.mlp_norms * (1 + mlp_scale),
            mlp_shift,
            mlp_gate,
            own.norm_out.weight * (1 + out_scale),
            out_shift,
        )

    def _embedded(self, level: torch.Tensor, lows: dict[str, Low]) -> tuple[torch.Tensor, torch.Tensor]:
        """The noise level [1] as the model knows it: [1, D], and [1, 6, D] for the layers."""
        own = self.transformer.time_embed

        def through(name: str, x: torch.Tensor) -> torch.Tensor:
            part = base(getattr(own, name))
            return linear(x, part.weight, lows.get(name), part.bias)

        waves = own.time_sinusoid(level * own.scale).to(level.dtype)
        embedded = through("linear_2", own.act1(through("linear_1", waves)))
        return embedded, through("time_proj", own.act2(embedded)).unflatten(1, (6, -1))

    def _look(self, heard: Heard, step: _Step, i: int, h: torch.Tensor, attention: Packed | Blocks) -> None:
        """Attention to the song itself, added to the tokens h [M, D]."""
        from torch.nn import functional as F

        layer, lows, own = self.layers[i], heard.lows[i], self.layers[i].block.self_attn
        x = F.rms_norm(h, h.shape[-1:], step.norm[i], self.eps).add_(step.shift[i])
        q = linear(x, layer.q, lows.get("q")).unflatten(-1, (self.heads, self.d))
        k, v = linear(x, layer.kv, lows.get("kv")).unflatten(-1, (2, self.kv, self.d)).unbind(1)
        q = self._turned(F.rms_norm(q, (self.d,), own.norm_q.weight, self.eps), heard)
        k = self._turned(F.rms_norm(k, (self.d,), own.norm_k.weight, self.eps), heard)
        seen = (attention.near if layer.near else attention.full)(q, k, v)
        h.addcmul_(linear(seen, layer.out, lows.get("out")), step.gate[i])

    def _turned(self, x: torch.Tensor, heard: Heard) -> torch.Tensor:
        """Queries or keys [M, heads, d] turned by their places: x cos + x' sin, where ' swaps the halves and negates one."""
        import torch

        x = x.unflatten(0, (-1, len(heard.cos))).unflatten(-1, (2, -1))  # [rows, N, heads, 2, d / 2]
        cos, sin = heard.cos[..., None, :], heard.sin
        y = x * cos
        torch.addcmul(y[..., 0, :], x[..., 1, :], sin, value=-1, out=y[..., 0, :])
        torch.addcmul(y[..., 1, :], x[..., 0, :], sin, out=y[..., 1, :])
        return y.flatten(-2).flatten(0, 1)

    def _listen(self, heard: Heard, i: int, h: torch.Tensor, attention: Packed | Blocks) -> None:
        """Attention to the words, added to the tokens h that hear them."""
        from torch.nn import functional as F

        layer, lows, other = self.layers[i], heard.lows[i], self.layers[i].block.cross_attn
        x = F.rms_norm(h, h.shape[-1:], layer.block.cross_attn_norm.weight, self.eps)
        q = linear(x, layer.read, lows.get("read")).unflatten(-1, (self.heads, self.d))
        q = F.rms_norm(q, (self.d,), other.norm_q.weight, self.eps)
        seen = attention.read(q, heard.keys[i], heard.values[i], heard.ends)
        h.addmm_(seen, layer.told.T)
        if low := lows.get("told"):
            h.addmm_(seen @ low[0].T, low[1].T)

    def _think(self, heard: Heard, step: _Step, i: int, h: torch.Tensor) -> None:
        """The MLP, SwiGLU, added to the tokens h."""
        from torch.nn import functional as F

        layer, lows = self.layers[i], heard.lows[i]
        x = F.rms_norm(h, h.shape[-1:], step.mlp_norm[i], self.eps).add_(step.mlp_shift[i])
        gate, up = linear(x, layer.up, lows.get("up")).chunk(2, dim=-1)
        opened = F.silu(gate, inplace=True).mul_(up)
        h.addcmul_(linear(opened, layer.down, lows.get("down")), step.mlp_gate[i])
