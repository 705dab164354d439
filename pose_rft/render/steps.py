"""Numbers in steps, so that the sample is the same on every machine.

Machines add in other orders and round other last digits: far below a step, where rounding removes it. What follows
(the surface, the camera, the pixels) is exact arithmetic on such numbers, written so that it has one order.
"""

from typing import Any

import numpy as np


def rounded(values: Any, decimals: int) -> np.ndarray:
    """`np.round` without a negative zero, whose sign would tell which side of zero a machine's last digit was on."""
    result: np.ndarray = np.round(values, decimals) + 0.0
    return result


def in_steps(image: np.ndarray) -> np.ndarray:
    """A picture as float32 in steps of 1/4096.

    Filters of float64 pictures round by the CPU's instructions, and averages add pixels in its own order: the first is
    far below a step, and sums of steps are exact in any order.
    """
    return (np.rint(image * 4096) / 4096).astype(np.float32)
