import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import COCO17, SPIN24
from pose_rft.datasets.coco.reader import Coco, CocoParams
from pose_rft.datasets.fits.named_fits import read_named_fits
from pose_rft.datasets.fits.sources import FitSource, fit_files
from pose_rft.datasets.fits.still_fit import StillFit, picture_id
from pose_rft.datasets.fits.still_fits import Anchor, StillFits
from pose_rft.datasets.label_files.rows import read_label_rows
from pose_rft.errors import PoseRftError
from pose_rft.params import parse
from tests.support.beside import beside
from tests.support.label_truth import SIDE, Truth, hmr2_arrays, spin_arrays, truth, write_pictures
from tests.support.release_truth import read_all

CASES = beside("cases/labels")
BODIES = Path()  # the session's body models
CENTERS = [(80.0, 70.0), (300.0, 90.0), (500.0, 200.0)]
IMAGES = ["train2014/COCO_train2014_000000000009.jpg"] * 2 + ["train2014/COCO_train2014_000000000025.jpg"]


@pytest.fixture(scope="module")
def people(body_models: Path) -> list[Truth]:
    return [truth(body_models, seed, center) for seed, center in enumerate(CENTERS)]


def source(kind: str, path: str, index: str | None = None) -> FitSource:
    return FitSource(source=kind, path=path, index=index)


@pytest.fixture(autouse=True)
def bodies(body_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "BODIES", body_models)


def fits_of_first_picture(root: Path, *sources: FitSource, ids=(11, 12)) -> tuple[StillFit | None, ...]:
    """The two people of the first picture, asked for in the other order and under 2017's name."""
    anchors = [Anchor(ids[1], CENTERS[1]), Anchor(ids[0], CENTERS[0])]
    second, first = StillFits(sources, root, BODIES).of_picture("000000000009.jpg", anchors)
    return first, second


def neuralannot(people: list[Truth], ids: list[int]) -> str:
    entries = {
        str(number): {
            "smpl_param": {"pose": p.pose.ravel().tolist(), "shape": p.betas.tolist(), "trans": p.transl.tolist()},
            "cam_param": {"focal": [1000.0, 1001.0], "princpt": [80.0, 70.0]},
        }
        for number, p in zip(ids, people, strict=True)
    }
    return json.dumps(entries)


def write_spin(root: Path, people: list[Truth], valid=(1, 1, 1)) -> None:
    """Final fits and both static forms have no names; the training npz says whose row i is."""
    np.savez(root / "coco_2014_train.npz", **spin_arrays(people, IMAGES, has_smpl=np.zeros(3)))
    pose, betas = np.stack([p.pose.ravel() for p in people]), np.stack([p.betas for p in people])
    np.savez(root / "final.npz", pose=pose, betas=betas, valid_fit=np.array(valid))
    np.savez(root / "static.npz", pose=pose, shape=betas, has_smpl=np.array(valid))
    np.save(root / "static.npy", np.concatenate([pose, betas], axis=1))
    np.savez(root / "named.npz", **spin_arrays(people, IMAGES, has_smpl=np.array(valid)))
    np.savez(root / "hmr2.npz", **hmr2_arrays(people, IMAGES, has_body_pose=np.array(valid)))


@pytest.mark.parametrize(
    "entry",
    [
        source("spin", "final.npz", "coco_2014_train.npz"),
        source("spin", "static.npz", "coco_2014_train.npz"),
        source("spin", "static.npy", "coco_2014_train.npz"),
        source("spin", "named.npz"),
        source("hmr2", "hmr2.npz"),
    ],
    ids=lambda entry: entry.path,
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_fits_of_rows_go_to_picture_and_person_not_to_a_row(tmp_path: Path, people, entry: FitSource, order) -> None:
    shuffled = [people[i] for i in order]
    names = [IMAGES[i] for i in order]
    IMAGES[:], before = names, list(IMAGES)
    try:
        write_spin(tmp_path, shuffled)
    finally:
        IMAGES[:] = before
    found = fits_of_first_picture(tmp_path, entry)
    for fit, person in zip(found, people, strict=False):
        np.testing.assert_allclose(fit.pose, person.pose, atol=1e-6)
        assert fit.source == entry.source and fit.camera is None and "nearest centre" in fit.note


def test_rows_that_are_marked_invalid_give_no_fit(tmp_path: Path, people) -> None:
    write_spin(tmp_path, people, valid=(0, 1, 1))
    for entry in (source("spin", "final.npz", "coco_2014_train.npz"), source("hmr2", "hmr2.npz")):
        first, second = fits_of_first_picture(tmp_path, entry)
        assert first is None and second is not None


def test_the_first_listed_file_wins_and_the_others_fill_the_gaps(tmp_path: Path, people) -> None:
    write_spin(tmp_path, people)
    (tmp_path / "na.json").write_text(neuralannot(people[:1], [11]))
    spin, annotated = source("spin", "final.npz", "coco_2014_train.npz"), source("neuralannot", "na.json")
    assert [fit.source for fit in fits_of_first_picture(tmp_path, annotated, spin)] == ["neuralannot", "spin"]
    assert [fit.source for fit in fits_of_first_picture(tmp_path, spin, annotated)] == ["spin", "spin"]


def test_neuralannots_annotation_ids_bring_body_place_and_camera(tmp_path: Path, people, body_models: Path) -> None:
    (tmp_path / "na.json").write_text(neuralannot(people[:2], [12, 11]))
    first, second = fits_of_first_picture(tmp_path, source("neuralannot", "na.json"))
    np.testing.assert_allclose(first.pose, people[1].pose)
    np.testing.assert_allclose(second.pose, people[0].pose)
    smpl, camera = first.placed(np.zeros((17, 3)), COCO17.name, CENTERS[0], SIDE, body_models)
    np.testing.assert_allclose(smpl.transl, people[1].transl, rtol=1e-6)
    assert camera.K[0, 0] == 1000 and camera.K[1, 1] == 1001 and camera.K[0, 2] == 80


def test_an_annotation_without_a_fit_gets_none_from_its_neighbour(tmp_path: Path, people) -> None:
    (tmp_path / "na.json").write_text(neuralannot(people[:1], [11]))
    assert fits_of_first_picture(tmp_path, source("neuralannot", "na.json"))[1] is None


def test_neuralannots_mpii_ids_are_those_of_hand4wholes_file(tmp_path: Path, people) -> None:
    (tmp_path / "na.json").write_text(neuralannot(people[:2], [501, 502]))
    rows = [{"id": 500 + i, "image_id": 7, "bbox": [x - 60, y - 30, 120, 60]} for i, (x, y) in enumerate(CENTERS, 1)]
    index = {"images": [{"id": 7, "file_name": "000000009.jpg"}], "annotations": rows}
    (tmp_path / "train.json").write_text(json.dumps(index))
    anchors = [Anchor(None, CENTERS[1]), Anchor(None, CENTERS[0])]
    fits = StillFits([source("neuralannot", "na.json", "train.json")], tmp_path, BODIES).of_picture(
        "000000009.jpg", anchors
    )
    for fit, person in zip(fits, (people[1], people[0]), strict=True):
        np.testing.assert_allclose(fit.pose, person.pose)
    other = StillFits([source("neuralannot", "na.json", "train.json")], tmp_path, BODIES).of_picture("1.jpg", anchors)
    assert other == (None, None)


def test_a_pose_without_a_place_is_put_onto_the_2d_joints(tmp_path: Path, people, body_models: Path) -> None:
    write_spin(tmp_path, people)
    fit, _ = fits_of_first_picture(tmp_path, source("spin", "named.npz"))
    smpl, camera = fit.placed(people[0].joints2d, SPIN24.name, CENTERS[0], SIDE, body_models)
    np.testing.assert_allclose(smpl.transl[:2], people[0].transl[:2], atol=2e-3)
    assert smpl.transl[2] == pytest.approx(people[0].transl[2], rel=0.01)
    assert camera.K[0, 2] == CENTERS[0][0] and "5000 px" in fit.camera_note
    unseen, _ = fit.placed(np.zeros((24, 3)), SPIN24.name, CENTERS[0], SIDE, body_models)
    assert unseen.transl[2] == pytest.approx(people[0].transl[2], rel=0.5)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (source("spin", "final.npz", "short.npz"), "3 fits but .*short.npz names 2 people"),
        (source("spin", "final.npz"), "is it a label file"),
        (source("spin", "static.npy"), "need `index`"),
        (source("spin", "gone.npz"), "gone.npz do not exist; get them from https://github.com/nkolot/SPIN"),
        (source("spin", "final.npz", "gone.npz"), "gone.npz do not exist"),
        (source("neuralannot", "list.json"), "expected a dict"),
        (source("neuralannot", "other.json"), "not a NeuralAnnot SMPL file of pictures"),
        (source("neuralannot", "na.json", "other.json"), "not a COCO-style annotation file"),
        (source("mosh", "final.npz"), "no fits of photographs"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.path,
)
def test_files_of_another_kind_are_named(tmp_path: Path, people, entry: FitSource, sentence: str) -> None:
    write_spin(tmp_path, people)
    np.savez(tmp_path / "short.npz", **spin_arrays(people[:2], IMAGES[:2]))
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "other.json").write_text('{"7": {"pose": []}}')
    (tmp_path / "na.json").write_text(neuralannot(people[:1], [11]))
    with pytest.raises(PoseRftError, match=sentence):
        StillFits([entry], tmp_path, BODIES)


def test_pictures_have_one_name_in_all_copies() -> None:
    assert picture_id("train2014/COCO_train2014_000000000009.jpg") == picture_id("000000000009.jpg") == "000000000009"
    assert picture_id("images/015601864.jpg") == "015601864"


def test_the_inventory_lists_every_file_of_the_fits(tmp_path: Path, people) -> None:
    write_spin(tmp_path, people)
    sources = [source("spin", "final.npz", "coco_2014_train.npz"), source("eft", "gone.json")]
    assert [path.name for path in fit_files(sources, tmp_path)] == ["coco_2014_train.npz", "final.npz"]


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(PoseRftError, match="'eft'"):
        parse({"fits": [{"source": "etf", "path": "a"}]}, CocoParams, "`datasets.coco`")


def test_coco_takes_each_person_from_the_first_file_that_has_them(tmp_path: Path, people, body_models: Path) -> None:
    root = tmp_path / "coco"
    write_pictures(root / "train2017", ["000000000009.jpg"], size=(140, 400))
    rows = [
        {
            "id": 11 + i,
            "image_id": 9,
            "iscrowd": 0,
            "keypoints": [50.0, 60.0, 2] * 17,
            "bbox": [x - 50, y - 50, 100, 100],
        }
        for i, (x, y) in enumerate(CENTERS[:2])
    ]
    picture = {"id": 9, "file_name": "000000000009.jpg", "width": 400, "height": 140}
    (root / "annotations").mkdir()
    path = root / "annotations/person_keypoints_train2017.json"
    path.write_text(json.dumps({"images": [picture], "annotations": rows}))
    write_spin(root, people)
    (root / "na.json").write_text(neuralannot(people[1:2], [12]))
    listed = (source("neuralannot", "na.json"), source("spin", "final.npz", "coco_2014_train.npz"))
    release = Coco(tmp_path, CocoParams(fits=listed), body_models, 92)
    records, defects = read_all(release, "train")
    assert not defects and [record.smpl.source for record in records] == ["spin", "neuralannot"]
    for record, person in zip(records, people, strict=False):
        np.testing.assert_allclose(record.smpl.body_pose, person.pose[1:], atol=1e-6)
        assert record.camera is not None and {"smpl", "camera"} < set(dict(record.provenance))
    assert {"na.json", "final.npz", "coco_2014_train.npz"} < {path.name for path in release.inventory()}


def test_fits_and_an_index_of_one_length_but_other_people_are_refused(tmp_path: Path, body_models: Path) -> None:  # A11
    crowd = [truth(body_models, seed) for seed in range(12)]
    names = [f"train2014/COCO_train2014_{i:012d}.jpg" for i in range(12)]
    pose, betas = np.stack([p.pose.ravel() for p in crowd]), np.stack([p.betas for p in crowd])
    index = spin_arrays(crowd, names, has_smpl=np.zeros(12))
    np.savez(tmp_path / "index.npz", **index)
    np.savez(tmp_path / "final.npz", pose=pose, betas=betas, valid_fit=np.ones(12))
    np.savez(tmp_path / "other.npz", pose=np.roll(pose, 5, axis=0), betas=betas, valid_fit=np.ones(12))
    np.savez(tmp_path / "blind.npz", **{name: value for name, value in index.items() if name != "part"})
    np.savez(tmp_path / "named.npz", imgname=np.array(names[::-1]), pose=pose[::-1], betas=betas[::-1])
    assert len(read_named_fits(tmp_path / "final.npz", body_models, tmp_path / "index.npz").images) == 12
    with pytest.raises(
        PoseRftError, match=r"other\.npz and .*index\.npz have one length but are not of the same people"
    ):
        read_named_fits(tmp_path / "other.npz", body_models, tmp_path / "index.npz")
    with pytest.raises(PoseRftError, match=r"Nothing in .*blind\.npz tells whether it names the people of"):
        read_named_fits(tmp_path / "final.npz", body_models, tmp_path / "blind.npz")
    joined = read_named_fits(tmp_path / "named.npz", body_models, tmp_path / "index.npz")  # names join, in any order
    assert list(joined.images) == names[::-1]
    np.testing.assert_array_equal(joined.center, index["center"][::-1])


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the project")
def test_rows_that_spin_marked_as_no_fit_are_no_bodies(body_models: Path) -> None:  # A9
    path = CASES / "spin_lsp_train_40_rows.npz"
    assert read_label_rows(path).has_smpl.sum() == 32
    assert read_named_fits(path, body_models).valid.sum() == 32


@pytest.mark.parametrize("kind", ["neuralannot", "spin", "hmr2", "eft"])
def test_one_fit_that_is_not_finite_is_a_defect_of_its_person(
    tmp_path: Path, people, body_models: Path, kind
) -> None:  # C2
    root = tmp_path / "coco"
    write_pictures(root / "train2017", ["000000000009.jpg"])
    rows = [
        {"id": 11 + i, "image_id": 9, "keypoints": [50.0, 60.0, 2] * 17, "bbox": [x - 60, y - 60, 120, 120]}
        for i, (x, y) in enumerate(CENTERS[:2])
    ]
    picture = {"id": 9, "file_name": "000000000009.jpg", "width": 160, "height": 140}
    rows[1]["bbox"] = [60, 40, 100, 100]
    (root / "annotations").mkdir()
    content = {"images": [picture], "annotations": rows}
    (root / "annotations/person_keypoints_train2017.json").write_text(json.dumps(content))
    bad = replace(people[1], pose=np.full((24, 3), np.nan), center=np.array([110.0, 90.0]))
    both = [people[0], bad]
    if kind == "neuralannot":
        (root / "fits.json").write_text(neuralannot(both, [11, 12]))
    elif kind == "eft":
        (root / "fits.json").write_text(json.dumps({"data": [eft(p, 11 + i) for i, p in enumerate(both)]}))
    else:
        arrays = (spin_arrays if kind == "spin" else hmr2_arrays)(both, IMAGES[:2])
        np.savez(root / "fits.npz", **arrays)
    path = "fits.npz" if kind in ("spin", "hmr2") else "fits.json"
    release = Coco(tmp_path, CocoParams(fits=(source(kind, path),)), body_models, 92)
    records, (defect,) = read_all(release, "train")
    assert [record.subject for record in records] == ["11"] and records[0].smpl is not None
    assert (defect.row, defect.reason) == ("12", "broken fit")
    assert path in defect.detail and ("12" in defect.detail or "row 1" in defect.detail)


def eft(person: Truth, number: int) -> dict:
    matrices = np.full((24, 3, 3), np.nan)
    if np.isfinite(person.pose).all():
        matrices = Rotation.from_rotvec(person.pose).as_matrix()
    return {
        "parm_pose": matrices.tolist(),
        "parm_shape": person.betas.tolist(),
        "parm_cam": [0.9, 0.0, 0.0],
        "bbox_scale": SIDE / 200,
        "bbox_center": person.center.tolist(),
        "imageName": "COCO_train2014_000000000009.jpg",
        "annotId": number,
    }


def test_a_broken_fit_without_a_place_costs_everybody_of_its_picture_who_has_no_other(tmp_path: Path, people) -> None:
    rows = [eft(people[0], 0), eft(people[1], 0)]
    rows[1]["bbox_center"] = [np.nan, 3.0]
    for row in rows:
        del row["annotId"]
    (tmp_path / "eft.json").write_text(json.dumps({"data": rows}))
    fits = StillFits([source("eft", "eft.json")], tmp_path, BODIES)
    first, second = fits.of_picture("000000000009.jpg", [Anchor(None, CENTERS[0]), Anchor(None, CENTERS[1])])
    assert first.problem is None and "eft.json, row 1" in second.problem


def test_a_file_none_of_whose_fits_is_one_is_of_another_kind(tmp_path: Path, people) -> None:
    (tmp_path / "eft.json").write_text(json.dumps({"data": [eft(people[0], 1) | {"smpltype": "smplx"}]}))
    with pytest.raises(PoseRftError, match=r"eft\.json, row 0: ValueError, smpltype 'smplx'"):
        StillFits([source("eft", "eft.json")], tmp_path, BODIES)
