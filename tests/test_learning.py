"""Experiments whose answer is known: planted and shuffled labels, overfitting, kill and resume (notebooks 02 and 03)."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from paper_lib import PaperError, corpus, dataset, embedding, metrics, paths, profiles, provenance, recipes, recognizer, training


def head_score(run, data, x, y, rows=None):
    train, val, test = rows or (data.rows(s) for s in ("train", "validation", "test"))
    head, _ = training.train_head(x[train], y[train], x[val], y[val], run)
    with torch.inference_mode():
        return metrics.scores(y[test], (head(torch.from_numpy(x[test])) > 0).numpy())["macro_f1"]


def test_the_head_recovers_a_planted_linear_label(small):
    run, data, array = small
    x = np.array(array[:, 0])
    z = (x - x.mean(0)) / (x.std(0) + 1e-9)
    directions = np.linalg.svd(z, full_matrices=False)[2][:13]
    # clips at random: the question is whether the head finds a rule that is there, not how 11 recordings stand for a 12th
    rows = np.split(np.random.default_rng(0).permutation(len(x)), [int(0.7 * len(x)), int(0.85 * len(x))])
    assert head_score(run, data, x, (z @ directions.T > 0).astype(np.float32), rows) > 0.9


def test_shuffled_labels_stay_at_chance(small):
    run, data, array = small
    shuffled = data.labels[np.random.default_rng(0).permutation(len(data))]
    x, (train, val, test) = np.array(array[:, 0]), (data.rows(s) for s in ("train", "validation", "test"))
    head, _ = training.train_head(x[train], shuffled[train], x[val], shuffled[val], run)
    with torch.inference_mode():
        probability = torch.sigmoid(head(torch.from_numpy(x[test]))).numpy()
    # average precision of a ranking that knows nothing is the prevalence; F1 at 0.5 would be 0 for a head that says no to all
    assert metrics.mean_average_precision(shuffled[test], probability) == pytest.approx(shuffled[test].mean(), abs=0.08)


def test_a_standardised_head_does_not_care_about_the_embeddings_scale(small):
    run, data, array = small
    x = np.array(array[:, 0])
    train, val = data.rows("train"), data.rows("validation")
    run = replace(run, head_epochs=5)
    _, one = training.train_head(x[train], data.labels[train], x[val], data.labels[val], run)
    _, other = training.train_head(64 * x[train], data.labels[train], 64 * x[val], data.labels[val], run)
    assert one.validation_loss.to_numpy() == pytest.approx(other.validation_loss.to_numpy(), rel=1e-3)


def test_equation_4_by_hand():
    logits, truth = torch.tensor([[0.0, 2.0], [-1.0, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    p = torch.sigmoid(logits).double()
    by_hand = -(truth * p.log() + (1 - truth) * (1 - p).log()).sum() / 2
    assert training.bce(logits, truth).item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_fine_tuning_starts_exactly_at_the_frozen_model(small):
    run, data, array = small
    model, rows = training.starting_point(run).eval(), data.rows("validation")[:20]
    frozen, _ = training.fit_head(run, data, array, "frozen", run.pooling, run.standardise)
    _, logits = training.predict(model, data, rows)
    assert torch.sigmoid(logits).numpy() == pytest.approx(frozen[rows], abs=1e-4)


@pytest.mark.parametrize("optimiser, head", [("muon", "frozen_head"), ("adamw", "early_head")])
def test_the_upper_half_is_trained_and_the_lower_left_as_it_was(small, optimiser, head):
    run, data, _ = small
    run = replace(run, upper_seconds=0.5, upper_batch=8, upper_optimiser=optimiser, finetune_start=head)
    start = training.starting_point(run)
    rows = data.rows("train")[:64]
    lower = embedding.halfway_up(run, data)
    with torch.inference_mode():
        assert lower[rows[:2]] == pytest.approx(start.encoder.lower(torch.from_numpy(data.clips(rows[:2]))).numpy(), abs=2e-3)
    model, history = training.finetune_upper(run, data, f"upper_{optimiser}", epochs=3, train_rows=rows)
    _, heads = training.fit_head(run, data, embedding.embed_dataset(run, data, "frozen"), "frozen", run.pooling, run.standardise)
    if head == "frozen_head":
        assert history.validation_macro_f1[0] == pytest.approx(heads.validation_macro_f1.max(), abs=0.02)
    else:
        assert history.validation_loss[0] == pytest.approx(heads.validation_loss.min(), abs=0.3)  # near the lowest that the frozen head had
    assert history.train_loss[3] < history.train_loss[1]
    before, upper = start.encoder.state_dict(), {id(p) for p in model.encoder.upper_parameters()}
    for name, parameter in model.encoder.named_parameters():
        assert torch.equal(parameter, before[name]) != (id(parameter) in upper), name


def test_a_start_with_another_lower_half_is_refused(small):
    run, data, _ = small
    start = training.starting_point(run)
    with torch.no_grad():
        start.encoder.encoder.blocks[0].conv_2.parametrizations.weight.original1.mul_(1.01)
    with pytest.raises(PaperError, match="another lower half"):
        training.finetune_upper(run, data, "foreign", start=start)


def test_recipes_differ_in_what_they_say_and_in_nothing_else(small):
    run, data, _ = small
    curves = recipes.compare(replace(run, recipe_epochs=1, recipe_recordings=4), data, seeds=1)
    start = curves[curves.epoch == 0].set_index("recipe")
    assert list(start.index) == list(recipes.RECIPES) and (curves.groupby("recipe").size() == 2).all()
    alike = start.loc[["early head, two rates", "no warm-up", "the paper's rates"]]
    assert alike.validation_loss.nunique() == 1
    assert start.validation_loss["converged head"] >= alike.validation_loss.iloc[0] - 1e-6
    pretrained = training.starting_point(run).encoder.upper_parameters()
    upper = lambda i: recognizer.load(paths.data(run.profile) / "models" / "recipes" / f"{i}_{run.seed}").encoder.upper_parameters()
    moved = {name: sum((a - b).abs().sum().item() for a, b in zip(upper(i), pretrained)) for i, name in enumerate(recipes.RECIPES)}
    assert moved["head alone (control)"] == 0 < moved["the paper's rates"] < 0.03 * moved["no warm-up"]
    assert start.validation_loss["Muon on excerpts"] == start.validation_loss["converged head"] and moved["Muon on excerpts"] > 10 * moved["the paper's rates"]


def test_muon_steps_the_matrices_and_adamw_the_rest(small):
    model = training.starting_point(small[0])
    upper = model.encoder.upper_parameters()
    plan = {"muon": True, "encoder_rate": 1e-3, "head_rate": 2e-3, "beta2": 0.98}
    adam, muon = training.optimisers(upper, model.head, plan, 0.0)
    of = lambda optimiser: {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert not of(adam) & of(muon) and of(adam) | of(muon) == {id(p) for p in upper} | {id(p) for p in model.head.parameters()}
    matrix = model.encoder.en_encoder.local_trans.layers[0][0].to_out.weight
    assert id(matrix) in of(muon)
    before, generator = matrix.detach().clone(), torch.Generator().manual_seed(0)
    matrix.grad = torch.outer(torch.randn(len(matrix), generator=generator), torch.randn(matrix.shape[1], generator=generator)) + 0.01 * torch.randn(matrix.shape, generator=generator)
    muon.step()
    gradient, step = (torch.linalg.svdvals(m) for m in (matrix.grad, matrix.detach() - before))
    assert gradient[1] < 0.01 * gradient[0] and step[len(step) // 2] > 0.3 * step[0]  # where the gradient has one direction, the step has many
    assert 0.05e-3 < step.square().sum().sqrt() / matrix.numel() ** 0.5 < 0.25e-3  # and a weight moves no further than in one of AdamW's
    assert len(training.optimisers(upper, model.head, plan | {"muon": False}, 0.0)) == 1


def test_a_step_hears_another_excerpt_each_epoch_and_the_same_one_again_after_a_kill(small):
    _, data, _ = small
    rows = data.rows("train")[:40]
    epoch = lambda e: [clip.numpy() for clip, _ in training.Clips(data, rows, 4000, (0, "excerpt", e))]
    one, again, other = epoch(1), epoch(1), epoch(2)
    place = [np.flatnonzero([np.array_equal(data.clips(row)[s : s + 4000], clip) for s in range(12_001)]) for row, clip in list(zip(rows, one))[:3]]
    assert all(len(p) for p in place) and all(np.array_equal(a, b) for a, b in zip(one, again))
    assert sum(np.array_equal(a, b) for a, b in zip(one, other)) <= 1
    assert all(len(clip) == 16_000 for clip, _ in training.Clips(data, rows[:2], 20_000, (0,)))


def test_the_rate_rises_then_falls_to_zero():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = training.warm_cosine(optimiser, 100, 0.1), []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step(), schedule.step()
    assert np.argmax(rates) == 10 and max(rates) == 2.0 and rates[0] == pytest.approx(2 / 11) and rates[55] == pytest.approx(1.0) and rates[-1] < 0.001
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0)


def test_32_clips_are_overfitted_end_to_end(small):
    run, data, _ = small
    rows = data.rows("train")
    rows = rows[np.random.default_rng(3).permutation(len(rows))][:32]
    run = replace(run, finetune_start="fresh_head", finetune_clips=0, finetune_batch=4, accumulation=1, finetune_patience=100, dropout=0.0)
    model, history = training.finetune(run, data, "overfit", encoder_rate=1e-3, head_rate=2e-3, epochs=24, train_rows=rows, validation_rows=rows)
    present = data.labels[rows].sum(0) > 0
    _, logits = training.predict(model, data, rows)
    said = (logits > 0).numpy()
    assert metrics.scores(data.labels[rows][:, present], said[:, present])["macro_f1"] == 1.0
    start = training.starting_point(run).encoder.state_dict()
    assert any(not torch.equal(v, start[k]) for k, v in model.encoder.state_dict().items()), "the encoder did not move"


CODE = """
import sys; from dataclasses import replace; from paper_lib import dataset, profiles, training
run = replace(profiles.load("tiny", profile="small", recordings=16, head_epochs=40), finetune_clips=48)
training.finetune(run, dataset.load(run), "resumed", epochs=2, checkpoint_every=1)
"""


def test_a_killed_training_resumes_to_the_same_weights(small, tmp_path):
    run, data, _ = small
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    models = paths.data("small") / "models"
    results = []
    for kill in (True, False):
        if kill:
            process = subprocess.Popen([sys.executable, "-c", CODE], env=environment, cwd=paths.ROOT, stderr=subprocess.DEVNULL)
            checkpoint = models / "resumed.partial" / "checkpoint.pt"
            while process.poll() is None and not checkpoint.exists():
                time.sleep(0.01)
            time.sleep(0.5)
            assert process.poll() is None, "finished before it could be killed"
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not (models / "resumed").exists()
        subprocess.run([sys.executable, "-c", CODE], env=environment, cwd=paths.ROOT, check=True, stderr=subprocess.DEVNULL)
        results.append([provenance.digest(models / "resumed" / f) for f in ("model.safetensors", "history.csv")])
        if kill:
            (models / "resumed").rename(tmp_path / "first")
    assert results[0] == results[1]


def test_an_interrupted_upper_half_goes_on_with_both_optimisers_and_the_same_excerpts(small, monkeypatch):
    run, data, _ = small
    run, rows, heard, true = replace(run, upper_seconds=0.5, upper_batch=8, upper_optimiser="muon"), data.rows("train")[:64], [], training.Clips.__getitem__
    train = lambda name: training.finetune_upper(run, data, name, epochs=2, train_rows=rows, validation_rows=rows[:16], checkpoint_every=1)

    def broken_off(self, i):
        heard.append(i)
        if len(heard) > 100:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return true(self, i)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Clips, "__getitem__", broken_off)
        train("upper_broken")
    for name in ("upper_broken", "upper_whole"):
        train(name)
    broken, whole = ([provenance.digest(paths.data("small") / "models" / name / f) for f in ("model.safetensors", "history.csv")] for name in ("upper_broken", "upper_whole"))
    assert broken == whole


def test_a_saved_recognizer_answers_as_before(small, tmp_path):
    run, data, _ = small
    model = training.starting_point(run).eval()
    model.save_pretrained(tmp_path / "saved")
    x = torch.from_numpy(data.clips([3]))
    with torch.inference_mode():
        assert torch.equal(recognizer.load(tmp_path / "saved")(x), model(x))
    with pytest.raises(PaperError, match="no recognizer in"):
        recognizer.load(tmp_path / "nothing")


def test_stages_name_the_notebook_that_is_missing():
    with pytest.raises(PaperError, match="run notebook 02_frozen_embeddings first"):
        training.starting_point(profiles.load("tiny"))


def test_a_raw_head_is_the_identity_scaling(small):
    run, data, array = small
    training.fit_head(run, data, array, "raw", run.pooling, False)
    head = training.load_head(run, "raw")
    assert (head.mean == 0).all() and (head.scale == 1).all()


def test_changed_parameters_are_a_new_stage(small):
    run, data, array = small
    one = training.fit_head(run, data, array, "changing", run.pooling, True)[0]
    assert np.array_equal(one, training.fit_head(run, data, array, "changing", run.pooling, True)[0])
    assert not np.array_equal(one, training.fit_head(replace(run, seed=1), data, array, "changing", run.pooling, True)[0])


def test_statistics_over_time():
    frames = torch.tensor([[[1.0], [3.0], [2.0]]])
    assert embedding.time_statistics(frames)[0, :, 0].tolist() == pytest.approx([2.0, np.std([1, 3, 2]), 1.5])
    assert embedding.pool(np.arange(6).reshape(1, 3, 2), "mean").tolist() == [[0, 1]]
    assert embedding.pool(np.arange(6).reshape(1, 3, 2), "mean_sd_mad").shape == (1, 6)


def test_a_training_killed_while_it_was_put_away_is_put_away_later(small, monkeypatch):
    run, data, _ = small
    rows, finish = data.rows("train")[:8], provenance.Stage.finish
    with monkeypatch.context() as patch:
        patch.setattr(provenance.Stage, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            training.finetune(run, data, "put_away", epochs=1, train_rows=rows, validation_rows=rows)
    assert provenance.Stage.finish is finish
    _, history = training.finetune(run, data, "put_away", epochs=1, train_rows=rows, validation_rows=rows)
    assert list(history.epoch) == [0, 1]


def test_a_head_of_another_data_set_is_refused(small):
    """Otherwise a new split would be judged with models that have trained on its test recordings."""
    run, data, _ = small
    with pytest.raises(PaperError, match="small/models/frozen was made from another data set than the present one: run notebook 02_frozen_embeddings again"):
        training.starting_point(run, "another")
    training.starting_point(run, data.content)


def test_the_released_recognizer_has_not_heard_quicks_test_recordings(tmp_path, monkeypatch):
    model, record = recognizer.released()
    quick = dataset.assign_splits(corpus.recordings(profiles.load("quick")), profiles.load("quick"))
    for split in dataset.SPLITS:
        assert {name for name, s in quick.items() if s == split} <= set(record["recordings"][split])
    assert not set(record["recordings"]["test"]) & set(record["recordings"]["train"] + record["recordings"]["validation"])
    with torch.inference_mode():
        assert model(torch.zeros(1, 16_000)).shape == (1, 13)
    shutil.copytree(paths.WEIGHTS / "released", tmp_path / "released")
    with (tmp_path / "released" / "model.safetensors").open("r+b") as file:
        file.seek(5000), file.write(b"\x01\x02\x03\x04")
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path)
    with pytest.raises(PaperError, match="wrong SHA-256"):
        recognizer.released()
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path / "nowhere")
    assert recognizer.released() is None
