import json
import os
from pathlib import Path

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.releases.video_fits import read_neuralannot


def fit(value: float) -> dict[str, list[float]]:
    return {"pose": [value] * 72, "shape": [value] * 10, "trans": [value] * 3}


def test_fits_are_found_by_names_and_frame_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "fits.json"
    path.write_text(json.dumps({"2": {"1": {"10": fit(0.1), "9": fit(0.2)}, "2": {}}, "16": {"2": {"0": fit(0.3)}}}))
    fits = read_neuralannot(path)
    assert set(fits) == {(2, 1), (2, 2), (16, 2)}
    sequence = fits[2, 1]
    assert sequence.pose[sequence.row_of[10]][5, 1] == 0.1 and sequence.betas[sequence.row_of[9]][0] == 0.2
    assert fits[2, 2].pose.shape == (0, 24, 3) and fits[16, 2].transl.tolist() == [[0.3] * 3]


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "fits.json"
    for time, value in ((1, 0.1), (2, 0.2)):
        path.write_text(json.dumps({"1": {"1": {"0": fit(value)}}}))
        os.utime(path, (time, time))
        assert read_neuralannot(path)[1, 1].betas[0, 0] == value


SHORT = '{"1": {"1": {"0": {"pose": [1, 2], "shape": [], "trans": []}}}}'


@pytest.mark.parametrize("content", ['{"1": 3}', SHORT, '{"a": {"b": {}}}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "fits.json").write_text(content)
    with pytest.raises(PoseRftError, match=r"fits\.json is not a NeuralAnnot SMPL file"):
        read_neuralannot(tmp_path / "fits.json")
