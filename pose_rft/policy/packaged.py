"""The trained model that a wheel carries: `pose_rft/default_model`, which `python -m pose_rft.wheel_model` makes.

It holds the policy in half precision, the sample's stand-in body, and the network that finds people, so that an
installed wheel predicts with nothing fetched and nothing trained. A checkout has no such folder until a wheel is built.
"""

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "default_model"


def policy() -> Path | None:
    """The folder of the policy; None where nothing is packaged."""
    return _if_there(FOLDER / "policy")


def body() -> Path | None:
    """The folder of its body model."""
    return _if_there(FOLDER / "body_models")


def network(name: str) -> Path | None:
    """A file of a pretrained network."""
    return _if_there(FOLDER / name)


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
