"""The codec's anatomy: counts by hand, receptive fields three ways (notebook 06)."""

import pytest
import torch
from torch import nn

from paper_lib.codec import anatomy, l3ac
from paper_lib.codec.encoder import Encoder

# (its sizes; the weights are random: what depends on what does not depend on them)
SMALL = "shipped"


@pytest.fixture(scope="module")
def network():
    return anatomy.exact(l3ac.build(l3ac.config_of(SMALL)))


def test_multiply_accumulates_by_hand():
    layer = nn.Sequential(nn.Conv1d(3, 8, 5, padding=2), nn.Conv1d(8, 8, 7, groups=8))
    assert anatomy.gmacs(layer, torch.zeros(1, 3, 100)) * 1e9 == 3 * 8 * 5 * 100 + 8 * 7 * 94
    assert anatomy.gmacs_of_shape(nn.Linear(16, 4), 2, 50, 16) * 1e9 == 2 * 50 * 16 * 4


def test_spans_of_single_layers_by_hand():
    assert anatomy.span(nn.Conv1d(1, 1, 5, padding=2, dilation=3), 10, 10) == (8, 20)
    assert anatomy.span(nn.Conv1d(1, 1, 4, stride=4), 10, 11) == (40, 47)
    assert anatomy.span(nn.Upsample(scale_factor=4, mode="linear"), 40, 40) == (9, 10)


@pytest.mark.parametrize("frame", [0, 7, 29])
def test_arithmetic_and_perturbation_agree_to_the_sample(network, frame):
    x = 0.1 * torch.randn(
        1, 32 * 160, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    first, last = anatomy.chain_span([network.encoder, network.en_encoder], frame, frame)
    truth = (max(0, first), min(x.shape[1] - 1, last))
    assert (
        anatomy.receptive_field(Encoder(network), x, frame)
        == truth
        == anatomy.receptive_field(Encoder(network), x, frame, truth)
    )
    # a wrong guess is not believed
    wrong = (truth[0] + 1, truth[1] - 1)
    assert anatomy.receptive_field(Encoder(network), x, frame, wrong) == truth


def test_attention_sees_its_block_and_the_one_before(network):
    window = network.en_encoder.local_trans.window_size
    tokens = torch.randn(
        1, 3 * window, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    for token, first in ((window - 1, 0), (2 * window - 1, 0), (2 * window, window)):
        assert anatomy.span(network.en_encoder, token, token) == (first, token)
        assert anatomy.receptive_field(
            lambda t: network.en_encoder(t.transpose(1, 2)), tokens, token
        ) == (first, token)


def test_with_its_padding_on_the_left_the_encoder_is_causal():
    network = anatomy.exact(l3ac.build(l3ac.config_of(SMALL)))
    anatomy.causal(network.encoder)
    x = 0.1 * torch.randn(
        1, 20 * 160, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    encoder = Encoder(network)
    assert encoder(x).shape[1] == 20
    assert (
        anatomy.chain_span([network.encoder, network.en_encoder], 10, 10)[1]
        == anatomy.receptive_field(encoder, x, 10)[1]
        == 10 * 160 + 159
    )


def test_the_decoder_hears_the_whole_clip_through_its_instance_norm():
    network = l3ac.build(l3ac.config_of(SMALL))
    assert anatomy.span(network.decoder, 500, 500) == anatomy.EVERYTHING
    anatomy.exact(anatomy.without_instance_norm(network))
    first, last = anatomy.span(network.decoder, 4000, 4000)
    tokens = torch.randn(
        1, 120, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    found = anatomy.receptive_field(
        lambda t: network.decoder(t.transpose(1, 2))[:, 0], tokens, 4000
    )
    # a maximum passes on the largest alone, so perturbation may find less
    assert first <= found[0] < 25 < found[1] <= last


def test_an_exact_network_says_the_same():
    network = l3ac.build(l3ac.config_of(SMALL))
    x = 0.1 * torch.randn(1, 1600, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = Encoder(network)(x)
        assert Encoder(anatomy.exact(network))(x.double()).float() == pytest.approx(
            before, abs=1e-4
        )


def test_the_counter_sees_a_recurrent_layer():
    lstm, steps = torch.nn.LSTM(8, 16, 2), 50
    weights = sum(w.numel() for name, w in lstm.named_parameters() if "weight" in name)
    assert anatomy.gmacs(lstm, torch.zeros(steps, 1, 8)) * 1e9 == weights * steps
    assert torch.backends.mkldnn.enabled
