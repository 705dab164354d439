"""Server, pools, deployments and agents of one machine: `python -m flows.up [up|status|down]`, behind `pose-rft up`.

Everything listens on the loopback interface only, requires a secret from every caller (`closed_server.py`), needs no
internet, and lives in the project's `.prefect/`, private to this account. Running it again starts what is missing.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from flows import closed_server
from flows.closed_server import HOST
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic, sockets

ROOT = Path(__file__).resolve().parent.parent
PORT = 4200
START_SECONDS, STOP_SECONDS = 180.0, 15.0
AGENTS = {"cpu": 4, "gpu": 2}  # pool -> concurrent flow runs


@dataclass
class LocalServer:
    """What `up` started: the server's port and the process id of each part."""

    port: int
    processes: dict[str, int] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    def alive(self, part: str) -> bool:
        """Returns whether the process runs and is still the one that `up` started: its pid may have been reused."""
        pid = self.processes.get(part)
        if pid is None:
            return False
        shown = subprocess.run(["ps", "-wwo", "stat=,args=", "-p", str(pid)], capture_output=True, text=True).stdout
        return any(word in shown for word in ("prefect", "flows.closed_server")) and not shown.lstrip().startswith("Z")

    def healthy(self) -> bool:
        """Returns whether this account's server answers; sends nothing to another account's server on the same port."""
        if sockets.listeners(self.port) - {os.getuid()}:
            return False
        try:
            return httpx.get(f"{self.address}/api/health", timeout=3).status_code == 200
        except httpx.HTTPError:
            return False


def home(root: Path) -> Path:
    return root / ".prefect"


def load(root: Path) -> LocalServer | None:
    file = home(root) / "station.json"
    return LocalServer(**json.loads(file.read_text())) if file.is_file() else None


def save(root: Path, station: LocalServer) -> None:
    atomic.write_json(home(root) / "station.json", asdict(station))


def environment(root: Path, port: int) -> dict[str, str]:
    """Returns every part's environment: server address, no telemetry, folders that agents' clones share with `root`."""
    own = {
        **closed_server.environment(port, closed_server.secret(home(root))),
        "PREFECT_HOME": str(home(root)),
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "POSE_RFT_ROOT": str(root),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    shared = {
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "PREFECT_RUNNER_POLL_FREQUENCY": "5",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "POSE_RFT_GIT": str(root),
        "POSE_RFT_CACHE": str(root / ".dvc/cache"),
        "POSE_RFT_SCRATCH": str(root / ".scratch"),
    }
    return {**shared, **os.environ, **own}


def up(root: Path, port: int | None) -> LocalServer:
    """Starts what is not running yet.

    Raises:
        PoseRftError: the port is taken, or a part does not start.
    """
    station = load(root)
    if station is None or not station.healthy():
        station = LocalServer(port or (station.port if station else PORT), station.processes if station else {})
        _start_server(root, station)
    _write_shell_lines(root, station.port)
    os.environ.update(environment(root, station.port))  # for the client in this process
    from flows import automations, work_pools

    for name in AGENTS:
        work_pools.ensure(name, "process")
    automations.ensure()
    _deploy(root, station)
    for name, runs_at_once in AGENTS.items():
        if not station.alive(f"{name} agent"):
            options = ["--pool", name, "--name", f"{name}-{socket.gethostname()}", "--limit", str(runs_at_once)]
            _start(root, station, f"{name} agent", "prefect", "worker", "start", *options)
    return station


def down(root: Path) -> bool:
    """Ends the agents (and with them their flow runs), then the server; returns False if nothing ran."""
    station = load(root)
    if station is None:
        return False
    ended = False
    for part in sorted(station.processes, key=lambda part: part == "server"):  # the server last
        if station.alive(part):
            _end(station, part)
            ended = True
    (home(root) / "station.json").unlink()
    return ended


def status(root: Path) -> list[str]:
    """Returns the state of each part as human-readable lines."""
    station = load(root)
    if station is None:
        return ["nothing runs; `pose-rft up` starts it"]
    lines = [f"{'server':<10} {station.address} {'answers' if station.healthy() else 'does not answer'}"]
    agents = [part for part in station.processes if part != "server"]
    return lines + [f"{part:<10} {'runs' if station.alive(part) else 'has ended'}" for part in agents]


def _start_server(root: Path, station: LocalServer) -> None:
    if station.alive("server"):
        _end(station, "server")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, station.port))
        except OSError:
            raise PoseRftError(f"Port {station.port} is taken; name a free one with `pose-rft up --port`.") from None
    _start(root, station, "server", "flows.closed_server", str(station.port))
    deadline = time.monotonic() + START_SECONDS
    while not station.healthy():
        if not station.alive("server") or time.monotonic() > deadline:
            raise PoseRftError(f"The server did not start; {home(root)}/server.log says why.")
        time.sleep(0.3)


def _start(root: Path, station: LocalServer, part: str, *module: str) -> None:
    child_environment = environment(root, station.port)
    with (home(root) / f"{part.replace(' ', '_')}.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=root,
            env=child_environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    station.processes[part] = child.pid
    save(root, station)


def _write_shell_lines(root: Path, port: int) -> None:
    """Writes `.prefect/env`: the variables that a shell needs to talk to the server."""
    names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")
    values = environment(root, port)
    atomic.write_text(home(root) / "env", "".join(f"export {name}={values[name]}\n" for name in names))


def _deploy(root: Path, station: LocalServer) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root,
        env=environment(root, station.port),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise PoseRftError(
            f"prefect.yaml could not be deployed: {' '.join((done.stdout + done.stderr).split())[-500:]}"
        )


def _end(station: LocalServer, part: str) -> None:
    pid = station.processes[part]
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while station.alive(part) and time.monotonic() < deadline:
        time.sleep(0.2)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    verb = arguments[0] if arguments else "up"
    if verb == "status":
        print("\n".join(status(ROOT)))
    elif verb == "down":
        print("ended" if down(ROOT) else "nothing ran")
    elif verb == "up":
        station = up(ROOT, int(arguments[1]) if len(arguments) > 1 else None)
        print("\n".join(status(ROOT)))
        print(f"open {station.address}{closed_server.ENTER}#{closed_server.secret(home(ROOT))}")
        print("and run a deployment. The link holds this folder's password (.prefect/auth): give it to nobody.")
        print("In a shell: `. .prefect/env`, then `prefect deployment run pipeline/local`")
    else:
        raise PoseRftError(f"{verb!r} is not known; choose up, status or down.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PoseRftError as error:
        sys.exit(f"error: {error}")
