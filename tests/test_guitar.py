"""`paper adapt`, and several adapters on one base."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from paper_lib import PaperError
from paper_lib.adapters import guitar
from paper_lib.recognition import features
from paper_lib.sound import plucked

X = torch.randn(2, 128, 60, generator=torch.Generator().manual_seed(0))


def moved(seed: int) -> dict[str, torch.Tensor]:
    """An adapter as a training might leave it: all that it trains moved by noise."""
    own, rng = guitar.own_weights(guitar.attached()), torch.Generator().manual_seed(seed)
    return {n: v + 0.05 * torch.randn(v.shape, generator=rng) if "lora" in n else v
            for n, v in own.items()}  # fmt: skip


def answer(model) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(X)


def test_between_two_adapters_lies_just_their_weighted_sum():
    one, two = moved(1), moved(2)
    mixed = guitar.own_weights(guitar.between(one, two, 0.3))
    for b in (n for n in one if "lora_B" in n):
        a = b.replace("lora_B", "lora_A")
        wanted = 0.3 * one[b] @ one[a] + 0.7 * two[b] @ two[a]
        assert (mixed[b] @ mixed[a] - wanted).abs().max() < 1e-6 * wanted.abs().max()
    for weight, end in ((1.0, one), (0.0, two)):
        gap = answer(guitar.between(one, two, weight)) - answer(
            guitar.switch(guitar.attached(), end)
        )
        assert gap.abs().max() < 1e-4


def test_switching_there_and_back_leaves_no_trace():
    model, one, two = guitar.attached(), moved(1), moved(2)
    first = answer(guitar.switch(model, one))
    assert not torch.equal(answer(guitar.switch(model, two)), first)
    assert torch.equal(answer(guitar.switch(model, one)), first)


def made(folder: Path) -> guitar.Adapted:
    model = guitar.switch(guitar.attached(), moved(1))
    record = guitar.Adapted(guitar.base()[1], 0.1, 0.2, 12, ["a"], ["b", "c"], 5, 0)
    guitar.save(model, record, folder)
    return record


def test_an_adapter_comes_back_merged_small_and_with_a_card(tmp_path):
    made(tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 100_000
    model = guitar.load(tmp_path)
    assert not [n for n, _ in model.named_modules() if "lora" in n]
    gap = answer(model) - answer(guitar.switch(guitar.attached(), moved(1)))
    assert gap.abs().max() < 1e-4
    card = (tmp_path / "README.md").read_text()
    assert "0.100 before (" in card and "0.200 after (" in card and guitar.base()[1][:16] in card


def test_a_damaged_or_foreign_adapter_is_refused(tmp_path):
    with pytest.raises(
        PaperError, match=r"no adapter in .*: give the folder that paper adapt made"
    ):
        guitar.load(tmp_path / "nothing")
    made(tmp_path)
    record = json.loads((tmp_path / guitar.RECORD).read_text())
    (tmp_path / guitar.RECORD).write_text(json.dumps(record | {"base": "0" * 64}))
    with pytest.raises(PaperError, match="made for other released weights"):
        guitar.load(tmp_path)
    (tmp_path / guitar.WEIGHTS).write_bytes(b"half")
    with pytest.raises(PaperError, match="wrong SHA-256"):
        guitar.load(tmp_path)
    (tmp_path / guitar.RECORD).write_text("{")
    with pytest.raises(PaperError, match="damaged: run paper adapt again"):
        guitar.load(tmp_path)


def test_the_base_stays_as_it_is_and_a_few_steps_learn_what_they_are_shown():
    labels = np.zeros((24, 13), np.float32)
    labels[::2, 3] = 1
    rng = np.random.default_rng(0)
    lower = rng.normal(size=(24, 128, 60)).astype(np.float16)
    lower[::2] += 1
    clips, before = features.EncodedClips(labels, lower), guitar.attached().state_dict()
    rows = np.arange(24)
    model = guitar.fit(clips, rows, 30, 1.0)
    own, after = guitar.own_weights(model), model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and changed <= set(own)
    apart = lambda m: np.abs(guitar.answers(m, clips, rows) - labels).mean()
    assert apart(model) < 0.9 * apart(guitar.base()[0])
    again = guitar.fit(clips, rows, 30, 1.0)
    assert np.array_equal(guitar.answers(model, clips, rows), guitar.answers(again, clips, rows))


@pytest.mark.slow
def test_paper_adapt_fits_a_guitar_and_recognize_asks_it(tmp_path, command):
    recordings = tmp_path / "mine"
    recordings.mkdir()
    for i, name in enumerate(plucked.names()[:3]):
        soundfile.write(recordings / f"take{i}.wav", plucked.play(name, 5.2), plucked.RATE)
    small = ("--steps", 3, "--chains", 4)
    done = command("adapt", recordings, "-o", tmp_path / "out", *small)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "clips of 1 recordings that it did not hear" in done.stdout
    record = json.loads((tmp_path / "out" / guitar.RECORD).read_text())
    assert len(record["held_out"]) == 1 and len(record["learned_from"]) == 2
    asked = command("recognize", "--adapter", tmp_path / "out", recordings / "take0.wav", "--json")
    assert asked.returncode == 0, asked.stderr[-2000:]
    assert json.loads(asked.stdout)["files"]
    for wrong, words in (
        (("adapt", recordings, "--steps", 0), "--steps must be 1 or more"),
        (("adapt", tmp_path / "none"), "is not a folder"),
        (("recognize", "--adapter", tmp_path / "out", "--model", "cnn", "x.wav"), "--adapter fits"),
    ):
        refused = command(*wrong)
        assert refused.returncode == 1 and words in refused.stderr
        assert "Traceback" not in refused.stderr
    (recordings / "take2.wav").unlink()
    alone = command("adapt", recordings, *small)
    assert alone.returncode == 1 and "3 or more are needed" in alone.stderr
