from dataclasses import replace

import numpy as np
import pytest

from pose_rft.body.cameras import project
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.record import Caption, Keypoints
from pose_rft.render.bodies import body_vertices
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.show import LINE, SMALLEST, draw, show


@pytest.fixture
def record(converted):
    """A sample of 8 px width with nothing to draw but its body, 6 m away."""
    sample = ShardSet(converted).record(3)
    body = replace(sample.smpl, transl=np.array([0.3, 0.0, 6.0], np.float32))
    return replace(sample, smpl=body, captions=(), joints2d=None, joints3d=None, box=None)


def test_the_mesh_is_drawn_where_the_camera_sees_the_body(record, tiny_folder):
    plain, with_mesh = (np.asarray(draw(record, folder)) for folder in (None, tiny_folder))
    vertices = body_vertices(record.smpl, load_body_model(tiny_folder))
    corners = project(vertices, record.camera) * SMALLEST / record.image.width
    low, high = np.floor(corners.min(0)) - 1, np.ceil(corners.max(0)) + 1
    y, x = np.nonzero((plain != with_mesh).any(axis=2))
    assert len(x) > 50
    assert x.min() >= low[0] and x.max() <= high[0] and y.min() >= low[1] and y.max() <= high[1]


def test_a_body_behind_the_camera_is_not_drawn(record, tiny_folder):
    behind = replace(record, smpl=replace(record.smpl, transl=np.array([0, 0, -6.0], np.float32)))
    assert np.array_equal(np.asarray(draw(behind)), np.asarray(draw(behind, tiny_folder)))


def test_a_body_that_no_camera_saw_stands_upright_on_white(record, tiny_folder):
    upright = replace(record.smpl, frame="amass", global_orient=np.array([np.pi / 2, 0, 0], np.float32))
    text = replace(record, image=None, camera=None, smpl=upright)
    inked = (np.asarray(draw(text, tiny_folder))[:SMALLEST] != 255).any(axis=2)
    assert 0.005 < inked.mean() < 0.5
    assert not (np.asarray(draw(text))[:SMALLEST] != 255).any()


def test_show_draws_the_mesh_only_with_a_body_model(converted, tiny_folder, tmp_path, monkeypatch):
    drawn = []

    def draw_body(picture, *arguments):
        drawn.append(arguments)
        return picture

    monkeypatch.setattr("pose_rft.shards.show.draw_body", draw_body)
    show(converted, "u01_000003", tmp_path / "plain.png")
    assert not drawn
    show(converted, "u01_000003", tmp_path / "mesh.png", tiny_folder)
    assert len(drawn) == 1 and (tmp_path / "mesh.png").is_file()


def test_keypoints_of_another_number_than_their_set_are_one_sentence(record):
    few = replace(record, joints2d=Keypoints(np.ones((5, 3)), "coco17"))
    with pytest.raises(PoseRftError, match="A sample has 5 joints of coco17, expected 17"):
        draw(few)


def test_texts_of_megabytes_are_drawn_to_a_bound(record):
    height = draw(record).height
    for captions in ((Caption("word " * 500_000, "human"),), (Caption("word", "human"),) * 10_000):
        assert height < draw(replace(record, captions=captions)).height < height + 300 * LINE
