"""`--require "pose_error.3dpw.rft_hygrpo.mpjpe<100"`: a policy whose numbers are worse is not pushed."""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from pose_rft.errors import PoseRftError

COMPARED: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
FORM = re.compile(r"\s*([\w.\-]+?)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*")


def check(summary: Mapping[str, Any], requirements: list[str]) -> None:
    """Refuses a summary that does not meet the requirements.

    Raises:
        PoseRftError: a requirement is not of the form NAME<NUMBER, names no number of the summary, or is not met.
    """
    for text in requirements:
        form = FORM.fullmatch(text)
        if form is None:
            raise PoseRftError(
                f"--require {text!r:.120} is not understood; write it as pose_error.3dpw.rft_hygrpo.mpjpe<100, with "
                "<, <=, > or >=."
            )
        name, sign, bound = form[1], form[2], float(form[3])
        value = find(summary, name)
        if not COMPARED[sign](value, bound):
            raise PoseRftError(f"{name} is {value:g}, but {sign} {bound:g} is required; nothing was pushed.")


def find(summary: Mapping[str, Any], name: str) -> float:
    """Returns the number with that dotted name.

    Raises:
        PoseRftError: there is none; the message says what is there instead.
    """
    node: Any = summary
    for part in name.split("."):
        if not isinstance(node, Mapping) or part not in node:
            known = ", ".join(map(str, node)) if isinstance(node, Mapping) else repr(node)
            raise PoseRftError(f"The summary has no {name}; where {part!r} is sought it has {known[:300]}.")
        node = node[part]
    if isinstance(node, bool) or not isinstance(node, int | float):
        inside = ", ".join(map(str, node)) if isinstance(node, Mapping) else repr(node)
        raise PoseRftError(f"{name} is no number of the summary but {inside[:300]}; name one number.")
    return float(node)
