"""`latest` names a checkpoint beside it and nothing else: S19."""

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.training.checkpoint import restore


@pytest.mark.parametrize("text", ["../elsewhere", "/etc", "", ".", "00000001/..", "0000001", "x" * 10_000])
def test_a_pointer_out_of_its_folder_is_refused_and_nothing_is_said_of_deleting(tmp_path, text):
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "checkpoints"
    (folder / "00000001").mkdir(parents=True)
    (folder / "latest").write_text(text)
    with pytest.raises(PoseRftError, match="expected one of the folders beside it") as refused:
        restore(None, folder)  # type: ignore[arg-type]
    assert "delete" not in str(refused.value) and len(str(refused.value)) < 500


def test_a_linked_checkpoint_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "00000001").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "latest").write_text("00000001")
    with pytest.raises(PoseRftError, match="expected one of the folders beside it"):
        restore(None, tmp_path)  # type: ignore[arg-type]
