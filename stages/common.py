"""What every stage shares: how it starts and fails, and where it keeps unfinished work.

A stage is `python -m stages.NAME [--option VALUE]`: it reads its section of params.yaml, calls pose_rft, and writes its
outs atomically. Work that must survive a kill (checkpoints, shards under construction, feature caches) is kept in a
scratch folder that DVC does not track, keyed by everything that the result depends on: work under another key is never
resumed by mistake, and the same key always resumes.
"""

import errno
import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pose_rft.cores import cores
from pose_rft.errors import PoseRftError
from pose_rft.io.atomic import canonical_json
from pose_rft.io.lock import BUSY_STATUS, Busy, alone_in
from pose_rft.io.shared import share_with_group
from pose_rft.io.text import print_anything
from stages.code import refuse_other_code

if TYPE_CHECKING:  # slow to import, and `inventory` must start fast
    from pydantic import BaseModel

USAGE_ERROR = 2
INTERRUPTED = 130
# What the user can fix: a full disk, a quota, a permission, a broken or read-only disk.
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_held = ExitStack()  # locks of this process


def stage_main(main: Callable[[list[str]], None]) -> None:
    """Runs `main(arguments)` and turns its errors into the process's exit status.

    A PoseRftError, or a disk that is full or not writable, becomes `error: …` on stderr and status 2, or 75 if another
    process holds the files, in which case a flow waits; anything else is a bug and keeps its traceback. Model hubs are
    not contacted unless the caller's environment sets HF_HUB_OFFLINE=0; all cores available to this process are used.
    Waiting OpenMP threads sleep instead of spinning: when other processes compete for the cores, one thread's spinning
    would take the time that the other needs. This changes neither what is computed nor in which order.
    """
    print_anything()
    share_with_group(os.environ.get("POSE_RFT_SCRATCH"), os.environ.get("POSE_RFT_CACHE"))
    defaults = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(cores())}
    defaults["OMP_WAIT_POLICY"] = "PASSIVE"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "torch" in sys.modules:  # already loaded, so it has read the environment: set it here
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    try:
        if stage := os.environ.get("DVC_STAGE"):
            refuse_other_code(stage)
        main(sys.argv[1:])
    except PoseRftError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(BUSY_STATUS if isinstance(error, Busy) else USAGE_ERROR) from None
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        print(
            f"error: {error.filename or 'The outs of this stage'} cannot be written or read ({error.strerror}); make "
            "room or fix the permission and run again.",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(USAGE_ERROR) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def scratch_dir(stage: str, params: "BaseModel | Mapping[str, Any]", inputs: Sequence[Path]) -> Path:
    """Creates `.scratch/<stage>/<key>/` (or below `POSE_RFT_SCRATCH`); key = sha256(params, fingerprints of inputs).

    Raises:
        PoseRftError: an input does not exist, or the folder cannot be created.
    """
    content = dict(params) if isinstance(params, Mapping) else params.model_dump(mode="json")
    identity = {"params": content, "inputs": [[str(path), fingerprint(path)] for path in inputs]}
    key = hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:24]
    folder = Path(os.environ.get("POSE_RFT_SCRATCH", ".scratch")) / stage / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PoseRftError(
            f"The scratch folder {folder} cannot be made ({error.strerror}); set POSE_RFT_SCRATCH to a writable place."
        ) from None
    return folder


def training_dir(stage: str, params: "BaseModel | Mapping[str, Any]", inputs: Sequence[Path]) -> Path:
    """`scratch_dir` for checkpoints, locked against other runs (also those of other clones) until this process ends.

    Raises:
        PoseRftError: another process holds the lock.
    """
    folder = scratch_dir(stage, params, inputs)
    if os.environ.get("RANK", "0") == "0":  # the ranks of one launch share it
        _held.enter_context(alone_in(folder))
    return folder


def fingerprint(path: Path) -> str:
    """Returns the sha256 of a file, or of a folder: its manifest.json if it has one (shards), else all files below.

    Raises:
        PoseRftError: `path` does not exist.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise PoseRftError(f"{path} does not exist; run `dvc repro`, which makes it before this stage.")
    if (path / "manifest.json").is_file():
        return fingerprint(path / "manifest.json")
    digest = hashlib.sha256()
    for child in sorted(path.iterdir(), key=lambda child: child.name):
        digest.update(f"{child.name}\0{fingerprint(child)}\n".encode())
    return digest.hexdigest()
