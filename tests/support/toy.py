"""A small DVC project in git with the pipeline's stage names, and this project's flows: what tests run for real."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Trains for `seconds`, with a checkpoint in scratch, so that a killed run resumes; a child process of its own, as
# DeepSpeed's launcher has.
TRAIN = """
import os, pathlib, subprocess, sys, time
from pose_rft.errors import PoseRftError
from pose_rft.io.lock import BUSY_STATUS, Busy, alone_in
name, steps, lr = sys.argv[1], int(sys.argv[2]), sys.argv[3]
scratch = pathlib.Path(os.environ.get("POSE_RFT_SCRATCH", ".scratch")) / f"{name}-{steps}-{lr}"
scratch.mkdir(parents=True, exist_ok=True)
latest, unfinished = scratch / "latest", scratch / "unfinished"

def main():
    begun = int(latest.read_text()) if latest.exists() else 0
    print(f"begins at step {begun}", flush=True)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", f"helper-of-{os.getcwd()}"])
    try:
        for step in range(begun, steps):
            time.sleep(0.1)
            unfinished.write_text(str(step + 1))
            unfinished.replace(latest)
            print(f"{name}: {step + 1}/{steps} steps (10.0/s)", flush=True)
    finally:
        helper.kill()
    pathlib.Path(f"{name}.txt").write_text(f"{name} {steps} {lr}\\n")

try:
    with alone_in(scratch):
        main()
except PoseRftError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(BUSY_STATUS if isinstance(error, Busy) else 2)
"""

STAGES = """
stages:
  sample: {cmd: "echo s > sample.txt", deps: [seed.txt], outs: [sample.txt]}
  convert:
    foreach: [a, b]
    do: {cmd: "cp inventory.txt shards_${item}.txt", deps: [inventory.txt], outs: ["shards_${item}.txt"]}
  sft:
    cmd: python train.py sft ${sft.steps} ${lr}
    deps: [shards_a.txt, shards_b.txt, train.py]
    params: [sft, lr]
    outs: [sft.txt]
  rft: {cmd: "cat sft.txt > rft.txt && echo ${rft.beta} >> rft.txt", deps: [sft.txt], params: [rft], outs: [rft.txt]}
  report:
    cmd: python report.py
    deps: [rft.txt, report.py]
    outs: [report.txt]
    metrics: [{metrics/summary.json: {cache: false}}]
"""
LOOKS = """
stages:
  inventory:
    cmd: "echo i > inventory.txt"
    wdir: ..
    deps: [sample.txt]
    outs: [inventory.txt]
    always_changed: true
"""
REPORT = """
import json, pathlib, re
text = pathlib.Path("rft.txt").read_text()
beta = float(text.splitlines()[-1])
pathlib.Path("report.txt").write_text(text)
pathlib.Path("metrics").mkdir(exist_ok=True)
content = {"pose_error": {"3dpw": {"rft": {"mpjpe": 100 * beta}}}, "heldout_gain": {"rft": {"joint": 1 - beta}}}
pathlib.Path("metrics/summary.json").write_text(json.dumps(content))
"""
PARAMS = "sft:\n  steps: 3\nlr: 1\nrft:\n  beta: 0.5\n"
NAMES = {"sample", "inventory", "convert@a", "convert@b", "sft", "rft", "report"}
GIT = ("-c", "user.name=t", "-c", "user.email=t@example.org")


def run(root: Path, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"PATH": path} | env, capture_output=True, text=True, timeout=300
    )
    if check:
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done


def make(root: Path, stages: str = STAGES) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.py").write_text(TRAIN)
    (root / "report.py").write_text(REPORT)
    (root / "seed.txt").write_text("1\n")
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").write_text(textwrap.dedent(stages))
    if stages == STAGES:
        (root / "stages").mkdir()
        (root / "stages/dvc.yaml").write_text(LOOKS)
    (root / ".gitignore").write_text(".scratch/\n.prefect/\n__pycache__/\n*.txt\n!seed.txt\n")
    shutil.copy(ROOT / "prefect.yaml", root)
    for package in ("flows", "pose_rft"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    run(root, "git", "init", "-q")
    run(root, "dvc", "init", "-q")
    for name, value in {"core.analytics": "false", "core.autostage": "false"}.items():
        run(root, "dvc", "config", name, value)
    commit(root, "start")
    return root


def commit(root: Path, message: str) -> None:
    run(root, "git", "add", "-A")
    run(root, "git", *GIT, "commit", "-qm", message)


def set_params(root: Path, text: str) -> None:
    (root / "params.yaml").write_text(text)


def orphans(root: Path) -> list[str]:
    """Processes of the toy's training that are still there."""
    shown = subprocess.run(["ps", "-wweo", "pid=,stat=,args="], capture_output=True, text=True).stdout
    return [line for line in shown.splitlines() if (f"helper-of-{root}" in line) and "Z" not in line.split()[1]]
