"""A Demucs at 0.1 M parameters, in a file of weights as the Hub has them: the true class, read the true way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SOURCES = ["drums", "bass", "other", "vocals"]
SIZES = {
    "channels": 8,
    "nfft": 512,
    "depth": 3,
    "t_layers": 1,
    "t_heads": 2,
    "segment": {"_type": "fraction", "numerator": 3, "denominator": 2},
}


def weights(folder: Path, seed: int = 0, **metadata: Any) -> Path:
    """A folder with one file of random weights; `metadata` stands in for what the file says of itself."""
    import torch
    from demucs.hf import _decode_json
    from demucs.htdemucs import HTDemucs
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HTDemucs(SOURCES, **_decode_json(SIZES))
    told = {"klass": "demucs.htdemucs.HTDemucs", "args": json.dumps([SOURCES]), "kwargs": json.dumps(SIZES)} | metadata
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "tiny.safetensors", told
    )
    return folder
