"""`pose-rft push`: writes the folder, and puts it on a hub where one is named."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.model_folder import CONFIG, look_at
from pose_rft.push.bundle import bundle
from pose_rft.push.card import model_card

AUTO_MAP = {
    "AutoConfig": "policy_config.PoseLlavaConfig",
    "AutoModel": "policy_model.PoseLlava",
    "AutoModelForImageTextToText": "policy_model.PoseLlava",
}
CODE_MARK = "policy_model.py"


def write(policy: Path, out: Path, name: str, summary: Mapping[str, Any], from_sample: bool) -> list[Path]:
    """Writes what others need into `out`, which is new or was written here before; returns its files.

    Args:
        name: how the card calls it.
    Raises:
        PoseRftError: no policy there, its weights are no safetensors, or `out` holds something else.
    """
    _, config = look_at(policy, "policy")
    if not list(policy.glob("*.safetensors")):
        raise PoseRftError(f"{policy} holds no safetensors; save the policy with this project first.")
    if out.exists() and any(out.iterdir()) and not (out / CODE_MARK).is_file():
        raise PoseRftError(f"{out} holds files that are not of an earlier push; name a new folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".push-") as folder:
        made = Path(folder) / "made"
        shutil.copytree(policy, made, ignore=_no_pickles)
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


def _no_pickles(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt", ".py"))}
