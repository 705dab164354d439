"""Fixtures that tests of several folders share.

`tiny_folder`: a small body in the true form of an SMPL file, 24 clouds of vertices around a plain skeleton.
`standin_folder`: the sample's stand-in body, built once per test run.

DVC, which tests start by its name in projects of their own, keeps its notes in this account's private folder.
"""

import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from flows import private_dvc
from pose_rft.body.joints import H36M17, SMPL24
from pose_rft.sample import python2_pickle

private_dvc.settle()
OFFSETS = {  # metres from the parent joint, left side; right mirrors x
    "pelvis": (0, 0, 0), "hip": (0.08, -0.08, 0), "spine1": (0, 0.1, 0), "knee": (0.03, -0.4, 0),
    "spine2": (0, 0.14, 0), "ankle": (0, -0.42, -0.03), "spine3": (0, 0.06, 0), "foot": (0.03, -0.06, 0.12),
    "neck": (0, 0.2, 0), "collar": (0.08, 0.1, 0), "head": (0, 0.1, 0.04), "shoulder": (0.1, 0.04, 0),
    "elbow": (0.26, 0, 0), "wrist": (0.25, 0, 0), "hand": (0.09, 0, 0),
}  # fmt: skip


def tiny_content(vertices: int = 6800, betas: int = 10) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    joints = np.zeros((24, 3))
    for i, name in enumerate(SMPL24.joints):
        side = -1 if name.startswith("right_") else 1
        parent = joints[SMPL24.parents[i]] if i else np.zeros(3)
        joints[i] = parent + np.array(OFFSETS[name.split("_")[-1]]) * (side, 1, 1)
    owner = np.arange(vertices) % 24
    template = joints[owner] + rng.normal(0, 0.03, (vertices, 3))
    regressor = np.zeros((24, vertices))
    for i in range(24):
        regressor[i, np.flatnonzero(owner == i)[:12]] = 1 / 12
    weights = np.full((vertices, 24), 0.0)
    weights[np.arange(vertices), owner] = 0.8
    weights[np.arange(vertices), np.maximum(np.array(SMPL24.parents)[owner], 0)] += 0.2
    return {
        "v_template": template,
        "shapedirs": rng.normal(0, 0.01, (vertices, 3, betas)),
        "posedirs": rng.normal(0, 0.001, (vertices, 3, 207)).astype(np.float32),
        "J_regressor": scipy.sparse.csc_matrix(regressor),
        "kintree_table": np.array([[2**32 - 1, *SMPL24.parents[1:]], range(24)], dtype=np.uint32),
        "weights": weights,
        "f": rng.integers(0, vertices, (500, 3)).astype(np.uint32),
        "bs_type": "lrotmin",
        "bs_style": "lbs",
    }


def tiny_h36m_regressor(content: dict[str, Any]) -> np.ndarray:
    """(17, V), right leg first; centre joints come from the clouds of their nearest SMPL joints."""
    nearest = {"spine": "spine2", "neck": "neck", "nose": "head", "head_top": "head"}
    smpl = content["J_regressor"].toarray()
    return np.stack([smpl[SMPL24.index(nearest.get(name, name))] for name in H36M17.joints])


@pytest.fixture(scope="session")
def tiny_model() -> dict[str, Any]:
    return tiny_content()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tiny_model) -> Path:
    """`data.body_model` with a v1.1.0-like neutral file and a regressor."""
    folder = tmp_path_factory.mktemp("body_models")
    python2_pickle.dump(tiny_model, folder / "smpl" / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl")
    np.save(folder / "J_regressor_h36m.npy", tiny_h36m_regressor(tiny_model))
    return folder


@pytest.fixture(scope="session")
def standin_folder(tmp_path_factory) -> Path:
    """`data.body_model` as the sample has it; parallel test processes share one (4 s to build)."""
    from pose_rft.sample.standin import build_standin

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with open(base / "standin.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = base / "standin_body"
        if not folder.exists():
            build_standin(folder)
    return folder
