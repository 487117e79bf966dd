"""A chain as a preset: every chain once, a search that finds it, orders that cannot be heard."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from paper_lib import PaperError
from paper_lib.proxies import bridge
from paper_lib.proxies.bridge import Pairs
from paper_lib.sound import audio, effects, rendering


def test_every_chain_is_there_once_and_is_one_that_may_be():
    every = bridge.every_chain()
    assert len(every) == len(set(every)) == 266 and every[0] == effects.DRY
    assert all(effects.check(chain) == chain for chain in every)
    assert set(effects.plan("paper50", include_dry=True)) <= set(every)
    with pytest.raises(PaperError, match="3 effects at most"):  # (that plan has longer ones)
        bridge.as_places(effects.plan("guo221", include_dry=True))
    places = bridge.as_places([("reverb", "low_boost"), ("low_boost", "reverb")])
    assert not np.array_equal(*places) and places.sum(1).tolist() == [2, 2]
    labels = bridge.labels_of([("reverb", "low_boost"), ()])
    assert [effects.NAMES[i] for i in np.flatnonzero(labels[0])] == ["reverb", "low_boost"]
    assert not labels[1].any()


def test_linear_effects_that_do_not_change_with_time_can_be_exchanged_and_others_not():
    """What COMMUTING says of SoX, by rendering: noise in, both orders, the difference in level."""
    drawn = np.random.default_rng(0).standard_normal(2 * 44_100)

    def apart(a: str, b: str, level: float) -> float:
        noise = audio.to_int16(np.clip(level * drawn, -1, 1))
        both = [
            audio.to_float(
                rendering.render(rendering.render(noise, 44_100, (one,)), 44_100, (two,))
            )
            for one, two in ((a, b), (b, a))
        ]
        return float(np.std(both[0] - both[1]) / np.std(both[0]))

    for a, b in (("reverb", "slapback_delay"), ("feedback_delay", "low_boost"),
                 ("low_reduct", "high_reduct")):  # fmt: skip
        assert {a, b} <= set(bridge.COMMUTING) and apart(a, b, 0.05) < 0.01, (a, b)
    for a, b in (("distortion", "reverb"), ("flanger", "reverb"), ("tremolo", "slapback_delay")):
        assert not {a, b} <= set(bridge.COMMUTING) and apart(a, b, 0.3) > 0.1, (a, b)


def made_up(many: int, seed: int) -> Pairs:
    """Clips whose embeddings a chain changes by a sum of vectors, one an effect."""
    rng = np.random.default_rng(seed)
    every = bridge.every_chain()
    chains = [every[i] for i in rng.integers(len(every), size=many)]
    change = np.random.default_rng(9).normal(size=(13, 24)).astype(np.float32)
    dry = rng.normal(size=(many, 24)).astype(np.float32)
    wet = dry + bridge.labels_of(chains).astype(np.float32) @ change
    return Pairs(dry, wet, chains, np.arange(many).astype(str))


def test_a_search_finds_the_chain_of_a_proxy_that_has_learned_it():
    proxy, tested = bridge.fit(made_up(1500, 0), 0, epochs=40), made_up(40, 1)
    found = bridge.with_the_dry_clip(proxy, tested, bridge.every_chain())
    assert np.mean([a == b for a, b in zip(found, tested.chains, strict=True)]) > 0.8
    own = np.abs(tested.wet - tested.dry).mean()
    said = np.stack([
        bridge.said(proxy, tested.dry[i : i + 1], [c])[0, 0] for i, c in enumerate(tested.chains)
    ])  # fmt: skip
    assert np.abs(said - tested.wet).mean() < 0.3 * own
    without = bridge.without_it(proxy, tested, tested.dry, bridge.every_chain()[:20])
    assert len(without) == 40 and set(without) <= set(bridge.every_chain()[:20])


def test_the_likeliest_chain_is_one_that_may_be():
    p = np.full((1, 13), 0.1)
    p[0, [effects.NAMES.index(n) for n in ("chorus", "flanger", "reverb")]] = (0.6, 0.9, 0.7)
    assert bridge.likeliest(p, bridge.every_chain()) == [("flanger", "reverb")]


def test_a_proxy_begins_near_the_dry_clip_and_two_fits_are_alike():
    torch.manual_seed(0)
    proxy = bridge.Proxy(8)
    dry = torch.randn(5, 8)
    added = proxy(dry, torch.zeros(5, 39)) - dry
    assert added.abs().mean() < 0.3 * dry.abs().mean()
    one, two = (bridge.fit(made_up(128, 0), 3, epochs=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_order_that_a_proxy_knows_is_found():
    tested = made_up(1, 2)
    two = [("distortion", "reverb"), ("reverb", "distortion")]
    orders = Pairs(
        np.repeat(tested.dry, 2, 0), np.stack([np.zeros(24), np.ones(24)]).astype(np.float32),
        two, np.array(["a", "a"]),
    )  # fmt: skip

    class Knows(torch.nn.Module):
        scale = torch.ones(24)

        def forward(self, dry: torch.Tensor, chain: torch.Tensor) -> torch.Tensor:
            first = chain[:, : len(effects.NAMES)]
            return first[:, [effects.NAMES.index("reverb")]].expand(-1, 24)

    table = bridge.right_order(Knows(), orders)
    assert table.right.tolist() == [1, 1] and table.apart.tolist() == [1, 1]
    assert table.pair.tolist() == ["distortion + reverb"] * 2 and not table.commutes.any()


@pytest.mark.slow
def test_notebook_21s_clips_are_kept_and_answers_have_a_row_a_seed(small):
    profile, data, _ = small
    run = replace(profile, order_recordings=1, proxy_seeds=2, head_epochs=1)
    first = bridge.pairs(run, data, "test").dry
    shutil.rmtree(bridge.stage(run, data).folder)
    assert np.array_equal(first, bridge.pairs(run, data, "test").dry)
    said = bridge.answers(run, data)
    table = bridge.table(run, data, said)
    assert set(said) == set(bridge.METHODS.values()) == set(table.method)
    assert all(x.shape == (2, len(data.rows("test")), 13) for x in said.values())
    tested = bridge.ordered(run, data, "test")
    assert len(tested) == len(bridge.both_orders())
    trained = bridge.ordered(run, data, "train")
    assert not set(trained.recordings) & set(tested.recordings)
    part = bridge.pairs(run, data, "test")
    dry = [i for i, c in enumerate(part.chains) if not c]
    assert np.allclose(part.dry[dry], part.wet[dry], atol=1e-4)  # (a dry clip is its own)
