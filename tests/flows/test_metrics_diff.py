import json
import subprocess

import pytest

from flows.metrics_diff import Change, changes, compare, main, markdown
from pose_rft.errors import PoseRftError
from tests.support import toy


def write(root, mpjpe, beta):
    (root / "metrics").mkdir(exist_ok=True)
    content = {"pose_error": {"3dpw": {"rft": {"mpjpe": mpjpe}, "mean_pose": {"mpjpe": 300.0}}}}
    (root / "metrics/summary.json").write_text(json.dumps(content))
    (root / "params.yaml").write_text(f"rft: {{beta: {beta}}}\n")


@pytest.fixture
def project(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    write(tmp_path, 100.0, 0.1)
    toy.commit(tmp_path, "one")
    write(tmp_path, 90.0, 0.2)
    return tmp_path


def test_only_what_differs_is_listed_with_its_direction(project):
    params, metrics = compare(project, "HEAD")
    assert params == [Change("rft.beta", 0.1, 0.2)]
    assert metrics == [Change("pose_error.3dpw.rft.mpjpe", 100.0, 90.0)]
    assert metrics[0].cells() == ("pose_error.3dpw.rft.mpjpe", "100", "90", "-10", "better")
    toy.commit(project, "two")
    assert compare(project, "HEAD~1", "HEAD") == (params, metrics)
    assert compare(project, "HEAD") == ([], [])


def test_directions_are_said_only_where_they_are_known():
    assert Change("recall.judge.full.rft.t2p.5", 10.0, 9.0).verdict == "worse"
    assert Change("recall.judge.full.chance.t2p.5", 10.0, 9.0).verdict == ""
    assert Change("data.coco.samples", 10, 9).verdict == ""
    assert Change("data.coco.defects", 1, 2).verdict == "worse"
    assert Change("pose_error.3dpw.rft.mpjpe", None, 2.0).verdict == ""


def test_values_that_appear_and_vanish_are_changes_and_nan_is_itself():
    found = changes({"a": {"x": 1, "n": float("nan")}}, {"a": {"y": 2, "n": float("nan")}})
    assert found == [Change("a.x", 1, None), Change("a.y", None, 2)]
    assert "| a.x | 1 | – |" in markdown("t", found)
    assert "Nothing changed" in markdown("t", [])


def test_numbers_of_another_machine_are_said_to_be(project, monkeypatch, capsys):  # G3
    monkeypatch.chdir(project)
    summary = project / "metrics/summary.json"
    content = json.loads(summary.read_text())
    for made_on, said in (({"cpu": "A"}, False), ({"cpu": "B"}, True), (None, True)):
        summary.write_text(json.dumps(content | {"machine": {"cpu": "A"}}))
        toy.commit(project, "here")
        summary.write_text(json.dumps(content | ({"machine": made_on} if made_on else {})))
        (project / "note.md").write_text(str(made_on))
        assert compare(project, "HEAD")[1] == []
        main(["HEAD"])
        assert ("come from different machines" in " ".join(capsys.readouterr().out.split())) == said


@pytest.mark.parametrize("revision", ["--help", "-p", "--output=planted"])
def test_a_revision_is_no_option_of_git(project, revision):  # S6
    with pytest.raises(PoseRftError, match="no revision"):
        compare(project, revision)
    assert not (project / "planted").exists()


def test_an_unknown_revision_is_one_sentence(project):
    with pytest.raises(PoseRftError, match="no revision 'nowhere'"):
        compare(project, "nowhere")


def test_the_table_is_printed(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    main(["HEAD"])
    text = capsys.readouterr().out
    assert "pose_error.3dpw.rft.mpjpe" in text and "better" in text and "rft.beta" in text
    with pytest.raises(PoseRftError, match="Name a git revision"):
        main([])
