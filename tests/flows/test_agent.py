"""What an agent does with the commit that a sender names."""

import pytest

from flows.agent import _checkout
from pose_rft.errors import PoseRftError
from tests.support import toy


@pytest.mark.parametrize(
    "commit", ["--upload-pack=touch planted", "-f", "HEAD", "main", "0" * 39, "0" * 41, "0" * 40 + "\n", "a;b", ""]
)
def test_what_is_no_commits_full_name_never_reaches_git(tmp_path, commit):  # S6
    with pytest.raises(PoseRftError, match="is no commit's name"):
        _checkout(tmp_path / "no repository", commit)


def test_a_clone_goes_to_the_senders_commit_and_misses_one_that_is_nowhere(tmp_path):
    (tmp_path / "file").write_text("1")
    toy.run(tmp_path, "git", "init", "-q")
    toy.commit(tmp_path, "one")
    first = toy.run(tmp_path, "git", "rev-parse", "HEAD").stdout.strip()
    (tmp_path / "file").write_text("2")
    toy.commit(tmp_path, "two")
    _checkout(tmp_path, first)
    assert (tmp_path / "file").read_text() == "1"
    with pytest.raises(PoseRftError, match="has no commit 0000"):
        _checkout(tmp_path, "0" * 40)
