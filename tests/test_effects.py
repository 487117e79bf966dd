"""Table 1 and the chain plans (notebook 01, sections 2 and 3)."""

import numpy as np
import pytest

from paper_lib import PaperError
from paper_lib.core import stages
from paper_lib.evaluation import published
from paper_lib.report import tables
from paper_lib.sound import corpus, effects


def test_thirteen_effects_in_six_groups():
    assert len(effects.EFFECTS) == 13 and len(effects.GROUPS) == 6
    assert [sum(e.group == g for e in effects.EFFECTS) for g in effects.GROUPS] == [
        2,
        4,
        1,
        2,
        2,
        2,
    ]
    assert set(published.PAPER_TABLE_3) == set(effects.NAMES)


def test_the_sox_arguments_are_guo_and_mcfees():
    said = tables.table_1().set_index("effect").sox_arguments
    assert said["overdrive"].startswith("5") and said["distortion"].startswith("15")
    numbers = lambda name: [float(word) for word in said[name].split()]
    assert (
        numbers("feedback_delay")
        == numbers("slapback_delay")
        == [0.8, 0.5, 200, 0.4, 400, 0.2, 600, 0.1]
    )
    assert said["low_boost"].split()[:2] == ["10.000000", "200.000000"] and said[
        "high_reduct"
    ].split()[:2] == ["-20.000000", "8000.000000"]


def test_the_chorus_is_one_chorus():
    from paper_lib.sound.rendering import transformer

    assert transformer(("chorus",)).effects == transformer(("chorus",)).effects


def test_paper50_is_fixed_and_balanced():
    chains = effects.plan("paper50", include_dry=False)
    assert len(chains) == len(set(chains)) == 50
    assert sorted({len(c) for c in chains}) == [1, 2, 3]
    support = np.sum([effects.multi_hot(c) for c in chains], axis=0)
    assert support.max() - support.min() <= 1
    assert (
        stages.digest(chains) == "de0c291c33052ac6f06fd74cd2c1f63983ee752a46b4fafe1e5c58fb008bd4b9"
    )


def test_guo221_is_the_papers_sample_count():
    chains = effects.plan("guo221", include_dry=False)
    # the sample count that the paper gives
    assert len(set(chains)) == 221 and len(chains) * corpus.GUITARSET_SLICES == 442_884
    share = np.mean([effects.multi_hot(c) for c in chains], axis=0)
    assert share[effects.NAMES.index("reverb")] == pytest.approx(0.656, abs=1e-3)
    assert share[0] == pytest.approx(0.403, abs=1e-3) and share[2] == pytest.approx(0.222, abs=1e-3)


@pytest.mark.parametrize(
    "chain, word",
    [
        (("fuzz",), "fuzz"),
        (("reverb", "tremolo"), "order"),
        (("overdrive", "distortion"), "at most one"),
    ],
)
def test_impossible_chains_are_refused(chain, word):
    with pytest.raises(PaperError, match=word):
        effects.check(chain)


def test_dry_is_the_empty_chain():
    assert effects.plan("singles", True)[0] == effects.DRY and effects.label(effects.DRY) == "dry"
    assert sum(effects.multi_hot(effects.DRY)) == 0
