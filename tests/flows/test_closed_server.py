"""What another account, or a page of another site, gets from the server of `pose-rft up`: S2."""

import base64
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from flows import closed_server, up
from pose_rft.errors import PoseRftError
from pose_rft.io import sockets
from tests.support import second_account
from tests.support.lab import free_port

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENT = {"name": "evil", "flow_id": "00000000-0000-0000-0000-000000000000"}


@pytest.fixture(scope="module")
def station(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    port = free_port()
    environment = up.environment(root, port) | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-m", "flows.closed_server", str(port)], env=environment, cwd=root)
    station = up.LocalServer(port)
    try:
        while not station.healthy():
            assert child.poll() is None
            time.sleep(0.2)
        yield root, port
    finally:
        child.terminate()
        child.wait()


def auth(root: Path) -> dict[str, str]:
    secret = closed_server.secret(root / ".prefect")
    return {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}


def test_who_does_not_know_the_secret_creates_and_reads_nothing(station):
    root, port = station
    for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"pose-rft:guess").decode()}):
        for path, content in (("/deployments/", DEPLOYMENT), ("/flows/filter", {}), ("/work_pools/filter", {})):
            answer = httpx.post(f"http://127.0.0.1:{port}/api{path}", json=content, headers=headers)
            assert answer.status_code == 401, path
    answer = httpx.post(f"http://127.0.0.1:{port}/api/flows/filter", json={}, headers=auth(root))
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "evil.example:{port}"}, {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"},
     {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}],
)  # fmt: skip
def test_another_site_is_not_answered_even_with_the_secret(station, headers):
    root, port = station
    sent = {name: value.format(port=port) for name, value in headers.items()} | auth(root)
    answer = httpx.post(f"http://127.0.0.1:{port}/api/flows/filter", json={}, headers=sent)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_the_printed_link_opens_the_pages_and_is_not_kept(station):
    _, port = station
    page = httpx.get(f"http://localhost:{port}{closed_server.ENTER}")
    assert page.status_code == 200 and "prefect-password" in page.text and page.headers["cache-control"] == "no-store"


def test_only_this_account_reads_what_the_server_keeps_and_nothing_listens_elsewhere(station):
    root, port = station
    assert stat.S_IMODE((root / ".prefect").stat().st_mode) == 0o700
    files = [file for file in (root / ".prefect").rglob("*") if file.is_file()]
    assert {"auth", "prefect.db"} <= {file.name for file in files}
    assert {file.name for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077} == set()
    rows = [row for row in sockets.sockets() if row.state == sockets.LISTENING]
    hosts = {host for host, at in (row.local.split(":") for row in rows) if int(at, 16) == port}
    assert hosts == {sockets.LOOPBACK[0]}


TRIES = """
root, port = sys.argv[1:]
for path in (f"{root}/.prefect", f"{root}/.prefect/auth", f"{root}/.prefect/prefect.db"):
    try:
        print(os.listdir(path) if os.path.isdir(path) else open(path).read())
    except OSError:
        print("refused")
for path in ("/api/deployments/", "/api/flows/"):
    there = http.client.HTTPConnection("127.0.0.1", int(port))
    there.request("POST", path, body='{"name": "evil"}', headers={"Content-Type": "application/json"})
    print(there.getresponse().status)
"""


@second_account.needs_root
def test_a_second_account_gets_nothing(station):
    root, port = station
    assert second_account.run(TRIES, str(root), str(port)).split() == ["refused"] * 3 + ["401"] * 2


@second_account.needs_root
def test_a_server_that_another_account_started_on_the_port_is_told_nothing():
    port = free_port()
    stranger = second_account.start(f"there = socket.create_server(('127.0.0.1', {port})); time.sleep(60)")
    try:
        while not sockets.listeners(port):
            assert stranger.poll() is None, stranger.communicate()
            time.sleep(0.05)
        assert not up.LocalServer(port).healthy()
    finally:
        stranger.kill()
        stranger.communicate()


def test_a_secret_that_others_can_read_or_made_is_refused(tmp_path):
    home = tmp_path / ".prefect"
    first = closed_server.secret(home)
    assert closed_server.secret(home) == first and first != closed_server.secret(tmp_path / "other")
    (home / "auth").chmod(0o644)
    with pytest.raises(PoseRftError, match=r"auth is not this account's alone; remove it"):
        closed_server.secret(home)
    (home / "auth").write_text("")
    (home / "auth").chmod(0o600)
    with pytest.raises(PoseRftError, match="holds no secret"):
        closed_server.secret(home)
