import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pose_rft.errors import PoseRftError
from pose_rft.evaluation import paper
from pose_rft.evaluation.tables import RUNS, mean_recall, paired_gain, summary, table1, table2, table3
from pose_rft.metrics.recall import TABLE_2_KS, chance


def scores(values: np.ndarray, column: str, dataset: str = "3dpw", unit: int = 1) -> pl.DataFrame:
    """Samples of which `unit` in a row belong together."""
    names = range(len(values))
    return pl.DataFrame(
        {
            "dataset": [dataset] * len(values),
            "key": [f"k{i}" for i in names],
            "unit": [f"u{i // unit}" for i in names],
            column: values,
        }
    )


def by_direction(level: float) -> dict[str, dict[str, float]]:
    return {direction: {str(k): level + k for k in TABLE_2_KS} for direction in ("t2p", "p2t")}


def write_results(folder: Path) -> Path:
    """Four runs whose numbers grow by one from run to run."""
    rng = np.random.default_rng(0)
    base = {"joint": rng.random(50), "semantic": rng.random(40)}
    for i, run in enumerate(RUNS):
        out = folder / f"evaluate_{run}"
        out.mkdir(parents=True)
        errors = {
            name: {
                "mean_pose": {"mpjpe": 300.0, "pa_mpjpe": 150.0},
                "policy": {"mpjpe": 200.0 - i, "pa_mpjpe": 100.0 - i},
            }
            for name in ("3dpw", "h36m_p2")
        }
        recall = {
            model: {
                pool: {
                    "chance": {d: {str(k): chance(k, 40) for k in TABLE_2_KS} for d in ("t2p", "p2t")},
                    "ground_truth": by_direction(70.0),
                    "policy": by_direction(20.0 + i),
                }
                for pool in ("full", "random_32", "random_200")
            }
            for model in ("reward", "judge")
        }
        rewards = {
            "joint": {"mean": 5.0 + i, "sampled": {"mean": 4.0 + i}},
            "semantic": {"mean": 0.3, "sampled": {"mean": 0.2}},
            "format": {"mean": 1.0},
            "text": {"mean": 0.6},
        }
        content = {"pose_error": errors, "recall": recall, "heldout_reward": rewards}
        (out / "metrics.json").write_text(json.dumps(content))
        gain = {"joint": 0.5 * i, "semantic": 0.0}
        for reward, table in (("joint", "image_pose"), ("semantic", "text_pose")):
            noise = rng.normal(0, 0.1, len(base[reward]))
            content = scores(base[reward] + gain[reward] + noise, f"{reward}_reward")
            if table == "image_pose":
                content = content.with_columns(
                    dataset=pl.Series(["3dpw"] * 30 + ["h36m_p2"] * 20),
                    mpjpe=200.0 - i + noise,
                    pa_mpjpe=100.0 - i + noise,
                )
            content.write_parquet(out / f"{table}.parquet")
    (folder / "convert").mkdir()
    counts = {"samples": 9, "defects": 1, "shards": 2, "splits": {}}
    (folder / "convert" / "coco.json").write_text(json.dumps({"data": {"coco": counts}}))
    return folder


def test_a_summary_has_the_keys_that_git_keeps(tmp_path):
    content = summary(write_results(tmp_path))
    assert set(content) == {"pose_error", "recall", "heldout_reward", "heldout_gain", "gain", "data"}
    for name in ("3dpw", "h36m_p2"):
        assert set(content["pose_error"][name]) == {"mean_pose", *RUNS}
        assert set(content["pose_error"][name]["rft_hygrpo"]) == {"mpjpe", "pa_mpjpe"}
    for model in ("reward", "judge"):
        assert set(content["recall"][model]) == {"full", "random_32", "random_200"}
        for pool in content["recall"][model].values():
            assert set(pool) == {"chance", "ground_truth", *RUNS}
            assert all(set(one) == {"t2p", "p2t"} and set(one["t2p"]) == {"5", "10", "20"} for one in pool.values())
    assert set(content["heldout_reward"]) == {"sft_gaussian", "rft_grpo", "rft_hygrpo"}
    assert content["heldout_reward"]["rft_hygrpo"]["joint"] == {"mean": 8.0, "sampled": {"mean": 7.0}}
    assert set(content["heldout_gain"]) == {"rft_grpo", "rft_hygrpo"}
    assert set(content["heldout_gain"]["rft_grpo"]["joint"]) == {"mean", "ci95_low", "ci95_high"}
    for name in ("3dpw", "h36m_p2"):
        gain = content["gain"][name]["rft_hygrpo"]["mpjpe"]
        assert set(content["gain"][name]["rft_hygrpo"]) == {"mpjpe", "pa_mpjpe"}
        assert gain["ci95_low"] < -2.0 < gain["ci95_high"] < -1.8
    assert content["data"] == {"coco": {"samples": 9, "defects": 1, "shards": 2}}


def test_gains_are_paired_by_sample_so_row_order_does_not_matter(tmp_path):
    content = summary(write_results(tmp_path))
    joint, semantic = content["heldout_gain"]["rft_hygrpo"]["joint"], content["heldout_gain"]["rft_hygrpo"]["semantic"]
    assert joint["ci95_low"] < 1.0 < joint["ci95_high"] and joint["ci95_low"] > 0.9
    assert semantic["ci95_low"] < 0 < semantic["ci95_high"]
    path = tmp_path / "evaluate_rft_hygrpo" / "image_pose.parquet"
    pl.read_parquet(path).reverse().write_parquet(path)
    again = summary(tmp_path)["heldout_gain"]["rft_hygrpo"]["joint"]
    assert again["mean"] == pytest.approx(joint["mean"])


def test_the_interval_holds_the_true_difference_in_about_95_of_100_draws():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        first = rng.normal(0, 1, 30)
        second = first + rng.normal(0.2, 0.5, 30)
        found = paired_gain(scores(second, "r"), scores(first, "r"), "r")
        hits += found["ci95_low"] < 0.2 < found["ci95_high"]
    assert 360 <= hits <= 395


def test_frames_that_err_alike_widen_the_interval_and_it_still_holds_the_truth():
    """20 videos of 20 frames: one by one, frames would feign 400 measurements."""
    rng = np.random.default_rng(2)
    hits = {1: 0, 20: 0}
    for _ in range(100):
        gain = np.repeat(rng.normal(0.2, 0.5, 20), 20) + rng.normal(0, 0.1, 400)
        widths = {}
        for unit in hits:
            found = paired_gain(scores(gain, "r", unit=unit), scores(np.zeros(400), "r", unit=unit), "r")
            widths[unit] = found["ci95_high"] - found["ci95_low"]
            hits[unit] += found["ci95_low"] < 0.2 < found["ci95_high"]
            assert found["mean"] == pytest.approx(gain.mean())
        assert widths[20] > 3 * widths[1]
    assert hits[20] >= 85 > 60 > hits[1]


def test_a_number_that_some_samples_lack_is_paired_where_it_is():
    values = scores(np.array([1.0, np.nan, 3.0]), "r").fill_nan(None)
    found = paired_gain(
        values, scores(np.zeros(3), "r").with_columns(r=pl.when(pl.col("key") != "k1").then(pl.col("r"))), "r"
    )
    assert found["mean"] == 2.0


def test_the_same_key_in_two_data_sets_is_two_samples():
    both = pl.concat([scores(np.zeros(3), "r", "3dpw"), scores(np.ones(3), "r", "h36m_p2")])
    found = paired_gain(both.with_columns(r=pl.col("r") + 0.5), both, "r")
    assert found == pytest.approx({"mean": 0.5, "ci95_low": 0.5, "ci95_high": 0.5})


def test_runs_on_other_samples_are_refused():
    with pytest.raises(PoseRftError, match="share 2; evaluate both"):
        paired_gain(scores(np.zeros(3), "r"), scores(np.zeros(2), "r"), "r")


def test_a_missing_run_is_named(tmp_path):
    folder = write_results(tmp_path)
    (folder / "evaluate_rft_grpo" / "metrics.json").unlink()
    with pytest.raises(PoseRftError, match=r"evaluate_rft_grpo/metrics\.json does not exist"):
        summary(folder)


def test_a_third_image_set_stands_beside_the_papers_two(content):
    more = content | {"pose_error": content["pose_error"] | {"hard": content["pose_error"]["3dpw"]}}
    table = table1(more)
    assert table.columns[-2:] == ("hard MPJPE", "hard PA-MPJPE")
    assert next(row for row in table.rows if row.label == "Pose-RFT").cells[-3:] == ("44.5", "–", "–")
    assert all(len(row.cells) == 6 for row in table.rows)


@pytest.fixture
def content(tmp_path):
    return summary(write_results(tmp_path))


def test_tables_show_the_papers_rows_beside_ours(content):
    first, second, third = table1(content), table2(content), table3(content)
    assert [row.label for row in first.rows][:10] == list(paper.TABLE_1)
    assert next(row for row in first.rows if row.label == "Pose-RFT").cells == ("85.9", "51.6", "63.0", "44.5")
    assert next(row for row in first.rows if row.label == "MEGA").cells[2:] == ("–", "–")
    assert first.rows[-1].cells == ("197.0", "97.0", "197.0", "97.0")
    full = next(row for row in second.rows if row.label == "Pose-RFT").cells
    assert full[0] == "42.2/53.0/65.5" and full[2] == "–" and full[4] == "71.8/82.6/88.7"
    assert {row.kind for row in third.rows} == {"paper", "ours"} and len(third.rows) == 7
    for table in (first, second, table2(content, "judge"), third):
        assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_the_judge_has_no_rows_of_the_paper(content):
    assert not [row for row in table2(content, "judge").rows if row.kind == "paper"]


def test_mean_recall_is_the_papers_arithmetic(content):
    row = paper.TABLE_2["Pose-RFT"]
    assert sum(row.full_t2p) / 3 == pytest.approx(paper.TABLE_3["rft_hygrpo"][2], abs=0.05)
    assert sum(row.full_p2t) / 3 == pytest.approx(paper.TABLE_3["rft_hygrpo"][3], abs=0.05)
    assert mean_recall(content, "reward", "sft_point", "t2p") == pytest.approx(20 + 35 / 3)


def test_the_papers_random_pools_cannot_be_of_32():
    printed = paper.TABLE_2["ChatPose"].random_t2p
    assert chance(20, 32) > printed[2] and chance(20, paper.RANDOM_POOL_THAT_FITS) < printed[2]
