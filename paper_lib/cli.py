"""The command line: ``paper ...`` or ``python -m paper_lib ...``. Faults the user can mend end in one sentence and exit code 1."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from . import PaperError


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return args.run(args) or 0
    except PaperError as problem:
        print(f"paper: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"paper: {problem.strerror or problem}{f' ({problem.filename})' if problem.filename else ''}: nothing finished is lost; mend it and run the same command again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("paper: stopped; the same command goes on from here.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="paper", description="Recognise guitar effects with a fine-tuned neural codec: the study, end to end.")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")

    def verb(name, run, text, profile=True):
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        if profile:
            one.add_argument("-p", "--profile", default="quick", help="a name in notebooks/profiles, or a YAML file (default: quick)")
        return one

    verb("doctor", doctor, "what is missing on this machine, and the remedy", False).add_argument("--mend", action="store_true", help="put torchaudio's CUDA-only library aside if it breaks the import")
    verb("plan", plan, "clips, disk and time of a profile, before you start")
    one = verb("reproduce", reproduce, "run the notebooks in order through papermill")
    one.add_argument("--from", dest="first", default="", metavar="NN", help="begin with this notebook")
    one.add_argument("--force", action="store_true", help="run also what is unchanged")
    one = verb("verify", verify, "compare a run with the published reference, artefact by artefact")
    one.add_argument("--tolerance", type=float, default=0.05, help="largest difference of a score (default 0.05: another processor's last bit, amplified by training)")
    one = verb("render", render, "apply a chain of effects to an audio file", False)
    one.add_argument("input"), one.add_argument("output")
    one.add_argument("--chain", required=True, help="effects in order, e.g. overdrive,reverb")
    one.add_argument("--lead", type=float, default=3.0, help="seconds that the effects have run before the file begins (default 3; 0: SoX starts with it, clicks and all)")
    one = verb("recognize", recognize, "which effects are on a recording", False)
    one.add_argument("-p", "--profile", help="ask the fine-tuned model of that run (default: the released recognizer)")
    one.add_argument("file", nargs="+")
    one.add_argument("--json", action="store_true", help="one JSON object for all files")
    one.add_argument("--window", type=float, default=5.0, help="seconds (default 5, as trained)")
    one.add_argument("--model", help="ask the recognizer saved in this folder")
    verb("fetch", fetch, "download GuitarSet or the published codec weights").add_argument("what", choices=["guitarset", "weights"])
    one = verb("pretrain", pretrain, "pretrain a codec on sounds made here (a killed one goes on from its checkpoint)", False)
    one.add_argument("folder"), one.add_argument("--steps", type=int, default=4500), one.add_argument("--threads", type=int, default=2)
    one.add_argument("--start", default="", help="weights to begin with: shipped or hub:3kbps (default: random)")
    one.add_argument("--network", default="", help="configuration: hub:3kbps, ... (default: the small one that is shipped)")
    one.add_argument("--rate", type=float, default=1e-3, help="top of the one-cycle learning rate")
    one.add_argument("--size", type=int, default=8, help="crops a step"), one.add_argument("--seconds", type=float, default=2.0, help="length of a crop")
    one.add_argument("--decode-every", type=int, default=4, help="reconstruct on every so manyth step"), one.add_argument("--takes", type=int, default=200, help="guitar performances to train on")
    one.add_argument("--adversarial", type=float, default=0.0, help="weight of the discriminators' verdict (0: none; begin without)")
    one.add_argument("--ship", action="store_true", help="store the result as data/weights/shipped")
    verb("publish", publish, "make the present run the published reference (maintainers)")
    return top


def _profile(args):
    from . import profiles

    return profiles.load(args.profile)


def doctor(args) -> int:
    from . import machine

    lines = machine.doctor(args.mend)
    for fine, line in lines:
        print("ok  " if fine else "NOT ", line)
    return 0 if all(fine for fine, _ in lines) else 1


def plan(args) -> None:
    """Estimate from a short measurement: a few chains rendered, two clips embedded, one training step."""
    import torch

    from . import audio, codec, effects, machine, plucked, rendering

    profile = _profile(args)
    machine.require_sox()
    slices, clips, size = rendering.size(profile)
    machine.settle(profile.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clean = audio.to_int16(audio.resample(plucked.play(plucked.names()[0], profile.slice_seconds), plucked.RATE, profile.render_rate))
    start, sample = time.perf_counter(), effects.plan(profile.chain_plan, profile.include_dry)[::5]
    for chain in sample:
        out = rendering.render(clean, profile.render_rate, chain, audio.CODEC_RATE, sum(rendering.lead_span(profile)) / 2)
    per_render = (time.perf_counter() - start) / len(sample) / max(1, (machine.os.cpu_count() or 1) * 0.8)
    # random weights cost the same, so the plan needs no download
    encoder = codec.Encoder(codec.build(codec.config_of(profile.codec))).to(device)
    batch = torch.from_numpy(audio.to_float(out))[None].repeat(4, 1).to(device)

    def timed(work) -> float:
        work()
        start = time.perf_counter()
        work(), work()
        return (time.perf_counter() - start) / 8  # a clip

    with torch.inference_mode():
        forward = timed(lambda: encoder(batch).mean().item())
    backward = timed(lambda: encoder(batch).square().mean().backward())
    halfway = encoder.lower(batch).detach()
    upper = timed(lambda: encoder(halfway).square().mean().backward())
    train = profile.finetune_clips or int(0.7 * clips)
    finetune = (profile.finetune_epochs + profile.contrast_epochs) * (train * backward + 0.15 * clips * forward) + profile.contrast_epochs * (train + 0.15 * clips) * forward + 0.15 * clips * forward
    rows = [("render the data set", clips * per_render), ("embed it (shipped and untrained codec)", 2 * clips * forward)]
    if profile.upper_epochs:
        heard = min(1.0, profile.upper_seconds / profile.slice_seconds) or 1.0  # of each clip, in training
        rows.append(("train the upper half", profile.upper_epochs * clips * upper * (0.7 * heard + 0.05)))
    rows.append(("fine-tune end to end", finetune))
    size += clips * halfway[0].numel() * 2 if profile.upper_epochs else 0
    print(f"profile {profile.profile}: {slices} slices x {clips // max(slices, 1)} chains = {clips:,} clips, {size * 1.1 / 1e9:.2f} GB on disk; on {device}:")
    for name, seconds in rows + [("altogether, about", 1.1 * sum(s for _, s in rows))]:
        print(f"  {name:40s} {_duration(seconds)}")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else (f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h")


def reproduce(args) -> None:
    from . import machine, notebooks

    machine.require_sox()
    notebooks.reproduce(_profile(args), args.first, args.force)


def verify(args) -> int:
    from . import provenance

    table = provenance.verify(_profile(args).profile, args.tolerance)
    print(table.to_string(index=False, na_rep=""))
    fine = table.verdict.isin(["equal", "within tolerance", "same shape"])
    print(f"{fine.sum()} of {len(table)} artefacts agree with the published reference")
    return 0 if fine.all() else 1


def render(args) -> None:
    import soundfile

    from . import audio, rendering

    if not Path(args.input).exists():
        raise PaperError(f"{args.input}: there is no such audio file.")
    try:
        rate = soundfile.info(args.input).samplerate
    except (soundfile.LibsndfileError, RuntimeError) as problem:
        raise PaperError(f"{args.input}: not readable as audio ({problem}); convert it to WAV or FLAC.") from problem
    samples = audio.to_int16(audio.read(args.input, rate))
    chain = tuple(name.strip() for name in args.chain.split(",") if name.strip())
    if not 0 <= args.lead <= 60:
        raise PaperError(f"--lead is {args.lead:g}; it can be 0 to 60 seconds.")
    out = rendering.render(samples, rate, chain, lead=args.lead)
    target = Path(args.output)
    beside = target.with_name(f".{target.name}")
    try:
        soundfile.write(beside, out, rate, subtype="PCM_16", format=target.suffix.lstrip(".").upper() or "WAV")
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as problem:
        beside.unlink(missing_ok=True)
        raise PaperError(f"{args.output} could not be written ({problem}); give a .wav or .flac file in a folder that exists.") from problem
    beside.replace(target)


def recognize(args) -> None:
    from . import effects, paths, recognizer

    if args.model or args.profile:
        model = recognizer.load(Path(args.model) if args.model else paths.data(_profile(args).profile) / "models" / "finetuned")
    elif (released := recognizer.released()) is None:
        raise PaperError("no recognizer is released in data/weights: paper reproduce makes one; then add -p quick.")
    else:
        model = released[0]
    answers = {}
    for file in args.file:
        probability = recognizer.recognize(model, file, args.window)
        answers[file] = [dict(zip(effects.NAMES, (round(float(p), 4) for p in row))) for row in probability]
        if not args.json:
            print(file)
            for i, row in enumerate(probability):
                said = [f"{effects.NAMES[j]} ({row[j]:.2f})" for j in row.argsort()[::-1] if row[j] > 0.5]
                print(f"  {i * args.window:6.1f} s  {', '.join(said) or 'dry'}")
    if args.json:
        print(json.dumps({"window_s": args.window, "files": answers}, indent=1))


def fetch(args) -> None:
    from dataclasses import replace

    from . import codec, corpus

    profile = _profile(args)
    if args.what == "guitarset":
        print(corpus.fetch_guitarset(replace(profile, corpus="guitarset", recordings=0)))
    else:
        name = profile.codec.removeprefix("hub:") if profile.codec.startswith("hub:") else "3kbps"
        for part, path in codec.fetch(name).items():
            print(f"{part}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 verified")


def pretrain(args) -> None:
    from . import codec, pretraining

    network = codec.config_of(args.network).model_dump(exclude={"hop_length"}, mode="json") if args.network else None
    names = ("steps", "start", "rate", "size", "seconds", "decode_every", "takes", "threads", "adversarial")
    trained = pretraining.pretrain(Path(args.folder), network=network, **{name: getattr(args, name) for name in names})
    if args.ship:
        pretraining.ship(trained, Path(args.folder))


def publish(args) -> None:
    from . import notebooks

    notebooks.publish(_profile(args))


if __name__ == "__main__":
    sys.exit(main())
