"""Conversions that are killed, run out of disk or permission, or whose release moves: real processes, real errors."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.shards import inventory
from pose_rft.shards.convert import convert
from pose_rft.shards.plan import ShardParams
from pose_rft.shards.verify import verify
from tests.support.fake_release import FakeRelease

SERIAL = ShardParams(samples_per_shard=20, executor="serial", workers=1, jpeg_quality=92)
ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from pathlib import Path
from tests.support.fake_release import FakeRelease
from pose_rft.shards.convert import convert
from pose_rft.errors import PoseRftError
from pose_rft.shards import executors
from pose_rft.shards.plan import ShardParams
{before}
if __name__ == "__main__":
    executors.START_SECONDS = -1.0
    shards = ShardParams(samples_per_shard=20, executor={executor!r}, workers=2, jpeg_quality=92)
    release = FakeRelease(units_of={units}, delay={delay}, journal=Path({journal!r}))
    try:
        convert(release, "train", Path({out!r}), shards, 0.0, "digest", Path({scratch!r}))
    except PoseRftError as error:
        print(error)
        sys.exit(2)
"""


class Child:
    """A conversion in a process of its own, in `folder`."""

    def __init__(self, folder: Path, units: int, delay: float = 0.0, executor: str = "serial", **places: str) -> None:
        places = {"out": "out", "scratch": "out.scratch", "journal": str(folder / "journal"), "before": "", **places}
        self.folder, self.script = folder, folder / "convert_child.py"
        self.script.write_text(CHILD.format(units=units, delay=delay, executor=executor, **places))

    def start(self, *prefix: str) -> subprocess.Popen:
        paths = str(ROOT)
        return subprocess.Popen(
            [*prefix, sys.executable, str(self.script)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *prefix: str) -> tuple[int, str, str]:
        process = self.start(*prefix)
        out, errors = process.communicate(timeout=120)
        return process.returncode, out, errors


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def undisturbed(tmp_path: Path, units: int) -> dict[str, str]:
    folder = tmp_path / "undisturbed"
    convert(FakeRelease(units_of=units), "train", folder, SERIAL, 0.0, "digest", tmp_path / "undisturbed.scratch")
    return content(folder)


def whole_shards(scratch: Path) -> set[str]:
    return {path.stem for path in (scratch / "shards").glob("[0-9]*.json")}


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "workers"), [("serial", 1), ("process", 2)])
def test_kill_9_at_any_moment_loses_at_most_one_shard_per_worker(tmp_path: Path, executor: str, workers: int) -> None:
    units, units_per_shard, kills = 24, 2, 0
    rng = random.Random(executor)
    child = Child(tmp_path, units, 0.015, executor)
    while True:
        before = whole_shards(tmp_path / "out.scratch")
        process = child.start()
        # The first seconds are imports; the kill comes when work is under way, at a moment that differs each time.
        deadline = time.monotonic() + rng.uniform(0.05, 1.0)
        began = (tmp_path / "journal").stat().st_size if (tmp_path / "journal").exists() else 0
        while process.poll() is None and time.monotonic() < deadline:
            if not (tmp_path / "journal").exists() or (tmp_path / "journal").stat().st_size == began:
                deadline = time.monotonic() + rng.uniform(0.05, 1.0)
            time.sleep(0.005)
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        time.sleep(1.0)  # workers end with the process that they work for
        assert before <= whole_shards(tmp_path / "out.scratch") or (tmp_path / "out").exists()
    begun = len((tmp_path / "journal").read_text().split())
    assert kills >= 2
    assert begun <= units + kills * workers * units_per_shard
    assert content(tmp_path / "out") == undisturbed(tmp_path, units)


STEPS = ("before the marker", "before the manifest", "before the move", "old folder away", "after the move")
KILL_AT = """
import os, signal
from pathlib import Path
from pose_rft.shards import manifest, writer
import pose_rft.shards.convert as c
step, die = {step!r}, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
real, marks = os.replace, []
def replace(source, target):
    names = Path(source).name, Path(target).name
    if step == "before the move" and names == ("shards", "out"): die()
    if step == "before the marker" and names[1] == "00001.json": die()
    real(source, target)
    if step == "old folder away" and names == ("out", ".out.old"): die()
    if step == "after the move" and names == ("shards", "out"): die()
if step == "before the manifest":
    c.Manifest.write = die
os.replace = replace
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_between_the_last_steps_loses_no_complete_shard(tmp_path: Path, step: str) -> None:
    (tmp_path / "out").mkdir()
    convert(FakeRelease(units_of=1), "train", tmp_path / "out", SERIAL, 0.0, "d", tmp_path / "older.scratch")
    shutil.rmtree(tmp_path / "older.scratch")
    code, _, _ = Child(tmp_path, 6, before=KILL_AT.format(step=step)).run()
    assert code == -signal.SIGKILL
    before = (tmp_path / "journal").read_text().split()
    code, said, errors = Child(tmp_path, 6).run()
    assert (code, said) == (0, ""), errors
    again = (tmp_path / "journal").read_text().split()[len(before) :]
    assert len(again) == (4 if step == "before the marker" else 0)
    assert content(tmp_path / "out") == undisturbed(tmp_path, 6)
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name and path.name[0] == ".") == []


def can_mount() -> bool:
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not can_mount(), reason="mounting a small tmpfs needs privileges")
def test_a_full_disk_stops_in_one_sentence_and_continues_with_room(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    child = Child(tmp_path, 12, out="disk/out", scratch="disk/scratch")
    convert(FakeRelease(units_of=12), "train", tmp_path / "whole", SERIAL, 0.0, "digest", tmp_path / "whole.scratch")
    size = sum(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    full = Child(tmp_path, 12, out="disk/out", scratch="disk/scratch")
    # In a mount namespace of its own: first too little room, then enough; between them we look at what was kept.
    script = f"""
        mount -t tmpfs -o size={size // 2 // 4096 * 4096} tmpfs disk
        {sys.executable} {full.script}; echo "rc $?"
        find disk -name '*.tmp-*' | wc -l; ls disk/scratch/shards/*.json | wc -l; ls -d disk/out 2>/dev/null
        mount -o remount,size=64m disk; wc -l < journal
        {sys.executable} {child.script}; echo "rc $?"; wc -l < journal
        cp -r disk/out kept
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    sentence, *rest = done.stdout.splitlines()
    assert "No space left on device" in sentence and "continues" in sentence and "Traceback" not in done.stderr
    code, unfinished, whole, first, code_again, second = rest
    assert code == "rc 2" and unfinished == "0" and int(whole) >= 1 and code_again == "rc 0"
    assert int(second) - int(first) == 12 - 2 * int(whole)  # the units of complete shards are not read again
    assert content(tmp_path / "kept") == content(tmp_path / "whole")


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_one_sentence_and_nothing_half_written(tmp_path: Path) -> None:
    """The same path of the code as a full disk or a quota, without privileges."""
    code, said, errors = Child(tmp_path, 6, before=LIMIT.format(size=60_000)).run()
    assert code == 2 and re.search(r"00000.tar cannot be written \(File too large\).*run again", said), errors
    assert not list(tmp_path.rglob("*.tmp-*")) and not list(tmp_path.rglob("*.tar"))
    assert Child(tmp_path, 6).run()[0] == 0
    assert content(tmp_path / "out") == undisturbed(tmp_path, 6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="dropping root's privileges needs util-linux's setpriv")
@pytest.mark.parametrize("place", ["scratch", "out"])
def test_a_folder_without_permission_is_one_sentence_and_the_work_is_kept(tmp_path: Path, place: str) -> None:
    ordinary = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    for name in ("scratch", "out"):
        (tmp_path / name).mkdir()
    child = Child(tmp_path, 6, out="out/train", scratch="scratch/train")
    (tmp_path / place).chmod(0o555)
    code, said, errors = child.run(*ordinary)
    assert code == 2 and "Permission denied" in said and "Traceback" not in errors
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / place).chmod(0o755)
    code, said, errors = child.run(*ordinary)
    assert (code, said) == (0, ""), errors
    assert len((tmp_path / "journal").read_text().split()) == 6  # nothing was read twice
    assert verify(tmp_path / "out/train").ok


class Moving(FakeRelease):
    """A release that somebody writes while unit `u03` is read."""

    def read(self, unit, split):
        if unit.key == "u03":
            self.files[0].write_text("other words")
        yield from super().read(unit, split)


def run(tmp_path: Path, release: FakeRelease):
    return convert(release, "train", tmp_path / "out", SERIAL, 0.0, "digest", tmp_path / "scratch")


@pytest.mark.parametrize("kind", [None, "error"])
def test_a_release_that_changes_while_it_is_read_is_one_sentence_and_nothing_of_it_is_used(
    tmp_path: Path, kind: str | None
) -> None:
    """Also where the change makes a reader fail: then the change is the cause to name."""
    (tmp_path / "release").mkdir()
    files = (tmp_path / "release/annotations.json", tmp_path / "release/picture.jpg")
    for file in files:
        file.write_text("words")
    times = files[0].stat()
    with pytest.raises(PoseRftError, match=f"files in {tmp_path}/release changed while .* run again, which starts"):
        run(tmp_path, Moving(files=files, bad={"u04": kind} if kind else {}))
    assert not (tmp_path / "out").exists()
    files[0].write_text("words")
    os.utime(files[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(tmp_path, FakeRelease(files=files)).reused == 0  # even though all files are as they were at first
    assert verify(tmp_path / "out").ok


def test_a_change_is_noticed_during_the_work_not_only_at_its_end(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(inventory.ReleaseMonitor, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(inventory.ReleaseMonitor, "SHARE_OF_TIME", 1e9)
    (tmp_path / "release").mkdir()
    files = (tmp_path / "release/annotations.json",)
    files[0].write_text("words")
    with pytest.raises(PoseRftError, match="changed while the release was read"):
        run(tmp_path, Moving(files=files, units_of=40, journal=tmp_path / "journal"))
    assert len((tmp_path / "journal").read_text().split()) == 4


def test_shards_made_with_other_params_of_the_reader_are_not_reused(tmp_path: Path) -> None:
    with pytest.raises(PoseRftError):
        run(tmp_path, FakeRelease(bad={"u05": "error"}))
    other = FakeRelease()
    other.params.fits = "other.json"
    assert run(tmp_path, other).reused == 0


@pytest.mark.pipeline
def test_two_conversions_never_share_a_scratch(tmp_path: Path) -> None:
    child = Child(tmp_path, 6, 0.1).start()
    while not whole_shards(tmp_path / "out.scratch") and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGSTOP)  # so that it is under way however long the other takes to start
    code, said, _ = Child(tmp_path, 6).run()
    child.send_signal(signal.SIGCONT)
    child.communicate()
    assert code == 2 and "Another process works in out.scratch" in said
    assert child.returncode == 0 and content(tmp_path / "out") == undisturbed(tmp_path, 6)


MEASURE = """
import resource
from pathlib import Path
from tests.support.fake_release import FakeRelease
from pose_rft.shards.convert import convert
from pose_rft.shards import index
from pose_rft.shards.plan import ShardParams
import pose_rft.shards.convert as c, numpy, polars, PIL.Image, json
write = c.write_shard
def write_shard(*arguments):
    try:
        return write(*arguments)
    finally:
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
peaks, c.write_shard = [], write_shard
shards = ShardParams(samples_per_shard=20, executor="serial", workers=1, jpeg_quality=92)
convert(FakeRelease(units_of={units}, padding=200_000), "train", Path("out"), shards, 0.0, "d", Path("scratch"))
print(json.dumps(peaks))
"""


@pytest.mark.slow
def test_memory_of_a_worker_is_that_of_a_shard_whatever_the_release(tmp_path: Path) -> None:
    """800 pictures of 200 kB in 40 shards of 4 MB: what the first five shards needed is enough for all."""
    script = tmp_path / "measure.py"
    script.write_text(MEASURE.format(units=80))
    paths = str(ROOT)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    peaks = json.loads(done.stdout)
    assert len(peaks) == 40
    assert sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar")) > 160e6
    assert peaks[-1] - peaks[4] < 12  # MB
