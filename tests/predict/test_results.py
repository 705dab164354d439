"""Every input has results of its own, and a place that cannot be written is named before anything is lost."""

import errno

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.predict import results
from pose_rft.predict.results import Stems, check_folder


@pytest.mark.parametrize(
    "inputs",
    [
        [("text_0", 1), ("text_0", 1)],
        [("a_0", 1), ("a", 2), ("a", 1)],
        [("a", 2), ("a_0", 1), ("a_1", 1)],
        [("a", 1), ("a", 1), ("a", 3), ("a-2", 1), ("A", 1)],
        [("a_people", 1), ("a", 2)],
    ],
)
def test_no_two_inputs_share_a_result(tmp_path, inputs):  # A6
    stems = Stems(tmp_path)
    taken = [path.name for name, count in inputs for path in stems.take(name, count)]
    assert len({name.casefold() for name in taken}) == len(taken) == sum(count for _, count in inputs)
    everyone = [f"{name.rpartition('_')[0]}_people" for name in taken if name[-2:] == "_1"]
    assert not {*everyone} & {*taken}


def test_one_person_has_the_pictures_name_and_several_are_numbered(tmp_path):
    stems = Stems(tmp_path)
    assert [path.name for path in stems.take("one", 1)] == ["one"]
    assert [path.name for path in stems.take("two", 2)] == ["two_0", "two_1"]


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, below):  # B6
    (tmp_path / "file").write_text("")
    with pytest.raises(PoseRftError, match=r"cannot be written .*; name another folder with --out"):
        check_folder(tmp_path / "file" / below)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, policy_folder, tiny_folder, answering):  # B6
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    predictor = results.Predictor(policy_folder, tiny_folder)
    writer = results.Writer(predictor, tmp_path, "obj")
    prediction = predictor.text("he stands")
    monkeypatch.setattr(atomic, "write_bytes", full)
    with pytest.raises(PoseRftError, match=r"text_0\.json cannot be written \(No space left on device\)"):
        writer.sentence(prediction, 0)
