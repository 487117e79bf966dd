"""CUDA graphs: a replayed training step is the step (the GPU part needs a GPU)."""

import copy

import pytest
import torch
from torch import nn

from paper_lib.core import graphs


def net(device):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Dropout(0.5), nn.Linear(32, 2)).to(device)


def test_on_a_cpu_it_is_the_model_itself():
    model, x, found = net("cpu").train(), torch.randn(4, 6), []
    for answers in (model, graphs.by_graph(model)):
        torch.manual_seed(1)
        found.append(answers(x))
    assert torch.equal(*found)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replayed_steps_are_the_steps():
    """Inputs of two shapes, dropout of a known seed: the same weights after twelve steps."""
    plain, replayed = net("cuda"), net("cuda")
    for model, answers in ((plain, plain), (replayed, graphs.by_graph(replayed))):
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        for step in range(12):
            torch.cuda.manual_seed_all(step)
            x = torch.linspace(-1, 1, 6 * (8 if step % 3 else 5), device="cuda").view(-1, 6)
            (answers(x) - 1).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
    start = net("cuda").state_dict()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(replayed.state_dict()[name], value, rtol=1e-4, atol=1e-5)
        assert not torch.equal(value, start[name]), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recording_leaves_the_random_numbers_alone():
    model, x = net("cuda").train(), torch.ones(3, 6, device="cuda")
    torch.cuda.manual_seed_all(1)
    answers = graphs.by_graph(copy.deepcopy(model))
    torch.cuda.manual_seed_all(1)
    first = answers(x)
    torch.cuda.manual_seed_all(1)
    assert torch.equal(first, answers(x))
