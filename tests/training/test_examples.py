"""Examples say what the samples say, in the frame of their task."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from pose_rft.batches.examples import Example, ExampleMaker, ExampleParams, ExampleStream
from pose_rft.batches.samples import Samples, mean_pose
from pose_rft.body.frames import amass_to_camera, camera_to_amass, remove_heading
from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import axis_angle_to_matrix, mirror_rotations, sixd_to_matrix
from pose_rft.errors import PoseRftError
from pose_rft.params import parse
from pose_rft.record import Caption
from pose_rft.seeds import numpy_rng
from tests.support.training_fakes import Chain, Templates, image_record, record, samples, text_record, vqa_record

torch.set_num_threads(1)
PARAMS = ExampleParams(
    mixture={
        "image_pose": {"coco": 0.4, "bedlam": 0.2},
        "text_pose": {"posescript": 0.3},
        "image_text_pose": {"bedlam": 0.05},
        "vqa": {"llava_instruct": 0.05},
    }
)
CAPTION = (Caption("arms up", "automatic"),)


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Samples]:
    content = {
        "coco": [image_record(i) for i in range(6)],
        "bedlam": [image_record(i, dataset="bedlam", captions=CAPTION) for i in range(6, 9)],
        "posescript": [text_record(i) for i in range(5)],
        "llava_instruct": [vqa_record(i) for i in range(4)],
    }
    return {name: samples(f"{name}/train", records, tmp_path) for name, records in content.items()}


def maker(samples_: Samples, task: str, params: ExampleParams = PARAMS) -> ExampleMaker:
    return ExampleMaker(samples_, task, Templates(), Chain(), params)  # type: ignore[arg-type]


def test_samples_read_from_the_cache_equal_those_read_from_shards(tmp_path: Path) -> None:
    records = [*(image_record(i) for i in range(3)), text_record(3), vqa_record(4)]
    first, second = samples("mixed/train", records, tmp_path), samples("mixed/train", records, tmp_path)
    for name in ("rotations", "labelled", "betas", "box", "has_image"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert (first.keys, first.captions, first.dialogue) == (second.keys, second.captions, second.dialogue)
    assert first.captions[3] == records[3].captions and first.dialogue[4] == records[4].dialogue
    assert first.labelled[4].logical_not().all() and not first.has_image[3]
    assert first.box[4].tolist() == [32.0, 24.0, 64.0]


def test_an_image_pose_target_is_the_fit_in_the_camera_frame(sets: dict[str, Samples]) -> None:
    example = maker(sets["coco"], "image_pose").make(2, numpy_rng(0))
    smpl = image_record(2).smpl
    expected = axis_angle_to_matrix(torch.from_numpy(smpl.global_orient))  # type: ignore[union-attr]
    torch.testing.assert_close(sixd_to_matrix(example.pose6d)[0], expected)  # type: ignore[arg-type]
    assert example.image == ("coco/train", 2, False) and example.pose_mask.all()  # type: ignore[union-attr]


def test_a_text_pose_target_has_no_heading_and_faces_a_level_camera(sets: dict[str, Samples]) -> None:
    example = maker(sets["posescript"], "text_pose").make(1, numpy_rng(0))
    root = sixd_to_matrix(example.pose6d)[0]  # type: ignore[arg-type]
    amass = axis_angle_to_matrix(torch.from_numpy(text_record(1).smpl.global_orient))  # type: ignore[union-attr]
    torch.testing.assert_close(root, amass_to_camera(remove_heading(amass)), atol=1e-6, rtol=0)
    assert example.image is None and example.caption in example.question  # type: ignore[operator]
    assert example.pose_mask.tolist() == [True] * 22 + [False] * 2  # type: ignore[union-attr]


def test_text_pose_from_a_picture_set_forgets_where_the_camera_stood(tmp_path: Path) -> None:
    turned = samples("bedlam/train", [image_record(1, captions=CAPTION)], tmp_path)
    example = maker(turned, "text_pose").make(0, numpy_rng(0))
    root = camera_to_amass(sixd_to_matrix(example.pose6d)[0])  # type: ignore[arg-type]
    torch.testing.assert_close(remove_heading(root), root, atol=1e-6, rtol=0)


def test_a_flipped_example_is_the_mirrored_person(sets: dict[str, Samples]) -> None:
    plain, flipped = (maker(sets["coco"], "image_pose").make(3, numpy_rng(0), flip) for flip in (False, True))
    rotations = sixd_to_matrix(flipped.pose6d)  # type: ignore[arg-type]
    torch.testing.assert_close(rotations, mirror_rotations(sixd_to_matrix(plain.pose6d)), atol=1e-6, rtol=0)  # type: ignore[arg-type]
    assert flipped.joints is not None and plain.joints is not None
    mirrored = plain.joints[list(SMPL24.flip)] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(flipped.joints, mirrored)
    torch.testing.assert_close(Chain().joints(rotations), flipped.joints, atol=1e-5, rtol=0)
    assert flipped.image.flip and not plain.image.flip  # type: ignore[union-attr]


def test_an_unlabelled_hand_changes_sides_in_the_mirror(tmp_path: Path) -> None:
    one = image_record(0)
    one.smpl.valid[SMPL24.index("left_hand")] = False  # type: ignore[union-attr]
    flipped = maker(samples("one/train", [one], tmp_path), "image_pose").make(0, numpy_rng(0), flip=True)
    assert flipped.pose_mask is not None
    assert not flipped.pose_mask[SMPL24.index("right_hand")] and flipped.pose_mask[SMPL24.index("left_hand")]


def test_vqa_asks_one_exchange_of_the_dialogue(sets: dict[str, Samples]) -> None:
    seen = {maker(sets["llava_instruct"], "vqa").make(1, numpy_rng(seed)).question for seed in range(20)}
    assert seen == {"Is it 1?", "Sure?"}


def test_a_position_is_one_example_whatever_was_drawn_before(sets: dict[str, Samples]) -> None:
    def summary(example: Example) -> tuple[object, ...]:
        return example.key, example.task, example.question, example.answer, example.image

    first = ExampleStream(sets, PARAMS, Templates(), Chain(), seed=5)  # type: ignore[arg-type]
    other = ExampleStream(sets, PARAMS, Templates(), Chain(), seed=5)  # type: ignore[arg-type]
    in_order = [summary(first.draw(p)) for p in range(100)]
    assert [summary(other.draw(p)) for p in reversed(range(100))] == in_order[::-1]


def test_the_mixture_and_the_choices_follow_their_weights(sets: dict[str, Samples]) -> None:
    stream = ExampleStream(sets, PARAMS, Templates(), Chain(), seed=5)  # type: ignore[arg-type]
    drawn = [stream.draw(p) for p in range(4096)]
    share = {task: n / len(drawn) for task, n in Counter(e.task for e in drawn).items()}
    expected = {"image_pose": 0.6, "text_pose": 0.3, "image_text_pose": 0.05, "vqa": 0.05}
    assert share == pytest.approx(expected, abs=1e-3)
    flips = [e.image.flip for e in drawn if e.task == "image_pose"]  # type: ignore[union-attr]
    assert sum(flips) / len(flips) == pytest.approx(0.5, abs=0.04)
    assert not any(e.image.flip for e in drawn if e.task in ("vqa", "image_text_pose"))  # type: ignore[union-attr]
    human = [e.caption.startswith("human") for e in drawn if e.task == "text_pose"]  # type: ignore[union-attr]
    assert sum(human) / len(human) == pytest.approx(0.5, abs=0.05)


def test_samples_without_what_the_task_needs_are_left_out(tmp_path: Path) -> None:
    mixed = [image_record(0), image_record(1, smpl=None), record(2), image_record(3, flags=("drifted",))]
    params = ExampleParams(mixture=PARAMS.mixture, skip_flags=("drifted",))
    assert maker(samples("mixed/train", mixed, tmp_path), "image_pose", params).rows == [0]


def test_a_source_that_has_nothing_for_its_task_is_named(sets: dict[str, Samples]) -> None:
    with pytest.raises(PoseRftError, match="`3dpw`"):
        params = ExampleParams(mixture={"image_pose": {"3dpw": 1.0}})
        ExampleStream(sets, params, Templates(), Chain(), seed=0)  # type: ignore[arg-type]
    with pytest.raises(PoseRftError, match="posescript/train has no sample for image_pose"):
        params = ExampleParams(mixture={"image_pose": {"posescript": 1.0}})
        ExampleStream(sets, params, Templates(), Chain(), seed=0)  # type: ignore[arg-type]
    with pytest.raises(PoseRftError, match="at least one weight"):
        parse({"mixture": {"vqa": {"llava_instruct": 0.0}}}, ExampleParams, "`sft.examples`")


def test_the_mean_pose_is_a_rotation_and_the_mean_of_mirrored_pairs_is_symmetric(sets: dict[str, Samples]) -> None:
    coco = sets["coco"]
    mean = mean_pose([coco])
    torch.testing.assert_close(mean @ mean.mT, torch.eye(3).expand(24, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(mean), torch.ones(24))
    both = torch.cat((coco.rotations, mirror_rotations(coco.rotations)))
    doubled = Samples(**{**vars(coco), "rotations": both, "labelled": torch.ones(len(both), 24, dtype=torch.bool)})
    symmetric = mean_pose([doubled])
    torch.testing.assert_close(mirror_rotations(symmetric), symmetric, atol=1e-5, rtol=0)
