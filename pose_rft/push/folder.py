"""`pose-rft push`: writes the folder, and puts it on a hub where one is named.

What is pushed is published, so only the kinds of files that models are made of are taken, none of a folder below, and
no link to elsewhere: a policy of a stranger might name a secret of this account.
"""

import os
import re
import shutil
import tempfile
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
CODE_MARK = "policy_model.py"
KEPT = (".json", ".safetensors", ".jinja", ".model", ".txt")  # weights, settings, tokenizers; no pickles and no code
DIGEST = re.compile(r"[0-9a-f]{30,64}")


def write(policy: Path, out: Path, name: str, summary: Mapping[str, Any], from_sample: bool) -> list[Path]:
    """Writes what others need into `out`, which is new or was written here before; returns its files.

    Args:
        name: how the card calls it.
    Raises:
        PoseRftError: no policy there, its weights are no safetensors, a file of it is a link to elsewhere, or `out`
            holds something else.
    """
    _, config = look_at(policy, "policy")
    if not list(policy.glob("*.safetensors")):
        raise PoseRftError(f"{policy} holds no safetensors; save the policy with this project first.")
    if out.exists() and any(out.iterdir()) and not (out / CODE_MARK).is_file():
        raise PoseRftError(f"{out} holds files that are not of an earlier push; name a new folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".push-") as folder:
        made = Path(folder) / "made"
        made.mkdir()
        for path in _files(policy):
            shutil.copyfile(path, made / path.name)
        for file, code in bundle().items():
            atomic.write_bytes(made / file, code.encode())
        atomic.write_json(made / CONFIG, {**config, "auto_map": AUTO_MAP})
        card = model_card(name, policy.name, config, summary, from_sample)
        atomic.write_bytes(made / "README.md", card.encode())
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)
    return sorted(path for path in out.rglob("*") if path.is_file())


def to_hub(folder: Path, repository: str) -> str:
    """Puts the folder on the hub under the token of the environment (HF_TOKEN); returns its address.

    Raises:
        PoseRftError: the hub refuses, or is not reached.
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
    """The files that are pushed. DVC and the hub may keep them as links to a cache, where names are digests.

    Raises:
        PoseRftError: a link to anything else, or no regular file.
    """
    found = sorted(path for path in policy.iterdir() if path.suffix in KEPT and not path.is_dir())
    for path in found:
        door.check_file(path)
        if path.is_symlink() and not DIGEST.fullmatch(Path(os.path.realpath(path)).name):
            raise PoseRftError(f"{path} is a link to elsewhere, which would be published; put the file itself there.")
    return found
