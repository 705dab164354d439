"""A Prefect server for the one flow of a person who runs none; it ends after this process, whose last words it takes.

It has a session of its own: the one that Prefect would start gets a terminal's Ctrl-C too and is gone before the flow
can report that it was cut off, which the flow then goes on trying for minutes.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.dvc_stage import GUARD
from flows.up import HOST, START_SECONDS, Station
from pose_rft.core.errors import PoseRftError


@contextmanager
def server() -> Iterator[None]:
    """The user's server where PREFECT_API_URL names one, else a private one.

    Raises:
        PoseRftError: the private one does not start.
    """
    if PREFECT_API_URL.value():
        yield
        return
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        station = Station(probe.getsockname()[1])
    command = ["-m", "prefect", "server", "start", "--host", HOST, "--port", str(station.port)]
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), "", sys.executable, *command],
        env={**os.environ, "PREFECT_UI_ENABLED": "0"},
        stdin=subprocess.PIPE,  # its end is the guard's sign that this process is gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + START_SECONDS
    while not station.healthy():
        if child.poll() is not None or time.monotonic() > deadline:
            raise PoseRftError("Prefect's server did not start; `prefect server start` says why.")
        time.sleep(0.1)
    with temporary_settings({PREFECT_API_URL: f"{station.address}/api"}):
        yield
