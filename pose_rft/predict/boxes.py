"""Reads the boxes that a user gives: `--box`, or a COCO annotation file."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io.json_files import read_json
from pose_rft.record import LARGEST_BOX, SMALLEST_BOX, Box


def parse_box(text: str) -> Box:
    """Parses `X,Y,W,H` in px and returns the square box around that rectangle.

    Raises:
        PoseRftError: the text is not four finite numbers, or the box has no area.
    """
    try:
        values = [float(part) for part in text.split(",")]
        if len(values) != 4 or not all(map(isfinite, values)):
            raise ValueError
    except ValueError:
        raise PoseRftError(
            f"--box {text!r:.80} is not X,Y,W,H: the left, top, width and height of the person, px."
        ) from None
    return square(values, f"--box {text}", "given")


def boxes_from_coco(path: Path) -> dict[str, list[Box]]:
    """Reads {file name: boxes of its people} from a COCO annotation file; skips crowds and boxes without area.

    Raises:
        PoseRftError: no such file, it is not in COCO's format, or a box is not four finite numbers.
    """
    content = read_json(path, dict)
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        rows = [(row.get("id"), names[row["image_id"]], row) for row in content["annotations"]]
        wanted = [(key, name, [float(v) for v in row["bbox"]]) for key, name, row in rows if not row.get("iscrowd")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PoseRftError(
            f"{path} is not a COCO annotation file ({error!r:.120}); expected `images` and `annotations`."
        ) from None
    found: dict[str, list[Box]] = {name: [] for name in names.values()}
    for key, name, values in wanted:
        where = f"the box of annotation {key} in {path}"
        if len(values) != 4 or not all(map(isfinite, values)):
            raise PoseRftError(f"{where} is {values}, expected four finite numbers: left, top, width, height.")
        if values[2] > 0 and values[3] > 0:
            found[name].append(square(values, where, "annotation"))
    return found


def square(values: Sequence[float], where: str, convention: str) -> Box:
    """Returns the square crop around a box.

    Raises:
        PoseRftError: the box has no area, or its size is out of range.
    """
    x, y, width, height = values
    if width <= 0 or height <= 0:
        raise PoseRftError(f"{where} has no area; width and height must be positive.")
    if not SMALLEST_BOX <= max(width, height) <= LARGEST_BOX:
        raise PoseRftError(
            f"{where} is {width:g} x {height:g} px large, expected {SMALLEST_BOX:g} to {LARGEST_BOX:g}; correct it."
        )
    return Box((x + width / 2, y + height / 2), max(width, height), convention)


def check_inside(box: Box, size: tuple[int, int], where: str) -> None:
    """Refuses a box that lies outside its picture.

    Raises:
        PoseRftError: the box does not overlap a picture of `size` (width, height) px.
    """
    for center, length in zip(box.center, size, strict=True):
        if not (center + box.side / 2 > 0 and center - box.side / 2 < length):
            raise PoseRftError(
                f"The box around ({box.center[0]:g}, {box.center[1]:g}) px of side {box.side:g} lies outside {where}, "
                f"which is {size[0]} x {size[1]} px; correct the box."
            )
