"""The ledger: verdicts follow from what is stated and what is measured (notebook 07)."""

from dataclasses import replace

import pandas as pd
import pytest

from paper_lib.codec import anatomy, l3ac
from paper_lib.core import paths
from paper_lib.evaluation import claims


@pytest.fixture(scope="module")
def measured():
    sizes = anatomy.sizes(
        {name: l3ac.build(l3ac.hub_config(name)) for name in l3ac.HUB_MODELS}
    ).set_index("network")
    costs = pd.Series(
        {
            "L3AC 3kbps": 37.59,
            "L3AC 3kbps, by class (ptflops)": 1.64,
            "DAC, 44.1 kHz": 998.9,
            "DAC, 16 kHz": 401.0,
        }
    )
    return claims.Measured(
        sizes=sizes,
        gmacs=costs,
        field_last={
            "arithmetic": 10_795,
            "perturbation": 10_795,
            "gradient above 1e-06 of its peak": 10_744,
        },
        tpooling_samples=89,
        tpooling_gap=0.0,
        attention_ahead=0,
        attention_past=799,
        rates=(6, 4, 4),
        comparable=False,
        decoder_bounded=False,
        identity_at_16k={"overdrive": 900, "high_boost": 1, "high_reduct": 1},
        dither_differs=True,
        undithered_differs=False,
        chorus_differs=True,
        frozen=0.5,
        finetuned=0.6,
        gain=(0.1, 0.05, 0.15),
        head_best_epoch=90,
    )


def verdicts(*stated) -> pd.Series:
    return claims.ledger(*stated).set_index("id").verdict


def test_the_ledger_is_long_and_every_verdict_is_one_of_four(measured):
    table = claims.ledger(measured)
    assert len(table) >= 25 and table.id.is_unique and not table.isna().any(axis=None)
    assert set(table.verdict) == {
        claims.REPRODUCED,
        claims.DIFFERS,
        claims.INCONSISTENT,
        claims.OPEN,
    }


@pytest.mark.parametrize(
    "claim, change, before, after",
    [
        ("samples_chains", {"samples": 108_000}, claims.INCONSISTENT, claims.REPRODUCED),
        ("channels", {"channels": 128}, claims.DIFFERS, claims.REPRODUCED),
        ("gains", {"gains": (0.3101, 0.3209)}, claims.REPRODUCED, claims.INCONSISTENT),
        (
            "split_by_recording",
            {"split": (310_050, 66_400, 66_450), "chains": 50},
            claims.INCONSISTENT,
            claims.REPRODUCED,
        ),
        ("window", {"window_seconds": 2.0}, claims.REPRODUCED, claims.DIFFERS),
        ("slapback", {"slapback_delays": (50, 100)}, claims.INCONSISTENT, claims.REPRODUCED),
        (
            "mean_frozen",
            {"table_3": claims.Paper().table_3 | {"tremolo": (0.5, 0.8263)}},
            claims.REPRODUCED,
            claims.INCONSISTENT,
        ),
        (
            "percentages",
            {"printed": claims.Paper().printed | {"reverb": 55.0}},
            claims.REPRODUCED,
            claims.INCONSISTENT,
        ),
    ],
)
def test_another_statement_another_verdict(measured, claim, change, before, after):
    assert (
        verdicts(measured)[claim] == before
        and verdicts(measured, claims.Paper(**change))[claim] == after
    )


@pytest.mark.parametrize(
    "claim, change, after",
    [
        ("labels", {"identity_at_16k": {"high_boost": 500}}, claims.REPRODUCED),
        ("direction", {"comparable": True, "gain": (0.03, 0.01, 0.05)}, claims.REPRODUCED),
        ("direction", {"comparable": True, "gain": (-0.03, -0.05, -0.01)}, claims.DIFFERS),
        ("frozen", {"comparable": True, "frozen": 0.54}, claims.REPRODUCED),
        ("deterministic", {"undithered_differs": True}, claims.DIFFERS),
        ("attention_causal", {"attention_ahead": 3}, claims.DIFFERS),
        (
            "gmacs",
            {
                "gmacs": pd.Series(
                    {
                        "L3AC 3kbps": 1.64,
                        "L3AC 3kbps, by class (ptflops)": 1.64,
                        "DAC, 44.1 kHz": 556.0,
                        "DAC, 16 kHz": 401.0,
                    }
                )
            },
            claims.REPRODUCED,
        ),
    ],
)
def test_another_measurement_another_verdict(measured, claim, change, after):
    assert (
        verdicts(measured)[claim] != after and verdicts(replace(measured, **change))[claim] == after
    )


def test_a_verdict_by_intervals_is_sure_or_undecided():
    assert claims.surely([0.1, 0.2], [0.3, 0.4]) == "reproduced"
    assert claims.surely([0.1, -0.4], [0.3, -0.1]) == "differs"
    assert claims.surely([0.1, -0.1], [0.3, 0.2]) == "undecided"


def test_the_published_ledger_is_the_present_one(measured):
    """What git holds has the claims and texts of the code, and verdicts that code gives."""
    published = pd.read_csv(paths.reference("quick") / "claims.csv")
    entries = claims.PAPER_CLAIMS + claims.REVIEW_CLAIMS
    assert list(published.id) == [c.id for c in entries]
    assert list(published.claim) == [c.text for c in entries]
    assert published.set_index("id").verdict.equals(verdicts(measured))
