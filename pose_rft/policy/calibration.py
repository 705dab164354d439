"""The factors of σ that a policy folder keeps (config.json, `sigma_scale`): two lists of 24, one number per joint.

Reinforcement makes a policy surer than it is right, so its σ is no statement about error. After training, validation
data tell by how much (`training/calibration.py`); whoever reads σ or draws poses for people asks
`PoseLlava.calibrated`. Training never does: what is sampled there must be what is scored.
"""

import math
from typing import Any, Literal, get_args

from pose_rft.errors import PoseRftError
from pose_rft.policy.config import JOINTS

Asked = Literal["image", "text"]
"""What the pose was asked about: the two have errors of different size, so each has its own factors."""


def check_sigma_scale(scale: Any, source: str) -> None:
    """Refuses factors of the deviations that are not those of 24 joints.

    Raises:
        PoseRftError: not None, and not {image: 24 positive numbers, text: …}, either of which may be missing.
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
