"""Calibration factors of σ in a policy folder (config.json, `sigma_scale`): two lists of 24, one number per joint.

Reinforcement learning makes a policy overconfident, so its raw σ does not measure its error. After training, the
factors are fitted on validation data (`training/calibration.py`); inference applies them through
`PoseLlava.calibrated`. Training never does, because it must sample and score from one distribution.
"""

import math
from typing import Any, Literal, get_args

from pose_rft.errors import PoseRftError
from pose_rft.policy.config import JOINTS

Asked = Literal["image", "text"]
"""What the question about the pose is based on: errors differ between the two, so each has its own factors."""


def check_sigma_scale(scale: Any, source: str) -> None:
    """Checks the calibration factors of σ.

    Raises:
        PoseRftError: neither None nor {image: 24 positive numbers, text: …}, either of which may be missing.
    """
    if scale is None:
        return
    known = isinstance(scale, dict) and {*scale} <= {*get_args(Asked)}
    if not (known and all(_is_factors(factors) for factors in scale.values())):
        raise PoseRftError(
            f"The configuration of {source} has a `sigma_scale` that is not {JOINTS} positive numbers for `image` and "
            "`text`; download the model again, or delete that entry to go without calibration."
        )


def _is_factors(factors: Any) -> bool:
    return (
        isinstance(factors, list)
        and len(factors) == JOINTS
        and all(type(one) in (int, float) and math.isfinite(one) and one > 0 for one in factors)
    )
