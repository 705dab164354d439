"""The benchmark of the closed server: both servers answer, and a ratio is printed."""

import re

import pytest

from benchmarks import closed_server


@pytest.mark.pipeline
def test_both_servers_are_asked(capsys: pytest.CaptureFixture[str]) -> None:
    closed_server.main(["--rounds", "1", "--requests", "2"])
    (ratio,) = re.findall(r"closed / bare: ([0-9.]+)", capsys.readouterr().out)
    assert float(ratio) > 0
