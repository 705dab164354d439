"""Every preset is a whole, valid params.yaml, and the active one is the sample."""

import subprocess
from pathlib import Path

import pytest
import yaml

from pose_rft.datasets.names import RELEASES
from pose_rft.datasets.registry import DataParams, open_release
from pose_rft.params import load, parse
from pose_rft.params_file import read_yaml
from stages.sections import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ("micro", "sample", "study", "smollm", "paper", "paper_best")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_every_section_and_no_other(preset):
    path = ROOT / f"presets/{preset}.yaml"
    assert set(read_yaml(path)) == {*SECTIONS, "datasets"}
    for name, kind in SECTIONS.items():
        load(name, kind, path)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_data_set_of_a_preset_has_a_reader_that_accepts_its_section(preset, tmp_path):
    content = read_yaml(ROOT / f"presets/{preset}.yaml")
    assert set(content["datasets"]) == set(RELEASES)
    for name in RELEASES:
        (tmp_path / name).mkdir(parents=True)
        data = parse({"source": "releases", "root": str(tmp_path), "body_model": "none"}, DataParams, "data")
        open_release(name, data, content["datasets"], 90)


def test_the_best_settings_are_of_the_paper_s_model_and_data():
    paper, best = (read_yaml(ROOT / f"presets/{name}.yaml") for name in ("paper", "paper_best"))
    differing = {section for section in paper if paper[section] != best[section]}
    assert differing == {"sft", "rft"}
    for section in ("sft", "rft"):
        for key in ("lora", "engine", "steps", "batch", "examples"):
            assert paper[section][key] == best[section][key]
    told = (ROOT / "presets/paper_best.yaml").read_text()
    changed = [(s, key) for s in ("sft", "rft") for key in paper[s] if paper[s][key] != best[s][key]]
    for _, key in changed:
        lines = [line for line in told.splitlines() if line.startswith(f"  {key}:")]
        assert any("# best:" in line for line in lines), f"{key} does not say that it differs"


def test_the_committed_params_are_the_sample_preset():  # G2: whoever has edited params.yaml is told nothing
    show = ["git", "show", "HEAD:./params.yaml"]
    committed = subprocess.run(show, cwd=ROOT, capture_output=True, text=True)
    if committed.returncode != 0:
        pytest.skip("no git history here")
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml", "presets/sample.yaml"], cwd=ROOT)
    if changed.returncode == 0:
        assert yaml.safe_load(committed.stdout) == read_yaml(ROOT / "presets/sample.yaml")
