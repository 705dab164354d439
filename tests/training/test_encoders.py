"""Training of the sample's two encoders: keypoints in the crop, pictures beside their captions."""

from pathlib import Path

import numpy as np
import torch

from pose_rft.batches.crop_cache import load_crops
from pose_rft.body.joints import COCO17, SMPL24
from pose_rft.policy.architectures import clip_vision_config
from pose_rft.policy.params import ContrastiveParams, KeypointTrainingParams
from pose_rft.policy.pose_encoder import create_conv_vit
from pose_rft.record import Caption, Keypoints, Record
from pose_rft.training import contrastive, keypoints
from tests.support.training_fakes import BASE, ENCODER, IMAGE, image_record, samples, tiny_policy, word_tokenizer

torch.set_num_threads(1)
BOX_LEFT, BOX_TOP, SIDE = 32.0 - 25.0, 24.0 - 25.0, 50.0  # of the records' box (32, 24), 40 px, times 1.25


def with_keypoints(i: int) -> Record:
    points = np.zeros((17, 3), np.float32)
    points[COCO17.index("left_knee")] = (BOX_LEFT + 0.75 * SIDE, BOX_TOP + 0.5 * SIDE, 1.0)
    points[COCO17.index("right_knee")] = (BOX_LEFT + 0.1 * SIDE, BOX_TOP + 0.5 * SIDE, 0.0)  # not marked
    points[COCO17.index("left_hip")] = (BOX_LEFT + 1.2 * SIDE, BOX_TOP, 1.0)  # outside the crop
    points[COCO17.index("nose")] = (BOX_LEFT + 0.5 * SIDE, BOX_TOP + 0.5 * SIDE, 1.0)  # no joint of SMPL
    return image_record(i, joints2d=Keypoints(points, "coco17"))


def test_keypoints_lie_in_the_crop_and_only_marked_ones_count(tmp_path: Path) -> None:
    coco = samples("coco/train", [with_keypoints(0), image_record(1)], tmp_path)
    data, rows = keypoints.load_keypoints(coco, IMAGE, tmp_path / "crops")
    knee = SMPL24.index("left_knee")
    assert rows == [0] and data.valid[0].nonzero().flatten().tolist() == [knee]
    torch.testing.assert_close(data.points[0, knee], torch.tensor([0.5, 0.0]))


def test_variation_mirrors_pixels_and_keypoints_together() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.zeros(64, 3, 8, 8)
    x[:, :, 2, 6] = 5.0
    points, valid = torch.zeros(64, 24, 2), torch.zeros(64, 24, dtype=torch.bool)
    knee, other = SMPL24.index("left_knee"), SMPL24.index("right_knee")
    points[:, knee], valid[:, knee] = torch.tensor([(6 + 0.5) / 4 - 1, (2 + 0.5) / 4 - 1]), True
    x, points, valid = keypoints.vary(x, points, valid, generator)
    assert 20 < int(valid[:, other].sum()) < 44
    for i in range(64):
        joint = other if valid[i, other] else knee
        place = x[i].mean(0).flatten().argmax()
        column, row = (points[i, joint] + 1) * 4 - 0.5
        assert divmod(int(place), 8) == (round(float(row)), round(float(column)))


def test_the_encoder_learns_where_a_joint_is(tmp_path: Path) -> None:
    coco = samples("coco/train", [with_keypoints(i) for i in range(6)], tmp_path)
    data, rows = keypoints.load_keypoints(coco, IMAGE, tmp_path / "crops")
    torch.manual_seed(0)
    encoder = create_conv_vit(ENCODER, IMAGE.pose_size)
    before = keypoints.pixel_error(encoder, data, rows)
    params = KeypointTrainingParams(steps=40, batch=8, learning_rate=1e-2, weight_decay=0.0)
    log = keypoints.train(encoder, {"coco/train": (data, rows)}, params, tmp_path / "scratch", seed=0)
    assert len(log) == 40 and keypoints.pixel_error(encoder, data, rows) < 0.7 * before


def test_the_clip_tower_learns_pairs_and_keeps_the_layer_that_nobody_reads(tmp_path: Path) -> None:
    colours = ("arms up", "Is it Sure", "human words", "Yes No")
    records = [image_record(i, captions=(Caption(text, "automatic"),)) for i, text in enumerate(colours)]
    bedlam = samples("bedlam/train", records, tmp_path)
    crops = load_crops(bedlam, IMAGE.size, IMAGE.box_scale, tmp_path / "crops")
    from transformers import CLIPVisionModel

    assert BASE.tiny is not None
    torch.manual_seed(0)
    vision = CLIPVisionModel(clip_vision_config(BASE.tiny.vision, IMAGE.size))
    last = {name: value.clone() for name, value in vision.encoder.layers[-1].state_dict().items()}
    params = ContrastiveParams(steps=60, batch=4, learning_rate=5e-3, weight_decay=0.0, width=16)
    tokenizer = word_tokenizer()
    log, pair = contrastive.train(vision, tokenizer, bedlam, crops, params, tmp_path / "scratch", seed=0)
    recall, pool = contrastive.heldout_recall(pair, tokenizer, bedlam, crops, k=1, most=4)
    assert pool == 4 and recall == 1.0 and log["loss"].tail(5).mean() < 0.5 * log["loss"][0]  # type: ignore[operator]
    assert all(torch.equal(last[name], value) for name, value in vision.encoder.layers[-1].state_dict().items())


def test_the_trained_tower_fits_into_the_base_model(tmp_path: Path) -> None:
    from transformers import CLIPVisionModel

    from pose_rft.policy.hub import create_base

    assert BASE.tiny is not None
    tiny_policy(tmp_path)  # writes the tokenizer
    vision = CLIPVisionModel(clip_vision_config(BASE.tiny.vision, IMAGE.size))
    base = create_base(BASE, IMAGE, tmp_path / "tokenizer", 0, vision)
    trained = base.llava.model.vision_tower.state_dict()
    assert all(torch.equal(trained[name], value) for name, value in vision.state_dict().items())
