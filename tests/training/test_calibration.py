"""σ scaled joint by joint on validation data: what predict and evaluate read, and what training never sees."""

import json
from pathlib import Path

import pytest
import torch

from pose_rft.batches.collate import Collator
from pose_rft.batches.examples import ExampleMaker, ExampleParams, numpy_rng
from pose_rft.batches.feature_cache import EncodedTokens
from pose_rft.batches.samples import Samples
from pose_rft.errors import PoseRftError
from pose_rft.inference.heldout import template_poses
from pose_rft.metrics.distribution import coverage, interval_level
from pose_rft.policy.hub import load_policy, save_policy
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.training.calibration import calibrate
from tests.support.training_fakes import IMAGE, Chain, image_record, samples, text_record, tiny_policy

torch.set_num_threads(1)


def validation(tmp_path: Path) -> dict:
    pictures = [image_record(i, dataset="bedlam") for i in range(30)]
    texts = [text_record(i) for i in range(24)]
    return {
        ("image_pose", "bedlam/val"): samples("bedlam/val", pictures, tmp_path / "a"),
        ("text_pose", "posescript/val"): samples("posescript/val", texts, tmp_path / "b"),
    }


def calibrated_policy(tmp_path: Path, head: str = "gaussian", sets: dict | None = None):
    model, processor = tiny_policy(tmp_path, head)
    sets = validation(tmp_path) if sets is None else sets
    tokens = EncodedTokens(model, IMAGE, {read.name: read for read in sets.values()})
    calibrate(model, processor, Chain(), sets, tokens, 100, 0)  # type: ignore[arg-type]
    return model, processor, tokens, sets


def standardised(model: PoseLlava, processor, tokens: EncodedTokens, read: Samples, scaled: bool) -> torch.Tensor:
    maker = ExampleMaker(read, "image_pose", processor, Chain(), ExampleParams(mixture={"image_pose": {"x": 1.0}}))  # type: ignore[arg-type]
    batch = Collator(processor)([maker.make(row, numpy_rng(0, row)) for row in maker.rows])
    with torch.no_grad():
        poses = template_poses(model, batch, tokens(batch.image_refs))
    return (model.calibrated(poses, "image") if scaled else poses).standardised(batch.pose6d)


def test_calibrated_intervals_hold_ninety_percent_and_training_sees_the_same_density_as_before(tmp_path):
    untouched, _ = tiny_policy(tmp_path)
    model, processor, tokens, sets = calibrated_policy(tmp_path)
    read = sets["image_pose", "bedlam/val"]
    found = coverage(interval_level(standardised(model, processor, tokens, read, scaled=True)), 0.9)
    assert found == pytest.approx(0.9, abs=0.01)
    raw = standardised(model, processor, tokens, read, scaled=False)
    assert abs(coverage(interval_level(raw), 0.9) - 0.9) > 0.02, "or nothing would be shown"
    assert torch.equal(raw, standardised(untouched, processor, tokens, read, scaled=False))
    hidden = torch.randn(3, model.config.get_text_config().hidden_size)
    with torch.no_grad():
        before, after = untouched.pose_distribution(hidden), model.pose_distribution(hidden)
        assert torch.equal(before.log_std, after.log_std)
        scaled = model.calibrated(after, "image")
    assert torch.equal(scaled.mean, after.mean) and not torch.equal(scaled.log_std, after.log_std)


def test_pictures_and_sentences_have_factors_of_their_own(tmp_path):
    model, *_ = calibrated_policy(tmp_path)
    scale = model.config.sigma_scale
    assert set(scale) == {"image", "text"} and scale["image"] != scale["text"]
    assert all(len(factors) == 24 for factors in scale.values())
    assert scale["text"][22:] == [1.0, 1.0], "PoseScript labels no hands"


def test_a_saved_calibration_is_loaded_again(tmp_path):
    model, processor, *_ = calibrated_policy(tmp_path)
    save_policy(tmp_path / "saved", model, processor)
    loaded, _ = load_policy(tmp_path / "saved")
    assert loaded.config.sigma_scale == model.config.sigma_scale
    poses = PoseDistribution(torch.zeros(2, 144), torch.zeros(2, 144))
    for asked in ("image", "text"):
        assert torch.equal(loaded.calibrated(poses, asked).log_std, model.calibrated(poses, asked).log_std)


def test_without_validation_data_or_density_nothing_is_scaled(tmp_path):
    poses = PoseDistribution(torch.zeros(2, 144), torch.zeros(2, 144))
    model, *_ = calibrated_policy(tmp_path, sets={})
    assert model.config.sigma_scale is None and model.calibrated(poses, "image") is poses
    point, *_ = calibrated_policy(tmp_path, "point")
    assert point.config.sigma_scale is None


def test_a_second_calibration_replaces_the_first_and_does_not_build_on_it(tmp_path):
    model, processor, tokens, sets = calibrated_policy(tmp_path)
    first = model.config.sigma_scale
    calibrate(model, processor, Chain(), sets, tokens, 100, 0)  # type: ignore[arg-type]
    assert model.config.sigma_scale == first


@pytest.mark.parametrize("kind", ["diagonal", "low_rank"])
def test_scaling_a_distribution_scales_its_marginals_and_keeps_its_correlations(kind):
    factor = torch.randn(2, 144, 3) if kind == "low_rank" else None
    poses = PoseDistribution(torch.randn(2, 144), torch.randn(2, 144) * 0.1 - 2, factor)
    scale = torch.linspace(0.5, 3, 24)
    scaled = poses.scaled(scale)
    torch.testing.assert_close(scaled.std(), poses.std() * scale.repeat_interleave(6))
    truth = torch.randn(2, 144)
    torch.testing.assert_close(scaled.standardised(truth), poses.standardised(truth) / scale[:, None])
    torch.testing.assert_close(scaled.whitened(truth), poses.whitened(truth) / scale[:, None], atol=1e-4, rtol=1e-4)


def test_whitened_draws_are_standard_normal_also_where_numbers_are_tied():
    torch.manual_seed(0)
    poses = PoseDistribution(torch.zeros(1, 144), torch.full((1, 144), -1.0), torch.randn(1, 144, 2))
    draws = poses.sample(torch.Generator().manual_seed(0), 20_000)[0]
    many = PoseDistribution(*(x.expand(20_000, *x.shape[1:]) for x in (poses.mean, poses.log_std, poses.factor)))
    z = many.whitened(draws)[:, 4]
    torch.testing.assert_close(z.T.cov(), torch.eye(6), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "scale",
    [
        [1.0] * 24,
        {"image": [1.0] * 23},
        {"image": [-1.0] * 24},
        {"picture": [1.0] * 24},
        {"text": ["1"] * 24},
        {"text": [float("inf")] * 24},
        {"text": 3},
        {"image": [True] * 24},
    ],
)
def test_a_damaged_calibration_is_one_sentence(tmp_path, scale):
    model, processor, *_ = calibrated_policy(tmp_path, sets={})
    save_policy(tmp_path / "saved", model, processor)
    path = tmp_path / "saved/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sigma_scale": scale}))
    with pytest.raises(PoseRftError):
        load_policy(tmp_path / "saved")
