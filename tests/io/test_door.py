"""What is no regular file never keeps a reader waiting, and odd text never ends a run (S18, B3, B9, S13, S17)."""

import json
import os
import socket
import stat
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture
from pose_rft.errors import PoseRftError, visible
from pose_rft.evaluation.terminal import print_tables
from pose_rft.io import atomic, door
from pose_rft.io.archives import tar_members
from pose_rft.io.cdf import read_variable
from pose_rft.io.checkpoints import read_checkpoint
from pose_rft.io.json_files import read_json
from pose_rft.io.mapped import open_array
from pose_rft.io.matlab import mat_version, open_hdf5, read_mat
from pose_rft.io.model_folder import check_safetensors, read_config
from pose_rft.io.npz import names_in_npz, read_npy, read_npz
from pose_rft.io.parquet import read_parquet
from pose_rft.io.text import InvalidText, is_text
from pose_rft.io.tflite import read_tflite
from pose_rft.io.unpickle import read_pickle
from pose_rft.io.video import facts, frames
from pose_rft.io.xml_files import read_xml
from pose_rft.io.yaml_files import parse_yaml
from pose_rft.params_file import read_yaml
from pose_rft.predict.pose_files import read_pose
from pose_rft.record import Caption, Defect, Record


def hdf5(path: Path) -> None:
    with open_hdf5(path):
        raise AssertionError


def picture(path: Path) -> None:
    try:
        load_picture(path)
    except UnreadablePicture as error:
        raise PoseRftError(f"{visible(path.name)}: {error.reason}") from None


READERS = {
    "bytes": door.read_file,
    "tar": lambda path: list(tar_members(path)),
    "CDF": lambda path: read_variable(path, "Pose"),
    "JSON": read_json,
    "YAML": read_yaml,
    "XML": read_xml,
    "MATLAB": read_mat,
    "MATLAB's header": mat_version,
    "HDF5": hdf5,
    "npz": read_npz,
    "names in npz": names_in_npz,
    "npy": read_npy,
    "pickle": read_pickle,
    "video": lambda path: list(frames(path)),
    "parquet": lambda path: read_parquet(path, {}),
    "picture": picture,
    "pose": read_pose,
    "summary": print_tables,
    "tflite": read_tflite,
    "checkpoint": lambda path: read_checkpoint(path, "a checkpoint"),
    "safetensors": check_safetensors,
    "configuration": read_config,
    "array": open_array,
    "video's facts": facts,
}


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Path]:
    """Things that are no regular file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to a device").symlink_to("/dev/zero")
    (tmp_path / "to a pipe").symlink_to(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.close()
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_at_once_what_is_no_regular_file(odd: dict[str, Path], reader: str) -> None:  # S18, S5
    for name, path in odd.items():
        with pytest.raises(PoseRftError, match=path.name):
            READERS[reader](path)
        assert os.path.lexists(path), name
    for path in (odd["pipe"].parent / "none", Path("a\0b"), Path("\ud83d"), Path("x" * 5000)):
        with pytest.raises(PoseRftError) as error:
            READERS[reader](path)
        str(error.value).encode()


def test_a_link_to_a_file_is_a_file_and_a_large_one_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "link").symlink_to("a")
    assert door.read_file(tmp_path / "link") == b"text" and door.check_file(tmp_path / "link") == 4
    with pytest.raises(door.Unreadable, match="has 4 bytes, expected at most 3"):
        door.read_file(tmp_path / "a", 3)


@pytest.mark.parametrize("content", ["data: naïve".encode("latin1"), "data: {}".encode("utf-16")])
def test_params_of_another_encoding_are_one_sentence(tmp_path: Path, content: bytes) -> None:  # B9
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(PoseRftError, match=r"params\.yaml is not UTF-8 text .*; save it as UTF-8\."):
        read_yaml(tmp_path / "params.yaml")


def test_params_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbfdata: {a: 1}\n")
    assert read_yaml(tmp_path / "params.yaml") == {"data": {"a": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,  # S13
        "{a: " * 100_000,
        "- " * 100_000,
        "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]" for n in range(9)),  # S12
        "a: &a [*a]",
        "a: *nothing",
        "a: " + "9" * 5000,
        "a: 1" + "0" * 400,
        "a: 2020-99-99",
        "{[a]: 1}",
        "a: !!python/object/apply:os.system [id]",
        "a\0b",
        "a: 1\nb: {c: 1, d: [c, c], c: 2}",  # PyYAML takes the last and says nothing
        "a: 1\nb: 2\na: 3",
    ],
)
def test_hostile_yaml_is_one_sentence(text: str) -> None:
    with pytest.raises(PoseRftError, match=r"p\.yaml is not valid YAML"):
        parse_yaml(text.encode(), "p.yaml")


def test_the_same_word_in_other_places_is_no_key_that_comes_twice() -> None:
    text = "a: {a: a, b: [a, a]}\nb: &b {a: 1}\nc: {<<: *b, b: a}\nd: [{a: 1}, {a: 2}]\n? [a]\n: a\n"
    with pytest.raises(PoseRftError, match="unhashable"):  # YAML's own complaint, not that of a key twice
        parse_yaml(text.encode(), "p.yaml")
    assert parse_yaml(text.partition("?")[0].encode(), "p.yaml")["d"] == [{"a": 1}, {"a": 2}]


def test_honest_aliases_are_followed() -> None:
    assert parse_yaml(b"a: &x [1, 2]\nb: *x\n", "p.yaml") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("content", [[1], {"a": 1}, {"table1": []}, 3])
def test_tables_of_another_json_are_one_sentence(tmp_path: Path, content: object) -> None:  # B9
    (tmp_path / "summary.json").write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match=r"summary\.json"):
        print_tables(tmp_path / "summary.json")


def test_half_a_utf16_pair_is_a_defect_of_its_sample_and_never_ends_a_write(tmp_path: Path) -> None:  # B3, B4
    half = json.loads(r'"\ud83d"')
    assert not is_text(half) and is_text("😀")
    for record in (
        Record("k", "coco", "train", captions=(Caption(half, "human"),)),
        Record("k", "coco", "train", sequence=half),
    ):
        with pytest.raises(InvalidText, match=r"Sample k of coco holds text that is not Unicode"):
            record.to_members()
    atomic.write_json(tmp_path / "a.json", {half: [half, os.fsdecode(b"\xff.jpg")]})
    assert json.loads((tmp_path / "a.json").read_text()) == {half: [half, os.fsdecode(b"\xff.jpg")]}
    assert Defect("u", half, "r", os.fsdecode(b"\xff")).row == "\\ud83d"


def test_a_planted_link_is_not_followed_and_names_cannot_be_foreseen(tmp_path: Path, monkeypatch) -> None:  # S17
    victim = tmp_path / "victim"
    victim.write_text("mine")
    names = [atomic.unfinished(tmp_path / "a").name for _ in range(100)]
    assert len(set(names)) == 100 and all(name.startswith(".a.tmp-") for name in names)
    monkeypatch.setattr(atomic, "unfinished", lambda path: tmp_path / "planted")
    for target in (victim, tmp_path / "new"):
        (tmp_path / "planted").symlink_to(target)
        with pytest.raises(FileExistsError):
            atomic.write_bytes(tmp_path / "a", b"theirs")
        (tmp_path / "planted").unlink(missing_ok=True)
    assert victim.read_text() == "mine" and not (tmp_path / "new").exists()


def test_an_empty_file_takes_no_room(tmp_path):  # S21: not 8 GB for what may be read at most
    (tmp_path / "empty").touch()
    tracemalloc.start()
    try:
        assert door.read_file(tmp_path / "empty") == b""
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_what_is_no_name_of_a_file_is_refused_before_anything_is_made(tmp_path, monkeypatch, name):  # S21
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PoseRftError, match="give a name to write to"):
        atomic.write_bytes(Path(name), b"x")
    with pytest.raises(PoseRftError, match="give a name to write to"), atomic.folder(Path(name)):
        pass
    assert not list(tmp_path.iterdir())


def test_new_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:  # S17
    for mask, mode in ((0o022, 0o644), (0o002, 0o664), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            atomic.write_bytes(tmp_path / f"{mask}", b"x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{mask}").stat().st_mode) == mode


def test_json_numbers_without_end_are_refused_and_what_is_not_finite_comes_through(tmp_path: Path) -> None:  # S21
    for text in ("1" + "0" * 400, "9" * 5000, "[1, -" + "8" * 100_000 + "]"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(PoseRftError, match="is not JSON"):
            read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[1e999, NaN, -Infinity, 1" + "0" * 250 + "]")
    assert np.isinf(read_json(tmp_path / "a.json")[0])
