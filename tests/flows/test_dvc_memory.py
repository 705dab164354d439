"""DVC as the memory: what one clone made, another takes; experiments and plots work as they are configured."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import toy
import yaml

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


@pytest.mark.slow
def test_a_second_clone_takes_everything_from_a_remote_without_running_a_stage(tmp_path):
    first = toy.make(tmp_path / "first")
    toy.run(first, "dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    toy.run(first, "dvc", "repro")
    toy.run(first, "dvc", "push", "--run-cache")
    toy.commit(first, "numbers")
    toy.run(tmp_path, "git", "clone", "-q", str(first), "second")
    second = tmp_path / "second"
    toy.run(second, "dvc", "pull", "--run-cache")
    ran = toy.run(second, "dvc", "repro").stdout
    assert re.findall(r"Running stage '(\S+)'", ran) == ["inventory"]
    assert (second / "sft.txt").read_bytes() == (first / "sft.txt").read_bytes()


@pytest.mark.slow
def test_experiments_and_diffs_work_out_of_the_box(tmp_path):
    root = toy.make(tmp_path / "toy")
    toy.run(root, "dvc", "repro")
    toy.commit(root, "numbers")
    toy.run(root, "dvc", "exp", "run", "-S", "rft.beta=0.25", "-n", "quarter")
    metrics = json.loads(toy.run(root, "dvc", "metrics", "diff", "--json").stdout)
    assert metrics["diff"]["metrics/summary.json"]["pose_error.3dpw.rft.mpjpe"]["diff"] == -25
    assert "rft.beta" in toy.run(root, "dvc", "params", "diff", "--md").stdout
    assert "quarter" in toy.run(root, "dvc", "exp", "show", "--md", "--only-changed").stdout
