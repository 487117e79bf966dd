"""A token model begun from a GPT-2 of random weights: transformers' own answers are the truth."""

import pytest
import torch
from transformers import GPT2Config, GPT2Model

from paper_lib import PaperError
from paper_lib.tokens import model, text

LAYERS = 3


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A GPT-2 as wide as our model `small`, without dropout, its GELU exact; and its folder."""
    torch.manual_seed(0)
    own = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "activation_function": "gelu"}
    config = GPT2Config(vocab_size=7, n_positions=9, n_embd=96, n_layer=LAYERS, n_head=4, **own)
    network = GPT2Model(config).eval()
    with torch.no_grad():
        for value in network.parameters():  # (fresh norms and biases are ones and noughts)
            value.add_(0.1 * torch.randn_like(value))
    folder = tmp_path_factory.mktemp("gpt2")
    network.save_pretrained(folder)
    return network, folder


def token_model(layers: int = LAYERS, width: int = 96) -> model.TokenModel:
    torch.manual_seed(1)
    return model.TokenModel((5, 5), model.Size(width, layers, 4), look_ahead=0).eval()


def test_without_rotation_it_answers_as_that_gpt2_does(published, monkeypatch):
    network, folder = published
    net = token_model()
    before = net.to_global.weight.clone()
    text.begin(net, folder)
    monkeypatch.setattr(model, "rotated", lambda x: x)
    x = torch.randn(2, 9, 96)
    with torch.inference_mode():
        places = network.wpe.weight  # (GPT-2 adds its places to what comes in)
        wanted = network(inputs_embeds=x - places).last_hidden_state
        states, past = x, torch.ones(9, 9).tril().bool()
        for layer in net.layers:
            states = layer(states, past)
        assert (net.norm(states) - wanted).abs().max() < 1e-5
    assert torch.equal(net.to_global.weight, before), "what is not GPT-2's stays as it was"


def test_fewer_layers_are_its_first_ones(published):
    network, folder = published
    net = token_model(layers=2)
    text.begin(net, folder)
    assert torch.equal(net.layers[1].to_qkv.weight, network.h[1].attn.c_attn.weight.T)


@pytest.mark.parametrize("size", [{"layers": LAYERS + 1}, {"width": 64}])
def test_another_size_is_refused_and_nothing_changed(published, size):
    net = token_model(**size)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(PaperError, match="96 wide, with 4 heads and 3 layers; token_size asks for"):
        text.begin(net, published[1])
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_what_is_no_gpt2_and_what_is_nowhere_is_said(published, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(PaperError, match="a GPT-2 is needed, not 'bert'"):
        text.begin(token_model(), tmp_path)
    with pytest.raises(PaperError, match=r"holds no model\.safetensors"):
        text.fetch(str(tmp_path))
    assert text.fetch(str(published[1]))[1] == text.fetch(str(published[1]))[1] != ""


def test_gpt2_small_has_the_size_of_the_papers_global_encoder():
    size, theirs = model.SIZES["paper"], GPT2Config()
    own = (size.width, size.heads, size.layers)
    assert own == (theirs.n_embd, theirs.n_head, theirs.n_layer)
