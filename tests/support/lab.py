"""A toy project with its own server and agents, and what tests ask of it."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support import toy

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
STEPS = 60  # of 0.1 s


@dataclass(frozen=True)
class Lab:
    root: Path
    port: int

    def up(self, *arguments: str) -> str:
        verb = arguments or ("up", str(self.port))
        done = toy.run(self.root, sys.executable, "-m", "flows.up", *verb, PYTHONPATH=str(self.root))
        return done.stdout

    @property
    def auth(self) -> tuple[str, str]:
        user, _, password = (self.root / ".prefect/auth").read_text().strip().partition(":")
        return user, password

    def post(self, path: str, content: dict | None = None) -> dict:
        for _ in range(20):
            url = f"http://127.0.0.1:{self.port}/api{path}"
            answer = httpx.post(url, json=content or {}, timeout=30, auth=self.auth)
            if answer.status_code != 503:  # SQLite under many writers; clients of Prefect ask again as well
                break
            time.sleep(0.5)
        answer.raise_for_status()
        return answer.json()

    def get(self, path: str) -> dict:
        url = f"http://127.0.0.1:{self.port}/api{path}"
        return httpx.get(url, timeout=30, auth=self.auth).raise_for_status().json()

    def trigger(self, deployment: str = "pipeline/local", **parameters) -> str:
        found = self.get(f"/deployments/name/{deployment}")
        return self.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"]

    def state(self, run: str) -> dict:
        try:
            return self.get(f"/flow_runs/{run}")["state"]
        except httpx.TransportError:
            return {"type": "UNKNOWN", "name": "UNKNOWN"}

    def wait(self, run: str, seconds: float = 120) -> dict:
        until(lambda: self.state(run)["type"] in FINAL, seconds)
        state = self.state(run)
        print(f"{state['name']}: {state['message']}")
        return state

    def pid(self, part: str) -> int:
        return json.loads((self.root / ".prefect/station.json").read_text())["processes"][part]

    def processes(self, words: str) -> list[int]:
        """Of this lab: by command line, and by working folder below the project's or a temporary one's clone."""
        shown = subprocess.run(["ps", "-wweo", "pid=,stat=,args="], capture_output=True, text=True).stdout
        found = []
        for line in shown.splitlines():
            pid, state, arguments = line.split(None, 2)
            if words in arguments and "Z" not in state and self._is_ours(int(pid)):
                found.append(int(pid))
        return found

    def _is_ours(self, pid: int) -> bool:
        try:
            return f"POSE_RFT_ROOT={self.root}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def training(self) -> list[int]:
        """The trainings themselves, without the shells that started them."""
        return [pid for pid in self.processes("train.py sft") if not children(pid, "train.py sft")]

    def begin(self, lr: int, deployment: str = "pipeline/local") -> str:
        """Triggers a run whose training nobody has done yet, and waits until it trains."""
        self.choose(lr)
        run = self.trigger(deployment)
        until(lambda: self.training(), 60)
        time.sleep(1)
        return run

    def choose(self, lr: int) -> None:
        toy.set_params(self.root, toy.PARAMS.replace("steps: 3", f"steps: {STEPS}").replace("lr: 1", f"lr: {lr}"))

    def finishes(self, lr: int) -> None:
        """The next trigger makes what an undisturbed run makes, and nothing is left of the one before."""
        until(lambda: not self.training(), 10)
        assert self.processes("helper-of-") == []
        state = self.wait(self.trigger())
        assert state["name"] == "Completed", state
        assert (self.root / "sft.txt").read_text() == f"sft {STEPS} {lr}\n"
        assert toy.run(self.root, "dvc", "status", "sft", "rft").stdout.strip().endswith("up to date.")


def until(condition, seconds: float) -> float:
    began, seconds = time.monotonic(), seconds * patience()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - began


def patience() -> float:
    """1 on a machine that has its cores to itself, more where other work waits for them too."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def said(what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.1f} s")


def children(pid: int, words: str) -> bool:
    """Whether a descendant's command line has these words."""
    shown = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in shown.splitlines()]
    below, found = {str(pid)}, False
    for _ in range(8):
        for child, parent, arguments in rows:
            if parent in below:
                below.add(child)
                found = found or words in arguments
    return found
