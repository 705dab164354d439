from pathlib import Path

import pytest

from pose_rft.io.find import files_below, find


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`a/b/x.mat`, `c -> a`, `a/up -> ..` (a circle), macOS's litter, a link to nowhere, a hidden folder."""
    root = tmp_path / "root"
    for name in ("a/b/x.mat", "a/b/y.JPG", "a/._x.mat", "a/.DS_Store", ".hidden/x.mat", "top.mat"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "c").symlink_to("a")
    (root / "a/up").symlink_to("..")
    (root / "nowhere").symlink_to("gone")
    return root


def names(root: Path, pattern: str) -> list[str]:
    return [str(path.relative_to(root)) for path in find(root, pattern)]


def test_any_folders_also_linked_ones_and_each_real_one_once(tree: Path) -> None:  # C1
    assert names(tree, "**/x.mat") == [".hidden/x.mat", "a/b/x.mat"]
    assert names(tree / "c", "**/x.mat")[0] == "b/x.mat"
    assert names(tree, "**/*.mat") == [".hidden/x.mat", "a/b/x.mat", "top.mat"]


def test_plain_parts_and_wildcards_follow_links(tree: Path) -> None:
    assert names(tree, "c/b/x.mat") == ["c/b/x.mat"]
    assert names(tree, "*/b/*.mat") == ["a/b/x.mat", "c/b/x.mat"]
    assert names(tree, "[ac]/b") == ["a/b", "c/b"]
    assert names(tree, "gone/*") == names(tree, "nowhere/*") == names(tree, "top.mat/*") == []


def test_every_file_below_a_linked_folder_and_no_litter(tree: Path) -> None:  # A1, C8
    below = sorted(str(Path(path).relative_to(tree)) for path in files_below(tree))
    assert below == [".hidden/x.mat", "a/b/x.mat", "a/b/y.JPG", "top.mat"]
    assert {Path(path).name for path in files_below(tree / "c")} >= {"x.mat", "y.JPG"}
    assert list(files_below(tree / "gone")) == []


def test_a_name_that_the_file_system_cannot_have_is_simply_not_there(tree: Path) -> None:
    assert find(tree, "\ud83d/x.mat") == find(tree, "a\0b/*") == []
