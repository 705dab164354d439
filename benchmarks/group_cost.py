"""Cost of a group of G answers, compared with one answer, with repeated prompts, and with TRL's GRPOTrainer.

    python -m benchmarks.group_cost [--json] [--skip-trl] [--figure docs/images/group_cost.png]
    python -m benchmarks.group_cost --device cuda [--json]
    python -m benchmarks.group_cost --tiny

On the CPU: our policy with a Llama of 6 layers and width 512, prompts of 601 tokens (576 of an image), answers of 12,
float32, all weights trained. The variants take turns within each round, and the fastest round counts. `--cpu-time`
measures CPU time on one thread instead of wall time, for a machine that runs other work. TRL is installed into its own
environment (`--trl-env`, else a temporary folder), which borrows torch and transformers from this one, and runs in its
own process between our rounds. Peak memory is measured in processes that do nothing else.

On a GPU: a randomly initialised LLaVA-1.5-7B with HMR2.0's encoder, bfloat16, LoRA, frozen encoders included; the share
of the GPU's peak (MFU) by `pose_rft/policy/counting.py`. That machine needs only torch, transformers, peft and roma.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.utils import logging

from benchmarks.group_step import CPU, PHASES, Adapters, Step, Way, cpu_config, llava_7b_config, tiny_config
from benchmarks.timing import best
from pose_rft.cores import cores
from pose_rft.cost.hardware import peak_flops
from pose_rft.errors import PoseRftError
from pose_rft.policy.config import PoseLlavaConfig
from pose_rft.policy.counting import Group, PolicyCosts
from pose_rft.training.devices import GIB, peak_memory

PROMPT, ANSWER, GROUP = 601, 12, 8
TINY_PROMPT = 12
CURVE = (1, 2, 4, 8, 16, 32, 64)
MEMORY: tuple[tuple[Way, int], ...] = (("shared", 1), ("shared", 8), ("repeated", 8), ("shared", 64), ("dense", 64))
GPU_GROUPS = (8, 32)
TRL = "trl==1.16.0"
TRL_STEPS = 4  # the first one is not counted
TARGETS = {"train_speedup": 5.0, "rollout_speedup": 2.5, "trl_step_speedup": 5.0}
LIMITS = {"g8_over_g1": 1.25, "g16_over_g1": 1.5}


class Results(NamedTuple):
    """Ratios by key; seconds by what was timed; steps {way: {G: seconds}}; peak memory {what: MB}."""

    ratios: dict[str, float]
    seconds: dict[str, float]
    steps: dict[str, dict[int, float]]
    memory: dict[str, float]
    machine: str


def on_cpu(rounds: int, trl_python: Path | None, folder: Path, clock: str) -> Results:
    """Measures all figures of the CPU table; clock: the name of a function in `time`."""
    step = Step(cpu_config(), prompt=PROMPT, answer=ANSWER, clock=getattr(time, clock))
    answers = step.rollout(GROUP, "shared")
    reference = step.judged(answers, "shared")
    parts: dict[str, Callable[[], object]] = {
        "train, shared": lambda: step.train(answers, reference, "shared"),
        "train, repeated": lambda: step.train(answers, reference, "repeated"),
        "rollout, shared": lambda: step.rollout(GROUP, "shared"),
        "rollout, repeated": lambda: step.rollout(GROUP, "repeated"),
    }
    best(parts, 1, step.now)  # warms up
    seconds = best(parts, rounds, step.now)
    say(f"parts: {_rounded(seconds)}")
    step.optimiser.zero_grad()
    ways: dict[str, Callable[[], object]] = {
        f"{way} {group}": lambda way=way, group=group: step.run(group, way)  # type: ignore[misc]
        for group in CURVE
        for way in ("shared", "dense")
    }
    whole = best(ways, rounds, step.now)
    say(f"steps: {_rounded(whole)}")
    memory = {f"{way} {group}": _child_memory(way, group) for way, group in MEMORY}
    say(f"memory: {_rounded(memory)}")
    if trl_python is not None:
        trl = run_trl(trl_python, folder, clock)
        again = best({name: ways[name] for name in (f"shared {GROUP}", "shared 1", "shared 16")}, rounds, step.now)
        whole |= {name: min(value, whole[name]) for name, value in again.items()}
        seconds[f"TRL {trl['version']} step"] = min(trl["seconds"][1:])
        memory[f"TRL {trl['version']} {GROUP}"] = trl["memory"]
        say(f"TRL: {trl}")
    steps: dict[str, dict[int, float]] = {
        way: {group: whole[f"{way} {group}"] for group in CURVE} for way in ("shared", "dense")
    }
    own = steps["shared"]
    ratios = {
        "train_speedup": seconds["train, repeated"] / seconds["train, shared"],
        "rollout_speedup": seconds["rollout, repeated"] / seconds["rollout, shared"],
        "g8_over_g1": own[8] / own[1],
        "g16_over_g1": own[16] / own[1],
    }
    if trl_python is not None:
        ratios["trl_step_speedup"] = min(trl["seconds"][1:]) / own[GROUP]
    kind = "wall" if clock == "perf_counter" else "processor"
    return Results(ratios, seconds, steps, memory, f"{machine()}; {kind} time")


# --- TRL


def trl_environment(folder: Path) -> Path:
    """Returns the Python of an environment with TRL in `folder`, creating the environment if it does not exist.

    It falls back on this environment's packages, so torch and transformers are the same for both.

    Raises:
        PoseRftError: TRL cannot be installed.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        own = next((folder / "lib").glob("python*/site-packages"))
        here = Path(torch.__file__).parents[1]
        (own / "borrowed.pth").write_text(f"{here}\n")
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", TRL],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise PoseRftError(
            f"{TRL} could not be installed into {folder} ({done.stderr[-300:].strip()}); use --skip-trl."
        )
    return python


def run_trl(python: Path, folder: Path, clock: str) -> dict[str, Any]:
    """Returns version, seconds of each step and peak memory (MB) of TRL's process.

    Raises:
        PoseRftError: the process fails.
    """
    sizes = CPU._asdict()
    run: dict[str, object] = {"prompt": PROMPT, "answer": ANSWER, "group": GROUP, "steps": TRL_STEPS, "clock": clock}
    run["threads"] = torch.get_num_threads()
    script, result = Path(__file__).with_name("group_cost_trl.py"), folder / "trl.json"
    done = subprocess.run(
        [str(python), str(script), json.dumps(sizes | run), str(result)], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise PoseRftError(f"TRL's trainer failed ({done.stderr[-500:].strip()}); use --skip-trl.")
    return json.loads(result.read_text())


# --- memory


def _child_memory(way: Way, group: int) -> float:
    """Returns the peak memory (MB) of a process that runs one such step."""
    command = [sys.executable, "-m", "benchmarks.group_cost", "--child", way, str(group)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return float(done.stdout.split()[-1])


def child(way: Way, group: int) -> None:
    step = Step(cpu_config(), prompt=PROMPT, answer=ANSWER)
    step.run(group, way)
    print(peak_memory(torch.device("cpu")) / 2**20)


# --- GPU


class GpuRow(NamedTuple):
    """One way at one G: seconds of a step and of its phases, tokens per second, MFU, peak memory in GiB."""

    way: str
    group: int
    seconds: float
    phases: dict[str, float]
    unique: float
    logical: float
    mfu: float
    memory: float


def on_gpu(
    config: PoseLlavaConfig,
    device: str,
    dtype: torch.dtype,
    groups: Sequence[int],
    prompt: int,
    prompts: int,
    rounds: int,
) -> list[GpuRow]:
    """Times whole steps with LoRA, frozen encoders included; reports and skips a way that does not fit into memory."""
    lora = Adapters()
    step = Step(config, device, dtype, lora, prompt, ANSWER, prompts, encode=True)
    costs = PolicyCosts(config, lora)  # type: ignore[arg-type]
    rows = []
    ways: tuple[Way, ...] = ("shared", "repeated")
    for group in groups:
        work = [Group(prompt, (ANSWER,) * group, True)] * prompts
        flops = costs.rft_step(work).total
        for way in ways:
            try:
                step.run(group, way)  # warms up
                if step.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                step.seconds = dict.fromkeys(PHASES, 0.0)
                for _ in range(rounds):
                    step.run(group, way)
            except torch.cuda.OutOfMemoryError:
                step.optimiser.zero_grad()
                torch.cuda.empty_cache()
                say(f"{way}, G = {group}: out of memory")
                continue
            phases = {name: value / rounds for name, value in step.seconds.items()}
            seconds = sum(phases.values())
            rows.append(
                GpuRow(
                    way,
                    group,
                    seconds,
                    phases,
                    sum(one.unique for one in work) / seconds,
                    sum(one.logical for one in work) / seconds,
                    flops / seconds / peak_flops(step.device),
                    peak_memory(step.device) / GIB,
                )
            )
            say(_gpu_line(rows[-1]))
    return rows


# --- output


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> str:
    """Returns processor, threads and versions."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0].split(":")[1].strip() if names else platform.processor()
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{processor}, {torch.get_num_threads()} threads, {versions}"


def cpu_tables(results: Results) -> str:
    """Returns the tables of docs/performance.md."""
    aims = {name: f"at least {least:g}" for name, least in TARGETS.items()}
    aims |= {name: f"at most {most:g}" for name, most in LIMITS.items()}
    lines = [results.machine, "", "| key | ratio | target |", "|---|---:|---|"]
    lines += [
        f"| `{name}` | {value:.2f}{_mark(name, value)} | {aims[name]} |" for name, value in results.ratios.items()
    ]
    lines += ["", "| timed | seconds |", "|---|---:|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in results.seconds.items()]
    lines += ["", f"| step, G = | {' | '.join(map(str, CURVE))} |", f"|---{'|---:' * len(CURVE)}|"]
    for way, steps in results.steps.items():
        lines.append(f"| {way}, seconds | {' | '.join(f'{steps[group]:.2f}' for group in CURVE)} |")
        lines.append(f"| over G = 1 | {' | '.join(f'{steps[group] / steps[1]:.2f}' for group in CURVE)} |")
    lines += ["", "| process, G | peak memory, MB |", "|---|---:|"]
    return "\n".join(lines + [f"| {name} | {value:.0f} |" for name, value in results.memory.items()])


def _mark(name: str, value: float) -> str:
    holds = value >= TARGETS[name] if name in TARGETS else value <= LIMITS[name]
    return "" if holds else " (!)"


GPU_HEADER = (
    "| way | G | s a step | "
    + " | ".join(PHASES)
    + " | unique tokens/s | logical tokens/s | MFU | GiB |\n|---"
    + "|---:" * (len(PHASES) + 6)
    + "|"
)


def _gpu_line(row: GpuRow) -> str:
    phases = " | ".join(f"{row.phases[name]:.3f}" for name in PHASES)
    rates = f"{row.unique:,.0f} | {row.logical:,.0f} | {row.mfu:.3f} | {row.memory:.1f}"
    return f"| {row.way} | {row.group} | {row.seconds:.3f} | {phases} | {rates} |"


def _rounded(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def draw(results: Results, path: Path) -> None:
    """Plots the cost of a step over G as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    names = {"shared": "attention in two parts", "dense": "one dense mask"}
    for way, steps in results.steps.items():
        axes.plot(CURVE, [steps[group] / steps[1] for group in CURVE], marker="o", label=names[way])
    axes.set(xscale="log", xlabel="G, answers to a prompt", ylabel="time of a step, G = 1 is 1", ylim=(0, None))
    axes.set_xticks(CURVE, [str(group) for group in CURVE])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.group_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--skip-trl", action="store_true")
    parser.add_argument("--trl-env", type=Path, help="folder of TRL's environment (default: a temporary one)")
    parser.add_argument("--figure", type=Path, help="PNG of the cost over G")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--cpu-time", action="store_true", help="the process's seconds on one thread, not the wall's")
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda")
    parser.add_argument("--prompts", type=int, default=4, help="on a GPU: prompts in a step")
    parser.add_argument("--tiny", action="store_true", help="what is done on a GPU, with a tiny model on any device")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "G"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.disable_progress_bar()
    torch.set_num_threads(1 if options.cpu_time else options.threads)
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    if options.device != "cpu" or options.tiny:
        rows = on_gpu(
            tiny_config() if options.tiny else llava_7b_config(),
            options.device,
            torch.bfloat16,
            GPU_GROUPS,
            prompt=TINY_PROMPT if options.tiny else PROMPT,
            prompts=options.prompts,
            rounds=options.rounds,
        )
        table = "\n".join([GPU_HEADER, *map(_gpu_line, rows)])
        print(json.dumps([row._asdict() for row in rows]) if options.json else table)
        return
    with tempfile.TemporaryDirectory(prefix="group-cost-") as temporary:
        folder = Path(temporary)
        python = None if options.skip_trl else trl_environment((options.trl_env or folder / "trl").resolve())
        results = on_cpu(options.rounds, python, folder, "process_time" if options.cpu_time else "perf_counter")
    if options.figure:
        draw(results, options.figure)
    print(json.dumps(results.ratios | results._asdict()) if options.json else cpu_tables(results))


if __name__ == "__main__":
    try:
        main()
    except PoseRftError as error:
        sys.exit(f"error: {error}")
