"""Human3.6M is scored by its own joints: each frame of the test splits has them, whatever the fits are (issue 15.2)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pose_rft.body.joints import LSP14, joint_set
from pose_rft.datasets.h36m.reader import H36m, H36mParams
from pose_rft.sample import write_h36m
from pose_rft.sample.plan import SampleParams, VideoSample
from tests.support.flat_studio import FlatStudio
from tests.support.release_truth import read_all

PARAMS = SampleParams.model_construct(
    h36m=VideoSample(size=64, train_sequences=1, test_sequences=1, frames=2, test_frames=3)
)
FITS = "Human36M_subject{subject}_SMPL_NeuralAnnot.json"


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory, body_models: Path) -> Path:
    root, studio = tmp_path_factory.mktemp("releases"), FlatStudio(body_models)
    results = [write_h36m.render(task, PARAMS, 0, studio, root) for task in write_h36m.tasks(PARAMS, 0)]
    write_h36m.finish(PARAMS, 0, results, root)
    return root


def spoil(root: Path, kind: str) -> None:
    """Fits of all subjects: taken away, or the first of each not finite."""
    for path in root.glob("h36m/*NeuralAnnot.json"):
        if kind == "gone":
            path.unlink()
            continue
        content = json.loads(path.read_text())
        first = next(iter(next(iter(next(iter(content.values())).values())).values()))
        first["pose"][7] = float("nan")
        path.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["gone", "one broken"])
@pytest.mark.parametrize("split", ["p1", "p2"])
def test_no_frame_of_a_test_split_depends_on_its_fit(
    miniature: Path, body_models: Path, tmp_path: Path, split: str, kind: str
) -> None:
    shutil.copytree(miniature / "h36m", tmp_path / "h36m")
    params = H36mParams.model_validate(
        {"fits": [{"source": "neuralannot", "path": FITS}], "splits": ("train", "p1", "p2")}
    )
    whole, _ = read_all(H36m(miniature, params, body_models, 92), split)
    spoil(tmp_path, kind)
    release = H36m(tmp_path, params, body_models, 92)
    records, defects = read_all(release, split)
    assert not defects and len(records) == sum(unit.expected for unit in release.units(split)) > 0
    for record, before in zip(records, whole, strict=True):
        kind_of_joints = joint_set(record.joints3d.joint_set)
        scored = record.joints3d.points[kind_of_joints.indices(LSP14.joints)]
        assert (scored[:, 3] == 1).all() and np.isfinite(scored).all()
        np.testing.assert_array_equal(record.joints3d.points, before.joints3d.points)
        assert record.image == before.image and record.camera is not None


def test_a_broken_fit_of_a_training_frame_is_a_defect_that_names_it(
    miniature: Path, body_models: Path, tmp_path: Path
) -> None:  # C2
    shutil.copytree(miniature / "h36m", tmp_path / "h36m")
    spoil(tmp_path, "one broken")
    params = H36mParams.model_validate({"fits": [{"source": "neuralannot", "path": FITS}], "splits": ("train",)})
    records, defects = read_all(H36m(tmp_path, params, body_models, 92), "train")
    assert records and defects and all(record.smpl is not None for record in records)
    for defect in defects:
        assert defect.reason == "broken fit"
        assert "_SMPL_NeuralAnnot.json, " in defect.detail and f"frame {defect.row}" in defect.detail
