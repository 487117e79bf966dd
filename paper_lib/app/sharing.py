"""`paper push`: a released recognizer to the Hugging Face hub, with its card."""

from __future__ import annotations

import re

import pandas as pd

from ..core import paths
from ..core.errors import PaperError
from ..recognition import model
from ..recognition.peers import MelRecognizer
from ..recognition.variations import TOLD
from ..sound import effects

# released in data/weights -> the reference table with its scores on the real clips, its row there
SCORES = {
    "released": ("table_real", "released"),
    "cnn": ("table_real", "released_cnn"),
    "cnn_dry": ("table_dry", "released_cnn_dry"),
}
KINDS = {"released": model.EffectRecognizer, "cnn": MelRecognizer, "cnn_dry": MelRecognizer}


def card(name: str) -> str:
    """The hub's card: what its pages index, the scores by effect on real clips, and our own card.

    The scores are the reference run's.
    """
    from huggingface_hub import EvalResult, ModelCardData

    table, row = SCORES[name]
    found = pd.read_csv(paths.reference("quick") / f"{table}.csv").set_index("model").loc[row]
    real: dict = {
        "task_type": "audio-classification",
        "dataset_type": "guitarset",
        "dataset_name": "four GuitarSet slices through 51 chains of SoX",
        "metric_type": "f1",
    }
    results = [
        EvalResult(metric_name="macro-F1", metric_value=float(found.macro_f1), **real),
        EvalResult(metric_name="macro-F1 of the eight", metric_value=float(found.told), **real),
    ]
    about = ModelCardData(
        license="mit",
        library_name="l3ac-guitar-effects",
        pipeline_tag="audio-classification",
        tags=["audio-classification", "guitar", "audio-effects"],
        model_name=f"guitar-effects-{name}",
        eval_results=results,
    )
    rows = [
        f"| {one} | {found[one]:.2f} | {'yes' if one in TOLD else 'no'} |" for one in effects.NAMES
    ]
    heads = [
        "| effect | F1 on real clips | can be told without knowing the guitar |",
        "|---|---|---|",
    ]
    own = (paths.WEIGHTS / name / "README.md").read_text()
    own = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", own)  # (its neighbours are not there)
    return "\n".join([f"---\n{about.to_yaml()}\n---", own.rstrip(), "", *heads, *rows, ""])


def push(name: str, repository: str) -> str:
    """Upload a released recognizer and its card to `repository` ("user/name").

    Returns the address of the commit. The token and the hub's address come from where
    huggingface_hub looks for them (HF_TOKEN, HF_ENDPOINT).
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if model.released(name, KINDS[name]) is None:  # (altered files are refused there)
        raise PaperError(f"data/weights/{name} holds no released recognizer.")
    files = ("config.json", "model.safetensors", "release.json")
    given: dict = {one: str(paths.WEIGHTS / name / one) for one in files}
    given["README.md"] = card(name).encode()
    operations = [CommitOperationAdd(one, content) for one, content in given.items()]
    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        done = api.create_commit(repository, operations, commit_message=f"{name}, with its card")
    except Exception as problem:
        reason = next(iter(str(problem).strip().splitlines()), "no reason given")
        raise PaperError(
            f"{repository} could not be written ({type(problem).__name__}: {reason}): check "
            "HF_TOKEN, HF_ENDPOINT and the network."
        ) from problem
    return str(done.commit_url)
