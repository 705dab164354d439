"""A private Prefect server for one flow, if the user runs none; it outlives this process to receive its last reports.

It runs in a session of its own: the server that Prefect would start also receives a terminal's Ctrl-C and is gone
before the flow can report its interruption, which the flow then retries for minutes. Its password is valid for this run
only. All projects of this account share its database, since creating one takes longer than the rest of the start-up.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import prefect
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows import closed_server
from flows.closed_server import HOST
from flows.dvc_stage import WATCHDOG
from flows.up import ROOT, START_SECONDS, LocalServer
from pose_rft.errors import PoseRftError
from pose_rft.io.lock import alone_in
from pose_rft.io.private import own_folder


@contextmanager
def server() -> Iterator[None]:
    """Uses the user's server if PREFECT_API_URL names one, else starts a private one.

    Raises:
        PoseRftError: the private server does not start.
    """
    if PREFECT_API_URL.value():
        yield
        return
    folder = own_folder(f"prefect-{prefect.__version__}", lasting=True)  # another version may have another schema
    with alone_in(folder, wait=True):  # two servers must not create the schema at the same time
        built = folder / "built"
        if not built.exists():  # a killed server may leave an incomplete schema
            for file in folder.glob("prefect.db*"):
                file.unlink()
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            station = LocalServer(probe.getsockname()[1])
        auth = secrets.token_urlsafe(32)
        _held = _start(station, auth, folder)  # EOF on its stdin tells it that this process is gone
        built.touch()
    with temporary_settings({PREFECT_API_URL: f"{station.address}/api", PREFECT_API_AUTH_STRING: auth}):
        yield


def _start(station: LocalServer, auth: str, folder: Path) -> "subprocess.Popen[str]":
    """Starts a server with its database in `folder` and waits until it answers."""
    place = {"PREFECT_HOME": str(folder), "PREFECT_UI_ENABLED": "0"}
    command = [sys.executable, "-m", "flows.closed_server", str(station.port)]
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(WATCHDOG), "", *command],
        cwd=ROOT,
        env={**os.environ, **closed_server.environment(station.port, auth), **place},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + START_SECONDS
    while not station.healthy():
        if child.poll() is not None or time.monotonic() > deadline:
            raise PoseRftError("Prefect's server did not start; `python -m flows.closed_server PORT` says why.")
        time.sleep(0.1)
    return child
