"""Who can reach a training: S1. Two real ranks, a second account where this one is root."""

import json
import os
import pickle
import socket
import subprocess
import time
from pathlib import Path

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.io import sockets
from pose_rft.training import ranks
from tests.support import second_account, two_ranks
from tests.support.second_account import NOBODY

# Tells what it listens on, waits until the stranger has been there, and says what it heard from the other rank.
WORK = """
import json, os, sys, time
from pathlib import Path
from pose_rft.io import sockets
from pose_rft.training import ranks
from pose_rft.training.engine import start_distributed

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
device = start_distributed()
mine = sockets.inodes_of_this_process()
listening = [row.local for row in sockets.sockets() if row.state == sockets.LISTENING and row.inode in mine]
said = {"listening": listening, "store": os.environ[ranks.STORE]}
(folder / f"{rank}.part").write_text(json.dumps(said))
(folder / f"{rank}.part").rename(folder / f"{rank}.json")
while not (folder / "go").exists():
    time.sleep(0.05)
heard = ranks.gather({"rank": int(rank), "loss": float("nan"), "name": "\\ud83d", "x": 0.1}, device)
(folder / f"{rank}.heard").write_text(json.dumps(heard))
os._exit(0)
"""


def address(field: str) -> tuple[str, int]:
    """The IPv4 address and port of /proc/net/tcp."""
    host, port = field.split(":")
    return socket.inet_ntoa(bytes.fromhex(host)[::-1]), int(port, 16)


class Planted:
    """Runs where it is unpickled."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


TRIES = """
import os, socket, sys
store, content, *ports = sys.argv[1:]
try:
    print(os.listdir(os.path.dirname(store)))
except PermissionError:
    print("refused")
for port in ports:
    with socket.create_connection(("127.0.0.1", int(port))) as there:
        there.sendall(bytes.fromhex(content) * 64)
"""


@second_account.needs_root
def test_two_ranks_listen_on_the_loopback_only_and_a_second_account_gets_nothing(tmp_path):  # S1
    (tmp_path / "work.py").write_text(WORK)
    command = [*two_ranks.LAUNCHER, str(tmp_path / "work.py"), str(tmp_path)]
    child = subprocess.Popen(command, env=two_ranks.environment(), stderr=subprocess.PIPE, text=True)
    try:
        while not all((tmp_path / f"{rank}.json").exists() for rank in (0, 1)):
            assert child.poll() is None, child.communicate()[1]
            time.sleep(0.05)
        said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
        listening = [address(field) for one in said for field in one["listening"]]
        assert listening and {host for host, _ in listening} == {"127.0.0.1"}
        planted = tmp_path.parent / "planted"
        content = pickle.dumps(Planted(str(planted)))
        tried = second_account.run(TRIES, said[0]["store"], content.hex(), *(str(port) for _, port in listening))
        assert tried.split() == ["refused"]
        (tmp_path / "go").touch()
        assert child.wait(60) == 0
    finally:
        child.terminate()  # ends the ranks too
        child.wait()
    assert not planted.exists()
    for rank in (0, 1):
        heard = json.loads((tmp_path / f"{rank}.heard").read_text())
        assert [one["rank"] for one in heard] == [0, 1] and {one["name"] for one in heard} == {"\ud83d"}
    assert not Path(said[0]["store"]).parent.exists(), "the folder in which they met is left"


@second_account.needs_root
def test_a_connection_of_another_account_is_noticed():  # S1
    with socket.create_server(("127.0.0.1", 0)) as server:
        ranks.refuse_strangers()
        port = server.getsockname()[1]
        code = f"there = socket.create_connection(('127.0.0.1', {port})); time.sleep(60)"
        stranger = second_account.start(code)
        try:
            with server.accept()[0], pytest.raises(PoseRftError, match=f"Account {NOBODY} of this machine"):
                ranks.refuse_strangers()
        finally:
            stranger.kill()
            stranger.wait()


def test_a_connection_of_this_account_is_nothing_to_refuse():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        taken = server.accept()[0]
        ranks.refuse_strangers()
        taken.close()


def test_a_store_for_several_machines_listens_on_the_named_address_alone():
    store = ranks._store_of_many("127.0.0.1", 0, 0, 1)
    store.set("a", "b")
    mine = sockets.inodes_of_this_process()
    rows = [row for row in sockets.sockets() if row.state == sockets.LISTENING and row.inode in mine]
    assert [host for host, port in (address(row.local) for row in rows) if port == store.port] == ["127.0.0.1"]


def test_an_address_that_no_network_has_is_one_sentence():
    assert ranks._interface_towards("127.0.0.1") == "lo"
    with pytest.raises(PoseRftError, match=r"`launch\.address` no\.such\.host\.invalid"):
        ranks._interface_towards("no.such.host.invalid")
    with pytest.raises(PoseRftError, match=r"`launch\.address` 192\.0\.2\.1 port 0 cannot be listened on"):
        ranks._store_of_many("192.0.2.1", 0, 0, 1)


def test_no_collective_of_the_project_unpickles_what_it_hears():  # S1: the object collectives of torch do
    for folder in ("pose_rft", "stages", "flows"):
        for file in (two_ranks.ROOT / folder).rglob("*.py"):
            text = file.read_text().replace("replaces `all_gather_object`", "")
            assert not any(name in text for name in ("gather_object", "object_list(", "scatter_object")), file
