"""The README's findings and its table: sentences whose numbers are read from the reference runs."""

from __future__ import annotations

import re

import pandas as pd

from ..core import paths
from ..core.errors import PaperError
from ..evaluation import claims

# name in the tables -> name, and what it is, for a reader who knows neither
ROWS = {
    "always": ("all 13 effects, every time", "no model: what guessing yes is worth"),
    "logmel": ("log-mel + MLP", "three statistics of a spectrogram, a small network"),
    "logmel_cnn": ("CNN", "a small convolutional network on the spectrogram"),
    "frozen": ("codec, frozen", "the pretrained encoder as it is, a small network on top"),
    "finetuned": ("codec, fine-tuned", "encoder and small network trained together"),
}


def _read(name: str, profile: str = "quick") -> pd.DataFrame:
    return pd.read_csv(paths.reference(profile) / f"{name}.csv")


def _macro(profile: str, source: str = "run") -> pd.Series:
    table = _read("table_2_overall", profile)
    return table[table.source == source].set_index("model").macro_f1


def findings() -> str:
    """What was found, in five sentences or so: Markdown."""
    own, full, paper = _macro("quick"), _macro("full"), _macro("quick", "paper")
    gain = _read("table_2_gains").dropna(subset="lo").iloc[0]
    ahead = own.logmel - own.finetuned
    better = "better" if ahead > 0 else "nearly as well" if ahead > -0.05 else "less well"
    there = "the codec is ahead of it" if full.finetuned > full.logmel else "it is ahead there, too"
    opening = _read("table_opening").set_index(["trained_on", "evaluated_on"]).overdrive
    verdicts = (claims.REPRODUCED, claims.DIFFERS, claims.INCONSISTENT, claims.OPEN,
                claims.UNDECIDED)  # fmt: skip
    ledger = _read("claims").verdict.value_counts().reindex(verdicts, fill_value=0)
    real = _read("table_real").set_index("model")
    adapted = _read("table_adapters", "full").set_index("method")
    lora, whole = adapted.loc["LoRA + pointwise 4"], adapted.loc["full, Muon"]
    codec, cnn = real.loc["released"], real.loc["released_cnn"]
    said = f"""
1. **Training the encoder helps.** A small network on the frozen codec reaches a macro-F1 of
   {own.frozen:.2f} on recordings of a computed guitar that it has not heard; with the encoder
   trained too, {own.finetuned:.2f} (gain {gain.absolute:+.2f}, 95 % interval {gain.lo:.2f} to
   {gain.hi:.2f}). In the run `full`, with six times the clips and other test recordings:
   {full.frozen:.2f} and {full.finetuned:.2f}. The paper reports {paper.frozen:.2f} and
   {paper.finetuned:.2f}, with its own data and codec.
2. **A simpler model does {better} here.** Three statistics of a spectrogram with the same kind of
   small network reach {own.logmel:.2f}. In `full`, whose recordings vary more, they reach
   {full.logmel:.2f}: {there}.
3. **Rendered data sets give labels away.** From the first 16 milliseconds of a clip alone,
   overdrive is recognised with an F1 of {opening["at once", "at once"]:.2f} where SoX, the program
   that applies the effects, starts with the clip, and {opening["settled", "settled"]:.2f} where it
   had been running before, as in the data sets of this repository.
4. **Of {ledger.sum()} numbers** in the paper and in a review of its codec, code reproduces
   {ledger[claims.REPRODUCED]}; {ledger[claims.DIFFERS]} differ, {ledger[claims.INCONSISTENT]}
   contradict another number in the same text, {ledger[claims.OPEN]} cannot be checked here
   ([the ledger](figures/reference/quick/claims.md)).
5. **On a real guitar** (four clips through the same chains) the fine-tuned codec that is released
   reaches {codec.macro_f1:.2f}, a network on spectrograms {cnn.macro_f1:.2f}; over the eight
   effects that can be identified without knowing the guitar, {codec.told:.2f} and {cnn.told:.2f}.
6. **Training {100 * lora.share:.0f} % of the weights brings {100 * lora.more / whole.more:.0f} % of
   the gain.** In
   `full`, after equally few steps, a LoRA (a change of low rank) gains {lora.more:+.2f} in average
   precision over the head alone ({lora.more_lo:+.2f} to {lora.more_hi:+.2f}); training all of the
   encoder's upper half, its last layers, gains {whole.more:+.2f} ({whole.more_lo:+.2f} to
   {whole.more_hi:+.2f}; [notebook 13](notebooks/13_how_little_has_to_be_trained.ipynb)).
"""
    return _wrapped(said)


def scoreboard() -> str:
    """Five models, on the computed and on the real guitar: a Markdown table."""
    alike, real = (
        _read(name).set_index("model").macro_f1 for name in ("table_peers", "table_real")
    )
    paper = _macro("quick", "paper")
    lines = [
        "| model | what it is | computed guitar | real guitar | paper |",
        "|---|---|---|---|---|",
    ]
    for model, (name, what) in ROWS.items():
        theirs = f"{paper[model]:.2f}" if model in paper else ""
        lines.append(f"| {name} | {what} | {alike[model]:.2f} | {real[model]:.2f} | {theirs} |")
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    """The numbered list with lines of at most 100 columns, whatever the numbers are."""
    import textwrap

    items = re.split(r"\n(?=\d\. )", text.strip())
    return "\n".join(
        textwrap.fill(
            " ".join(one.split()), 100, subsequent_indent="   ", break_long_words=False,
            break_on_hyphens=False,
        )
        for one in items
    )  # fmt: skip


def into(readme: str) -> str:
    """The README with both parts as the reference runs have them."""
    for name, text in {"findings": findings(), "scoreboard": scoreboard()}.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if readme.count(begin) != 1 or readme.count(end) != 1:
            raise PaperError(f"README.md needs the two lines {begin} and {end}, once each.")
        before, after = readme.split(begin)[0], readme.split(end)[1]
        readme = f"{before}{begin}\n{text}\n{end}{after}"
    return readme
