"""Two accounts of one group in one folder: C4."""

import os
import shutil

import pytest

from pose_rft.io.shared import share_with_group
from tests.support import second_account

GROUP = 60_000
WORK = """
os.umask(0o022)
exec(pathlib.Path(os.environ["SHARED"]).read_text())
share_with_group(sys.argv[1])
folder = pathlib.Path(sys.argv[1], "files/md5")
folder.mkdir(parents=True, exist_ok=True)
(folder / sys.argv[2]).write_text("x")
(folder / "both").unlink(missing_ok=True)
(folder / "both").write_text(sys.argv[2])
print("written")
"""


@second_account.needs_root
def test_what_one_account_makes_the_other_replaces_whatever_their_umask(tmp_path, monkeypatch):
    import pose_rft.io.shared as module

    shared = tmp_path / "cache"
    shared.mkdir()
    shutil.chown(shared, 60_001, GROUP)
    shared.chmod(0o2775)
    for above in tmp_path.parents:
        if above.stat().st_uid == os.getuid() and above.name:
            above.chmod(above.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    code = tmp_path / "shared.py"
    shutil.copy(module.__file__, code)
    code.chmod(0o644)
    monkeypatch.setenv("SHARED", str(code))
    for uid in (60_001, 60_002, 60_001):
        said = second_account.run(WORK, str(shared), f"of-{uid}", uid=uid, groups=(GROUP,))
        assert said.strip() == "written"
    assert (shared / "files/md5/both").read_text() == "of-60001"


@pytest.mark.parametrize(("mode", "umask"), [(0o2775, 0o002), (0o775, 0o022), (0o2755, 0o022)])
def test_only_a_folder_that_a_group_shares_opens_new_files_to_it(tmp_path, mode, umask):
    tmp_path.chmod(mode)
    before = os.umask(0o022)
    try:
        share_with_group(None, str(tmp_path / "nowhere"), str(tmp_path))
        assert os.umask(0o022) == umask
    finally:
        os.umask(before)
