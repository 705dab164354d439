"""Cached tokens are the tokens; crops are decoded once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pose_rft.batches import crop_cache as crops_module
from pose_rft.batches import feature_cache
from pose_rft.batches.crop_cache import load_crops, pixels
from pose_rft.batches.examples import ImageRef
from pose_rft.batches.feature_cache import CachedTokens, EncodedTokens
from pose_rft.batches.samples import Samples, load_samples
from pose_rft.errors import PoseRftError
from pose_rft.policy.config import CLIP_NORM
from pose_rft.record import Image
from tests.support.training_fakes import IMAGE, FakeShards, image_record, samples, text_record, tiny_policy

torch.set_num_threads(1)


@pytest.fixture
def coco(tmp_path: Path) -> Samples:
    records = [image_record(0), text_record(1), *(image_record(i) for i in range(2, 7))]
    return samples("coco/train", records, tmp_path / "samples")


def references(coco: Samples) -> list[ImageRef]:
    return [ImageRef("coco/train", row, flip) for row, flip in ((3, False), (0, True), (3, True), (6, False))]


def test_cached_tokens_equal_encoding_now_within_half_precision(tmp_path: Path, coco: Samples) -> None:
    model, _ = tiny_policy(tmp_path)
    sets = {"coco/train": coco}
    cached = CachedTokens(model, IMAGE, sets, tmp_path / "features")(references(coco))
    now = EncodedTokens(model, IMAGE, sets)(references(coco))
    for left, right in ((cached.clip, now.clip), (cached.pose, now.pose)):
        assert left is not None and right is not None and left.shape == right.shape
        torch.testing.assert_close(left, right, rtol=1e-2, atol=5e-3)
    assert (cached.clip[0] - cached.clip[2]).abs().max() > 0.05  # a mirrored crop is another picture


def test_the_cache_does_not_depend_on_the_batch_in_which_it_was_made(
    tmp_path: Path, coco: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = tiny_policy(tmp_path)
    found = []
    for chunk in (1, 4):
        monkeypatch.setattr(feature_cache, "CHUNK", chunk)
        found.append(CachedTokens(model, IMAGE, {"coco/train": coco}, tmp_path / f"features-{chunk}")(references(coco)))
    torch.testing.assert_close(found[0].clip, found[1].clip, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(found[0].pose, found[1].pose, rtol=2e-3, atol=2e-3)


def test_another_stage_finds_the_tokens_without_encoding(
    tmp_path: Path, coco: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = tiny_policy(tmp_path)
    first = CachedTokens(model, IMAGE, {"coco/train": coco}, tmp_path / "features")
    first.prepare(["coco/train"])
    monkeypatch.setattr(model, "clip_tokens", None)
    monkeypatch.setattr(model.pose_encoder, "observe", None)
    again = CachedTokens(model, IMAGE, {"coco/train": coco}, tmp_path / "features")(references(coco))
    assert torch.equal(again.clip, first(references(coco)).clip)


def test_other_encoder_weights_have_a_cache_of_their_own(tmp_path: Path, coco: Samples) -> None:
    (one, _), (two, _) = tiny_policy(tmp_path), tiny_policy(tmp_path, seed=1)
    tokens = [CachedTokens(m, IMAGE, {"coco/train": coco}, tmp_path / "features")(references(coco)) for m in (one, two)]
    assert not torch.equal(tokens[0].clip, tokens[1].clip)


@pytest.mark.parametrize("collective", [False, True])
def test_no_references_give_no_tokens_and_run_the_encoders_where_other_ranks_wait(
    tmp_path: Path, coco: Samples, monkeypatch: pytest.MonkeyPatch, collective: bool
) -> None:
    model, _ = tiny_policy(tmp_path)
    if collective:  # as DeepSpeed marks what it cuts up
        next(model.parameters()).ds_id = 0  # type: ignore[attr-defined]
    ran: list[int] = []
    encode = model.encode_images
    monkeypatch.setattr(model, "encode_images", lambda *pixels: ran.append(len(pixels[0])) or encode(*pixels))
    assert len(EncodedTokens(model, IMAGE, {"coco/train": coco})([])) == 0 and ran == [1] * collective
    assert len(CachedTokens(model, IMAGE, {"coco/train": coco}, tmp_path / "features")([])) == 0


def test_pixels_of_a_flip_are_the_mirrored_pixels(tmp_path: Path, coco: Samples) -> None:
    crops = load_crops(coco, 32, 1.25, tmp_path / "crops")
    plain, flipped = (pixels(crops, [0, 3], CLIP_NORM, flip) for flip in (False, True))
    assert torch.equal(plain.flip(-1), flipped)
    record = coco.shards.record(3)
    direct = crops_module.crop_of(record, 32, 1.25, flip=True)
    assert np.abs(direct[:, ::-1].astype(int) - crops[3].astype(int)).max() <= 1
    assert not crops[1].any()


def test_a_picture_that_cannot_be_decoded_is_named_and_nothing_stays(tmp_path: Path) -> None:
    bad = image_record(5, image=Image(b"\xff\xd8 not a picture", "jpg", 64, 48))
    broken = load_samples("coco/train", FakeShards([image_record(0), bad], "broken-"), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(PoseRftError, match="Sample coco_5 of coco"):
        load_crops(broken, 32, 1.25, tmp_path / "crops")
    assert not [path for path in (tmp_path / "crops").iterdir() if path.is_dir()]
