"""Draws one sample: image, box, 2D joints, 3D joints projected by the camera, and the body mesh."""

import io
import textwrap
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

from pose_rft.body.cameras import project
from pose_rft.body.joints import joint_set
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic, pictures
from pose_rft.record import Record
from pose_rft.render.bodies import body_vertices, draw_body, portrait_camera
from pose_rft.shards.loader import ShardSet

SMALLEST = 512  # px, longer side of the drawing; smaller images are enlarged
BOX, LEFT, RIGHT, MIDDLE, JOINT_3D = "#f5d90a", "#f76808", "#0091ff", "#ffffff", "#e93d82"
TEXT_WIDTH, LINE, MOST_LINES = 90, 14, 200  # characters, px, lines of text below a drawing


def show(folder: Path, key: str, out: Path, body_model: Path | None = None) -> Record:
    """Writes the drawing of the sample `key` as a PNG and returns the sample.

    Args:
        body_model: `data.body_model`; without it, or if the sample has no body, no mesh is drawn.
    Raises:
        PoseRftError: no such folder or key, a damaged sample, an image that does not decode, or `out` not writable.
    """
    shard_set = ShardSet(folder)
    record = shard_set.record(shard_set.row(key))
    encoded = io.BytesIO()
    draw(record, body_model).save(encoded, "PNG")
    try:
        atomic.write_bytes(out, encoded.getvalue())
    except OSError as error:
        raise PoseRftError(f"{out} cannot be written ({error.strerror}); choose another file.") from None
    return record


def draw(record: Record, body_model: Path | None = None) -> PIL.Image.Image:
    """Draws left joints orange, right ones blue, projected 3D joints as crosses, the mesh under them; texts below."""
    picture, scale = _picture(record)
    if body_model is not None and record.smpl is not None:
        _mesh(record, picture, scale, body_model)
    pen = ImageDraw.Draw(picture)
    width = max(round(picture.width / 300), 1)
    if record.box is not None:
        (x, y), half = record.box.center, record.box.side / 2
        pen.rectangle(
            [((x + dx) * scale, (y + dy) * scale) for dx, dy in ((-half, -half), (half, half))], None, BOX, width
        )
    if record.joints2d is not None:
        _skeleton(
            pen, record.joints2d.points[:, :2] * scale, record.joints2d.points[:, 2], record.joints2d.joint_set, width
        )
    if record.joints3d is not None and record.camera is not None:
        ahead = (record.joints3d.points[:, 3] > 0) & (record.joints3d.points[:, 2] > 0)
        for x, y in project(record.joints3d.points[ahead, :3], record.camera) * scale:
            size = 2 * width
            pen.line([(x - size, y), (x + size, y)], JOINT_3D, width)
            pen.line([(x, y - size), (x, y + size)], JOINT_3D, width)
    return _with_text(picture, _texts(record))


def _mesh(record: Record, picture: PIL.Image.Image, scale: float, body_model: Path) -> None:
    """Draws the body as its camera sees it, or from the front if it has no camera (PoseScript)."""
    assert record.smpl is not None
    camera = record.camera
    if record.smpl.frame == "amass":
        camera, scale = portrait_camera(SMALLEST), 1.0
    if camera is not None:
        body = load_body_model(body_model, record.smpl.gender)
        faces = body.faces.cpu().numpy()
        mixed = draw_body(np.asarray(picture), body_vertices(record.smpl, body), faces, camera, scale)
        picture.paste(PIL.Image.fromarray(mixed))


def _picture(record: Record) -> tuple[PIL.Image.Image, float]:
    """Returns the decoded image, enlarged if it is small, and the scale; a blank one for a sample without image."""
    if record.image is None:
        return PIL.Image.new("RGB", (SMALLEST, SMALLEST if record.smpl else 8), "white"), 1.0
    try:
        picture = PIL.Image.fromarray(pictures.decode(record.image.data))
    except pictures.BadPicture as error:
        raise PoseRftError(f"The picture of sample {record.key} does not decode: {error}") from None
    scale = max(SMALLEST / max(picture.size), 1.0)
    return picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), PIL.Image.Resampling.LANCZOS
    ), scale


def _skeleton(pen: ImageDraw.ImageDraw, points: np.ndarray, seen: np.ndarray, name: str, width: int) -> None:
    kind = joint_set(name)
    if len(points) != len(kind):
        raise PoseRftError(f"A sample has {len(points)} joints of {name}, expected {len(kind)}; convert again.")

    def colour(joint: str) -> str:
        return LEFT if joint.startswith("left_") else RIGHT if joint.startswith("right_") else MIDDLE

    for child, parent in enumerate(kind.parents or ()):
        if parent >= 0 and seen[child] > 0 and seen[parent] > 0:
            pen.line([tuple(points[child]), tuple(points[parent])], colour(kind.joints[child]), width)
    for (x, y), visible, joint in zip(points, seen, kind.joints, strict=True):
        if visible > 0:
            pen.ellipse([x - 2 * width, y - 2 * width, x + 2 * width, y + 2 * width], colour(joint), "black")


def _texts(record: Record) -> list[str]:
    place = " ".join(
        f"{name}={value}"
        for name in ("subject", "sequence", "camera_id", "frame")
        if (value := getattr(record, name)) is not None
    )
    texts = [f"{record.key} ({record.dataset} {record.split}) {place}"]
    if record.smpl is not None:
        texts.append(f"SMPL from {record.smpl.source}, {record.smpl.gender}, {record.smpl.frame} frame")
    texts += [f"[{caption.kind}] {caption.text}" for caption in record.captions]
    return texts + [f"{turn.speaker}: {turn.text}" for turn in record.dialogue]


def _with_text(picture: PIL.Image.Image, texts: list[str]) -> PIL.Image.Image:
    width = max(picture.width * TEXT_WIDTH // 560, 20)
    lines = [line for text in texts[:MOST_LINES] for line in textwrap.wrap(text[: MOST_LINES * width], width)]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], "…"]
    page = PIL.Image.new("RGB", (picture.width, picture.height + LINE * len(lines) + 8), "white")
    page.paste(picture)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for number, line in enumerate(lines):
        pen.text((4, picture.height + 4 + LINE * number), line, "black", font)
    return page
