"""The trained model bundled in a wheel: `pose_rft/default_model`, built by `python -m pose_rft.wheel_model`.

It holds the policy in half precision, the sample's stand-in body model, and the person detector, so that an installed
wheel predicts without downloads or training. A checkout has no such folder until a wheel is built.
"""

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "default_model"


def policy() -> Path | None:
    """The folder of the bundled policy; None if nothing is bundled."""
    return _if_there(FOLDER / "policy")


def body() -> Path | None:
    """The folder of the bundled body model; None if nothing is bundled."""
    return _if_there(FOLDER / "body_models")


def network(name: str) -> Path | None:
    """The bundled file of a pretrained network; None if it is not bundled."""
    return _if_there(FOLDER / name)


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
