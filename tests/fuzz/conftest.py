"""Miniature releases of every data set in their true formats, to be damaged."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pose_rft.sample import build, python2_pickle, write_bedlam, write_llava
from pose_rft.sample.matlab_files import write_v73
from pose_rft.sample.people import Studio
from tests.support.flat_studio import FlatStudio
from tests.support.small_sample import small_sample

PARAMS = small_sample(size=48, train=3, val=2, poses=10, dialogues=4)


@pytest.fixture(scope="session")
def bodies(tmp_path_factory: pytest.TempPathFactory, tiny_model: dict[str, Any], tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("bodies")
    for gender in ("NEUTRAL", "MALE", "FEMALE"):
        python2_pickle.dump(tiny_model, folder / "smpl" / f"SMPL_{gender}.pkl")
    shutil.copy(tiny_folder / "J_regressor_h36m.npy", folder)
    return folder


def write_test_set(folder: Path) -> None:
    """Three frames of 3DHP's test set: MAT v7.3, all valid."""
    points3d = np.random.default_rng(0).uniform(-500, 500, (3, 17, 3)) + np.array([0, 0, 3000])
    points2d = points3d[..., :2] / points3d[..., 2:] * 60 + 24
    arrays = {"annot2": points2d, "annot3": points3d, "univ_annot3": points3d}
    matlab = {name: array.transpose(2, 1, 0)[:, :, None] for name, array in arrays.items()}
    (folder / "imageSequence").mkdir(parents=True)
    write_v73(folder / "annot_data.mat", matlab | {"valid_frame": np.ones((1, 3))})
    for frame in range(3):
        PIL.Image.new("RGB", (1920, 1080)).save(folder / f"imageSequence/img_{frame + 1:06d}.jpg")


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory, bodies: Path, standin_folder: Path) -> Path:
    """The eight releases below one root. Read only: tests damage copies."""
    root, flat = tmp_path_factory.mktemp("miniatures"), FlatStudio(bodies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_bedlam, "FRAMES", 2)
        results = {}
        for release, name in build.WRITERS.items():
            writer = build._writer(name)
            # COCO's dialogues speak of clothes, and BEDLAM's labels need a body of SMPL's size.
            studio = Studio(standin_folder) if release in ("coco", "bedlam") else flat
            results[release] = [writer.render(task, PARAMS, 0, studio, root) for task in writer.tasks(PARAMS, 0)]
            writer.finish(PARAMS, 0, results[release], root)
        write_test_set(root / "mpi_inf_3dhp/mpi_inf_3dhp_test_set/TS5")
        write_llava.write(PARAMS, 0, [picture for result in results["coco"] for picture in result], root)
    return root
