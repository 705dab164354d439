"""Estimates the cost of running a preset before it is started (`pose-rft plan`).

Uses only the params file: nothing is downloaded, and no weights are created. The counts are those used for a step's MFU
(`policy/counting.py`); what cannot be known before the run is an assumption that the table states.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import gcd
from pathlib import Path

from pose_rft.batches.examples import ExampleParams, Task
from pose_rft.cost.hardware import GIB, Gpu
from pose_rft.errors import PoseRftError
from pose_rft.hygrpo.params import RFTParams
from pose_rft.params import load
from pose_rft.policy.architectures import planned_config
from pose_rft.policy.counting import Count, Group, PolicyCosts
from pose_rft.policy.params import BaseModelParams, PolicyParams, PoseEncoderParams
from pose_rft.policy.processor import ImageParams
from pose_rft.sample.plan import SampleParams
from pose_rft.training.engine_params import EngineParams
from pose_rft.training.sft import SFTParams

WORLDS = (1, 8)
MFU = 0.35
"""Assumed share of the GPU's peak in dense passes; reports on dense training of such models give 0.3 to 0.5."""
DECODING_SECONDS = 1e-3
"""Assumed time of one layer to decode one token of all answers together: small kernels, launched one by one."""
TEXT_TOKENS: dict[Task, int] = {"image_pose": 24, "text_pose": 90, "image_text_pose": 100, "vqa": 40}
"""Assumed length of a prompt without its picture; PoseScript captions have about 60 tokens."""
ANSWER_TOKENS: dict[Task, int] = {"image_pose": 12, "text_pose": 12, "image_text_pose": 12, "vqa": 48}
"""Assumed length of an answer including its end token; the pose template has 12."""
PICTURED: tuple[Task, ...] = ("image_pose", "image_text_pose", "vqa")


@dataclass(frozen=True)
class Training:
    """The costs of one training run.

    parameters: by part. batch: prompts (or examples) per step; group: answers per prompt; steps: of the whole run.
    unique, logical: tokens per step with prompts counted once, and once per answer. flops: per step, by phase.
    at_once: {GPUs: rows per pass on one GPU}. memory: {(GPUs, ZeRO stage): {part: bytes on one GPU}}.
    step_seconds: {GPUs: time per step}. notes: what to change in the preset to run on so many GPUs.
    """

    name: str
    lora: str
    parameters: Mapping[str, Count]
    batch: int
    group: int
    steps: int
    unique: float
    logical: float
    flops: Mapping[str, float]
    at_once: Mapping[int, int]
    memory: Mapping[tuple[int, int], Mapping[str, float]]
    step_seconds: Mapping[int, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The costs of a preset's SFT and RFT, and the assumptions behind them."""

    source: str
    policy: str
    gpu: Gpu
    mfu: float
    trainings: tuple[Training, ...]


def make_plan(path: Path, gpu: Gpu, mfu: float = MFU) -> Plan:
    """Estimates the costs of the SFT and the RFT that a params file describes.

    Raises:
        PoseRftError: a section is missing or wrong, or names a model whose sizes are not known here.
    """
    base, encoder = load("base_model", BaseModelParams, path), load("pose_encoder", PoseEncoderParams, path)
    policy, image = load("policy", PolicyParams, path), load("image", ImageParams, path)
    sft, rft = load("sft", SFTParams, path), load("rft", RFTParams, path)
    rows = load("sample", SampleParams, path).vocabulary
    config = planned_config(base, encoder, policy, image.size, image.pose_size, rows)
    beside = "no pose encoder" if config.pose_encoder is None else (encoder.checkpoint or encoder.kind)
    tuned = deepcopy(config)
    tuned.adapters = None if sft.lora is None else [sft.lora.model_dump()]
    trainings = (
        _sft(PolicyCosts(config, sft.lora), sft, gpu, mfu),
        _rft(PolicyCosts(tuned, rft.lora), rft, gpu, mfu),
    )
    return Plan(str(path), f"{base.source}, {beside}, fusion {policy.fusion}", gpu, mfu, trainings)


def _sft(costs: PolicyCosts, params: SFTParams, gpu: Gpu, mfu: float) -> Training:
    groups = _groups(params.examples, costs, 1, None)
    encode = not params.cache_tokens
    flops = params.batch * sum(share * costs.sft_example(group, encode) for share, group in groups)
    seconds = {world: flops / (gpu.flops * mfu * world) for world in WORLDS}
    return _training("sft", costs, params.engine, params.batch, 1, params.steps, groups, {"examples": flops}, seconds)


def _rft(costs: PolicyCosts, params: RFTParams, gpu: Gpu, mfu: float) -> Training:
    groups = _groups(params.examples, costs, params.group_size, params.max_new_tokens)
    parts = [
        [share * value for value in costs.rft_step([group], params.updates_per_rollout, not params.cache_tokens)]
        for share, group in groups
    ]
    names = ("encoders", "rollout", "reference", "policy and update")
    flops = {name: params.batch * sum(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}
    longest = max(group.answers[0] for _, group in groups)
    layers = costs.config.get_text_config().num_hidden_layers
    weights = costs.parameters["language model"].total * (2 if params.engine.bf16 else 4)
    decoding = (longest - 1) * max(weights / gpu.bandwidth, layers * DECODING_SECONDS)
    seconds = {}
    for world in WORLDS:
        pieces = _pieces(params.batch, params.engine.accumulation, world)
        seconds[world] = sum(flops.values()) / (gpu.flops * mfu * world) + pieces * decoding
    return _training("rft", costs, params.engine, params.batch, params.group_size, params.steps, groups, flops, seconds)


def _training(
    name: str,
    costs: PolicyCosts,
    engine: EngineParams,
    batch: int,
    group: int,
    steps: int,
    groups: list[tuple[float, Group]],
    flops: Mapping[str, float],
    seconds: Mapping[int, float],
) -> Training:
    longest = max((one for _, one in groups), key=lambda one: one.unique)
    memory, at_once, notes = {}, {}, []
    for world in WORLDS:
        pieces = _pieces(batch, engine.accumulation, world)
        if batch % world:
            notes.append(f"a batch of {batch} does not split over {world} GPUs")
        elif pieces != engine.accumulation:
            notes.append(
                f"on {world} GPUs set {name}.engine.accumulation to {pieces}, so that a batch of {batch} splits"
            )
        rows = at_once[world] = max(1, batch // (world * pieces))
        activations = costs.activations(
            rows, longest.prompt, group, longest.answers[0], engine.bf16, engine.checkpoint_activations
        )
        for stage in (0, 1, 2, 3) if world > 1 else (engine.stage,):
            states = costs.states(stage, world, engine.bf16)
            if name == "sft":
                del states["reference"]
            memory[world, stage] = states | {"activations": activations}
    rank = "all of the language model is trained" if costs.lora is None else f"LoRA of rank {costs.lora.rank}"
    return Training(
        name=name,
        lora=rank,
        parameters=costs.parameters,
        batch=batch,
        group=group,
        steps=steps,
        unique=batch * sum(share * one.unique for share, one in groups),
        logical=batch * sum(share * one.logical for share, one in groups),
        flops=flops,
        at_once=at_once,
        memory=memory,
        step_seconds=seconds,
        notes=tuple(notes),
    )


def _groups(examples: ExampleParams, costs: PolicyCosts, group: int, most: int | None) -> list[tuple[float, Group]]:
    """Returns (share, group) of each task in the mixture; `most` limits the tokens of an answer."""
    weights = {task: sum(sets.values()) for task, sets in examples.mixture.items()}
    found = []
    for task, weight in weights.items():
        picture = task in PICTURED
        prompt = TEXT_TOKENS[task] + (costs.model.num_image_tokens if picture else 0)
        answer = min(ANSWER_TOKENS[task], most or ANSWER_TOKENS[task])
        if weight:
            found.append((weight / sum(weights.values()), Group(prompt, (answer,) * group, picture)))
    return found


def _pieces(batch: int, accumulation: int, world: int) -> int:
    """Micro-batches per GPU: the preset's, or its largest divisor that also divides the batch of a GPU."""
    return gcd(accumulation, max(1, batch // world))


def preset_path(name: str) -> Path:
    """Returns the file of a preset, in the working folder or beside the installed package.

    Raises:
        PoseRftError: no preset has this name.
    """
    folders = (Path("presets"), Path(__file__).resolve().parents[1] / "presets")
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise PoseRftError(f"There is no preset {name!r}, expected one of {', '.join(known)}.")


# --- as text


def table(plan: Plan) -> str:
    """Formats the plan as text for people to read."""
    lines = [f"{plan.source}: {plan.policy}"]
    for training in plan.trainings:
        lines += ["", *_of_training(training)]
    hours = " + ".join(training.name for training in plan.trainings)
    total = {w: sum(t.steps * t.step_seconds[w] for t in plan.trainings) / 3600 for w in WORLDS}
    lines += [
        "",
        f"{hours}: " + ", ".join(f"{_hours(total[w])} on {w} x {plan.gpu.name}" for w in WORLDS),
        f"Assumed: MFU {plan.mfu:.2f} of {plan.gpu.flops / 1e12:.0f} TFLOP/s in dense passes; decoding reads all "
        f"weights at {plan.gpu.bandwidth / 1e12:.1f} TB/s",
        f"and takes at least {1e3 * DECODING_SECONDS:g} ms a layer; prompts of {_range(TEXT_TOKENS)} tokens beside the "
        f"picture's, answers of {_range(ANSWER_TOKENS)}.",
        "Left out: rewards, data loading, communication, checkpoints, held-out looks; on the GPU its context,",
        "fragmentation, and the frozen encoders' own activations.",
    ]
    return "\n".join(lines)


def _of_training(t: Training) -> list[str]:
    answers = f"{t.batch} prompts x {t.group} answers" if t.group > 1 else f"{t.batch} examples"
    lines = [f"{t.name}: {t.steps:,} steps of {answers}; {t.lora}", ""]
    lines.append(f"  {'parameters':<22}{'all':>12}{'trained':>12}")
    total = Count(*(sum(column) for column in zip(*t.parameters.values(), strict=True)))
    for part, count in [*t.parameters.items(), ("total", total)]:
        lines.append(f"  {part:<22}{_short(count.total):>12}{_short(count.trained):>12}")
    lines += ["", f"  {'GiB on a GPU':<22}" + "".join(f"{f'{w} GPU' + 's' * (w > 1):>9}" for w, _ in t.memory)]
    lines.append(f"  {'ZeRO stage':<22}" + "".join(f"{s if w > 1 else 'any':>9}" for w, s in t.memory))
    for part in next(iter(t.memory.values())):
        lines.append(f"  {part:<22}" + "".join(f"{m[part] / GIB:>9.2f}" for m in t.memory.values()))
    lines.append(f"  {'total':<22}" + "".join(f"{sum(m.values()) / GIB:>9.2f}" for m in t.memory.values()))
    rows = ", ".join(f"{t.at_once[w]} on {w} GPU{'s' * (w > 1)}" for w in WORLDS)
    lines += ["", f"  {'rows passed at once':<22}{rows}", f"  {'tokens a step':<22}{t.unique:,.0f}"]
    if t.group > 1:
        lines[-1] += f" read, prompts once ({t.logical:,.0f} with a prompt for each answer)"
    flops = " + ".join(f"{_short(value)} {name}" for name, value in t.flops.items() if value)
    lines.append(f"  {'FLOPs a step':<22}{_short(sum(t.flops.values()))} = {flops}")
    lines.append(
        f"  {'expected':<22}"
        + ", ".join(
            f"{_hours(t.steps * t.step_seconds[w] / 3600)} on {w} GPU{'s' * (w > 1)} ({t.step_seconds[w]:.2g} s a step)"
            for w in WORLDS
        )
    )
    return lines + [f"  note: {note}" for note in t.notes]


UNITS = ((1e18, " E"), (1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


def _short(value: float) -> str:
    unit, sign = next(((size, sign) for size, sign in UNITS if value >= size), (1.0, ""))
    return f"{value / unit:.4g}{sign}" if value else "-"


def _hours(value: float) -> str:
    return f"{value:.1f} h" if value >= 1 else f"{60 * value:.2g} min"


def _range(numbers: Mapping[Task, int]) -> str:
    return f"{min(numbers.values())} to {max(numbers.values())}"
