"""Results are never replaced, half-written ones are cut off, and a folder that cannot be written is named."""

import errno
import resource

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.lock import Busy
from pose_rft.predict import store as module
from pose_rft.predict.store import INPUTS, PREDICTIONS, SCHEMA, VERSION, Store, heads, read_lines

KEYS = [f"{number:016x}" for number in range(8)]


def lines(key, frame, persons):
    head = {"schema": SCHEMA, "version": VERSION, "input": key, "frame": frame}
    return [head | {"index": i, "persons": persons, "track": None, "text": "é" * 50} for i in range(persons)]


@pytest.mark.parametrize(
    "names",
    [["text_0", "text_0"], ["a_0", "a", "a"], ["a", "a_0", "a_1"], ["a", "a", "A", "a-2"], ["predictions", "a.b", "a"]],
)
def test_no_two_inputs_share_a_name(tmp_path, names):  # A6
    store = Store(tmp_path)
    taken = [store.begin(key, name, {}) for key, name in zip(KEYS, names, strict=False)]
    files = [{own, *(f"{own}_{i}" for i in range(3)), f"{own}_overlay"} for own in map(str.casefold, taken)]
    assert sum(map(len, files)) == len(set().union(*files)) and "predictions" not in taken


def test_a_strangers_file_keeps_its_name_and_an_input_its_own_in_the_next_run(tmp_path):
    (tmp_path / "a.png").write_text("mine")
    store = Store(tmp_path)
    assert store.begin(KEYS[0], "a", {}) == "a-2"
    store.close()
    (tmp_path / "a-2_0.glb").write_text("of the first run")
    store = Store(tmp_path)
    assert store.begin(KEYS[0], "a", {}) == "a-2" and store.begin(KEYS[1], "a", {}) == "a-3"


def test_a_kill_at_any_byte_leaves_whole_pictures(tmp_path):
    groups = (KEYS[0], 0, 2), (KEYS[1], 0, 1), (KEYS[1], 3, 3)
    whole = b"".join(module.line_bytes(line) for group in groups for line in lines(*group))
    for cut in range(0, len(whole) + 1, 37):
        (tmp_path / PREDICTIONS).write_bytes(whole[:cut])
        store = Store(tmp_path)
        store.close()
        found = list(heads(tmp_path / PREDICTIONS))
        groups = {(head.input, head.frame): head.persons for head in found}
        assert len(found) == sum(groups.values()) and whole.startswith((tmp_path / PREDICTIONS).read_bytes())
        assert store.last == {key: max(f for k, f in groups if k == key) for key, _ in groups}


def test_a_half_written_note_of_an_input_is_cut_off(tmp_path):
    store = Store(tmp_path)
    store.begin(KEYS[0], "a", {})
    store.finish(KEYS[0], 1, 2)
    store.close()
    path = tmp_path / INPUTS
    path.write_bytes(path.read_bytes()[:-5])
    store = Store(tmp_path)
    assert store.names == {KEYS[0]: "a"} and not store.finished and path.read_bytes().endswith(b"}\n")


def test_what_is_predicted_again_loses_its_lines_and_the_others_keep_theirs(tmp_path):
    store = Store(tmp_path)
    for key in KEYS[:2]:
        store.begin(key, "a", {})
        store.add(lines(key, 0, 2))
        store.finish(key, 1, 2)
    store = store.without({KEYS[0], KEYS[5]})
    assert set(store.finished) == {KEYS[1]} and store.names == {KEYS[0]: "a", KEYS[1]: "a-2"}
    left = list(read_lines(tmp_path / PREDICTIONS, heads(tmp_path / PREDICTIONS)))
    assert left == lines(KEYS[1], 0, 2)


NEVER_BEGAN = '{"event":"finished","input":"0123456789abcdef","frames":1,"persons":1}\n'
ENDLESS = '{"event":"finished","input":"0123456789abcdef","frames":1e999,"persons":1}\n'


@pytest.mark.parametrize(
    "name, content",
    [
        (PREDICTIONS, "{}\n"),
        (INPUTS, '{"event": "begun"}\n'),
        (INPUTS, "x\n"),
        (INPUTS, NEVER_BEGAN),
        (INPUTS, ENDLESS),
    ],
)
def test_files_of_somebody_else_are_refused_and_stay(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(PoseRftError, match=name):
        Store(tmp_path)
    assert (tmp_path / name).read_text() == content


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(Busy, match="Another run"):
        Store(tmp_path)
    store.close()
    Store(tmp_path)


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, below):  # B6
    (tmp_path / "file").write_text("")
    with pytest.raises(PoseRftError, match=r"cannot be written .*; name another folder with --out"):
        Store(tmp_path / "file" / below)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):  # B6
    def full(file, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path)
    monkeypatch.setattr(module, "append", full)
    with pytest.raises(PoseRftError, match=r"predictions\.jsonl cannot be written \(No space left on device\)"):
        store.add(lines(KEYS[0], 0, 1))


@pytest.mark.parametrize("name", ["../a", "/tmp/a", "", "a/b", "a\0", 5, None])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    line = {"event": "begun", "input": KEYS[0], "name": name}
    (tmp_path / INPUTS).write_bytes(module.line_bytes(line))
    with pytest.raises(PoseRftError, match=r"inputs\.jsonl holds a line that `predict` did not write"):
        Store(tmp_path)


def test_a_long_name_leaves_room_for_what_is_written_under_it(tmp_path):
    name = Store(tmp_path).begin(KEYS[0], "照" * 83, {})
    assert name and len(name.encode()) <= module.LONGEST_NAME


def test_a_disk_that_is_full_to_the_end_is_named_to_the_end_and_loses_nothing(tmp_path):
    store = Store(tmp_path)
    store.begin(KEYS[0], "a", {})
    store.add(lines(KEYS[0], 0, 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = (tmp_path / PREDICTIONS).read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))
    try:
        for attempt in (lambda: store.add(lines(KEYS[0], 1, 1)), store.close):
            with pytest.raises(PoseRftError, match=r"predictions\.jsonl cannot be written .File too large"):
                attempt()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    Store(tmp_path).close()
    assert (tmp_path / PREDICTIONS).read_bytes() == whole


def test_a_file_that_cannot_be_written_is_named_and_not_its_unfinished_one(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", "somewhere")

    monkeypatch.setattr(atomic, "create", refuse)
    monkeypatch.setattr(type(tmp_path), "unlink", refuse)
    with pytest.raises(OSError, match=r"Read-only file system: .*x\.json"):
        atomic.write_bytes(tmp_path / "x.json", b"")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_one_sentence(number):
    with pytest.raises(PoseRftError, match="the model m says holds a number that is none"):
        module.line_bytes({"model": "m", "uncertainty": {"std_6d": [[number]]}})
