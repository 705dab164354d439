"""Damaged files of fits and of ready-made labels end in one sentence or in Defects, never in a crash."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.datasets.fits.sources import FitSource
from pose_rft.datasets.fits.still_fits import Anchor, StillFits
from pose_rft.datasets.fits.video_fits import VideoName, fits_of_video
from pose_rft.datasets.hmr2_tars.reader import Hmr2Tars, Hmr2TarsParams
from pose_rft.datasets.label_files.reader import LabelFiles, LabelFilesParams
from pose_rft.datasets.mpii.reader import Mpii, MpiiParams
from pose_rft.record import Camera, Record
from pose_rft.sample import python2_pickle
from tests.support.damage import crashes
from tests.support.label_truth import (
    Truth,
    camera_arrays,
    hmr2_arrays,
    human_data_arrays,
    picture_bytes,
    smplx_arrays,
    spin_arrays,
    split44,
    truth,
    write_pictures,
)

CASES = int(os.environ.get("FUZZ_CASES", "120"))
NAMES = ["S9_Directions_1.60457274_000001.jpg", "S9_Directions_1.60457274_000006.jpg"]
VIDEO = VideoName(9, (2, 1), ("S9", "Directions_1", "60457274"), "S9/Directions 1_cam3_aligned.pkl")


@pytest.fixture(scope="module")
def people(bodies: Path) -> list[Truth]:
    return [truth(bodies, seed) for seed in range(2)]


@pytest.fixture(scope="module")
def root(people: list[Truth], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of every kind; `label_files` and `hmr2_training_data` lie where their readers look."""
    root = tmp_path_factory.mktemp("labels")
    folder = root / "label_files"
    folder.mkdir()
    np.savez(folder / "spin.npz", **spin_arrays(people, NAMES))
    np.savez(folder / "hmr2.npz", **hmr2_arrays(people, NAMES))
    np.savez_compressed(folder / "humandata.npz", **human_data_arrays(people, NAMES, transl=False))
    np.savez(folder / "camera.npz", **camera_arrays(people, NAMES))
    np.savez_compressed(folder / "smplx.npz", **smplx_arrays(people, NAMES))
    write_pictures(root / "pictures", NAMES)
    pose, betas = np.stack([p.pose.ravel() for p in people]), np.stack([p.betas for p in people])
    np.savez(folder / "final.npz", pose=pose, betas=betas, valid_fit=np.ones(2))
    np.save(folder / "static.npy", np.concatenate([pose, betas], axis=1))
    python2_pickle.dump({"new_poses": pose, "betas": betas[0]}, folder / "mosh" / str(VIDEO.mosh))
    fit = {"pose": pose[0].tolist(), "shape": betas[0].tolist(), "trans": [0, 0, 4]}
    (folder / "world.json").write_text(json.dumps({"2": {"1": {"0": fit, "5": fit}}}))
    still = {"smpl_param": fit, "cam_param": {"focal": [1000, 1000], "princpt": [80, 70]}}
    (folder / "coco.json").write_text(json.dumps({"1": still, "2": still}))
    boxes = [{"id": i, "image_id": 7, "bbox": [20, 10, 120, 120]} for i in (1, 2)]
    index = {"images": [{"id": 7, "file_name": NAMES[0]}], "annotations": boxes}
    (folder / "index.json").write_text(json.dumps(index))
    write_mpii(folder, NAMES)
    (folder / "eft.json").write_text(json.dumps({"data": [eft_row(person, NAMES[0]) for person in people]}))
    tar = root / "hmr2_training_data/dataset_tars/a/000000.tar"
    write_tar(tar, people)
    return root


def write_mpii(folder: Path, names: list[str]) -> None:
    """Labels of pose-hg-train and of HRNet, and their pictures."""
    write_pictures(folder / "images", names)
    points = np.random.default_rng(0).uniform(20, 120, (len(names), 16, 2))
    with h5py.File(folder / "mpii.h5", "w") as file:
        file["imgname"] = np.array([name.encode() for name in names])
        file["center"], file["scale"], file["part"] = points.mean(axis=1), np.full(len(names), 0.7), points.round()
    rows = [
        {
            "image": name,
            "center": own.mean(axis=0).tolist(),
            "scale": 0.7,
            "joints": own.tolist(),
            "joints_vis": [1] * 16,
        }
        for name, own in zip(names, points, strict=True)
    ]
    (folder / "mpii.json").write_text(json.dumps(rows))
    others = [
        {
            "isValidation": 0.0,
            "img_paths": row["image"],
            "objpos": row["center"],
            "scale_provided": row["scale"],
            "joint_self": [[*point, 1.0] for point in row["joints"]],
        }
        for row in rows
    ]
    (folder / "pytorch_pose.json").write_text(json.dumps(others))


def eft_row(person: Truth, image: str) -> dict[str, object]:
    return {
        "parm_pose": Rotation.from_rotvec(person.pose).as_matrix().tolist(),
        "parm_shape": person.betas.tolist(),
        "parm_cam": [0.9, 0.01, 0.02],
        "bbox_scale": 0.6,
        "bbox_center": person.center.tolist(),
        "imageName": image,
        "smpltype": "smpl",
    }


def write_tar(path: Path, people: list[Truth]) -> None:
    import io
    import tarfile

    path.parent.mkdir(parents=True)
    labels = []
    for person in people:
        two, three = split44(person)
        labels.append(
            {
                **{"keypoints_2d": two, "keypoints_3d": three, "center": person.center, "scale": 0.6},
                **{"body_pose": person.pose.ravel(), "betas": person.betas, "has_body_pose": 1.0},
            }
        )
    with tarfile.open(path, "w") as tar:
        for name, content in (("k.data.pyd", pickle.dumps(labels)), ("k.jpg", picture_bytes(3))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def read_labels(root: Path, bodies: Path, name: str) -> int:
    params = LabelFilesParams(files={"x": {"path": name, "images": "pictures"}})
    return _rows(LabelFiles(root, params, bodies, 92), "x")


def read_tar(root: Path, bodies: Path) -> int:
    return _rows(Hmr2Tars(root, Hmr2TarsParams(folders={"x": "a"}), bodies, 92), "x")


def _rows(release: LabelFiles | Hmr2Tars, split: str) -> int:
    rows = [row for unit in release.units(split) for row in release.read(unit, split)]
    return sum(len(row.to_members()) > 0 for row in rows if isinstance(row, Record))


def read_still(root: Path, bodies: Path, kind: str, path: str, index: str | None = None) -> int:
    fits = StillFits([FitSource(source=kind, path=path, index=index)], root / "label_files", bodies)  # type: ignore[arg-type]
    found = fits.of_picture(NAMES[0], [Anchor(1 if index is None and kind == "neuralannot" else None, (80.0, 70.0))])
    placed = [fit.placed(np.zeros((17, 3)), "coco17", (80.0, 70.0), 120.0, bodies) for fit in found if fit]
    return len(placed)


def read_video(root: Path, bodies: Path, kind: str, path: str, index: str | None = None) -> int:
    camera, joints = Camera(np.eye(3), np.eye(3), np.zeros(3)), np.zeros((6, 24, 3))
    entry = FitSource(source=kind, path=path, index=index)  # type: ignore[arg-type]
    return len(fits_of_video([entry], root / "label_files", VIDEO, (0, 5), camera, joints, "smpl24", bodies))


def read_mpii(root: Path, bodies: Path, name: str) -> int:
    release = Mpii(root, MpiiParams(root="label_files", labels=name), bodies, 92)
    rows = [row for unit in release.units("train") for row in release.read(unit, "train")]
    return sum(len(row.to_members()) > 0 for row in rows if isinstance(row, Record))


Read = Callable[[Path, Path], int]


def labels_of(name: str) -> tuple[str, Read]:
    return f"label_files/{name}", lambda root, bodies: read_labels(root, bodies, name)


def still(kind: str, path: str, index: str | None = None, damaged: str | None = None) -> tuple[str, Read]:
    return f"label_files/{damaged or path}", lambda root, bodies: read_still(root, bodies, kind, path, index)


def video(kind: str, path: str, index: str | None = None, damaged: str | None = None) -> tuple[str, Read]:
    return f"label_files/{damaged or path}", lambda root, bodies: read_video(root, bodies, kind, path, index)


def mpii(name: str) -> tuple[str, Read]:
    return f"label_files/{name}", lambda root, bodies: read_mpii(root, bodies, name)


# What is read → the file that is damaged, and its reader.
READ: dict[str, tuple[str, Read]] = {
    "SPIN npz": labels_of("spin.npz"),
    "HMR2.0 npz": labels_of("hmr2.npz"),
    "HumanData": labels_of("humandata.npz"),
    "CameraHMR npz": labels_of("camera.npz"),
    "SMPLer-X's HumanData": labels_of("smplx.npz"),
    "4D-Humans tar": ("hmr2_training_data/dataset_tars/a/000000.tar", read_tar),
    "EFT of photographs": still("eft", "eft.json"),
    "SPIN's final fits": still("spin", "final.npz", "spin.npz"),
    "SPIN's static fits": still("spin", "static.npy", "spin.npz"),
    "the rows of SPIN's fits": still("spin", "final.npz", "spin.npz", "spin.npz"),
    "SPIN npz as fits of photographs": still("spin", "spin.npz"),
    "HMR2.0 npz as fits of photographs": still("hmr2", "hmr2.npz"),
    "NeuralAnnot of COCO": still("neuralannot", "coco.json"),
    "NeuralAnnot of MPII": still("neuralannot", "coco.json", "index.json"),
    "the index of NeuralAnnot of MPII": still("neuralannot", "coco.json", "index.json", "index.json"),
    "NeuralAnnot of videos": video("neuralannot", "world.json"),
    "MoSh": video("mosh", "mosh", None, f"mosh/{VIDEO.mosh}"),
    "SPIN's fits of videos": video("spin", "final.npz", "spin.npz"),
    "HMR2.0 npz as fits of videos": video("hmr2", "hmr2.npz"),
    "MPII h5": mpii("mpii.h5"),
    "MPII JSON": mpii("mpii.json"),
    "pytorch-pose's MPII JSON": mpii("pytorch_pose.json"),
}


def crashes_of(root: Path, bodies: Path, name: str, seeds: range) -> list[str]:
    file, read = READ[name]
    return crashes(root / file, lambda: read(root, bodies), seeds)


@pytest.mark.parametrize("name", READ)
def test_whole_files_read_well(root: Path, bodies: Path, name: str) -> None:
    assert READ[name][1](root, bodies) > 0


@pytest.mark.parametrize("name", READ)
def test_a_few_kinds_of_damage_crash_no_reader_of_labels(root: Path, bodies: Path, name: str) -> None:
    assert not crashes_of(root, bodies, name, range(4))


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_no_damage_crashes_a_reader_of_labels(root: Path, bodies: Path, name: str) -> None:
    found = crashes_of(root, bodies, name, range(1000, 1000 + CASES))
    assert not found, f"{len(found)} of {CASES} cases crashed; the first: {found[0]}"
