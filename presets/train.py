"""How the demo model's LoRAs were made: by self-distillation, without a recording or another model.

    python -m presets.train music-box       # some ten minutes on two cores

The teacher is the demo model with the preset's words in its prompt, the student the same model with a LoRA and without
those words. On noised songs of the teacher's the student learns to answer as the teacher does, so that any prompt brings the
preset's sound; without a prompt (classifier-free guidance) it stays as it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file

import ace_pipeline
from settings import CHECKPOINTS
from song import Generate
from velocity import Conditions

RANK, ALPHA = 8, 16
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
ORIGINAL = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "o_proj"}  # ACE-Step's own names
SONGS, BATCH, STEPS, RATE, UNGUIDED = 64, 4, 1000, 1e-3, 0.1
WORDS = {
    "music-box": "lullaby, music box, bells, no drums",
    "8-bit": "chiptune, 8-bit lead, 8-bit drums",
}
STYLES = (
    "rock, electric guitar, acoustic drums",
    "techno, synth lead, electronic drums",
    "jazz, piano, saxophone, upright bass",
    "deep house, electric piano, sub bass, electronic drums",
    "folk, acoustic guitar, flute",
    "cinematic strings, strings, no drums",
    "funk, clavinet, electric bass, acoustic drums",
    "ambient, warm pad, no drums",
    "synthwave, wide synths, synth bass, electronic drums",
    "bossa nova, acoustic guitar, light percussion",
    "lo-fi hip hop, electric piano, lo-fi drums",
    "classical piano, piano, no drums",
    "trap, bells, sub bass",
    "drum and bass, synth pluck, electronic drums",
)
MOODS = ("", ", calm", ", energetic", ", playful", ", dark", ", hopeful")
KEYS = [f"{note} {mode}" for note, mode in itertools.product("C D E F G A B".split(), ("major", "minor"))]


@dataclass(frozen=True)
class Lesson:
    """A song [1, T, C] of the teacher's, and what teacher and student hear while it is noised."""

    song: torch.Tensor
    teacher: Conditions
    student: Conditions


def lessons(engine: ace_pipeline.Engine, words: str, rng: random.Random) -> list[Lesson]:
    """Songs of the teacher's in many styles, tempos and keys."""
    found = []
    for seed in range(SONGS):
        style, mood = STYLES[seed % len(STYLES)], rng.choice(MOODS)
        facts = {"bpm": rng.randrange(64, 170), "keyscale": rng.choice(KEYS), "duration_s": 10, "guidance_scale": 3.0}
        taught = Generate.parse({"prompt": words + mood, "seed": seed, **facts})
        asked = Generate.parse({"prompt": style + mood, "seed": seed, **facts})
        with torch.no_grad():
            teacher, student = (engine.conditioner.score(request).conditions for request in (taught, asked))
            found.append(Lesson(engine.denoise(engine.conditioner.score(taught), taught), teacher, student))
        print(f"song {seed + 1} of {SONGS}: {taught.prompt} for {asked.prompt}")
    return found


def velocity(transformer: Any, x: torch.Tensor, level: torch.Tensor, heard: torch.Tensor, room: torch.Tensor) -> Any:
    """The transformer's answer [B, T, C] at noise levels [B]."""
    many = len(x)
    heard, room = heard.expand(many, -1, -1), room.expand(many, -1, -1)
    known = {"encoder_hidden_states": heard, "context_latents": room, "return_dict": False}
    return transformer(hidden_states=x, timestep=level, timestep_r=level, **known)[0]


def learn(transformer: Any, known: list[Lesson], rng: random.Random) -> None:
    """Train the adapter of the transformer."""
    learned = [p for p in transformer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    mean = 0.0
    for step in range(STEPS):
        lesson = rng.choice(known)
        free = rng.random() < UNGUIDED
        noise, level = torch.randn(BATCH, *lesson.song.shape[1:]), torch.rand(BATCH)
        x = level[:, None, None] * noise + (1 - level[:, None, None]) * lesson.song
        right = lesson.teacher.null.expand_as(lesson.teacher.cond) if free else lesson.teacher.cond
        heard = lesson.student.null.expand_as(lesson.student.cond) if free else lesson.student.cond
        transformer.disable_adapters()
        with torch.no_grad():
            wanted = velocity(transformer, x, level, right, lesson.teacher.context)
        transformer.enable_adapters()
        loss = (velocity(transformer, x, level, heard, lesson.student.context) - wanted).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        mean = 0.98 * mean + 0.02 * loss.item() if step else loss.item()
        if step % 50 == 49:
            print(f"step {step + 1} of {STEPS}: {mean:.4f}", flush=True)


def save(transformer: Any, folder: Path) -> None:
    """Write the adapter as ACE-Step's own trainer does: a PEFT folder with the original names."""
    tensors = {}
    for name, weight in transformer.state_dict().items():
        if ".lora_" in name:
            module, _, factor = name.removesuffix(".default.weight").rpartition(".")
            for ours, theirs in ORIGINAL.items():
                module = module.removesuffix(ours) + theirs if module.endswith(ours) else module
            tensors[f"base_model.model.{module}.{factor}.weight"] = weight.half().contiguous()
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    own = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_rslora": False}
    own |= {"target_modules": list(ORIGINAL.values()), "base_model_name_or_path": None}
    (folder / "adapter_config.json").write_text(json.dumps(own, indent=2) + "\n")


def main() -> None:
    """Train one preset."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("preset", choices=WORDS)
    preset = options.parse_args().preset
    torch.manual_seed(0)
    rng, engine = random.Random(0), ace_pipeline.load(CHECKPOINTS["demo"], "cpu")
    known = lessons(engine, WORDS[preset], rng)
    transformer = engine.pipe.transformer
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS)))
    learn(transformer, known, rng)
    save(transformer, Path(__file__).parent / preset)


if __name__ == "__main__":
    main()
