"""The whole graph on the micro preset, as a user drives it."""

import json
import subprocess
import time

import pytest

from stages import code

pytestmark = pytest.mark.pipeline

RUNS = ("sft_point", "sft_gaussian", "rft_grpo", "rft_hygrpo")
DATASETS = ("h36m", "mpi_inf_3dhp", "coco", "mpii", "posescript", "bedlam", "3dpw", "llava_instruct")


def test_every_number_that_the_summary_promises_is_there(finished):
    summary = json.loads((finished.root / "metrics/summary.json").read_text())
    for test_set in ("3dpw", "h36m_p2"):
        for run in ("mean_pose", *RUNS):
            assert all(summary["pose_error"][test_set][run][metric] > 0 for metric in ("mpjpe", "pa_mpjpe"))
    for retriever in ("reward", "judge"):
        for pool in ("full", "random_32", "random_200"):
            for run in ("chance", "ground_truth", *RUNS):
                for direction in ("t2p", "p2t"):
                    values = [summary["recall"][retriever][pool][run][direction][k] for k in ("5", "10", "20")]
                    assert 0 <= values[0] <= values[1] <= values[2] <= 100
    for run in ("sft_gaussian", "rft_grpo", "rft_hygrpo"):
        for reward in ("joint", "semantic", "format", "text"):
            assert isinstance(summary["heldout_reward"][run][reward]["mean"], float)
    for run in ("rft_grpo", "rft_hygrpo"):
        for reward in ("joint", "semantic"):
            gain = summary["heldout_gain"][run][reward]
            assert gain["ci95_low"] <= gain["mean"] <= gain["ci95_high"]
    for run in RUNS:
        assert 0 <= summary["posecodes"][run]["recall"] <= 1 and "unheard" in summary["posecodes"][run]
        assert summary["validation"]["pose_error"]["bedlam"][run]["mpjpe"] > 0
    assert set(summary["distribution"]) == {*summary["pose_error"], "posescript"}
    assert summary["sets"]["validation"]["posescript"] == "posescript/val"
    for name in DATASETS:
        assert summary["data"][name]["samples"] > 0 and summary["data"][name]["shards"] > 0


def test_a_second_repro_runs_only_what_always_runs(finished):
    began = time.monotonic()
    assert finished.repro() == ["code", "inventory"]
    print(f"second repro: {time.monotonic() - began:.1f} s")


def test_shards_open_with_webdataset_alone(finished):
    import webdataset

    tars = sorted((finished.root / "data/shards/h36m/train").glob("*.tar"))
    samples = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False))
    assert len(samples) == sum(json.loads(tar.with_suffix(".json").read_text())["count"] for tar in tars)
    assert {"jpg", "json", "npz"} <= set(samples[0])


def test_an_rft_value_reruns_only_what_follows_it_and_comes_back_without_training(finished, tmp_path):
    project = finished.copy(tmp_path / "copy")
    before = json.loads((project.root / "metrics/summary.json").read_text())
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "run")
    old = project.params()["rft"]["epsilon"]
    project.set_params(**{"rft.epsilon": old / 2, "rft.engine.lr": 1e-3})
    ran = project.repro()
    expected = {"code", "inventory", "rft@grpo", "rft@hygrpo", "evaluate@rft_grpo", "evaluate@rft_hygrpo", "report"}
    assert set(ran) == expected
    assert "rft.epsilon" in project.run("dvc", "params", "diff").stdout
    assert "rft_hygrpo" in project.run("dvc", "metrics", "diff").stdout
    project.run("git", "checkout", "-q", "params.yaml")
    assert not {name for name in project.repro() if name.startswith(("rft", "evaluate"))}
    assert json.loads((project.root / "metrics/summary.json").read_text()) == before


def test_predict_answers_a_photograph_and_a_sentence(finished, tmp_path):
    picture = next((finished.root / "data/sample/releases/coco/train2017").glob("*.jpg"))
    out = tmp_path / "out"
    box = ("--box", "0,0,60,60")  # micro's pictures are too small for anybody to be found in them
    done = finished.run(
        "pose-rft", "predict", str(picture), *box, "--text", "sitting with crossed legs", "-n", "2", "--overlay",
        "--export", "glb", "--out", str(out),
    )  # fmt: skip
    assert "sample model" in done.stderr
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert {line["name"] for line in lines} == {picture.stem, "text_0"}
    for content in lines:
        assert len(content["rotation_matrices"]) == 24 and len(content["samples_rotation_matrices"]) == 2
        assert content["betas"] == [0.0] * 10 and content["notice"]
        assert (out / f"{content['name']}.glb").stat().st_size > 10_000
        assert (out / f"{content['name']}.png").stat().st_size > 1_000
    caption = finished.run("pose-rft", "describe", str(out / "predictions.jsonl")).stdout
    assert len(caption.split()) > 5


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["predict"], "nothing to predict"),
        (["predict", "--text", "  "], "text is empty"),
        (["predict", "missing.jpg"], "missing.jpg cannot be read"),
        (["predict", "empty.jpg"], "empty.jpg is empty"),
        (["predict", "--text", "a pose", "--model", "nowhere"], "nowhere does not exist"),
        (["describe", "params.yaml"], "holds no pose"),
        (["shards", "verify", "data"], "data"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(finished, tmp_path, arguments, sentence):
    (finished.root / "empty.jpg").write_bytes(b"")
    out = tmp_path / "out"
    extra = ["--out", str(out)] if arguments[0] == "predict" else []
    done = finished.run("pose-rft", *arguments, *extra, check=False)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    "change, stage, sentence",
    [
        ({"rft.epsilonn": 0.2}, ["rft", "--variant", "hygrpo"], "unknown key `epsilonn` (did you mean `epsilon`?"),
        ({"rft.epsilon": -1.0}, ["rft", "--variant", "hygrpo"], "epsilon"),
        ({"data.source": "releases", "data.root": "nowhere"}, ["inventory"], "nowhere"),
        ({"data.body_model": "no_body"}, ["sft", "--variant", "point"], "no_body"),
    ],
)
def test_bad_params_are_one_sentence(finished, tmp_path, change, stage, sentence):
    project = finished.copy(tmp_path / "copy")
    project.set_params(**change)
    done = project.run("python", "-m", f"stages.{stage[0]}", *stage[1:], check=False)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments, name",
    [
        (["convert", "--dataset", "coco"], "convert_coco"),
        (["validate"], "validate"),
        (["retrieval", "--model", "judge"], "retrieval"),
        (["sft", "--variant", "point"], "sft"),
        (["rft", "--variant", "grpo"], "rft"),
        (["evaluate", "--run", "sft_point"], "evaluate"),
        (["report"], "report"),
    ],
)
def test_a_stage_loads_no_module_that_it_does_not_depend_on(finished, tmp_path, arguments, name):
    project = finished.copy(tmp_path / "copy")
    done = project.run("python", "-X", "importtime", "-m", f"stages.{arguments[0]}", *arguments[1:])
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    own = {module for module in loaded if module.split(".")[0] in ("pose_rft", "stages")}
    known = json.loads((project.root / f"data/code/{name}.json").read_text())
    assert len(own) > 20 and own <= {*known, *code.WITHOUT_EFFECT}


def test_a_truncated_shard_is_found_by_verify(finished, tmp_path):
    project = finished.copy(tmp_path / "copy")
    tar = next((project.root / "data/shards/coco/train").glob("*.tar"))
    content = tar.read_bytes()
    tar.unlink()
    tar.write_bytes(content[: len(content) // 2])
    done = project.run("pose-rft", "shards", "verify", "data/shards/coco/train", check=False)
    assert done.returncode == 2 and tar.name in done.stderr and "Traceback" not in done.stderr


def test_the_report_opens_without_errors_or_requests(finished, tmp_path):
    page = finished.root / "report/index.html"
    text = page.read_text()
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    assert "embedded sample" in text and "HyGRPO" in text
    profile = tmp_path / "profile"
    chromium = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
            "--enable-logging=stderr", "--v=0", "--window-size=1200,3000",
            f"--screenshot={tmp_path / 'page.png'}", f"file://{page}",
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert "CONSOLE" not in chromium.stderr
