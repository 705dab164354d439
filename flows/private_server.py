"""A Prefect server for the one flow of a person who runs none; it ends after this process, whose last words it takes.

It has a session of its own: the one that Prefect would start gets a terminal's Ctrl-C too and is gone before the flow
can report that it was cut off, which the flow then goes on trying for minutes. Its password is of this run only. Its
database serves all projects of this account, since Prefect needs longer to build one than for all else of a start.
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
    """The user's server where PREFECT_API_URL names one, else a private one.

    Raises:
        PoseRftError: the private one does not start.
    """
    if PREFECT_API_URL.value():
        yield
        return
    folder = own_folder(f"prefect-{prefect.__version__}", lasting=True)  # another version may have other tables
    with alone_in(folder, wait=True):  # two servers must not build the tables at the same time
        built = folder / "built"
        if not built.exists():  # a server that was killed leaves half of the tables
            for file in folder.glob("prefect.db*"):
                file.unlink()
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            station = LocalServer(probe.getsockname()[1])
        auth = secrets.token_urlsafe(32)
        _held = _start(station, auth, folder)  # the end of its stdin is its sign that this process is gone
        built.touch()
    with temporary_settings({PREFECT_API_URL: f"{station.address}/api", PREFECT_API_AUTH_STRING: auth}):
        yield


def _start(station: LocalServer, auth: str, folder: Path) -> "subprocess.Popen[str]":
    """A server that answers, with its database in this folder."""
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
