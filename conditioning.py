"""What the transformer hears: words that fit the model, recordings as latents, timbre, and the room left for the song.

`Conditioner.score` is the one place that knows how the modes differ for the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from errors import EngineMissing
from remakes import RAMP_FRAMES, Cover, Edit, Extend, Remake
from sampler import Repaint, Switch
from song import SongRequest
from sound import HOP, LATENT_RATE, SAMPLE_RATE, AudioClip, Progress
from tiers import woken
from velocity import Conditions

if TYPE_CHECKING:
    import torch

TEXT_TOKENS = 256  # the text branch reads no further, and tempo, key and duration stand at its end
LYRIC_TOKENS = 2048
TIMBRE_S = 30  # what the timbre encoder hears: three pieces of a reference, or silence

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Words:
    """Caption and lyrics as they fit the model, the task they are for, and what had to be said about them."""

    caption: str
    lyrics: str
    task: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """All that the sampler needs of a request, besides its knobs.

    A flow morph has the latents of its `song` and, beside the target's, the conditions of its `origin`.
    """

    conditions: Conditions
    change: Switch | Repaint | None = None
    song: torch.Tensor | None = None
    origin: Conditions | None = None
    warnings: tuple[str, ...] = ()


class Conditioner:
    """The listening half of a pipeline: text encoder, VAE encoder, tokenizer and condition encoder on one device."""

    def __init__(self, pipe: Any, device: str) -> None:
        self.pipe = pipe
        self.device = device

    @property
    def dtype(self) -> torch.dtype:
        """The transformer's own."""
        return self.pipe.transformer.dtype

    @property
    def silence(self) -> torch.Tensor:
        """What the model knows as silence: latents [1, 15000, C]."""
        return self.pipe.condition_encoder.silence_latent.to(device=self.device, dtype=self.dtype)

    def score(self, request: SongRequest, report: Report = lambda _: None) -> Score:
        """What a request asks of the model, its recordings listened to."""
        report(Progress("Reading the words"))
        words = self.fit(request, Words(request.prompt, request.sung, request.task))
        if isinstance(request, Cover):
            return self._cover(request, words, report)
        if isinstance(request, Extend):
            return self._extend(request, words, report)
        if isinstance(request, Edit):
            return (self._morph if request.morphs else self._repaint)(request, words, report)
        frames = math.ceil(request.seconds * LATENT_RATE)
        room = self.sketched(request.codes)[:, :frames] if request.codes else self.room(frames)
        return Score(self.conditions(request, words, self.context(room)), warnings=words.warnings)

    def _cover(self, request: Cover, words: Words, report: Report) -> Score:
        if not self.sketches:
            raise EngineMissing("This model cannot cover a song: it has no audio tokenizer.", "XL SFT can.")
        song = self._listened(request, report)
        timbre = self.timbre(request.reference_audio)
        led = self.conditions(request, words, self.context(self.structure(song)), timbre)
        free = self.fit(request, Words(request.prompt, request.sung, "text2music"))
        alone = self.conditions(request, free, self.context(self.room(song.shape[1])), timbre)
        return Score(led, Switch(request.follows, alone), warnings=words.warnings)

    def _extend(self, request: Extend, words: Words, report: Report) -> Score:
        import torch

        song, ((first, last),) = self._listened(request, report), request.painted
        room = self.room(last - first)
        song = torch.cat([song, room] if first else [room, song], dim=1)
        return self._painted(request, words, Repaint(song, self.mask(song.shape[1], request.painted)))

    def _repaint(self, request: Edit, words: Words, report: Report) -> Score:
        song = self._listened(request, report)
        ramp = round(RAMP_FRAMES * (1 - request.strength))
        mask = self.mask(song.shape[1], request.painted)
        return self._painted(request, words, Repaint(song, mask, 1 - request.strength, ramp))

    def _painted(self, request: SongRequest, words: Words, change: Repaint) -> Score:
        import torch

        frames = change.source.shape[1]
        context = self.context(torch.where(change.mask > 0, self.room(frames), change.source), change.mask)
        return Score(self.conditions(request, words, context), change, warnings=words.warnings)

    def _morph(self, request: Edit, words: Words, report: Report) -> Score:
        song = self._listened(request, report)
        context = self.context(self.room(song.shape[1]))
        before = self.fit(request, Words(request.source_caption, request.source_lyrics, request.task))
        target, origin = (self.conditions(request, w, context) for w in (words, before))
        return Score(target, song=song, origin=origin, warnings=(*words.warnings, *before.warnings))

    def _listened(self, request: Remake, report: Report) -> torch.Tensor:
        report(Progress("Listening to the song"))
        return self.listen(request.source_audio)

    def fit(self, request: SongRequest, words: Words) -> Words:
        """Words within the model's token limits.

        A caption that is too long is shortened from its end, because the text encoder would cut tempo, key and duration
        instead; lyrics are cut by the tokenizer. Both are told to the user.
        """
        warnings, caption = [], words.caption

        def tokens(caption: str) -> int:
            text, _ = self.formatted(request, Words(caption, words.lyrics, words.task))
            return len(self.pipe.tokenizer(text).input_ids)

        if tokens(caption) > TEXT_TOKENS:
            low, high = 0, len(caption)  # the longest prefix that fits
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if tokens(caption[:middle]) <= TEXT_TOKENS else (low, middle - 1)
            warnings.append(f"The model read the first {low} of {len(caption)} characters of the style prompt.")
            caption = caption[:low]
        count = len(self.pipe.tokenizer(self.formatted(request, words)[1]).input_ids)
        if count > LYRIC_TOKENS:
            share = math.floor(100 * LYRIC_TOKENS / count)
            warnings.append(f"The lyrics are too long for the model: it read about the first {share} %.")
        return Words(caption, words.lyrics, words.task, tuple(warnings))

    def formatted(self, request: SongRequest, words: Words) -> tuple[str, str]:
        """Caption and lyrics in the model's own templates."""
        return self.pipe._format_prompt(words.caption, words.lyrics, **self._metas(request, words.task))

    def conditions(
        self, request: SongRequest, words: Words, context: torch.Tensor, timbre: torch.Tensor | None = None
    ) -> Conditions:
        """Words and `timbre` [1, 750, C] (silence by default) beside the `context` [1, T, 2C] of the song to be made."""
        import torch

        encoder = self.pipe.condition_encoder
        text, text_mask, lyric, lyric_mask = self.pipe.encode_prompt(
            prompt=words.caption, lyrics=words.lyrics, device=self.device, **self._metas(request, words.task)
        )
        cond, _ = encoder(
            text_hidden_states=text,
            text_attention_mask=text_mask,
            lyric_hidden_states=lyric,
            lyric_attention_mask=lyric_mask,
            refer_audio_acoustic_hidden_states_packed=self.timbre(None) if timbre is None else timbre,
            refer_audio_order_mask=torch.zeros(1, device=self.device, dtype=torch.long),
        )
        null = encoder.null_condition_emb.to(device=cond.device, dtype=cond.dtype)
        return Conditions(cond, null, context)

    def context(self, latents: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Latents [1, T, C] and what is to be made of them: mask [1, T, 1], 1 = make anew; everything by default."""
        import torch

        made = torch.ones_like(latents) if mask is None else mask.expand_as(latents)
        return torch.cat([latents, made], dim=-1)

    def room(self, frames: int) -> torch.Tensor:
        """Silence [1, frames, C]: where nothing is given."""
        return self.silence[:, :frames]

    def mask(self, frames: int, spans: list[tuple[int, int]]) -> torch.Tensor:
        """1 within the spans of frames, 0 elsewhere: [1, frames, 1]."""
        import torch

        mask = torch.zeros((1, frames, 1), device=self.device, dtype=self.dtype)
        for first, last in spans:
            mask[:, first:last] = 1
        return mask

    def listen(self, clip: AudioClip) -> torch.Tensor:
        """A recording as latents [1, T, C], T whole frames: the last one is filled up with silence.

        The posterior's mode, where the stock pipeline draws from the global generator: a recording is always heard alike.
        """
        import torch

        vae = self.pipe.vae
        samples = torch.from_numpy(clip.samples)[None]
        samples = torch.nn.functional.pad(samples, (0, -samples.shape[-1] % HOP))
        posterior = vae.encode(samples.to(device=self.device, dtype=vae.dtype)).latent_dist
        return posterior.mode().transpose(1, 2).to(self.dtype)

    @property
    def sketches(self) -> bool:
        """Whether the model knows audio codes."""
        return None not in (self.pipe.audio_tokenizer, self.pipe.audio_token_detokenizer)

    def structure(self, latents: torch.Tensor) -> torch.Tensor:
        """What a cover keeps of a song: its latents [1, T, C] through the 5 Hz audio tokenizer and back."""
        tokens, _ = woken(self.pipe.audio_tokenizer).tokenize(latents, self.silence)
        return self.pipe.audio_token_detokenizer(tokens.to(self.dtype))[:, : latents.shape[1]]

    def codes(self, clip: AudioClip) -> list[int]:
        """The audio codes of a recording, 5 a second. Raises EngineMissing when the model has no audio tokenizer."""
        if not self.sketches:
            raise EngineMissing("This model cannot describe a song: it has no audio tokenizer.", "XL SFT can.")
        latents = self.listen(clip)
        _, codes = woken(self.pipe.audio_tokenizer).tokenize(latents, self.silence)
        return codes.flatten().tolist()

    def sketched(self, codes: Sequence[int]) -> torch.Tensor:
        """The latents [1, 5 n, C] that n audio codes stand for."""
        import torch

        if not self.sketches:
            raise EngineMissing("This model cannot read a plan's codes: it has no audio tokenizer.", "XL SFT can.")
        indices = torch.tensor(codes, device=self.device)[None, :, None]
        tokens = woken(self.pipe.audio_tokenizer).quantizer.get_output_from_indices(indices)
        return self.pipe.audio_token_detokenizer(tokens.to(self.dtype)).to(self.dtype)

    def timbre(self, clip: AudioClip | None) -> torch.Tensor:
        """The sound of a recording, latents [1, 750, C]: 10 s each of its front, middle and back; or silence."""
        import numpy as np

        if clip is None:
            return self.silence[:, : TIMBRE_S * LATENT_RATE]
        piece, samples = TIMBRE_S // 3 * SAMPLE_RATE, clip.samples
        if samples.shape[1] < 3 * piece:
            samples = np.tile(samples, -(-3 * piece // samples.shape[1]))
        length = samples.shape[1]
        pieces = [samples[:, at : at + piece] for at in (0, length // 3, length - piece)]
        return self.listen(AudioClip(np.concatenate(pieces, axis=1), clip.file))

    def _metas(self, request: SongRequest, task: str) -> dict[str, Any]:
        knobs = request.advanced
        return {
            "vocal_language": knobs.vocal_language,
            "audio_duration": request.seconds,
            "instruction": self.pipe._get_task_instruction(task),
            "bpm": knobs.bpm,
            "keyscale": knobs.keyscale,
            "timesignature": knobs.timesignature,
        }
