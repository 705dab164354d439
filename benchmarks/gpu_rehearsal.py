"""Runs the paper's configuration end to end on this machine, with random weights of the real sizes.

    python -m benchmarks.gpu_rehearsal [--steps 20] [--folder .scratch/rehearsal] [--json]
    python -m benchmarks.gpu_rehearsal --tiny       # the same path with tiny networks, on a CPU

Uses `presets/paper.yaml`: LLaVA-1.5-7B, ViTPose+ huge and BGE-M3 (all random, `benchmarks.random_checkpoints`), with
its batches, LoRA, precision and ZeRO, on the embedded sample's miniature releases. The pipeline's own stages run one
after the other, each in its own process: SFT and RFT with `--steps` steps, saving, loading, evaluating. A table then
compares step time and memory with `pose-rft plan` for the same preset. A random language model hardly ever ends an
answer or predicts a pose, so answers have their maximum length and the step time is an upper bound.

Needs the installed project, about 70 GB of disk and 40 GB of memory for the real sizes. Repeating the command keeps
what is already done.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from benchmarks.random_checkpoints import PAPER, TINY, Sizes, save_bge_m3, save_llava, save_vitpose
from flows.sweep import override
from pose_rft.cost.hardware import GIB, GPUS, Gpu
from pose_rft.cost.plan import make_plan, preset_path
from pose_rft.datasets.names import RELEASES
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.params_file import read_yaml

ROOT = Path(__file__).resolve().parents[1]
DATA = ("sample", "inventory", *(f"convert --dataset {name}" for name in RELEASES))
MODELS = (
    "base_model",
    "pose_encoder",
    "retrieval --model reward",
    "retrieval --model judge",
    "sft --variant gaussian",
    "rft --variant hygrpo",
    "evaluate --run rft_hygrpo",
)
SMALL = {"steps": 3, "batch": 8, "learning_rate": 2.0e-4}  # for retrieval, whose models only have to exist
FIRST = 2  # warm-up steps that are not counted: kernel selection, memory allocation


class Ran(NamedTuple):
    """A stage's wall time, and its peak memory in bytes: of the GPU (all processes), of the host."""

    seconds: float
    gpu: float
    host: float


def rehearsed(base: Mapping[str, Any], weights: Path, steps: int, tiny: bool) -> dict[str, Any]:
    """Returns the preset on miniature releases with these weights; keeps everything that determines a step's cost."""
    bge = str(weights / "bge-m3")
    retrieval = {
        f"retrieval.{model}.{phase}.{key}": value
        for model in ("reward", "judge")
        for phase in ("pretrain", "finetune")
        for key, value in SMALL.items()
    }
    changed = {
        "data.source": "sample",
        "data.root": "data/sample/releases",
        "data.body_model": "data/sample/body_models",
        "datasets.coco.year": 2017,
        "datasets.coco.body_joints": 6,
        "datasets.bedlam.smallest_box": 20.0,
        "datasets.llava_instruct.heldout_percent": 20.0,
        "shards.workers": 2,
        "base_model.source": str(weights / "llava"),
        "pose_encoder.checkpoint": str(weights / "vitpose"),
        "sft.steps": steps,
        "sft.save_every": steps,
        "sft.heldout.samples": 8,
        "calibration.samples": 8,
        "retrieval.reward.sentence.model": bge,
        "rft.steps": steps,
        "rft.save_every": steps,
        "rft.heldout.samples": 8,
        "rft.heldout_every": steps,
        "rft.rewards.sentence_encoder": bge,
        "evaluate.image_samples": 8,
        "evaluate.text_samples": 16,
        "evaluate.vqa_samples": 8,
        "evaluate.mean_pose_samples": 50,
        "evaluate.sentence_encoder": bge,
        **retrieval,
    }
    if tiny:
        changed |= {"sft.batch": 10, "rft.batch": 4, "rft.max_new_tokens": 16}
    content = override(base, changed)
    content["datasets"]["bedlam"]["poses"] = {}  # all of them
    return content


def make_weights(folder: Path, vocabulary: Path, sizes: Sizes, device: str) -> None:
    """Creates the three checkpoints, with the vocabulary of the miniature releases."""
    known = json.loads(vocabulary.read_text())["model"]["vocab"]
    words = sorted(word for word in known if not re.fullmatch(r"<.*>", word))
    with atomic.folder(folder) as new:
        save_llava(new / "llava", words, sizes, device)
        save_vitpose(new / "vitpose", sizes)
        save_bge_m3(new / "bge-m3", words, sizes)


def run_stage(stage: str, folder: Path) -> Ran:
    """Runs one stage of the pipeline in `folder`.

    Raises:
        PoseRftError: the stage failed; the message quotes the end of its log.
    """
    name, *options = stage.split()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = folder / f"{'_'.join([name, *options[1:]])}.log"
    began = time.perf_counter()
    with log.open("w") as file, Watch() as watch:
        command = [sys.executable, "-m", f"stages.{name}", *options]
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise PoseRftError(f"{stage} ended with {code}: {log.read_text()[-600:].strip()} (all of it: {log}).")
    return Ran(time.perf_counter() - began, watch.most, used.ru_maxrss * 1024)


class Watch:
    """Records the GPU's peak memory use while it is open, sampled twice a second; 0 without a GPU."""

    def __enter__(self) -> "Watch":
        self.most, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        if torch.cuda.is_available():
            self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.5):
            free, total = torch.cuda.mem_get_info()
            self.most = max(self.most, float(total - free))

    def __exit__(self, *_: object) -> None:
        self._over.set()


def step_seconds(log: Path) -> float:
    """Returns the median step time after the warm-up steps."""
    seconds = [json.loads(line)["seconds"] for line in log.read_text().splitlines()]
    return statistics.median(seconds[FIRST:] or seconds)


def this_gpu() -> Gpu:
    """Returns this machine's GPU if its specifications are known, else an H200, so that a plan can be made."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((gpu for gpu in GPUS.values() if gpu.name in name), GPUS["H200"])


def compared(folder: Path, ran: Mapping[str, Ran]) -> list[dict[str, Any]]:
    """Returns one row each for SFT and RFT: planned and measured seconds and GiB."""
    plan = make_plan(folder / "params.yaml", this_gpu())
    rows = []
    for training, stage in zip(plan.trainings, ("sft --variant gaussian", "rft --variant hygrpo"), strict=True):
        seen = ran[stage]
        log = folder / f"results/{training.name}_{stage.split()[-1]}/log.jsonl"
        memory = next(parts for (world, _), parts in training.memory.items() if world == 1)
        rows.append(
            {
                "training": training.name,
                "planned step, s": training.step_seconds[1],
                "step, s": step_seconds(log),
                "planned GiB": sum(memory.values()) / GIB,
                "GiB": (seen.gpu or seen.host) / GIB,
                "whole stage, s": seen.seconds,
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]], ran: Mapping[str, Ran]) -> str:
    """Formats the tables for docs/performance.md."""
    names = list(rows[0])
    where = f"{torch.cuda.get_device_name()}" if torch.cuda.is_available() else "CPU (memory of the process)"
    lines = [f"{where}, torch {torch.__version__}; the plan is for {this_gpu().name}", ""]
    lines += [f"| {' | '.join(names)} |", f"|---{'|---:' * (len(names) - 1)}|"]
    lines += [f"| {' | '.join(v if isinstance(v, str) else f'{v:.2f}' for v in row.values())} |" for row in rows]
    lines += ["", "| stage | s | GiB of the GPU | GiB of the machine |", "|---|---:|---:|---:|"]
    for name, one in ran.items():
        lines.append(f"| {name} | {one.seconds:.0f} | {one.gpu / GIB:.1f} | {one.host / GIB:.1f} |")
    return "\n".join(lines)


def rehearse(folder: Path, steps: int, tiny: bool) -> dict[str, Ran]:
    """Runs data stages, weights, trainings and evaluation in `folder`; skips what is already done.

    Raises:
        PoseRftError: a stage failed.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights"
    content = rehearsed(read_yaml(preset_path("paper")), weights, steps, tiny)
    text = yaml.safe_dump(content, sort_keys=False)
    if (folder / "params.yaml").exists() and (folder / "params.yaml").read_text() != text:
        raise PoseRftError(f"{folder} holds another rehearsal; remove it or give another --folder.")
    atomic.write_text(folder / "params.yaml", text)
    done = folder / "done.json"
    ran = {name: Ran(*one) for name, one in json.loads(done.read_text()).items()} if done.exists() else {}
    for stage in (*DATA, *MODELS):
        if stage in ran:
            continue
        if stage == "base_model" and not weights.exists():
            device = "cuda" if torch.cuda.is_available() else "cpu"
            make_weights(weights, folder / "data/sample/tokenizer/tokenizer.json", TINY if tiny else PAPER, device)
            if device == "cuda":
                torch.cuda.empty_cache()
        print(f"{stage} …", file=sys.stderr, flush=True)
        ran[stage] = run_stage(stage, folder)
        atomic.write_json(done, ran)
        if stage == "base_model":  # models/base now holds these 14 GB; the plan reads only the configuration
            for file in (weights / "llava").glob("*.safetensors"):
                file.unlink()
    return ran


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_rehearsal", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path(".scratch/rehearsal"))
    parser.add_argument("--tiny", action="store_true", help="tiny networks and batches, for a CPU")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args(arguments)
    ran = rehearse(options.folder, options.steps, options.tiny)
    rows = compared(options.folder, ran)
    print(json.dumps({"rows": rows, "stages": ran}) if options.json else table(rows, ran))


if __name__ == "__main__":
    try:
        main()
    except PoseRftError as error:
        sys.exit(f"error: {error}")
