"""Part III: methods of adaptation against formulas written out, and a training that comes back."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn import functional as F

from paper_lib.adapters import methods
from paper_lib.adapters.methods import ALL, ATTENTION, BLOCK, METHODS, Method
from paper_lib.codec import encoder, l3ac
from paper_lib.recognition.head import Head
from paper_lib.recognition.model import EffectRecognizer

X = torch.randn(2, 128, 60, generator=torch.Generator().manual_seed(0))


def recognizer() -> EffectRecognizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EffectRecognizer.assemble(l3ac.load("shipped"), Head(128), "mean").eval()


def folded() -> EffectRecognizer:
    """The recognizer without weight norm: peft's base."""
    model = recognizer()
    encoder.bake(model.encoder.encoder)
    encoder.bake(model.encoder.en_encoder)
    return model


def adapted(method: Method, moved: float = 0.0) -> EffectRecognizer:
    """A recognizer with this method; all that it trains moved by noise of this size."""
    model, rng = methods.attach(recognizer(), method), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in methods.trained(model).values():
            parameter += moved * torch.randn(parameter.shape, generator=rng)
    return model.eval()


def answer(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(X)


@pytest.mark.parametrize("kind, rank, where, numbers", [
    ("lora", 4, ATTENTION, 4_096), ("lora", 16, ATTENTION, 16_384),
    ("lora", 64, ATTENTION, 65_536), ("lora", 128, ATTENTION, 131_072),
    ("lora", 4, BLOCK, 9_212), ("lora", 128, BLOCK, 294_784),
    ("lora", 4, ALL, 9_212 + 2 * 4 * (128 + 512)),
    ("bottleneck", 4, BLOCK, 2_312), ("bottleneck", 16, BLOCK, 8_480),
    ("prefix", 8, ATTENTION, 3_072), ("head", 0, ATTENTION, 0),
])  # fmt: skip
def test_a_method_trains_as_many_numbers_as_its_formula_says(kind, rank, where, numbers):
    model = adapted(Method("x", kind, rank, where))
    assert sum(p.numel() for p in methods.trained(model).values()) == numbers


def test_unfreezing_from_the_top_ends_with_the_whole_upper_half():
    rows = [set(methods.trained(adapted(Method("x", "unfreeze", n)))) for n in (1, 2, 3, 4)]
    assert all(a < b for a, b in pairwise(rows))
    model = adapted(Method("x", "unfreeze", 4))
    upper = {id(p) for p in model.encoder.upper_parameters()}
    assert {id(p) for p in methods.trained(model).values()} == upper


@pytest.mark.parametrize("where", [ATTENTION, BLOCK, ALL], ids=len)
def test_peft_s_lora_is_w_plus_b_a_in_every_layer(where):
    """Also where the encoder reads a layer's weight instead of calling the layer."""
    model = adapted(Method("x", "lora", 8, where), moved=0.05)
    plain = folded()
    for name in methods.targets(plain.encoder, where):
        layer = model.encoder.get_submodule(name)
        b, a = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        plain.encoder.get_submodule(name).weight.data += (b @ a).detach()
    gap = (answer(model) - answer(plain)).abs().max()
    assert gap < 1e-5 * answer(plain).abs().max()
    assert (answer(model) - answer(recognizer())).abs().max() > 0.01


@pytest.mark.parametrize("method", [m for m in METHODS if m.kind in ("lora", "dora", "ia3")],
                         ids=lambda m: m.name)  # fmt: skip
def test_merged_is_unmerged(method):
    model = adapted(method, moved=0.05)
    before = answer(model)
    merged = methods.merge(model)
    assert not any(isinstance(m, BaseTunerLayer) for m in merged.modules())
    assert (answer(merged) - before).abs().max() < 1e-5 * before.abs().max()
    assert (before - answer(recognizer())).abs().max() > 0.01


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_method_moves_only_its_own_weights(method):
    model = adapted(method)
    own = {id(p) for p in (*methods.trained(model).values(), *model.head.parameters())}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    stepper = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(2):  # (with B at nought, A gets a gradient from the second step on)
        stepper.zero_grad()
        model.train()(X).square().sum().backward()
        stepper.step()
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == (id(parameter) in own), name


def test_without_its_adapter_the_base_is_as_it_was_to_the_bit():
    base = folded()
    model = adapted(Method("x", "lora", 16, BLOCK), moved=0.05)
    for layer in (m for m in model.modules() if isinstance(m, BaseTunerLayer)):
        layer.enable_adapters(False)
    assert torch.equal(answer(model), answer(base))


def test_a_bottleneck_begins_as_nothing():
    model = adapted(Method("x", "bottleneck", 16, BLOCK))
    assert torch.equal(answer(model), answer(recognizer()))


def test_a_prefix_is_attended_to_as_the_formula_says():
    """softmax(Q [P_K, K]^T / sqrt(d) + bias) [P_V, V], nothing added to the prefix's scores."""
    model = adapted(Method("x", "prefix", 8), moved=0.5)
    transformer = model.encoder.en_encoder.local_trans
    attention, x = transformer.layers[0][0], X.transpose(1, 2)
    bias = encoder._bias(transformer, x.device)
    got = encoder._local(attention, x, bias, transformer.window_size)
    n, heads = x.shape[1], attention.heads
    q, k, v = (
        part.view(2, n, heads, -1).transpose(1, 2)
        for part in attention.to_qkv(attention.norm(x)).chunk(3, -1)
    )
    own = attention.prefix[:, None].expand(2, 2, -1, -1, -1)
    k, v = torch.cat([own[0], k], 2), torch.cat([own[1], v], 2)
    window = transformer.window_size
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    scores[..., 8:] += bias[..., :n, window : window + n]
    wanted = attention.to_out((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, n, -1))
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_nf4_is_the_nearest_of_sixteen_levels_times_the_largest_of_64_weights():
    from bitsandbytes.functional import dequantize_4bit, get_4bit_type

    model = adapted(Method("x", "qlora", 4, ATTENTION))
    layer = model.encoder.en_encoder.local_trans.layers[0][0].to_qkv.get_base_layer()
    weight = folded().encoder.en_encoder.local_trans.layers[0][0].to_qkv.weight.detach()
    levels = get_4bit_type("nf4", device="cpu")
    blocks = weight.reshape(-1, 64)
    largest = blocks.abs().max(1, keepdim=True).values
    nearest = (blocks[..., None] / largest[..., None] - levels).abs().argmin(-1)
    wanted = (levels[nearest] * largest).reshape(weight.shape)
    got = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    # (the scales are kept in 8 bits themselves)
    assert torch.allclose(got.reshape(weight.shape), wanted, rtol=0.03, atol=1e-4)
    assert 0.02 < (wanted - weight).norm() / weight.norm() < 0.2


def test_gradients_pass_through_four_bits_also_after_an_answer():
    """As through LoRA on the same weights in 32 bits, once those are what four bits hold."""
    from bitsandbytes.functional import dequantize_4bit

    model, plain = (adapted(Method("x", kind, 4, BLOCK)) for kind in ("qlora", "lora"))
    with torch.no_grad():
        for one, other in zip(*(methods.trained(m).values() for m in (model, plain)), strict=True):
            other.copy_(one.copy_(one + 0.05 * torch.randn_like(one)))
    for name in methods.targets(model.encoder, BLOCK):
        small, whole = (m.encoder.get_submodule(name).get_base_layer() for m in (model, plain))
        whole.weight.data = dequantize_4bit(small.weight.data, small.weight.quant_state).clone()
    assert torch.allclose(answer(model), answer(plain), atol=1e-4)
    found = []
    for one in (model, plain):
        torch.manual_seed(0)  # (the head's dropout)
        one.train()(X).square().sum().backward()
        found.append({n: p.grad for n, p in methods.trained(one).items()})
    for name, gradient in found[1].items():
        gap = (found[0][name] - gradient).abs().max()
        assert gap <= 1e-3 * gradient.abs().max(), name


def test_the_affine_map_of_a_wrapped_layer_is_read_off_its_answers():
    model = adapted(Method("x", "dora", 4, ALL), moved=0.05)
    layer = model.encoder.get_submodule(methods.targets(model.encoder, ("pointwise",))[0])
    weight, bias = encoder.affine(layer)
    x = torch.randn(5, layer.in_features)
    assert torch.allclose(F.linear(x, weight, bias), layer(x), atol=1e-4)
    plain = copy.deepcopy(layer.get_base_layer())
    assert encoder.affine(plain)[0] is plain.weight


def test_a_training_comes_back_as_it_was_and_the_same_twice(small):
    from paper_lib.adapters import training
    from paper_lib.recognition import features

    profile, data, _ = small
    method = Method("LoRA everywhere", "lora", 4, ALL, 1e-2)
    folder = training.fit(profile, data, method, 0)
    kept = np.load(folder / "test.npy")
    model = training.load(profile, data, method, 0)
    clips = features.kept(profile, data, "frozen")
    again = torch.sigmoid(training.logits(model, clips, data.rows("test"))).numpy()
    assert np.array_equal(again, kept)
    record = (folder / "provenance.json").read_text()
    for file in folder.iterdir():
        file.unlink()
    assert (training.fit(profile, data, method, 0) / "provenance.json").read_text() == record
