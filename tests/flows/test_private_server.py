"""The server of a flow whose user runs none."""

import stat

import httpx
import pytest
from prefect.settings import PREFECT_API_URL

from flows.private_server import server

pytestmark = pytest.mark.pipeline


def flows_known() -> list:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flows()


def test_a_server_that_was_killed_while_it_built_its_tables_keeps_no_later_one_from_starting(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with server():
        assert flows_known() == []
    (folder,) = (tmp_path / "pose-rft").glob("prefect-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    tables = folder / "prefect.db"
    (folder / "built").unlink()
    tables.write_bytes(tables.read_bytes()[: tables.stat().st_size // 2])
    with server():
        assert flows_known() == []
        address = PREFECT_API_URL.value()
        assert httpx.post(f"{address}/flows/filter", json={}).status_code == 401
        assert httpx.post(f"{address}/flows/filter", json={}, auth=("", "wrong")).status_code == 401
