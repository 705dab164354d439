"""`up` against PostgreSQL, and the pages in a browser."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from flows import closed_server
from tests.support import toy
from tests.support.lab import Lab, free_port, until

pytestmark = pytest.mark.slow
POSTGRES = "postgres"  # its server does not run as root
DEBIAN = os.pathsep.join(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)))
CHROMIUM = shutil.which("chromium")


def program(name: str) -> str:
    """Debian keeps PostgreSQL's programs off the path."""
    found = shutil.which(name) or shutil.which(name, path=DEBIAN)
    assert found, f"{name} is not there; install Debian's `postgresql`"
    return found


@pytest.fixture(scope="module")
def database():
    """A PostgreSQL server of its own; gives the address that Prefect's settings take."""
    import pwd
    import tempfile

    as_user = {"user": POSTGRES} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder, port = Path(name), free_port()
        if as_user:
            os.chown(folder, pwd.getpwnam(POSTGRES).pw_uid, -1)
        data = str(folder / "data")
        subprocess.run(
            [program("initdb"), "-D", data, "-U", "prefect", "--auth=trust", "-N"],
            check=True, capture_output=True, cwd=folder, **as_user,
        )  # fmt: skip
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        control = [program("pg_ctl"), "-D", data, "-w", "-l", str(folder / "log")]
        subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, cwd=folder, **as_user)
        try:
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd=folder, **as_user)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, database):
    lab = Lab(toy.make(tmp_path_factory.mktemp("station") / "toy"), free_port())
    os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    try:
        lab.up()
        yield lab
        lab.up("down")
    finally:
        del os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"]


def test_runs_on_postgres_and_the_pages_show_them(lab, tmp_path):
    run = lab.trigger()
    assert lab.wait(run)["name"] == "Completed"
    assert not list((lab.root / ".prefect").glob("*.db")), "the server made a SQLite file"
    name = lab.get(f"/flow_runs/{run}")["name"]

    def page(path: str) -> str:
        return subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000",
             f"--screenshot={tmp_path / 'page.png'}", "--virtual-time-budget=15000", "--dump-dom",
             f"--user-data-dir={tmp_path / 'browser'}",
             f"http://127.0.0.1:{lab.port}{path}"],
            capture_output=True, text=True, timeout=120,
        ).stdout  # fmt: skip

    until(lambda: "admin:pass" in page("/runs"), 60)  # the pages ask for the secret
    page(f"{closed_server.ENTER}#{closed_server.secret(lab.root / '.prefect')}")  # the printed link
    until(lambda: name in page("/runs"), 60)
    shown = page(f"/runs/flow-run/{run}")
    assert name in shown and "Completed" in shown
    assert re.search(r"stages-pipeline|pipeline", page("/artifacts"))


def test_a_taken_port_is_one_sentence(lab, tmp_path):
    other = Lab(toy.make(tmp_path / "other"), lab.port)
    began = time.monotonic()
    with pytest.raises(AssertionError, match=f"error: Port {lab.port} is taken"):
        other.up()
    assert time.monotonic() - began < 20
