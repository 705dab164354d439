"""Rounds numbers to fixed steps, so that the sample is the same on every machine.

Machines add in different orders and so differ in the last digits, far below a step; rounding removes the difference.
What follows (the surface, the camera, the pixels) is exact arithmetic on such numbers, in a fixed order.
"""

from typing import Any

import numpy as np


def rounded(values: Any, decimals: int) -> np.ndarray:
    """`np.round` without negative zeros, whose sign would depend on the last digit, which differs by machine."""
    result: np.ndarray = np.round(values, decimals) + 0.0
    return result


def in_steps(image: np.ndarray) -> np.ndarray:
    """Returns a picture as float32 in steps of 1/4096.

    Filters of float64 pictures round differently on each CPU, and averages add pixels in a different order. The former
    differences are far below a step, and sums of steps are exact in any order.
    """
    return (np.rint(image * 4096) / 4096).astype(np.float32)
