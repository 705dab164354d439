import json
import shutil
from pathlib import Path

import PIL.Image
import pytest
import yaml
from typer.testing import CliRunner

from pose_rft.cli import app
from pose_rft.datasets.common.facts import RECORD_BYTES
from pose_rft.datasets.h36m import facts as h36m
from pose_rft.datasets.names import RELEASES
from pose_rft.datasets.registry import DataParams, facts, reader_class
from pose_rft.errors import PoseRftError
from pose_rft.shards.plan import ShardParams
from pose_rft.validation import preflight as doctor

SHARDS = ShardParams(samples_per_shard=512, executor="serial", workers=2, jpeg_quality=92)


@pytest.fixture
def root(tmp_path: Path, tiny_folder: Path) -> Path:
    """COCO with one photograph and one person, and a body model."""
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    (coco / "train2017").mkdir()
    PIL.Image.new("RGB", (32, 24)).save(coco / "train2017/000000000001.jpg")
    person = {"id": 5, "image_id": 1, "iscrowd": 0, "bbox": [1.0, 1.0, 20.0, 20.0], "keypoints": [9, 9, 2] * 17}
    image = {"id": 1, "file_name": "000000000001.jpg", "width": 32, "height": 24}
    content = {"images": [image], "annotations": [person]}
    (coco / "annotations/person_keypoints_train2017.json").write_text(json.dumps(content))
    shutil.copytree(tiny_folder, tmp_path / "body")
    return tmp_path


def examine(root: Path, source: str = "sample", **datasets):
    data = DataParams(source=source, root=root, body_model=root / "body")
    return doctor.examine(data, datasets or {"coco": {"fits": []}}, SHARDS, root / "data")


def test_a_complete_root_is_ok_and_says_how_long_and_how_large(root):
    examination = examine(root)
    assert examination.ok, doctor.table(examination)
    samples, seconds, size = examination.costs["coco"]
    picture = (root / "coco/train2017/000000000001.jpg").stat().st_size
    assert samples == 1 and seconds > 0 and size == picture + RECORD_BYTES  # pictures pass as they are
    text = doctor.table(examination)
    assert "coco: complete" in text and "split train" in text and "1 samples planned" in text
    assert "Everything is there." in text and "free" in text and "CC BY" in text


def test_of_a_real_release_all_photographs_must_be_there(root):
    text = doctor.table(examine(root, "releases"))
    assert "coco: INCOMPLETE" in text and "1 of 118287" in text and "https://cocodataset.org" in text
    assert "Not complete: coco." in text


def test_every_known_release_tells_its_licence_and_where_to_get_it_when_it_is_missing(root):
    examination = examine(root / "nowhere", "releases", **dict.fromkeys(RELEASES))
    text = doctor.table(examination)
    for name in RELEASES:
        assert f"{name}: INCOMPLETE" in text
        own = [finding for finding in examination.findings if finding.dataset == name]
        assert any(finding.what == "licence" and finding.found for finding in own)
        assert any("http" in finding.advice for finding in own if not finding.ok)
    assert all(facts(name).needs and facts(name).cost for name in RELEASES)


def found_by(root: Path, name: str, **choices) -> dict[str, doctor.Finding]:
    examination = examine(root, **{name: choices})
    return {finding.what: finding for finding in examination.findings if finding.dataset == name}


LAYOUTS = [  # what docs/data.md accepts, and what the need is called
    ("mpii", {"labels": "annot/{split}.h5"}, ["annot/train.h5"], "annotations"),
    ("mpii", {"labels": "annot/{split}.json"}, ["annot/train.json"], "annotations"),
    ("mpii", {}, ["mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat"], "annotations"),
    ("mpi_inf_3dhp", {}, ["images/S1_Seq1_Cam0_000001.jpg"], "videos or frames"),
    ("mpi_inf_3dhp", {}, ["S1_Seq1_Cam0_000001.jpg"], "videos or frames"),
    ("mpi_inf_3dhp", {}, ["S1/Seq1/imageFrames/video_0/frame_000001.jpg"], "videos or frames"),
    ("mpi_inf_3dhp", {}, ["S1/Seq1/imageSequence/video_0.avi"], "videos or frames"),
    ("posescript", {"amass": "posescript/amass"}, ["amass/CMU/01/01_01_stageii.npz"], "AMASS"),
    ("posescript", {"amass": "posescript/amass"}, ["amass/CMU/01/01_01_poses.npz"], "AMASS"),
    ("posescript", {}, ["posescript_release/ids_2_dataset_sequence_and_frame_index_100k.json"], "where poses"),
    ("h36m", {}, ["S1/Videos/Directions 1.54138969.mp4"], "videos"),
    ("h36m", {}, ["images/S1/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg"], "videos"),
    ("h36m", {}, ["annotation_body3d/fps10/h36m_train.npz"], "3D poses"),
    ("h36m", {}, ["s1/Poses_D3_Positions_mono/Directions 1.54138969.cdf"], "3D poses"),
    ("llava_instruct", {"file": "llava_v1_5_mix665k.json"}, ["llava_v1_5_mix665k.json"], "dialogues"),
    ("llava_instruct", {}, ["llava_instruct_150k.json"], "dialogues"),
    ("coco", {"year": 2014}, ["train2014/COCO_train2014_000000000009.jpg"], "photographs"),
    ("coco", {}, ["train2017/000000000009.png"], "photographs"),
    ("3dpw", {"splits": ["validation"]}, ["sequenceFiles/val/a_00.pkl"], "sequences"),
]


@pytest.mark.parametrize(("name", "choices", "files", "need"), LAYOUTS)
@pytest.mark.parametrize("linked", [False, True])
def test_every_layout_that_the_readers_accept_is_found_also_through_links(
    tmp_path: Path, name: str, choices: dict, files: list[str], need: str, linked: bool
) -> None:  # C14, C1
    real = tmp_path / ("store" if linked else "") / name
    for file in files:
        (real / file).parent.mkdir(parents=True, exist_ok=True)
        (real / file).touch()
    if linked:  # the release's folder holds links to the folders of a store
        (tmp_path / name).mkdir()
        for top in real.iterdir():
            (tmp_path / name / top.name).symlink_to(top)
    finding = next(finding for what, finding in found_by(tmp_path, name, **choices).items() if need in what)
    assert finding.ok and finding.found in ("1", str(h36m.VIDEOS)), finding


def test_needs_hold_no_pattern_that_passes_by_links() -> None:  # C1
    for name, needs in ((name, facts(name).needs) for name in RELEASES):
        params = reader_class(name).Params()
        assert not any("**" in pattern for need in needs for pattern in need.layouts(params))


def test_of_human36m_only_the_videos_of_the_wanted_subjects_are_asked_for() -> None:
    params = reader_class("h36m").Params
    count = facts("h36m").needs[1].fewest
    assert count(params(splits=("train", "p2"))) == 660 and count(params(splits=("train", "p1"))) == 839
    assert count(params(splits=("p1", "p2"))) == 239 and count(params(splits=("train",), subjects=(1, 5))) == 240


def test_what_the_reader_finds_wrong_is_told_before_conversion(root):
    (root / "coco/annotations/person_keypoints_train2017.json").write_text("{")
    text = doctor.table(examine(root))
    assert "not possible" in text and "is not JSON" in text


def test_a_missing_body_model_and_a_full_disk_are_told(root, monkeypatch):
    shutil.rmtree(root / "body")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    examination = examine(root)
    assert {finding.dataset for finding in examination.findings if not finding.ok} == {"body_model", "disk"}
    assert "smpl.is.tue.mpg.de" in doctor.table(examination) and "make room" in doctor.table(examination)


def test_the_body_may_have_the_names_of_its_older_releases(root):
    neutral, female = (f"basicmodel_{kind}_lbs_10_207_0_v1.1.0.pkl" for kind in ("neutral", "f"))
    assert neutral in [path.name for path in (root / "body/smpl").iterdir()]
    (root / "body/smpl" / female).touch()
    findings = {finding.what: finding.ok for finding in doctor._examine_body(root / "body", True)}
    assert findings["smpl/*_NEUTRAL.pkl"] and findings["smpl/*_FEMALE.pkl"] and not findings["smpl/*_MALE.pkl"]


def test_the_command_prints_the_table_and_its_status_says_whether_all_is_there(root, monkeypatch):
    monkeypatch.chdir(root)
    content = {
        "data": {"source": "sample", "root": ".", "body_model": "body"},
        "shards": SHARDS.model_dump(),
        "datasets": {"coco": {"fits": []}, "mpii": {}},
    }
    Path("params.yaml").write_text(yaml.safe_dump(content))
    done = CliRunner().invoke(app, ["doctor", "data", "--dataset", "coco"])
    assert done.exit_code == 0 and "Everything is there." in done.stdout, done.stdout
    done = CliRunner().invoke(app, ["doctor", "data"])
    assert done.exit_code == 1 and "Not complete: mpii." in done.stdout
    done = CliRunner().invoke(app, ["doctor", "data", "--dataset", "imagenet"])
    assert isinstance(done.exception, PoseRftError) and "known data sets" in str(done.exception)
