"""`python -m benchmarks.closed_server`: overhead per request of the password and checks of `flows/closed_server.py`.

Two servers with separate databases, plain Prefect's and ours, get the same requests in turn; a round's ratio is that of
the two times, so other load on the machine affects both.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from flows import closed_server

ROOT = Path(__file__).resolve().parents[1]
BARE = (
    "import sys, uvicorn; from prefect.server.api.server import create_app; "
    "uvicorn.run(create_app(final=True), host='127.0.0.1', port=int(sys.argv[1]), log_level='warning')"
)
SECRET = "pose-rft:benchmark-only-0123456789-0123456789"
WAIT = 120.0  # seconds for a server to answer


@contextmanager
def server(closed: bool, home: str) -> Iterator[httpx.Client]:
    """Starts a server and yields a client that knows its secret, once the server answers."""
    with socket.socket() as probe:
        probe.bind((closed_server.HOST, 0))
        port = probe.getsockname()[1]
    told = closed_server.environment(port, SECRET)
    if not closed:
        told = {name: value for name, value in told.items() if "AUTH_STRING" not in name and "CORS" not in name}
    command = ["-m", "flows.closed_server"] if closed else ["-c", BARE]
    environment = {**os.environ, **told, "PREFECT_HOME": home, "PREFECT_UI_ENABLED": "0"}
    child = subprocess.Popen([sys.executable, *command, str(port)], cwd=ROOT, env=environment)
    user, _, password = SECRET.partition(":")
    try:
        with httpx.Client(base_url=told["PREFECT_API_URL"], auth=(user, password) if closed else None) as client:
            deadline = time.monotonic() + WAIT
            while not answers(client) and time.monotonic() < deadline:
                time.sleep(0.2)
            yield client
    finally:
        child.terminate()
        child.wait()


def answers(client: httpx.Client) -> bool:
    """Returns whether the server answers."""
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def seconds(client: httpx.Client, requests: int) -> float:
    """Returns the time of that many requests, half of them writes."""
    began = time.perf_counter()
    for number in range(requests):
        if number % 2:
            answer = client.post("/flow_runs/filter", json={"limit": 10})
        else:
            answer = client.post("/flows/", json={"name": f"flow {number}"})
        answer.raise_for_status()
    return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> None:
    """Prints the ratio of our server's time to plain Prefect's, and the time per request of each."""
    parser = argparse.ArgumentParser("python -m benchmarks.closed_server", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=100, help="of a round, to each server")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        homes = [stack.enter_context(TemporaryDirectory()) for _ in range(2)]
        bare, closed = (stack.enter_context(server(bool(ours), home)) for ours, home in enumerate(homes))
        times = np.array(
            [[seconds(client, options.requests) for client in (bare, closed)] for _ in range(options.rounds + 1)][1:]
        )
    ratios = times[:, 1] / times[:, 0]
    each = 1000 * np.median(times, 0) / options.requests
    print(
        f"closed / bare: {np.median(ratios):.3f} (quartiles {np.quantile(ratios, 0.25):.3f} to "
        f"{np.quantile(ratios, 0.75):.3f}); a request {each[0]:.2f} and {each[1]:.2f} ms"
    )


if __name__ == "__main__":
    main()
