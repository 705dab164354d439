"""Chooses policy and body if the user names none: those of this folder's run, else those packaged in the wheel."""

from pathlib import Path

from pose_rft.datasets.registry import DataParams
from pose_rft.errors import PoseRftError
from pose_rft.io.model_folder import CONFIG
from pose_rft.params import load
from pose_rft.params_file import params_path
from pose_rft.policy import packaged

RUN = Path("models/rft_hygrpo")


def policy(named: Path | None) -> Path:
    """Returns the folder of a policy.

    Raises:
        PoseRftError: the named folder does not exist or holds no policy, or none is named and there is no default.
    """
    if named is None and not RUN.is_dir():
        found = packaged.policy()
        if found is None:
            raise PoseRftError(
                f"{RUN} does not exist; run `make run` (or `dvc repro`), install a wheel that carries a model, or name "
                "a policy with --model."
            )
        return found
    chosen = named or RUN
    if not chosen.is_dir():
        raise PoseRftError(f"{chosen} does not exist; run `make run` (or `dvc repro`), or leave --model out.")
    if not (chosen / CONFIG).is_file():  # checked before the whole folder is scanned: it may be `/`
        raise PoseRftError(f"{chosen} holds no policy, expected {CONFIG} and weights.")
    return chosen


def body(named: Path | None, policy: Path | None = None) -> Path:
    """The folder of a body model: the named one, the packaged one for the packaged policy, else `data.body_model`.

    Raises:
        PoseRftError: params.yaml is invalid, or it is missing and nothing is packaged.
    """
    own = packaged.body()
    if named is not None:
        return named
    if own is not None and (policy == packaged.policy() or not params_path().is_file()):
        return own
    return load("data", DataParams).body_model
