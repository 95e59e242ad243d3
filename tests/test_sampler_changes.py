"""What covers, repaints and flow morphs do in the loop, seen at the transformer's boundary on the tiny checkpoint."""

from __future__ import annotations

import pytest
import tiny
import torch
from test_sampler import conditions, noise_for, stock_field

import sampler
from sampler import Guide, Morph, Noise, Repaint, Schedule, Switch, denoise, flow_edit, ramps
from velocity import Conditions


@pytest.fixture(scope="module")
def engine():
    return tiny.engine()


def seen_by(engine, run) -> list[torch.Tensor]:
    """What the transformer is given as context in each forward of `run()`: the conditional half. Diffusers' own sings."""
    contexts, field = [], engine.field
    engine.field = stock_field(engine)
    hook = engine.pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: contexts.append(kwargs["context_latents"][:1].clone()), with_kwargs=True
    )
    try:
        run()
    finally:
        engine.field = field
        hook.remove()
    return contexts


def other(c: Conditions) -> Conditions:
    """Conditions that differ in every part."""
    return Conditions(c.cond.flip(1), c.null, c.context + 0.5)


@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_switch_changes_what_is_heard_and_costs_no_forward(engine, at) -> None:
    c = conditions(engine)
    guide = Guide(stock_field(engine), c, Schedule(8))
    contexts = seen_by(engine, lambda: denoise(guide, noise_for(c), change=Switch(at, other(c))))
    assert len(contexts) == 8
    assert [torch.equal(seen, c.context) for seen in contexts] == [i < at for i in range(8)]


def test_a_switch_at_the_start_is_a_run_of_the_other_conditions(engine) -> None:
    c = conditions(engine)
    switched = denoise(Guide(stock_field(engine), c, Schedule(4)), noise_for(c), change=Switch(0, other(c)))
    plain = denoise(Guide(stock_field(engine), other(c), Schedule(4)), noise_for(c))
    assert torch.equal(switched, plain)


def repainted(engine, **how) -> tuple[torch.Tensor, Repaint]:
    c = conditions(engine)
    source = noise_for(c, 99)
    mask = torch.zeros((1, source.shape[1], 1))
    mask[:, 20:30] = 1
    change = Repaint(source, mask, **how)
    guide = Guide(stock_field(engine), c, Schedule(8, sde=how.get("held") == 0.5))
    return denoise(guide, noise_for(c), change=change, along=Noise(3)), change


def test_a_source_that_is_held_throughout_is_the_source(engine) -> None:
    x, change = repainted(engine)
    outside = change.mask[0, :, 0] == 0
    assert torch.equal(x[:, outside], change.source[:, outside])
    assert not torch.isclose(x[:, 20:30], change.source[:, 20:30]).any(dim=-1).all()


def test_a_source_held_in_half_of_the_steps_drifts_and_one_let_go_is_free(engine) -> None:
    c = conditions(engine)
    free = denoise(Guide(stock_field(engine), c, Schedule(8)), noise_for(c))
    let_go, change = repainted(engine, held=0.0)
    assert torch.equal(let_go, free)
    half, _ = repainted(engine, held=0.5)
    outside = change.mask[0, :, 0] == 0
    far = [(x - change.source)[:, outside].norm() for x in (half, let_go)]
    assert 0 < far[0] < far[1]


def test_what_is_put_back_has_the_noise_of_its_step(engine) -> None:
    """After step i the source stands outside the mask as t' noise + (1 - t') source, the run's first noise."""
    c, inputs = conditions(engine), []
    hook = engine.pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: inputs.append((kwargs["timestep"][0].item(), kwargs["hidden_states"][:1].clone())),
        with_kwargs=True,
    )
    try:
        _, change = repainted(engine)
    finally:
        hook.remove()
    outside, noise = change.mask[0, :, 0] == 0, noise_for(c)
    for t, x in inputs:
        expected = t * noise + (1 - t) * change.source
        torch.testing.assert_close(x[:, outside], expected[:, outside])


def test_the_ramp_blends_outside_the_mask_alone(engine) -> None:
    hard, change = repainted(engine, held=0.0)
    soft, _ = repainted(engine, held=0.0, ramp=4)
    assert torch.equal(hard[:, 20:30], soft[:, 20:30])
    assert torch.equal(soft[:, :16], change.source[:, :16]) and torch.equal(soft[:, 34:], change.source[:, 34:])
    share = torch.tensor([0.2, 0.4, 0.6, 0.8])[None, :, None]
    torch.testing.assert_close(soft[:, 16:20], share * hard[:, 16:20] + (1 - share) * change.source[:, 16:20])
    torch.testing.assert_close(
        soft[:, 30:34], share.flip(1) * hard[:, 30:34] + (1 - share.flip(1)) * change.source[:, 30:34]
    )


def test_ramps_of_near_regions_meet() -> None:
    mask = torch.zeros((1, 12, 1))
    mask[:, [0, 5]] = 1
    assert ramps(mask, 3)[0, :, 0].tolist() == [1, 0.75, 0.5, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0, 0]


def morph(engine, source=None, target=None, *, steps: int = 8, **how) -> tuple[torch.Tensor, torch.Tensor]:
    c = conditions(engine)
    guides = (Guide(stock_field(engine), each or c, Schedule(steps, shift=2.0)) for each in (source, target))
    song = noise_for(c, 5)
    way = {"first": 0, "last": steps, **how}
    return flow_edit(Morph(*guides, song, **way), Noise(1)), song


@pytest.mark.parametrize("draws", [1, 3])
def test_equal_source_and_target_give_the_very_song_back(engine, draws) -> None:
    moved, song = morph(engine, draws=draws)
    assert (moved - song).abs().max() < 1e-5  # what was asked for; it is 0, since only the move is rounded
    assert torch.equal(moved, song)


def test_another_target_moves_the_song_and_more_steps_move_it_further(engine) -> None:
    c = conditions(engine)
    far = []
    for first in (8, 6, 3, 0):
        moved, song = morph(engine, target=other(c), first=first)
        far.append((moved - song).norm().item())
    assert far[0] == 0 and 0 < far[1] < far[2] < far[3]


def test_a_step_of_a_morph_is_the_published_one(engine) -> None:
    """One step without guidance, written out: z += (t' - t) (v_target(z + z_s - x) - v_source(z_s))."""
    c = conditions(engine)
    song, schedule = noise_for(c, 5), Schedule(2, guidance=1.0)
    source, target = (Guide(stock_field(engine), each, schedule) for each in (c, other(c)))
    noise, z = Noise(1), song.clone()
    with torch.no_grad():
        for t, after in ((1.0, 0.5), (0.5, 0.0)):
            eps = noise(song)
            z_s = (1 - t) * song + t * eps
            z_t = z + z_s - song
            z = z + (after - t) * (target.velocity(z_t, t) - source.velocity(z_s, t))
    torch.testing.assert_close(flow_edit(Morph(source, target, song, 0, 2), Noise(1)), z, rtol=1e-4, atol=1e-5)


def test_the_end_of_a_morph_is_led_by_the_target_alone(engine) -> None:
    """n_max 0: the song is noised wholly, and the target denoises it like any song of its own."""
    c = conditions(engine)
    moved, song = morph(engine, target=other(c), last=0)
    guide = Guide(stock_field(engine), other(c), Schedule(8, shift=2.0))
    torch.testing.assert_close(moved, denoise(guide, Noise(1)(song)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first, last, draws, forwards", [(0, 8, 1, 16), (2, 6, 1, 10), (2, 6, 3, 26), (8, 8, 1, 0)])
def test_what_a_morph_costs(engine, first, last, draws, forwards) -> None:
    assert len(seen_by(engine, lambda: morph(engine, first=first, last=last, draws=draws))) == forwards


def test_momentum_moves_once_a_step_by_the_mean_of_the_draws(engine) -> None:
    c = conditions(engine)
    guide = Guide(stock_field(engine), c, Schedule(8))
    views = [noise_for(c, seed) for seed in (1, 2)]
    with torch.no_grad():
        pairs = [guide.pair(z, 0.5) for z in views]
        sampler._mean(guide, views, 0.5)
    expected = sum(cond - uncond for cond, uncond in pairs) / 2
    torch.testing.assert_close(guide.momentum.running_average, expected)
