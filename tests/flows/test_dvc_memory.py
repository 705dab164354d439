"""DVC as the memory: what one clone made, another takes; experiments and plots work as they are configured."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import toy
from tests.support.lab import free_port, until

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")


def test_every_plot_names_a_file_and_a_column_that_the_report_writes(tmp_path):
    from pose_rft.report.curves import write_curves

    results = tmp_path / "results"
    (results / "rft_hygrpo").mkdir(parents=True)
    (results / "rft_hygrpo/log.jsonl").write_text('{"step": 0, "pose/kl": 0.5}\n{"step": 1, "other": 2}\n')
    write_curves(results, tmp_path / "report/curves")
    for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]:
        for options in plot.values():
            for file, column in options["y"].items():
                header = (tmp_path / file).read_text().splitlines()[0].split(",")
                assert options["x"] == header[0] and column in header, file
    written = (tmp_path / "report/curves/rft_hygrpo.csv").read_text().splitlines()
    assert len(written) == 2 and written[1].startswith("0,") and "0.5" in written[1]


@pytest.mark.slow
def test_plots_are_drawn_without_the_network(tmp_path):
    root = toy.make(tmp_path / "toy", "plots:\n  - Loss:\n      x: step\n      y: {a.csv: loss, b.csv: loss}\n")
    (root / "a.csv").write_text("step,loss\n" + "".join(f"{i},{1 / (i + 1)}\n" for i in range(20)))
    (root / "b.csv").write_text("step,loss\n0,\n1,2.0\n2,1.5\n")
    shutil.copy(ROOT / ".dvc/plots.html", root / ".dvc/plots.html")
    toy.run(root, "dvc", "config", "plots.html_template", "plots.html")
    toy.run(root, "dvc", "plots", "show", "-o", "page")
    page = root / "page/index.html"
    assert not re.search(r"(src|href)=.https?:", page.read_text())
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    lines = re.findall(r'<polyline points="([^"]+)"', drawn)
    assert sorted(len(line.split()) for line in lines) == [2, 20]
    assert "Loss" in drawn and "NaN" not in drawn


@pytest.fixture
def folder(tmp_path):
    """A remote in a folder; gives what `dvc remote add` and `modify` take."""
    return str(tmp_path / "store"), {}


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A bucket on an S3 server of this machine."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "s3.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    try:
        until(lambda: is_open(port), 60)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="lab")
        yield "s3://lab/pose-rft", {"endpointurl": address}
    finally:
        server.kill()
        server.wait()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_second_clone_takes_everything_from_a_remote_without_running_a_stage(tmp_path, request, kind):
    url, options = request.getfixturevalue(kind)
    first = toy.make(tmp_path / "first")
    toy.run(first, "dvc", "remote", "add", "-d", "store", url)
    for name, value in options.items():
        toy.run(first, "dvc", "remote", "modify", "store", name, value)
    toy.run(first, "dvc", "repro")
    toy.run(first, "dvc", "push", "--run-cache")
    toy.commit(first, "numbers")
    toy.run(tmp_path, "git", "clone", "-q", str(first), "second")
    second = tmp_path / "second"
    toy.run(second, "dvc", "pull", "--run-cache")
    ran = toy.run(second, "dvc", "repro").stdout
    assert re.findall(r"Running stage '(\S+)'", ran) == ["stages/dvc.yaml:inventory"]
    assert (second / "sft.txt").read_bytes() == (first / "sft.txt").read_bytes()


@pytest.mark.slow
def test_experiments_and_diffs_work_out_of_the_box(tmp_path):
    root = toy.make(tmp_path / "toy")
    toy.run(root, "dvc", "repro")
    toy.commit(root, "numbers")
    toy.run(root, "dvc", "exp", "run", "-S", "rft.beta=0.25", "-n", "quarter")
    metrics = json.loads(toy.run(root, "dvc", "metrics", "diff", "--json").stdout)
    assert metrics["metrics/summary.json"]["pose_error.3dpw.rft.mpjpe"]["diff"] == -25
    assert "rft.beta" in toy.run(root, "dvc", "params", "diff", "--md").stdout
    assert "quarter" in toy.run(root, "dvc", "exp", "show", "--md", "--only-changed").stdout
