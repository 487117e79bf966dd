"""Experiments whose answer is known (notebooks 02, 03).

Planted and shuffled labels, overfitting, starts that stay.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from paper_lib import PaperError
from paper_lib.codec import l3ac
from paper_lib.core import config, paths, stages
from paper_lib.evaluation import scores
from paper_lib.recognition import beyond_labels, features, finetune, head, optimisers, recipes
from paper_lib.recognition import model as models
from paper_lib.sound import variation


def split(data, x, y, *names):
    return tuple((x[data.rows(n)], y[data.rows(n)]) for n in names)


def test_the_head_recovers_a_planted_linear_label(small):
    run, _, array = small
    x = np.array(array[:, 0])
    z = (x - x.mean(0)) / (x.std(0) + 1e-9)
    y = (z @ np.linalg.svd(z, full_matrices=False)[2][:13].T > 0).astype(np.float32)
    # clips at random: the question is whether the head finds a rule, not how 11 recordings stand
    # for a 12th
    rows = np.split(
        np.random.default_rng(0).permutation(len(x)), [int(0.7 * len(x)), int(0.85 * len(x))]
    )
    trained, _ = head.train_head((x[rows[0]], y[rows[0]]), (x[rows[1]], y[rows[1]]), run)
    assert (
        scores.scores(y[rows[2]], head.probabilities(trained, x[rows[2]]) > 0.5)["macro_f1"] > 0.9
    )


def test_shuffled_labels_stay_at_chance(small):
    run, data, array = small
    shuffled = data.labels[np.random.default_rng(0).permutation(len(data))]
    train, validation, test = split(
        data, np.array(array[:, 0]), shuffled, "train", "validation", "test"
    )
    trained, _ = head.train_head(train, validation, run)
    # average precision of a ranking that knows nothing is the prevalence; F1 at 0.5 would be 0 for
    # "never"
    found = scores.mean_average_precision(test[1], head.probabilities(trained, test[0]))
    assert found == pytest.approx(test[1].mean(), abs=0.08)


def test_a_standardised_head_does_not_care_about_the_embeddings_scale(small):
    run, data, array = small
    x, run = np.array(array[:, 0]), replace(run, head_epochs=5)
    _, one = head.train_head(*split(data, x, data.labels, "train", "validation"), run)
    _, other = head.train_head(*split(data, 64 * x, data.labels, "train", "validation"), run)
    assert one.validation_loss.to_numpy() == pytest.approx(
        other.validation_loss.to_numpy(), rel=1e-3
    )


def test_equation_4_by_hand():
    logits, truth = torch.tensor([[0.0, 2.0], [-1.0, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    p = torch.sigmoid(logits).double()
    by_hand = -(truth * p.log() + (1 - truth) * (1 - p).log()).sum() / 2
    assert head.bce(logits, truth).item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_seeds_of_a_head_differ_and_stay_what_they_were(small):
    run, data, _ = small
    run = replace(run, head_seeds=2, head_epochs=3)
    head.fit_heads(run, data, {"seeded": ("frozen", "mean", True)}, seeds=2)
    every = head.fitted_seeds(run, data, "seeded")
    assert every.shape == (2, len(data), 13) and not np.array_equal(*every)
    before = (paths.model(run.profile, "seeded", 1) / "head.safetensors").stat().st_mtime_ns
    head.fit_heads(run, data, {"seeded": ("frozen", "mean", True)}, seeds=2)
    assert (paths.model(run.profile, "seeded", 1) / "head.safetensors").stat().st_mtime_ns == before


def test_fine_tuning_starts_exactly_at_the_frozen_model_and_leaves_it_as_it_is(small):
    run, data, _ = small
    start, rows = finetune.starting_point(run, data).eval(), data.rows("validation")[:20]
    frozen, _ = head.fitted(run, data, "frozen")
    _, logits = finetune.predict(start, data, rows)
    assert torch.sigmoid(logits).numpy() == pytest.approx(frozen[rows], abs=1e-4)
    before, gradients = (
        features.weights_digest(start),
        [p.requires_grad for p in start.parameters()],
    )
    recipe = finetune.end_to_end(run, epochs=1, clips=8)
    made = [
        finetune.finetune(run, data, recipe, start, "from_start", (rows[:8], rows))[0]
        for _ in range(2)
    ]
    assert (
        features.weights_digest(start) == before
        and [p.requires_grad for p in start.parameters()] == gradients
    )
    assert features.weights_digest(made[0]) == features.weights_digest(made[1]) != before


def test_a_changed_start_is_another_training(small):
    run, data, _ = small
    start, rows = finetune.starting_point(run, data), data.rows("validation")[:8]
    recipe = finetune.end_to_end(run, epochs=1, clips=8)
    one, _ = finetune.finetune(run, data, recipe, start, "mutated", (rows, rows))
    with torch.no_grad():
        start.head.layers[0].weight.mul_(1.5)
    other, _ = finetune.finetune(run, data, recipe, start, "mutated", (rows, rows))
    assert features.weights_digest(one) != features.weights_digest(other)


@pytest.mark.parametrize("optimiser, kind", [("muon", "frozen_head"), ("adamw", "early_head")])
def test_the_upper_half_is_trained_and_the_lower_left_as_it_was(small, optimiser, kind):
    run, data, _ = small
    run = replace(
        run, upper_seconds=0.5, upper_batch=8, upper_optimiser=optimiser, finetune_start=kind
    )
    start, rows = finetune.starting_point(run, data), data.rows("train")[:64]
    lower = features.kept(run, data, "frozen").activations
    with torch.inference_mode():
        again = start.encoder.lower(torch.from_numpy(data.clips(rows[:2]))).numpy()
    assert lower[rows[:2]] == pytest.approx(again, abs=2e-3)
    recipe = finetune.upper_half(run, epochs=3)
    model, history = finetune.finetune(
        run, data, recipe, start, f"upper_{optimiser}", (rows, data.rows("validation"))
    )
    _, heads = head.fitted(run, data, "frozen")
    if kind == "frozen_head":
        assert history.validation_macro_f1[0] == pytest.approx(
            heads.validation_macro_f1.max(), abs=0.02
        )
    else:  # near the lowest that the frozen head had
        assert history.validation_loss[0] == pytest.approx(heads.validation_loss.min(), abs=0.3)
    assert history.train_loss[3] < history.train_loss[1]
    before, upper = start.encoder.state_dict(), {id(p) for p in model.encoder.upper_parameters()}
    for name, parameter in model.encoder.named_parameters():
        assert torch.equal(parameter, before[name]) != (id(parameter) in upper), name


def test_another_lower_half_and_other_recordings_have_activations_of_their_own(small):
    run, data, _ = small
    run = replace(run, upper_draws=1)
    start, rows = finetune.starting_point(run, data), data.rows("train")
    with torch.no_grad():
        start.encoder.encoder.blocks[0].conv_2.parametrizations.weight.original0.mul_(1.5)
    clips, content = finetune.half_way(run, data, start, rows)
    train, test = (data.rows(name)[:2] for name in ("train", "test"))
    with torch.inference_mode():
        own = start.encoder.lower(torch.from_numpy(data.clips(train))).numpy()
    assert clips.activations[train] == pytest.approx(own, abs=5e-3)
    kept = features.kept(run, data, "frozen").activations
    assert np.abs(kept[train] - own).max() > 0.1, "not the pretrained codec's"
    (otherwise,) = clips.otherwise
    assert np.abs(otherwise[train].astype(np.float32) - own).mean() > 0.01
    assert not otherwise[test].any(), "clips that are judged are judged as they are"
    drawn = [finetune.excerpts(clips, train[:1], 0, (0, epoch))[0].numpy() for epoch in range(12)]
    both = [kept[train[0]].astype(np.float32) for kept in clips.stored()[0]]
    seen = [[bool((x == one).all()) for one in both] for x in drawn]
    assert {tuple(which) for which in seen} == {(True, False), (False, True)}, "both are drawn"
    assert finetune.half_way(run, data, start, rows)[1] == content


def test_a_recording_heard_otherwise_has_another_level_colour_and_floor():
    torch.manual_seed(0)
    n, t = 4000, torch.arange(4000) / 16_000
    tone = 0.1 * torch.sin(2 * np.pi * 1000 * t).expand(512, n)
    change = 20 * torch.log10(variation.as_recorded_otherwise(tone).std(1) / tone.std(1))
    # 4.3 dB of level, and of the two neighbouring points' 3.5 dB what falls on 1 kHz
    place = 4 * np.log1p(1000 / 700) / np.log1p(8000 / 700)
    share = place % 1
    expected = np.hypot(4.3, 3.5 * np.hypot(share, 1 - share))
    assert float(change.std()) == pytest.approx(expected, rel=0.1)
    assert float(change.mean()) == pytest.approx(0, abs=0.8)
    floor = 20 * torch.log10(variation.as_recorded_otherwise(torch.zeros(64, n)).std(1))
    assert -91 < float(floor.min()) < -85 and -65 < float(floor.max()) < -59


def test_the_last_step_of_a_fine_tuning_is_always_called_finetuned():
    run = config.load("quick")
    orders = {
        ("upper_first", 20): {"upper": "upper", "finetuned": "all"},
        ("whole_first", 20): {"whole": "all", "finetuned": "upper"},
        ("whole_first", 0): {"finetuned": "all"},
    }
    for (order, epochs), expected in orders.items():
        steps = finetune.order(replace(run, finetune_order=order, upper_epochs=epochs))
        assert {name: recipe.part for name, recipe in steps.items()} == expected


def test_recipes_differ_in_what_they_say_and_in_nothing_else(small, monkeypatch):
    run, data, _ = small
    few = ("early head, two rates", "head alone (control)", "the paper's rates")
    monkeypatch.setattr(recipes, "RECIPES", {name: recipes.RECIPES[name] for name in few})
    curves = recipes.compare(replace(run, recipe_epochs=1, recipe_recordings=2), data, seeds=1)
    start = curves[curves.epoch == 0].set_index("recipe")
    assert list(start.index) == list(few) and (curves.groupby("recipe").size() == 2).all()
    assert start.validation_loss.nunique() == 1
    pretrained = finetune.starting_point(run, data).encoder.upper_parameters()
    made = [models.load(paths.model(run.profile, f"recipes/{i}_{run.seed}")) for i in range(3)]
    moves = [
        sum(
            (a - b).abs().sum().item()
            for a, b in zip(m.encoder.upper_parameters(), pretrained, strict=True)
        )
        for m in made
    ]
    assert moves[1] == 0 < moves[2] < 0.03 * moves[0]


def test_muon_is_torchs_own_in_single_precision():
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(96, 160, generator=generator)) for _ in range(2)]
    matrices[1].data.copy_(matrices[0].data)
    before = matrices[0].detach().clone()
    theirs = torch.optim.Muon(
        [matrices[0]], lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    )
    ours = optimisers.Muon([matrices[1]], lr=1e-2)
    for _ in range(4):
        gradient = torch.randn(96, 160, generator=generator)
        for matrix, optimiser in zip(matrices, (theirs, ours), strict=True):
            matrix.grad = gradient.clone()
            optimiser.step()
    # (torch's own works in bfloat16)
    assert (matrices[0] - matrices[1]).norm() < 0.02 * (matrices[0] - before).norm()


def test_muon_steps_the_matrices_and_adamw_the_rest(small):
    model = finetune.starting_point(small[0], small[1])
    upper, rates = (
        model.encoder.upper_parameters(),
        optimisers.Rates(1e-3, 2e-3, muon=True, beta2=0.98),
    )
    adam, muon = optimisers.optimisers(upper, model.head, rates)
    of = lambda optimiser: {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert not of(adam) & of(muon)
    assert of(adam) | of(muon) == {id(p) for p in upper} | {id(p) for p in model.head.parameters()}
    matrix = model.encoder.en_encoder.local_trans.layers[0][0].to_out.weight
    assert id(matrix) in of(muon)
    before, generator = matrix.detach().clone(), torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    matrix.grad = torch.outer(draw(len(matrix)), draw(matrix.shape[1])) + 0.01 * draw(*matrix.shape)
    muon.step()
    gradient, step = (torch.linalg.svdvals(m) for m in (matrix.grad, matrix.detach() - before))
    # where the gradient has one direction, the step has many; a weight moves no further than in
    # AdamW's
    assert gradient[1] < 0.01 * gradient[0] and step[len(step) // 2] > 0.3 * step[0]
    assert 0.05e-3 < step.square().sum().sqrt() / matrix.numel() ** 0.5 < 0.25e-3
    assert len(optimisers.optimisers(upper, model.head, replace(rates, muon=False))) == 1


def test_a_step_hears_another_excerpt_each_epoch_and_the_same_one_again_after_a_kill(small):
    _, data, _ = small
    rows = data.rows("train")[:40]
    one, again, other = (
        finetune.excerpts(data, rows, 4000, (0, "excerpt", e)).numpy() for e in (1, 1, 2)
    )
    for row, clip in list(zip(rows, one, strict=True))[:3]:
        whole = data.clips(row)
        assert any(np.array_equal(whole[s : s + 4000], clip) for s in range(12_001))
    assert (
        np.array_equal(one, again)
        and sum(np.array_equal(a, b) for a, b in zip(one, other, strict=True)) <= 1
    )
    assert finetune.excerpts(data, rows[:2], 20_000, (0,)).shape == (2, 16_000)


def test_the_rate_rises_then_falls_to_zero():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = optimisers.warm_cosine(optimiser, 100, 0.1), []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert np.argmax(rates) == 10 and max(rates) == 2.0 and rates[0] == pytest.approx(2 / 11)
    assert rates[55] == pytest.approx(1.0) and rates[-1] < 0.001
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0)


def test_partners_are_other_chains_of_the_same_slice():
    slices, train = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 3, 4, 5])
    partner = beyond_labels.partners(slices, train, 0)
    found = np.array([partner(train, "pair", step) for step in range(40)])
    assert (found[:, :4] == [1, 0, 4, 3]).all(), "of the training clips alone"
    assert (found[:, 4] == 5).all(), "a slice of one clip has no other"


def test_mixed_clips_and_labels_lie_between_the_two():
    one, other = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    got = beyond_labels.mixed(one, other, torch.tensor([0.25, 1.0]))
    assert (got[0] == 0.75).all() and (got[1] == 0).all()


def test_a_line_is_asked_for_what_the_other_network_says_at_that_moment(small):
    """Frames of a teacher that are its clock: 0, 1, 2 ... 19 over a clip."""
    run, data, _ = small
    model = finetune.starting_point(run, data)
    train = data.rows("train")[:4]
    clock = np.tile(np.arange(20.0)[None, :, None], (4, 1, 1))
    dense = beyond_labels.Dense(model, clock, train)
    dense.line.weight.data.zero_()
    audio = torch.from_numpy(data.clips(train[:2]))
    half = audio.shape[1] // 2
    for begin in (0.0, 0.5):
        x = audio[:, int(2 * begin * half) :][:, :half]
        dense.line.bias.data.fill_(20 * begin + 4.5)  # (the mean of what is to be said)
        _, away = dense(x, train[:2], np.full(2, begin), 0.5)
        assert away.item() == pytest.approx(np.var(np.arange(10)), rel=0.02)


def test_where_excerpts_begin_is_where_they_are_taken(small):
    _, data, _ = small
    rows, key = data.rows("train")[:6], (0, "excerpt", 1)
    taken, begins = finetune.excerpts(data, rows, 1000, key), finetune.starts(data, rows, 1000, key)
    for x, row, a in zip(taken.numpy(), rows, begins, strict=True):
        assert np.array_equal(x, data.clips([row])[0, a : a + 1000])
    same = finetune.excerpts(data, rows[::-1], 1000, key, drawn=rows)
    for x, row, a in zip(same.numpy(), rows[::-1], begins, strict=True):
        assert np.array_equal(x, data.clips([row])[0, a : a + 1000])


def test_each_lift_starts_where_the_recipe_does_and_is_another_training(small, monkeypatch):
    run, data, _ = small
    few = ("the recipe", "averaged weights", "recorded otherwise", "soft labels of the CNN",
           "the CNN's frames", "mixed with another chain", "pairs of one slice")  # fmt: skip
    monkeypatch.setattr(recipes, "LIFTS", {name: recipes.LIFTS[name] for name in few})
    curves = recipes.lift(replace(run, lift_epochs=1, lift_recordings=2), data, seeds=1)
    assert list(curves.recipe.unique()) == list(few)
    begun = curves[curves.epoch == 0]
    assert begun.validation_loss.nunique() == 1
    trained = curves[curves.epoch == 1].set_index("recipe")
    assert trained.validation_loss.nunique() == len(few)
    # the average changes what is judged, and nothing of the training itself
    losses = trained.train_loss
    assert losses["the recipe"] == losses["averaged weights"]
    assert losses.nunique() == len(few) - 1


@pytest.mark.slow
def test_32_clips_are_overfitted_end_to_end(small):
    run, data, _ = small
    rows = data.rows("train")
    rows = rows[np.random.default_rng(3).permutation(len(rows))][:32]
    model = models.EffectRecognizer.assemble(
        l3ac.load("shipped"), head.load_head(run, data), run.pooling
    )
    torch.manual_seed(0)
    model.head.layers = head.Head(128, run.hidden, 0.0).layers
    rates = optimisers.Rates(1e-3, 2e-3)
    recipe = finetune.end_to_end(
        run, rates=rates, epochs=56, batch=4, accumulation=1, clips=0, patience=0, evaluate_every=8
    )
    trained, _ = finetune.finetune(run, data, recipe, model, "overfit", (rows, rows))
    present = data.labels[rows].sum(0) > 0
    answers = (finetune.predict(trained, data, rows)[1] > 0).numpy()
    assert scores.scores(data.labels[rows][:, present], answers[:, present])["macro_f1"] == 1.0
    before = model.encoder.state_dict()
    assert any(not torch.equal(v, before[k]) for k, v in trained.encoder.state_dict().items())


def test_an_interrupted_upper_half_goes_on_with_both_optimisers_and_the_same_excerpts(
    small, monkeypatch
):
    run, data, _ = small
    run, rows = replace(run, upper_seconds=0.5), data.rows("train")[:64]
    start, recipe = (
        finetune.starting_point(run, data),
        finetune.upper_half(run, epochs=2, batch=8, checkpoint_every=1),
    )
    train = lambda name: finetune.finetune(run, data, recipe, start, name, (rows, rows[:16]))
    true, calls = finetune.excerpts, []

    def broken_off(*given):
        calls.append(given)
        if len(calls) > 12:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return true(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "excerpts", broken_off)
        train("upper_broken")
    folders = [paths.model("small", name) for name in ("upper_broken", "upper_whole")]
    for folder in folders:
        train(folder.name)
    broken, whole = (
        [stages.digest(f / n) for n in ("model.safetensors", "history.csv")] for f in folders
    )
    assert broken == whole


def test_a_saved_recognizer_answers_as_before(small, tmp_path):
    run, data, _ = small
    model = finetune.starting_point(run, data).eval()
    model.save_pretrained(tmp_path / "saved")
    x = torch.from_numpy(data.clips([3]))
    with torch.inference_mode():
        assert torch.equal(models.load(tmp_path / "saved")(x), model(x))
    with pytest.raises(PaperError, match="no recognizer in"):
        models.load(tmp_path / "nothing")


def test_stages_name_the_notebook_that_is_missing(small):
    _, data, _ = small
    with pytest.raises(PaperError, match="run notebook 02_frozen_embeddings first"):
        finetune.starting_point(config.load("tiny"), data)


def test_changed_parameters_are_a_new_stage(small):
    run, data, _ = small
    run, fit = replace(run, head_epochs=3), {"changing": ("frozen", "mean", True)}
    head.fit_heads(run, data, fit)
    one = head.fitted(run, data, "changing")[0]
    head.fit_heads(run, data, fit)
    assert np.array_equal(one, head.fitted(run, data, "changing")[0])
    head.fit_heads(replace(run, head_rate=1e-2), data, fit)
    assert not np.array_equal(one, head.fitted(run, data, "changing")[0])


def test_statistics_over_time():
    frames = torch.tensor([[[1.0], [3.0], [2.0]]])
    assert features.time_statistics(frames)[0, :, 0].tolist() == pytest.approx(
        [2.0, np.std([1, 3, 2]), 1.5]
    )
    assert features.pool(np.arange(6).reshape(1, 3, 2), "mean").tolist() == [[0, 1]]
    assert features.pool(np.arange(6).reshape(1, 3, 2), "mean_sd_mad").shape == (1, 6)
