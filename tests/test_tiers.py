"""Small cards: which tier is chosen, and that a song is the same song when the parts of the model take turns.

diffusers' offload runs here with the CPU for a card: its hooks fire as on a card, only that nothing moves. `Turns` watches
whether a part computes without having been called.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_lora_adapters import stack
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ace_pipeline
import checkpoints
import settings
import tiers
from drafts import Describe
from errors import EngineMissing, Stopped
from lora_layouts import targets
from lora_stack import Model, admit
from remakes import Cover, Edit, Extend
from settings import CHECKPOINTS, SettingError
from song import Generate
from sound import AudioClip, Progress
from tiers import TIERS, WHOLE, tier_for
from velocity import Fast, Plain

NOISE = AudioClip(np.random.default_rng(0).normal(0, 0.1, (2, 96_000)).astype(np.float32), {"format": "WAV"})
ASKED = {"prompt": "slow piano", "seed": 1, "inference_steps": 8}
CODES = {"codes": [5, 9, 70] * 17}
SHARING = [key for key, tier in TIERS.items() if tier.shares and not tier.eight_bit]
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


def placed(key: str, dtype: torch.dtype = torch.float32) -> ace_pipeline.Engine:
    """The tiny engine in the way of a tier."""
    pipe = tiers.place(tiny.pipeline(dtype), "cpu", TIERS[key])
    return ace_pipeline.Engine(pipe, tiny.engine().checkpoint, "cpu", TIERS[key])


def whole(key: str) -> ace_pipeline.Engine:
    """The tiny engine as it sings where nothing takes turns: plainly, if the tier does."""
    if TIERS[key].resident:
        return tiny.engine()
    engine = ace_pipeline.Engine(tiny.pipeline(), tiny.engine().checkpoint, "cpu")
    engine.field = Plain(engine.pipe.transformer)
    return engine


class Turns(TorchDispatchMode):
    """Which parts of a pipeline are on the card, who computed without being there, and who were there together."""

    OWN_WAY = ("silence_latent", "null_condition_emb")  # brought to the card by those who read them

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self.parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
        self.owner: dict[int, str] = {}
        self.here = {name for name, part in self.parts.items() if not hasattr(part, "_hf_hook")}
        self.truants: set[str] = set()
        self.together: set[frozenset[str]] = {frozenset(self.here)}
        for name, part in self.parts.items():
            self._know(name)
            if hook := getattr(part, "_hf_hook", None):
                self._watch(name, hook)

    def _know(self, name: str) -> None:
        """The memory of a part's weights: coming and going copies them."""
        self.owner = {place: owner for place, owner in self.owner.items() if owner != name}
        part = self.parts[name]
        for at, tensor in [*part.named_parameters(), *part.named_buffers()]:
            if at not in self.OWN_WAY:
                self.owner[tensor.untyped_storage()._cdata] = name

    def _watch(self, name: str, hook: Any) -> None:
        come, leave = hook.pre_forward, hook.init_hook

        def pre_forward(module: Any, *args: Any, **kwargs: Any) -> Any:
            if hook.prev_module_hook:  # which accelerate sends away, but not from a card that is the CPU
                self.here -= {other for other, part in self.parts.items() if part is hook.prev_module_hook.model}
            self.here.add(name)
            self.together.add(frozenset(self.here))
            came = come(module, *args, **kwargs)
            self._know(name)
            return came

        def init_hook(module: Any) -> Any:
            left, _ = leave(module), self._know(name)
            self.here.discard(name)
            return left

        hook.pre_forward, hook.init_hook = pre_forward, init_hook

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                owner = self.owner.get(tensor.untyped_storage()._cdata)
                self.truants |= {owner} - self.here - {None}
        return call(*args, **(kwargs or {}))


REQUESTS = {
    "a song": (Generate, {"duration_s": 10}),
    "a planned song": (Generate, {"duration_s": 10, **CODES}),
    "a cover": (Cover, {"source_audio": NOISE, "cover_strength": 0.5}),
    "an extension": (Extend, {"source_audio": NOISE, "extra_duration_s": 5}),
    "a morph": (Edit, {"source_audio": NOISE, "sub_mode": "flow_edit", "source_caption": "rain"}),
}


def request(name: str) -> Any:
    mode, own = REQUESTS[name]
    codes = own.get("codes")
    made = mode.parse({**ASKED, **{key: value for key, value in own.items() if key != "codes"}})
    if codes:
        from plans import Plan

        made = made.planned(Plan(codes=tuple(codes)))
    return made.heard()[0] if hasattr(made, "heard") else made


# Which tier


@pytest.mark.parametrize(
    "free, name",
    [(78, "full"), (26, "full"), (25.9, "24 GB"), (20.5, "24 GB"), (15.4, "16 GB"), (11.4, "12 GB"), (7.0, "8 GB")],
)
def test_free_memory_decides(free: float, name: str) -> None:
    assert tier_for(free).name == name


def test_below_the_smallest_a_sentence_names_need_and_room() -> None:
    with pytest.raises(EngineMissing) as refused:
        tier_for(6.94, "ACE-Step 1.5 XL SFT")
    assert refused.value.message == (
        "There is no room for ACE-Step 1.5 XL SFT on this GPU: it needs 7.0 GiB, 6.9 are free."
    )
    assert "ACE_MODEL=demo" in refused.value.hint


def test_tiers_ask_for_less_one_by_one_and_stay_below_what_a_card_is_sold_as() -> None:
    needs = [tier.needs_gib for tier in TIERS.values()]
    assert needs == sorted(needs, reverse=True) and tuple(TIERS) == settings.TIERS
    for key, tier in list(TIERS.items())[1:]:
        assert tier.name == f"{key} GB" and tier.needs_gib < int(key) and tier.does


def test_the_machine_is_asked_only_about_a_large_model_on_an_nvidia_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: 11.0)
    xl, demo = CHECKPOINTS["xl-sft"], CHECKPOINTS["demo"]
    assert checkpoints.tier(xl, "cuda") is TIERS["12"]
    assert [checkpoints.tier(xl, on) for on in ("cpu", "mps")] == [WHOLE, WHOLE]
    assert checkpoints.tier(demo, "cuda") is WHOLE
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert checkpoints.tier(xl, "cuda") is WHOLE


def test_the_setting_wins_over_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "free_gib", lambda on: 3.0)
    with pytest.raises(EngineMissing, match=r"ACE-Step 1\.5 XL SFT"):
        checkpoints.tier(CHECKPOINTS["xl-sft"], "cuda")
    monkeypatch.setenv("ACE_TIER", "16")
    assert checkpoints.tier(CHECKPOINTS["xl-sft"], "cuda") is TIERS["16"]
    assert checkpoints.tier(CHECKPOINTS["demo"], "cuda") is WHOLE


@pytest.mark.parametrize("wrong", ["10", "12 GB", "none"])
def test_a_setting_that_names_no_tier_is_refused(wrong: str) -> None:
    with pytest.raises(SettingError, match=rf"ACE_TIER must be one of full, 24, 16, 12, 8; it is '{wrong}'\."):
        settings.read({"ACE_TIER": wrong})


@pytest.mark.parametrize("tier, less", [("full", "16"), ("24", "16"), ("16", "12"), ("12", "8"), ("8", "")])
def test_a_song_that_does_not_fit_names_the_tier_that_asks_for_less(tier: str, less: str) -> None:
    told = str(tiers.out_of_room(TIERS[tier]))
    assert "does not fit into this machine's memory. Try a shorter one" in told
    assert ("ACE_TIER" in told) == bool(less) and f"ACE_TIER={less}" * bool(less) in told
    assert "ACE_TIER" not in str(tiers.out_of_room(WHOLE))


# Parts that take turns


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("key", SHARING)
def test_a_song_is_the_same_and_no_part_computes_off_the_card(key: str, name: str) -> None:
    asked, engine = request(name), placed(key)
    with Turns(engine.pipe) as turns:
        shared = engine.sing(asked).samples
    assert np.array_equal(shared, whole(key).sing(asked).samples)
    stays = {"transformer"} if TIERS[key].resident else set()
    assert turns.truants == set() and turns.here == stays
    if not stays:
        beside = {others - {"transformer"} for others in turns.together if "transformer" in others}
        assert beside == {frozenset()}, "the transformer needs the card for itself"


@pytest.mark.parametrize("key", TIERS)
def test_the_fast_forward_sings_where_the_transformer_stays_as_it_is(key: str) -> None:
    own = tiny.engine()
    field = ace_pipeline.Engine(own.pipe, own.checkpoint, "cpu", TIERS[key]).field
    assert type(field) is (Fast if TIERS[key].resident else Plain)


def test_a_part_that_is_called_past_its_hooks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import conditioning

    monkeypatch.setattr(conditioning, "woken", lambda part: part)
    engine = placed("12")
    with torch.no_grad(), Turns(engine.pipe) as turns:
        engine.sing(request("a planned song"))
    assert turns.truants == {"audio_tokenizer"}


@pytest.mark.parametrize("key", SHARING)
def test_the_codes_of_a_recording_are_the_same_and_everything_leaves(key: str) -> None:
    engine, clip = placed(key), Describe.parse({"source_audio": NOISE}).source_audio
    with Turns(engine.pipe) as turns:
        assert engine.codes(clip) == tiny.engine().codes(clip)
    assert turns.truants == set() and turns.here <= {"transformer"}


@pytest.mark.parametrize("phase", ["Reading the words", "Denoising", "Decoding"])
def test_after_a_stop_no_part_stays(phase: str) -> None:
    def stop(progress: Progress) -> None:
        if progress.phase == phase and (progress.step or phase != "Denoising"):
            raise Stopped("Stopped.")

    engine = placed("12")
    with Turns(engine.pipe) as turns, pytest.raises(Stopped):
        engine.sing(request("a song"), stop)
    assert turns.here == set()


def tiny_lora(tmp_path: Any) -> Any:
    return admit(tiny.lora(tmp_path / "a.safetensors"), Model("this model", targets(tiny.TINY["transformer"])))


@pytest.mark.parametrize("key", SHARING)
def test_loras_sound_the_same_and_leave_nothing(key: str, tmp_path: Any) -> None:
    lora, engine = tiny_lora(tmp_path), placed(key)
    asked = request("a song")
    with_lora = asked.model_copy(update={"loras": stack((lora, 0.7))})
    with engine.adapters.attached(with_lora.loras):  # it is proven to act where the weights wait
        pass
    with Turns(engine.pipe) as turns:
        shared = engine.sing(with_lora).samples
        plain = engine.sing(asked).samples
    assert np.array_equal(shared, whole(key).sing(with_lora).samples) and not np.array_equal(shared, plain)
    assert np.array_equal(plain, whole(key).sing(asked).samples)
    assert turns.truants == set()
    assert [hasattr(engine.pipe.transformer, "_hf_hook"), len(engine.pipe._all_hooks)] == (
        [False, 5] if TIERS[key].resident else [True, 6]
    )
