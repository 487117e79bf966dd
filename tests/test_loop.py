"""The one training loop: the same bytes after a kill, the same losses in several processes."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch

from paper_lib import PaperError
from paper_lib.core import loop, paths
from paper_lib.core.random import generator_for

X = torch.from_numpy(generator_for(0, "x").standard_normal((60, 5)).astype(np.float32))
Y = X @ torch.arange(5.0) + 0.1


def task(dropout: float = 0.3, spy=lambda step: None, rate: float = 0.05) -> loop.Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, 1)
        )

    def loss(model, rows, step):
        spy(step)
        return (model(X[rows])[:, 0] - Y[rows]).square().mean()

    def evaluate(model, epoch):
        with torch.no_grad():
            found = model.eval()(X)[:, 0]
        return {"score": -float((found - Y).square().mean()), "found": found}

    optimiser = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: 1 - s / 40)
    examples = lambda step: generator_for(0, "rows", step).permutation(60)[:12]
    return loop.Task(model, examples, loss, [optimiser], [schedule], evaluate)


PLAN = loop.Plan(
    steps=30, per_epoch=6, batches=3, clip=1.0, score="score", from_zero=True, checkpoint_every=4
)


def same(one: loop.Result, other: loop.Result) -> bool:
    weights = all(torch.equal(v, other.weights[k]) for k, v in one.weights.items())
    answers = torch.equal(one.answers["found"], other.answers["found"])
    same_course = one.history.equals(other.history) and one.epoch == other.epoch
    return weights and answers and same_course


def test_it_learns_and_keeps_the_best_epoch():
    result = loop.train(task(), PLAN)
    assert list(result.history.epoch) == list(range(6)) and np.isnan(result.history.train_loss[0])
    assert result.history.score[5] > result.history.score[0]
    assert result.epoch == result.history.score[1:].idxmax()
    kept = task().model.eval()
    kept.load_state_dict(result.weights)
    with torch.no_grad():  # the evaluation of that epoch
        assert torch.equal(kept(X)[:, 0], result.answers["found"])


def test_an_evaluation_that_is_not_due_leaves_the_training_as_it_is():
    every, seldom = (loop.train(task(), replace(PLAN, evaluate_every=n)) for n in (1, 2))
    assert list(seldom.history.score.dropna().index) == [0, 2, 4, 5]  # and after the last epoch
    shared = seldom.history.score.dropna()
    assert shared.equals(every.history.score[shared.index])
    assert seldom.history.train_loss.equals(every.history.train_loss)


@pytest.mark.parametrize("at", [0, 5, 6, 17, 29])
def test_a_killed_training_goes_on_to_the_same_bytes(at, tmp_path):
    def killed(step):
        if step == at:
            raise KeyboardInterrupt

    whole = loop.train(task(), PLAN)
    with pytest.raises(KeyboardInterrupt):
        loop.train(task(spy=killed), PLAN, tmp_path)
    steps = []
    resumed = loop.train(task(spy=steps.append), PLAN, tmp_path)
    assert same(whole, resumed)
    # the last checkpoint: every four steps and at each epoch's end
    done = max(at // 4 * 4, at // 6 * 6)
    assert min(steps, default=30) == done


def test_patience_ends_it_and_cutting_a_batch_changes_nothing_but_rounding():
    # at a rate of nothing no epoch is better than the first
    stale = loop.train(task(rate=0.0), replace(PLAN, steps=300, patience=2))
    assert stale.epoch == 1 and stale.history.epoch.max() == 3
    one, three = (loop.train(task(dropout=0.0), replace(PLAN, batches=n)).history for n in (1, 3))
    assert one.score.to_numpy() == pytest.approx(three.score.to_numpy(), rel=1e-4)


def test_divergence_is_said():
    with pytest.raises(PaperError, match=r"diverged in epoch 1 .* lower its learning rate"):
        loop.train(task(rate=1e25), PLAN)


def test_another_precision_in_the_same_process():
    precisions = [
        loop.accelerator_for(p).mixed_precision for p in ("bf16", "no", "tf32", "bf16", "no")
    ]
    assert precisions == ["bf16", "no", "no", "bf16", "no"]
    half = loop.train(task(dropout=0.0), replace(PLAN, precision="bf16")).history.score
    whole = loop.train(task(dropout=0.0), PLAN).history.score
    assert not np.array_equal(half, whole) and half[5] == pytest.approx(whole[5], rel=0.3)


SCRIPT = """
    import json, os, sys
    import numpy as np, torch
    from paper_lib.core import config, loop
    from paper_lib.recognition import finetune, features
    from paper_lib.sound import dataset
    torch.set_num_threads(1)
    run = config.load("tiny", profile="small", recordings=16, chains_per_slice=0, head_epochs=40,
                      dropout=0.0, threads=1)
    data = dataset.load(run)
    rows = data.rows("train")[:32], data.rows("validation")[:16]
    recipe = finetune.upper_half(run, epochs=2, batch=8, accumulation=2, checkpoint_every=1)
    start = finetune.EffectRecognizer.assemble(
        finetune.l3ac.load("shipped"), finetune.Head(128, run.hidden, 0.0), "mean")
    torch.manual_seed(0)
    for p in start.head.parameters(): torch.nn.init.normal_(p, std=0.05)
    if len(sys.argv) > 2:
        true, count = loop.one_step, []
        def step(*args):
            count.append(1)
            if len(count) == 4: os._exit(7)
            return true(*args)
        loop.one_step = step
    _, history = finetune.finetune(run, data, recipe, start, sys.argv[1], rows)
    if not int(os.environ.get("RANK", 0)): print("HISTORY", history.to_json())
"""


def trained(name: str, folder, processes: int, *more: str) -> subprocess.CompletedProcess:
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [
        sys.executable,
        *(several if processes > 1 else []),
        str(folder / "script.py"),
        name,
        *more,
    ]
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=paths.ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def history_of(done: subprocess.CompletedProcess):
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("HISTORY"))
    return {
        k: np.array(list(v.values()), float)
        for k, v in json.loads(line.removeprefix("HISTORY")).items()
    }


@pytest.mark.slow
def test_two_gloo_processes_have_the_losses_of_one_and_resume(small, tmp_path):
    """Fine-tuning through accelerate, the same effective batch; both processes die and go on."""
    one = history_of(trained("one", tmp_path, 1))
    two = history_of(trained("two", tmp_path, 2))
    for column in ("train_loss", "validation_loss", "validation_map"):
        assert two[column] == pytest.approx(one[column], rel=2e-3, nan_ok=True), column
    assert trained("killed", tmp_path, 2, "kill").returncode != 0
    models = paths.data("small") / "models"
    assert (models / "killed.partial" / "checkpoint.pt").exists()
    assert not (models / "killed").exists()
    resumed = history_of(trained("killed", tmp_path, 2))
    for column, values in two.items():
        assert resumed[column] == pytest.approx(values, rel=1e-6, nan_ok=True), column
