"""`pose-rft push`: writes the folder and, if a hub repository is named, uploads it.

What is pushed is published, so only the file types that models consist of are taken, no subfolders, and no links to
elsewhere: a stranger's policy might link to a secret of this account.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic, door
from pose_rft.io.model_folder import CONFIG, look_at
from pose_rft.push.bundle import bundle
from pose_rft.push.card import model_card

AUTO_MAP = {
    "AutoConfig": "policy_config.PoseLlavaConfig",
    "AutoModel": "policy_model.PoseLlava",
    "AutoModelForImageTextToText": "policy_model.PoseLlava",
}
CODE_MARK, CARD, ONNX = "policy_model.py", "README.md", "onnx"
KEPT = (".json", ".safetensors", ".jinja", ".model", ".txt")  # weights, settings, tokenizers; no pickles and no code
DIGEST = re.compile(r"[0-9a-f]{30,64}")


def write(policy: Path, out: Path, name: str, summary: Mapping[str, Any], from_sample: bool) -> list[Path]:
    """Writes the folder to publish into `out`, which is new or from an earlier push; returns its files.

    Args:
        name: the policy's name on the card.
    Raises:
        PoseRftError: no policy there, its weights are not safetensors, one of its files links to elsewhere, or `out`
            holds something else or cannot be written.
    """
    _, config = look_at(policy, "policy")
    if not list(policy.glob("*.safetensors")):
        raise PoseRftError(f"{policy} holds no safetensors; save the policy with this project first.")
    files = _files(policy)
    content = {file: code.encode() for file, code in bundle().items()}
    content[CONFIG] = atomic.json_bytes({**config, "auto_map": AUTO_MAP}, indent=2) + b"\n"
    ours = {CARD, ONNX, *content, *(path.name for path in files)}
    there = {path.name for path in out.iterdir()} if out.exists() else set()
    if there and (CODE_MARK not in there or not there <= ours):  # e.g. a clone of the hub repository, with its `.git`
        raise PoseRftError(f"{out} holds files that are not of an earlier push; name a new folder.")
    content[CARD] = model_card(name, policy.name, config, summary, from_sample).encode()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic.folder(out) as made:
            for path in files:
                shutil.copyfile(path, made / path.name)
            for file, data in content.items():
                atomic.write_bytes(made / file, data)
    except OSError as error:
        raise PoseRftError(f"{out} cannot be written ({error.strerror or error}); name another folder.") from None
    return sorted(path for path in out.rglob("*") if path.is_file())


def to_hub(folder: Path, repository: str) -> str:
    """Uploads the folder to the hub with the token from the environment (HF_TOKEN); returns its URL.

    Raises:
        PoseRftError: the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True, private=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PoseRftError(
            f"{repository} was not pushed ({reason}); set HF_TOKEN to a token that may write there, and look whether "
            f"the hub is reached. The folder {folder} is whole."
        ) from None


def _files(policy: Path) -> list[Path]:
    """Returns the files to push. DVC and the hub may keep them as links to a cache, where names are digests.

    Raises:
        PoseRftError: a file is a link to anything else, or is not a regular file.
    """
    found = sorted(path for path in policy.iterdir() if path.suffix in KEPT and not path.is_dir())
    for path in found:
        door.check_file(path)
        if path.is_symlink() and not DIGEST.fullmatch(Path(os.path.realpath(path)).name):
            raise PoseRftError(f"{path} is a link to elsewhere, which would be published; put the file itself there.")
    return found
