from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from pose_rft.batches.examples import Example
from pose_rft.batches.feature_cache import EncodedTokens
from pose_rft.batches.samples import Samples
from pose_rft.body.joints import H36M32, LSP14
from pose_rft.body.rotations import axis_angle_to_matrix, matrix_to_sixd
from pose_rft.body.smpl import BodyModel, load_body_model
from pose_rft.evaluation import protocols
from pose_rft.inference.answers import Predictions, heldout_examples, heldout_rewards, predict
from pose_rft.inference.passes import Preparer
from pose_rft.inference.sampling import Completions
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.record import Keypoints, Record
from tests.support.rft_fakes import FakeRetrieval, make_trainer
from tests.support.training_fakes import IMAGE, image_record, record, samples


@pytest.fixture(scope="module")
def body(tiny_folder):
    return load_body_model(tiny_folder)


def prediction(poses: torch.Tensor, has_pose: list[bool]) -> Predictions:
    raw = matrix_to_sixd(poses).flatten(1)
    examples = tuple(
        Example(f"k{i}", "text_pose", "?", "!", f"caption {i}", pose6d=sixd.view(24, 6)) for i, sixd in enumerate(raw)
    )
    answers = Completions.from_lists([[[7, 2]]] * len(raw), 2)
    poses = PoseDistribution(raw, torch.full_like(raw, 0.1).log())
    return Predictions(examples, answers, torch.tensor(has_pose), poses, raw + 0.05)


def turns(seed: int, n: int) -> torch.Tensor:
    return axis_angle_to_matrix(torch.randn(n, 24, 3, generator=torch.Generator().manual_seed(seed)) * 0.4)


PROCESSOR = SimpleNamespace(decode=lambda ids: "words")


def test_the_true_pose_has_no_error_and_the_gender_decides_the_truth(body, tiny_folder, tmp_path):
    records = [image_record(i) for i in range(3)]
    read = samples("3dpw/test", records, tmp_path)
    asked = []
    truth = protocols.true_joints(read, [2, 0], lambda gender: asked.append(gender) or body)
    assert asked == ["neutral"] and truth.joints.shape == (2, 14, 3)
    torch.testing.assert_close(truth.joints[0], body.eval_joints(read.rotations[2:3], read.betas[2:3])[0])
    errors = protocols.joint_errors(protocols.eval_joints(body, truth.rotations), truth.joints)
    assert errors["mpjpe"].max() < 1e-3 and errors["pa_mpjpe"].max() < 1e-2


def mocap(body: BodyModel, i: int, shift: float = 0.0, **fields: object) -> Record:
    """A Human3.6M sample whose own joints lie `shift` metres from those of its fit, each in a direction of its own."""
    fitted = image_record(i, dataset="h36m", **fields)
    read = record(i, "h36m").smpl
    rotations = axis_angle_to_matrix(torch.from_numpy(np.concatenate([read.global_orient[None], read.body_pose]))[None])
    rng = np.random.default_rng(100 + i)
    away = rng.normal(size=(14, 3))
    own = body.eval_joints(rotations)[0].numpy() + shift * away / np.linalg.norm(away, axis=1, keepdims=True)
    points = np.zeros((len(H36M32), 4), np.float32)
    pelvis = np.array([0.3, -0.2, 4.0])  # joints are absolute
    points[H36M32.index("pelvis"), :3] = pelvis
    points[H36M32.indices(LSP14.joints), :3] = pelvis + own
    points[:, 3] = 1.0
    return replace(fitted, joints3d=Keypoints(points, H36M32.name))


def own_error(body: BodyModel, read: Samples) -> torch.Tensor:
    """MPJPE of a prediction that is the fit itself."""
    rows = list(range(len(read)))
    truth = protocols.true_joints(read, rows, lambda gender: body)
    return protocols.joint_errors(protocols.eval_joints(body, read.rotations), truth.joints)["mpjpe"]


def test_human36m_is_scored_against_its_own_joints_and_3dpw_against_its_bodies(body, tmp_path):
    read = samples("h36m/p2", [mocap(body, i, 0.025) for i in range(3)], tmp_path)
    assert protocols.is_measured(read)
    assert own_error(body, read).tolist() == pytest.approx([25.0] * 3, abs=1e-2), "a perfect fit has its residual"
    truth = protocols.true_joints(read, [0, 1, 2], lambda gender: pytest.fail("no body is needed"))
    assert protocols.joint_errors(read.measured, truth.joints)["mpjpe"].max() == 0, "perfect mocap joints have no error"
    of_bodies = [replace(r, joints3d=Keypoints(np.ones((24, 4)), "smpl24")) for r in map(image_record, range(3))]
    read = samples("3dpw/test", of_bodies, tmp_path)
    assert not protocols.is_measured(read) and own_error(body, read).max() < 1e-3


def test_no_frame_drops_out_for_lack_of_a_fit(body, tmp_path):
    records = [mocap(body, 0), mocap(body, 1, smpl=None), mocap(body, 2)]
    read = samples("h36m/p2", records, tmp_path / "read")
    trainer, processor = make_trainer(tmp_path)
    asked = heldout_examples("image_pose", read, processor, trainer.tools.rewards.body, measured=True)
    assert [example.key for example in asked] == ["h36m_0", "h36m_1", "h36m_2"]
    assert asked[1].pose6d is None and asked[1].joints is None and asked[0].pose6d is not None
    assert len(heldout_examples("image_pose", read, processor, trainer.tools.rewards.body)) == 2
    tokens = EncodedTokens(trainer.engine.module, IMAGE, {read.name: read})
    settings = {"end_token_id": processor.eos_token_id, "max_new_tokens": 12, "batch": 2}
    prepare = Preparer(processor, tokens, torch.device("cpu"))
    found = predict(trainer.engine.module, prepare, asked, **settings, generator=torch.Generator())
    rewards = heldout_rewards(found, trainer.tools.rewards)
    truth = protocols.true_joints(read, [0, 1, 2], lambda gender: body)
    fallback = matrix_to_sixd(turns(9, 1)).flatten()
    table = protocols.image_pose_table("h36m_p2", found, rewards, truth, body, fallback, processor)
    assert table["mpjpe"].is_not_null().all() and table["mpjpe"].is_finite().all()
    assert table["joint_reward"].is_null().to_list() == [False, True, False]
    assert table["true_pose"].is_null().to_list() == [False, True, False]
    text = pl.DataFrame({"format_reward": [1.0], "semantic_reward": [0.5], "semantic_reward_sampled": [0.5]})
    text = text.cast({"format_reward": pl.Float32})
    means = protocols.heldout_reward({"image_pose": table, "text_pose": text})
    assert means["joint"]["mean"] == pytest.approx(table["joint_reward"].drop_nulls().mean())


@pytest.mark.parametrize(
    ("subjects", "sequences", "expected"),
    [
        (["S9", "S9", "S11", "S11"], ["Walking", "Eating", "Walking", "Eating"], ["S9", "S9", "S11", "S11"]),
        (["a-0", "a-1", "b-0", "c-0"], ["a", "a", "b", "c"], ["a", "a", "b", "c"]),
        ([None] * 4, ["x.jpg", "x.jpg", "y.jpg", "z.jpg"], ["x.jpg", "x.jpg", "y.jpg", "z.jpg"]),
        (["p", "q", "r", "r"], ["val"] * 4, ["p", "q", "r", "r"]),
        ([None] * 4, [None] * 4, ["coco_0", "coco_1", "coco_2", "coco_3"]),
    ],
    ids=["h36m", "3dpw", "llava", "one sequence", "nothing"],
)
def test_units_are_the_coarser_of_a_releases_names(tmp_path, subjects, sequences, expected):
    records = [image_record(i, subject=subjects[i], sequence=sequences[i]) for i in range(4)]
    found = protocols.units(samples("x/test", records, tmp_path))
    assert found == {f"coco_{i}": unit for i, unit in enumerate(expected)}


def test_mean_training_joints_are_the_best_constant_in_squared_error(body, tmp_path):
    read = samples("h36m/train", [image_record(i) for i in range(6)], tmp_path)
    constant = protocols.mean_training_joints([read], body, 100)
    joints = protocols.eval_joints(body, read.rotations, read.betas)
    own = (joints - constant).square().sum()
    for shift in (0.01, -0.01):
        assert own < (joints - constant - shift).square().sum()
    assert protocols.mean_training_joints([read], body, 2).isfinite().all()


def test_an_answer_without_a_pose_is_measured_with_the_mean_rotations():
    poses, fallback = turns(0, 2), matrix_to_sixd(turns(1, 1)).flatten()
    shown = protocols.shown_poses(prediction(poses, [True, False]), matrix_to_sixd(poses).flatten(1), fallback)
    torch.testing.assert_close(shown, torch.cat([poses[:1], turns(1, 1)]), atol=1e-5, rtol=0)


def test_recall_of_the_true_poses_is_perfect_for_a_judge_that_knows_them_and_chance_stands_beside():
    class Knows(FakeRetrieval):
        def __init__(self, poses: torch.Tensor) -> None:
            super().__init__()
            self.known = poses

        def embed_text(self, texts):
            return super().embed_pose(protocols.semantic_frame(self.known, "camera"))

    poses, other = turns(0, 40), turns(1, 40)
    shown = {"ground_truth": poses, "policy": other}
    found = protocols.recall_table(["text"] * 40, shown, {"judge": Knows(poses)}, repeats=3, seed=0)["judge"]
    assert set(found) == {"full", "random_32", "random_200"}
    assert found["full"]["ground_truth"]["t2p"] == {"5": 100.0, "10": 100.0, "20": 100.0}
    assert found["full"]["chance"]["p2t"] == {"5": 12.5, "10": 25.0, "20": 50.0}
    assert found["random_32"]["chance"]["t2p"]["20"] == 62.5
    assert found["random_200"] == found["full"], "a pool larger than the set is the set"
    assert found["full"]["policy"]["t2p"]["5"] < 50


def test_tables_hold_what_the_report_draws(body):
    shown = prediction(turns(0, 3), [True, True, False])
    rewards = {"format": torch.tensor([1.0, 0.0, 0.0]), "text": torch.full((3,), float("nan"))}
    rewards |= {name: torch.rand(3) for name in ("joint", "joint.sampled", "semantic", "semantic.sampled")}
    truth = protocols.JointTruth(protocols.eval_joints(body, turns(0, 3)), turns(0, 3), torch.ones(3, dtype=torch.bool))
    fallback = matrix_to_sixd(turns(9, 1)).flatten()
    image = protocols.image_pose_table("3dpw", shown, rewards, truth, body, fallback, PROCESSOR)
    text = protocols.text_pose_table("posescript", shown, rewards, fallback, PROCESSOR)
    for table in (image, text):
        assert (table["pose"].list.len() == 72).all() and (table["sigma"].list.len() == 24).all()
        assert table["has_pose"].to_list() == [True, True, False]
    assert image["mpjpe"][0] < 1e-2 < image["mpjpe_sampled"][0] and image["mpjpe"][2] > 1
    assert text["caption"].to_list() == ["caption 0", "caption 1", "caption 2"]
    errors = protocols.pose_errors(image, truth, truth.joints.mean(0), fallback, body)
    assert set(errors) == {"mean_pose", "mean_rotations", "policy", "policy_sampled"}
    assert errors["policy"]["mpjpe"] == pytest.approx(image["mpjpe"].mean())


def test_heldout_rewards_count_every_answer(tmp_path):
    trainer, processor = make_trainer(tmp_path)
    examples = [trainer.tools.draw(position) for position in range(24)]
    settings = {"end_token_id": processor.eos_token_id, "max_new_tokens": 12, "batch": 5}
    tables = {}
    for name, tasks in (("image_pose", ("image_pose",)), ("text_pose", ("text_pose",)), ("vqa", ("vqa",))):
        asked = [example for example in examples if example.task in tasks]
        found = predict(trainer.engine.module, trainer.tools.prepare, asked, **settings, generator=torch.Generator())
        rewards = heldout_rewards(found, trainer.tools.rewards)
        if name == "vqa":
            tables[name] = protocols.vqa_table(name, found, rewards, processor)
        else:
            column = {"image_pose": "joint", "text_pose": "semantic"}[name]
            tables[name] = pl.DataFrame(
                {
                    "format_reward": rewards["format"].tolist(),
                    f"{column}_reward": rewards[column].tolist(),
                    f"{column}_reward_sampled": rewards[f"{column}.sampled"].tolist(),
                },
                schema_overrides={"format_reward": pl.Float32},
            )
    found = protocols.heldout_reward(tables)
    assert set(found) == {"joint", "semantic", "format", "text"}
    everything = pl.concat([table["format_reward"] for table in tables.values()])
    assert found["format"]["mean"] == pytest.approx(everything.mean())


def test_heldout_examples_are_the_same_for_every_run_and_unmirrored(tmp_path):
    trainer, processor = make_trainer(tmp_path)
    read = samples("coco/test", [image_record(i) for i in range(9)], tmp_path / "test")
    body = trainer.tools.rewards.body
    first, second = (heldout_examples("image_pose", read, processor, body) for _ in range(2))
    assert [e.question for e in first] == [e.question for e in second] and len(first) == 9
    assert not any(example.image.flip for example in first)
    assert len(heldout_examples("image_pose", read, processor, body, most=4)) <= 4
    assert heldout_examples("image_pose", read, processor, body, human_only=True) == []
