"""Names inside annotations become paths: none may lead out of its release."""

from pathlib import Path

import numpy as np
import pytest

from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture, picture_path
from pose_rft.datasets.h36m.metadata import read_metadata
from pose_rft.datasets.posescript.reader import find_amass
from pose_rft.datasets.pw3d import reader as pw3d
from pose_rft.errors import PoseRftError
from pose_rft.io.pictures import MOST_PIXELS
from pose_rft.sample.h36m_files import write_metadata


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "a/../../x.jpg", "a\0.jpg", "", "\ud83d.jpg"])  # B3
def test_a_picture_outside_its_folder_is_a_defect(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadablePicture, match="unsafe name"):
        picture_path(tmp_path, name)


def test_an_amass_file_outside_its_folder_is_missing(tmp_path: Path) -> None:
    (tmp_path / "amass").mkdir()
    (tmp_path / "secret_poses.npz").touch()
    assert find_amass(tmp_path / "amass", "../secret_poses.npz") is None


def test_a_picture_that_declares_gigapixels_is_a_defect_before_it_is_decoded(tmp_path: Path) -> None:
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + b"\0\0\0\0")
    with pytest.raises(UnreadablePicture, match=r"bomb\.png"):
        load_picture(tmp_path / "bomb.png")
    assert 2048 * 2048 < MOST_PIXELS < 60_000**2


def test_a_3dpw_sequence_that_names_another_folder_is_refused(tmp_path: Path, monkeypatch) -> None:
    track = pw3d.Track("male", *(np.zeros(s) for s in ((1, 24, 3), 10, (1, 3), (1, 24, 3), (1, 18, 3))), np.array([0]))
    sequence = pw3d.Sequence("../../secret", np.eye(3), np.eye(4)[None], (track,))
    release = pw3d.Pw3d(tmp_path, pw3d.Pw3dParams(), tmp_path, 92)
    monkeypatch.setattr(pw3d, "read_sequence", lambda path: sequence)
    monkeypatch.setattr(release, "_folder", lambda split: tmp_path)
    monkeypatch.setattr(release, "_smpls", lambda *_: {0: None})
    with pytest.raises(PoseRftError, match="lies outside its folder"):
        list(release.read(pw3d.Unit("3dpw_x", 1, ("x.pkl",)), "test"))


def test_a_sequence_of_human36m_whose_name_is_a_path_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.xml"
    write_metadata(path, {}, {subject: [(1000, 1002)] * 4 for subject in range(1, 12)}, np.zeros(300))
    name = read_metadata(path).sequences[5].name
    path.write_text(path.read_text().replace(f">{name}<", ">../../secret<"))
    with pytest.raises(PoseRftError, match=r"a sequence is called '\.\./\.\./secret'"):
        read_metadata(path)
