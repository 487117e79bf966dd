"""The command line: ``paper ...`` or ``python -m paper_lib ...``.

Faults the user can mend end in one sentence and exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from ..core.errors import PaperError


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return args.run(args) or 0
    except PaperError as problem:
        print(f"paper: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        where = f" ({problem.filename})" if problem.filename else ""
        print(
            f"paper: {problem.strerror or problem}{where}: nothing finished is lost; "
            "mend it and run the same command again.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("paper: stopped; the same command goes on from here.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="paper",
        description=(
            "Recognise guitar effects with a fine-tuned neural codec: the study, end to end."
        ),
    )
    verbs = top.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, run: Callable, text: str, profile: bool = True) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        if profile:
            one.add_argument(
                "-p",
                "--profile",
                default="quick",
                help="a name in notebooks/profiles, or a YAML file (default: quick)",
            )
        return one

    _add_runs(verb)
    _add_stages(verb)
    _add_sounds(verb)
    _add_making(verb)
    return top


def _add_runs(verb: Callable) -> None:
    """Before, during and after a run of the study."""
    verb("doctor", doctor, "what is missing on this machine, and the remedy", False).add_argument(
        "--mend",
        action="store_true",
        help="put torchaudio's CUDA-only library aside if it breaks the import",
    )
    verb("plan", plan, "clips, disk and time of a profile, before you start")
    one = verb("reproduce", reproduce, "run the notebooks in order through papermill")
    one.add_argument(
        "--from", dest="first", default="", metavar="NN", help="begin with this notebook"
    )
    one.add_argument("--force", action="store_true", help="run also what is unchanged")
    one.add_argument("--only", default="", metavar="NN", help="run this notebook alone")
    one.add_argument("--part", default="paper", help="paper (default), codec, ... or all")
    verb("verify", verify, "compare a run with the published reference, artefact by artefact")


def _add_stages(verb: Callable) -> None:
    """Single stages, here or on a cluster; what vouches for their code."""
    address = {"metavar": "tcp://HOST:PORT", "help": "a Dask scheduler (default: the profile's)"}
    text = "make the data set of a profile, here or on a cluster"
    verb("render-dataset", render_dataset, text).add_argument("--scheduler", default="", **address)
    text = "embed the data set of a profile, here or on a cluster"
    one = verb("embed-dataset", embed_dataset, text)
    one.add_argument("--kind", choices=["frozen", "random_frozen", "logmel"], default="frozen")
    one.add_argument("--scheduler", default="", **address)
    text = "fine-tune as notebook 03 does, one training seed at a time (a job each on a cluster)"
    verb("finetune", finetune, text).add_argument("--seed", type=int, default=0, metavar="N")
    text = "say that a stage's present code gives the results of its declared version"
    one = verb("accept", accept, text, False)
    one.add_argument("stage", nargs="+", help="names in stages.toml, or all")


def _add_sounds(verb: Callable) -> None:
    """For one's own recordings."""
    one = verb("render", render, "apply a chain of effects to an audio file", False)
    one.add_argument("input")
    one.add_argument("output")
    one.add_argument("--chain", required=True, help="effects in order, e.g. overdrive,reverb")
    one.add_argument(
        "--lead",
        type=float,
        default=3.0,
        help=(
            "seconds that the effects have run before the file begins "
            "(default 3; 0: SoX starts with it, clicks and all)"
        ),
    )
    one = verb("recognize", recognize, "which effects are on a recording", False)
    one.add_argument(
        "-p",
        "--profile",
        help="ask the fine-tuned model of that run (default: the released recognizer)",
    )
    one.add_argument("file", nargs="+", help="audio files, or - for a WAV on standard input")
    one.add_argument("--json", action="store_true", help="one JSON object for all files")
    one.add_argument("--window", type=float, default=5.0, help="seconds (default 5, as trained)")
    one.add_argument(
        "--hop", type=float, default=0.0, help="seconds between windows (default: end to end)"
    )
    one.add_argument(
        "--model",
        help="codec (default), cnn (no codec in it), or a saved codec recognizer's folder",
    )
    one.add_argument(
        "--dry",
        metavar="REFERENCE",
        help="a recording of the same guitar without effects: tells equalizers, too",
    )
    one.add_argument(
        "--adapter", metavar="FOLDER", help="an adapter for your guitar, made by paper adapt"
    )
    one = verb("adapt", adapt, "fit the released recognizer to your guitar", False)
    one.add_argument("folder", help="dry recordings of one guitar: three or more, minutes in all")
    one.add_argument("-o", "--output", help="folder of the adapter (default: data/adapters/NAME)")
    one.add_argument("--steps", type=int, default=200, help="training steps (default 200)")
    one.add_argument(
        "--chains", type=int, default=26, help="chains of effects a slice (default 26, most 51)"
    )
    one = verb("export", export, "write a released recognizer as one ONNX file", False)
    one.add_argument("output", help="FILE.onnx")
    one.add_argument(
        "--model", help="codec (default), cnn, cnn_dry, or a saved codec recognizer's folder"
    )


def _add_making(verb: Callable) -> None:
    """What a run begins with, and what becomes of it."""
    text = "download a data set, the published codec weights, or a run that was packed"
    one = verb("fetch", fetch, text)
    kinds = ["guitarset", "weights", "egfxset", "idmt_smt_audio_effects", "run"]
    one.add_argument("what", choices=kinds)
    one.add_argument("source", nargs="?", help="run: the packed file, a path or an address")
    text = "put a finished run into one file, for a class or another machine"
    verb("pack", pack, text).add_argument("target", help="FILE.tar.gz")
    text = "pretrain a codec on sounds made here (a killed one goes on from its checkpoint)"
    one = verb("pretrain", pretrain, text, False)
    one.add_argument("folder")
    one.add_argument("--steps", type=int, default=4500)
    one.add_argument("--threads", type=int, default=2)
    one.add_argument(
        "--start", default="", help="weights to begin with: shipped or hub:3kbps (default: random)"
    )
    one.add_argument(
        "--network",
        default="",
        help="configuration: hub:3kbps, ... (default: the small one that is shipped)",
    )
    one.add_argument("--rate", type=float, default=1e-3, help="top of the one-cycle learning rate")
    one.add_argument("--size", type=int, default=8, help="crops a step")
    one.add_argument("--seconds", type=float, default=2.0, help="length of a crop")
    one.add_argument(
        "--decode-every", type=int, default=4, help="reconstruct on every so manyth step"
    )
    one.add_argument("--takes", type=int, default=200, help="guitar performances to train on")
    one.add_argument(
        "--adversarial",
        type=float,
        default=0.0,
        help="weight of the discriminators' verdict (0: none; begin without)",
    )
    one.add_argument(
        "--keep-first",
        action="store_true",
        help="leave the first stage as it is: a step then takes half the time",
    )
    one.add_argument("--muon", action="store_true", help="step the matrices by Muon")
    one.add_argument(
        "--varied",
        action="store_true",
        help="every second take as another guitar, microphone and room might have it",
    )
    one.add_argument(
        "--wide",
        action="store_true",
        help="takes by sampled instruments and in freer manners too, all recorded otherwise",
    )
    one.add_argument("--ship", action="store_true", help="store the result as data/weights/shipped")
    one = verb("push", push, "upload a released recognizer with its card to the hub", False)
    one.add_argument("--model", choices=list(RELEASED), default="codec")
    one.add_argument("repository", help="user/name")
    one = verb("publish", publish, "make the present run the published reference (maintainers)")
    one.add_argument("--part", default="all", help="this part's artefacts alone")
    one.add_argument("--only", default="", metavar="NN", help="this notebook alone")


def _profile(args):
    from ..core import config

    return config.load(args.profile)


def doctor(args) -> int:
    from ..core import machine

    lines = machine.doctor(args.mend)
    for fine, line in lines:
        print("ok  " if fine else "NOT ", line)
    return 0 if all(fine for fine, _ in lines) else 1


def plan(args) -> None:
    from .plan import describe

    print(describe(_profile(args)))


def reproduce(args) -> None:
    from ..core import code, machine
    from . import notebooks

    machine.require_sox()
    for name in code.declared():
        if not code.vouched(name):
            print(
                f"note: the code of stage {name} is not the one in stages.lock; "
                f"its results are kept apart (paper accept {name})"
            )
    notebooks.reproduce(_profile(args), args.part, args.first, args.only, args.force)


def render_dataset(args) -> None:
    from dataclasses import replace

    from ..sound import rendering

    profile = _profile(args)
    data = rendering.render_dataset(replace(profile, scheduler=args.scheduler or profile.scheduler))
    print(f"{len(data):,} clips in {data.folder}, content {data.content[:12]}")


def embed_dataset(args) -> None:
    from dataclasses import replace

    from ..recognition import features
    from ..sound import dataset

    profile = _profile(args)
    profile = replace(profile, scheduler=args.scheduler or profile.scheduler)
    array = features.embed_dataset(profile, dataset.load(profile), args.kind)
    print(f"{args.kind}: {array.shape} in {features.paths.embedding(profile.profile, args.kind)}")


def finetune(args) -> None:
    from ..core import machine
    from ..recognition import finetune as training
    from ..recognition import head
    from ..sound import dataset, rendering

    profile = _profile(args)
    if args.seed < 0:
        raise PaperError(f"--seed is {args.seed}; training seeds are 0, 1, 2 ...")
    if machine.processes() == 1:  # (else these have to be there: they do not train together)
        frozen = {"frozen": ("frozen", profile.pooling, profile.standardise)}
        head.fit_heads(profile, rendering.render_dataset(profile), frozen, args.seed + 1)
    _, steps = training.finetune_both(profile, dataset.load(profile), args.seed)
    for name, (_, history) in steps.items():
        best = history.loc[history.validation_macro_f1[1:].idxmax()]
        print(
            f"{name}: validation macro-F1 {best.validation_macro_f1:.3f} in epoch "
            f"{best.epoch:.0f} of {len(history) - 1}"
        )


def accept(args) -> None:
    from ..core import code

    known = list(code.declared())
    for name in args.stage if args.stage != ["all"] else known:
        if name not in known:
            raise PaperError(f"there is no stage {name!r}; there are: {', '.join(known)}, or all.")
        code.accept(name)
        print(f"{name}: version {code.declared()[name]['version']} stands for the present code")


def verify(args) -> int:
    from ..core import verify as comparison

    table = comparison.verify(_profile(args).profile)
    print(table.to_string(index=False, na_rep=""))
    fine = table.verdict.isin(comparison.FINE)
    print(f"{fine.sum()} of {len(table)} artefacts agree with the published reference")
    return 0 if fine.all() else 1


def render(args) -> None:
    import soundfile

    from ..core import config, paths
    from ..sound import audio, rendering

    if not Path(args.input).exists():
        raise PaperError(f"{args.input}: there is no such audio file.")
    target = paths.to_write(args.output)
    if target.exists() and target.samefile(args.input):
        raise PaperError(f"{args.output} is the input itself: give the result another name.")
    try:
        rate = soundfile.info(args.input).samplerate
    except (soundfile.LibsndfileError, RuntimeError) as problem:
        raise PaperError(
            f"{args.input}: not readable as audio ({problem}); convert it to WAV or FLAC."
        ) from problem
    samples = audio.to_int16(audio.read(args.input, rate))
    chain = tuple(config.listed(args.chain))
    if not 0 <= args.lead <= 60:
        raise PaperError(f"--lead is {args.lead:g}; it can be 0 to 60 seconds.")
    out = rendering.render(samples, rate, chain, lead=args.lead)
    beside = target.with_name(f".{target.name}")
    try:
        soundfile.write(
            beside, out, rate, subtype="PCM_16", format=target.suffix.lstrip(".").upper() or "WAV"
        )
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as problem:
        beside.unlink(missing_ok=True)
        raise PaperError(
            f"{args.output} could not be written ({problem}); "
            "give a .wav or .flac file in a folder that exists."
        ) from problem
    beside.replace(target)


def _recognizer(args) -> tuple:
    """The recognizer that `--model`, `--profile` or `--dry` names, and its thresholds."""
    from ..core import paths
    from ..recognition import model as models
    from ..recognition.peers import MelRecognizer

    if getattr(args, "adapter", None):
        from ..adapters import guitar

        if args.profile or args.model not in (None, "codec") or args.dry:
            raise PaperError(
                "--adapter fits the released codec recognizer: leave --model, --profile and --dry "
                "out."
            )
        return guitar.load(Path(args.adapter)), 0.5
    name = args.model or "codec"
    if getattr(args, "dry", None):
        if args.profile or args.model not in (None, "cnn_dry"):
            raise PaperError("--dry asks a network of its own: leave --model and --profile out.")
        name = "cnn_dry"
    if getattr(args, "profile", None):
        if args.model:
            raise PaperError("--profile and --model name two recognizers: give one.")
        return models.load(paths.model(_profile(args).profile, "finetuned")), 0.5
    if name not in RELEASED:
        return models.load(Path(name)), 0.5
    released = models.released(*((RELEASED[name],) if name == "codec" else (name, MelRecognizer)))
    if released is None:
        raise PaperError(
            "no such recognizer is released in data/weights: "
            "paper reproduce makes one; then add -p quick."
        )
    model, record = released
    return model, record.get("thresholds", 0.5)


RELEASED = {"codec": "released", "cnn": "cnn", "cnn_dry": "cnn_dry"}  # --model -> data/weights


def recognize(args) -> None:
    from ..recognition import recognize as listening
    from ..recognition.peers import spectrum
    from ..sound import audio, effects

    if args.model == "cnn_dry" and not args.dry:
        raise PaperError("cnn_dry hears a dry reference beside the file: give it with --dry.")
    (model, thresholds), answers = _recognizer(args), {}
    dry = None
    if args.dry:
        dry = spectrum(model.mel, audio.read(args.dry, audio.CODEC_RATE, at_least=1.0))

    hop = args.hop or args.window

    def line(label: str, why: str, row) -> str:
        names = listening.named(row, thresholds)
        said = [f"{name} ({row[effects.NAMES.index(name)]:.2f})" for name in names]
        text = f"cannot tell: {why}" if why else ", ".join(said) or "nothing recognised"
        return f"  {label:>8}  {text}"

    def record(why: str, row) -> dict:
        if why:
            return {"cannot_tell": why}
        return {"effects": listening.named(row, thresholds)} | {
            "probabilities": {
                n: round(float(p), 4) for n, p in zip(effects.NAMES, row, strict=True)
            }
        }

    for file in args.file:
        if file == "-":
            found = listening.stream(model, sys.stdin.buffer, args.window, dry, args.hop)
        else:
            found = iter(listening.recognize(model, file, args.window, dry, args.hop))
        heard = []
        if not args.json:
            print("standard input" if file == "-" else file)
        with contextlib.suppress(KeyboardInterrupt):  # a recording that is ended by hand
            for i, answer in enumerate(found):
                heard.append(answer)
                if not args.json:
                    print(line(f"{i * hop:.2f} s", *answer), flush=True)
        whole = listening.overall(heard)
        if not args.json and len(heard) > 1:
            print(line("overall", *whole))
        parts = [{"start_s": round(i * hop, 3)} | record(*one) for i, one in enumerate(heard)]
        answers[file] = {"overall": record(*whole), "windows": parts}
    if args.json:
        print(json.dumps({"window_s": args.window, "hop_s": hop, "files": answers}, indent=1))


def adapt(args) -> None:
    from ..adapters import guitar
    from ..core import config, paths, stages

    folder = Path(args.folder).resolve()
    if args.steps < 1 or not 1 <= args.chains <= 51:
        raise PaperError("--steps must be 1 or more, and --chains 1 to 51.")
    name = f"adapt-{stages.digest(str(folder))[:8]}"  # (its data set lies there)
    profile = config.load(
        "quick",
        profile=name,
        corpus="folder",
        corpus_path=str(folder),
        recordings=0,
        chains_per_slice=args.chains,
    )
    own = f"{folder.name}-{name.removeprefix('adapt-')}"
    target = Path(args.output) if args.output else paths.data("adapters") / own
    foreign = (target / "README.md").exists() and not (target / guitar.RECORD).exists()
    if foreign or (target.exists() and not target.is_dir()):
        raise PaperError(f"{target} is something else already: give another folder with -o.")
    made = guitar.adapt(profile, target, args.steps)
    print(
        f"macro-F1 on {made.clips} clips of {len(made.held_out)} recordings that it did not hear: "
        f"{made.before:.3f} before, {made.after:.3f} after"
    )
    if made.after <= made.before:
        print("It did not help: the released recognizer knows this guitar as well without it.")
    print(f"{target}: paper recognize --adapter {target} FILE")
    print(f"(its rendered clips lie in {paths.data(name)}: delete that folder when you are done)")


def export(args) -> None:
    from ..core import paths
    from ..recognition.export import to_onnx

    target = paths.to_write(args.output)
    model, thresholds = _recognizer(args)
    difference = to_onnx(model, target, thresholds)
    print(f"{args.output}: probabilities within {difference:.1e} of the original's")


def fetch(args) -> None:
    from dataclasses import replace

    from ..codec import hub
    from ..sound import corpus, mirror

    if args.what == "run":
        from .packing import unpack

        if not args.source:
            raise PaperError("which run? paper fetch run FILE.tar.gz (paper pack makes one).")
        print(unpack(args.source))
        return
    if args.what in mirror.SIZES:
        print(mirror.fetch_pedals(args.what))
        return
    profile = _profile(args)
    if args.what == "guitarset":
        print(corpus.fetch_guitarset(replace(profile, corpus="guitarset", recordings=0)))
    else:
        name = profile.codec.removeprefix("hub:") if profile.codec.startswith("hub:") else "3kbps"
        for part, path in hub.fetch(name).items():
            print(f"{part}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 verified")


def pack(args) -> None:
    from .packing import pack

    print(pack(_profile(args).profile, Path(args.target)))


def pretrain(args) -> None:
    from dataclasses import fields

    from ..codec import l3ac, pretraining
    from ..core import machine

    network = None
    if args.network:
        network = l3ac.config_of(args.network).model_dump(exclude={"hop_length"}, mode="json")
    names = {f.name for f in fields(pretraining.Options)} & set(vars(args)) - {"network"}
    options = pretraining.Options(network=network, **{name: getattr(args, name) for name in names})
    trained = pretraining.pretrain(Path(args.folder), options, args.threads)
    if args.ship and machine.rank() == 0:
        pretraining.ship(trained, Path(args.folder))


def push(args) -> None:
    from .sharing import push

    print(push(RELEASED[args.model], args.repository))


def publish(args) -> None:
    from .publish import publish

    publish(_profile(args), args.part, args.only)
