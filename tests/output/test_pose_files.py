import json

import numpy as np
import pytest
import torch

from pose_rft.body.rotations import axis_angle_to_matrix, geodesic_angle
from pose_rft.core.errors import PoseRftError
from pose_rft.pose_files import read_pose

POSE = torch.randn(24, 3, generator=torch.Generator().manual_seed(0)) * 0.5


@pytest.mark.parametrize("form", ["flat.npy", "rows.npy", "matrices.npy", "named.npz", "predicted.json"])
def test_every_form_of_a_pose_file_gives_the_same_pose(tmp_path, form):
    path, matrices = tmp_path / form, axis_angle_to_matrix(POSE)
    if form.startswith("flat"):
        np.save(path, POSE.flatten().numpy())
    elif form.startswith("rows"):
        np.save(path, POSE.numpy())
    elif form.startswith("matrices"):
        np.save(path, matrices.numpy())
    elif form.startswith("named"):
        np.savez(path, other=np.zeros(3), pose=POSE.numpy())
    else:
        path.write_text(json.dumps({"rotation_matrices": matrices.tolist()}))
    assert geodesic_angle(read_pose(path), matrices).max() < 1e-3


@pytest.mark.parametrize(
    "content, words",
    [(np.zeros(5), "shape"), (np.full(72, np.nan), "finite"), (np.ones((24, 3, 3)), "no rotations")],
)
def test_what_is_no_pose_is_refused_with_what_was_expected(tmp_path, content, words):
    path = tmp_path / "bad.npy"
    np.save(path, content)
    with pytest.raises(PoseRftError, match=words) as caught:
        read_pose(path)
    assert "axis-angles (72,)" in str(caught.value)


def test_a_pickled_array_is_refused(tmp_path):
    path = tmp_path / "evil.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(PoseRftError, match="holds no pose"):
        read_pose(path)
