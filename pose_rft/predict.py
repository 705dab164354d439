"""One photograph or one sentence to a pose: answer, rotations, joints, uncertainty, mesh and picture.

The answer is decoded greedily and the pose is the mean of the policy's Gaussian; `samples` draws from it. Shape is not
predicted: betas are 0. For a photograph the body is placed by the pose encoder's 2D keypoints (`body/camera_fit.py`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
import trimesh
from torch import Tensor

from pose_rft.body import camera_fit
from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import geodesic_angle, matrix_to_axis_angle, sixd_to_matrix
from pose_rft.body.smpl import BodyModel, load_body_model
from pose_rft.core.errors import PoseRftError
from pose_rft.core.record import Box
from pose_rft.core.seeds import torch_generator
from pose_rft.io import atomic, door, pictures
from pose_rft.io.json_files import read_json
from pose_rft.policy.crops import IMAGENET_NORM, crop, normalise, size_of
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.packing import pack, score
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.policy.processor import PoseProcessor
from pose_rft.policy.rollout import generate
from pose_rft.report.pictures import PREDICTED, BodyPainter, on_frame

LONGEST_ANSWER = 48  # tokens
SPREAD_DRAWS = 64
KEYPOINT_CONFIDENCE = 0.05
"""Keypoints below this confidence have no say in where the camera stands."""
SAMPLE_NOTICE = (
    "This is the sample model: a tiny policy trained for minutes on rendered people with a stand-in body. "
    "It shows how the tool works; its poses of real photographs mean nothing."
)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a body stands in a picture: K (3, 3) px, transl (3) metres, and what it was fitted to."""

    K: np.ndarray
    transl: np.ndarray
    fitted_to: Literal["keypoints", "box"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """rotations (24, 3, 3) relative to the parent, root in the camera frame; std (24, 6) of the raw 6D numbers;
    spread (24,): root mean square angle of draws about the mean, degrees; samples (n, 24, 3, 3); vertices (V, 3) and
    joints (24, 3): metres, camera frame, pelvis near the origin unless `place` says where."""

    source: str
    question: str
    answer: str
    rotations: Tensor
    std: Tensor | None
    spread: Tensor | None
    samples: Tensor
    joints: Tensor
    vertices: Tensor
    box: Box | None = None
    place: Place | None = None

    def content(self, model_folder: Path, body: BodyModel, is_sample: bool) -> dict[str, Any]:
        """The JSON form; units and frames are in its keys."""
        joints = list(SMPL24.joints)

        def numbers(values: Tensor | np.ndarray) -> Any:
            return np.round(np.asarray(values, dtype=np.float64), 6).tolist()

        return {
            "source": self.source,
            "model": str(model_folder),
            "notice": SAMPLE_NOTICE if is_sample else None,
            "body_model": body.name,
            "question": self.question,
            "answer": self.answer,
            "joint_names": joints,
            "rotation_matrices": numbers(self.rotations),
            "axis_angle_radians": numbers(matrix_to_axis_angle(self.rotations)),
            "betas": [0.0] * 10,
            "betas_note": "shape is not predicted; betas are 0",
            "joints_metres_camera": numbers(self.joints),
            "uncertainty": None
            if self.std is None or self.spread is None
            else {
                "spread_degrees": dict(zip(joints, numbers(self.spread), strict=True)),
                "std_6d": numbers(self.std),
            },
            "samples_rotation_matrices": numbers(self.samples),
            "box": self.box and {"center_px": self.box.center, "side_px": self.box.side, "from": self.box.convention},
            "camera": self.place
            and {
                "K": numbers(self.place.K),
                "transl_metres": numbers(self.place.transl),
                "fitted_to": self.place.fitted_to,
            },
        }


class Predictor:
    """A trained policy with its body model, ready for pictures and sentences.

    Raises:
        PoseRftError: a folder holds no policy or no body model.
    """

    def __init__(self, model_folder: Path, body_folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = model_folder, seed
        self.processor = PoseProcessor.from_pretrained(model_folder)
        self.model: PoseLlava = PoseLlava.from_pretrained(model_folder).eval()
        self.body = load_body_model(body_folder)
        self.is_sample = self.body.is_standin
        self.painter = BodyPainter(self.body)

    def image(self, path: Path, box: Box | None, samples: int = 0) -> Prediction:
        """The person in `box` of a photograph; without a box the whole picture is taken for the person.

        Raises:
            PoseRftError: the file is missing or no picture, or the answer holds no pose.
        """
        data = read_picture(path)
        size = size_of(data)
        pixels, pose_pixels = self.processor.crop(data, box)
        with torch.no_grad():
            tokens = self.model.encode_images(pixels[None], pose_pixels[None])
        question = self.processor.image_questions[0]
        answer, poses = self._ask(question, tokens, str(path))
        prediction = self._prediction(str(path), question, answer, poses, samples, box)
        place = self._place(prediction.joints.numpy(), data, box, size)
        moved = torch.from_numpy(place.transl).float()
        return Prediction(
            **{
                **vars(prediction),
                "joints": prediction.joints + moved,
                "vertices": prediction.vertices + moved,
                "place": place,
            }
        )

    def text(self, sentence: str, samples: int = 0) -> Prediction:
        """The pose that a sentence describes, heading removed.

        Raises:
            PoseRftError: there is no text, or the answer holds no pose.
        """
        if not sentence.strip():
            raise PoseRftError("The text is empty; describe a pose, e.g. --text 'sitting with crossed legs'.")
        question = self.processor.text_questions[0].format(caption=sentence.strip())
        answer, poses = self._ask(question, None, repr(sentence))
        return self._prediction(sentence, question, answer, poses, samples, None)

    def picture(self, prediction: Prediction, photograph: bytes | None) -> np.ndarray:
        """(H, W, 3) uint8: the body over the photograph beside it, or the body alone; below it the samples, if any."""
        if photograph is not None and prediction.place is not None:
            original = decode(photograph)
            background = original.astype(np.float32) / 255 * 0.9
            overlay = self.painter.paint(prediction.vertices.numpy(), PREDICTED, prediction.place.K, background)
            if prediction.box is not None:
                draw_box(original, prediction.box)
            main, turn = np.concatenate([original, overlay], axis=1), False
        else:
            main, turn = self.painter.portrait(on_frame(prediction.rotations), size=512), True
        if not len(prediction.samples):
            return main
        per_row = min(len(prediction.samples), 4)
        size = max(96, main.shape[1] // per_row)
        tiles = [self.painter.portrait(on_frame(s) if turn else s, size=size) for s in prediction.samples]
        tiles += [np.full_like(tiles[0], 245)] * (-len(tiles) % per_row)
        rows = [np.concatenate(tiles[i : i + per_row], axis=1) for i in range(0, len(tiles), per_row)]
        grid = np.concatenate(rows)
        wide = cv2.copyMakeBorder(
            grid, 0, 0, 0, max(0, main.shape[1] - grid.shape[1]), cv2.BORDER_CONSTANT, value=(245, 245, 245)
        )
        return np.concatenate([main, wide[:, : main.shape[1]]])

    def _ask(self, question: str, tokens: Any, source: str) -> tuple[str, PoseDistribution]:
        prompt = self.processor.prompt_ids(question, tokens is not None)
        answers = generate(self.model, [prompt], tokens, 1, LONGEST_ANSWER, temperature=0.0)
        answer = self.processor.decode(answers.answer(0, 0))
        rows = pack([prompt], answers, self.model.config)
        with torch.no_grad():
            scores = score(self.model, rows, tokens)
        if not bool(scores.has_pose[0, 0]):
            raise PoseRftError(
                f"The policy answered {answer!r} to {source}, without a pose; ask for a pose or retrain."
            )
        return answer, self.model.pose_distribution(scores.hidden[0], scores.start[0])

    def _prediction(
        self, source: str, question: str, answer: str, poses: PoseDistribution, samples: int, box: Box | None
    ) -> Prediction:
        generator = torch_generator(self.seed, "predict", source)
        with torch.no_grad():
            rotations = sixd_to_matrix(poses.mean[0].view(24, 6))
            joints = self.body.joints(rotations[None])[0]
            vertices = self.body.vertices(rotations[None])[0]
            std = spread = None
            if poses.log_std is not None:
                std = poses.std()[0].view(24, 6)
                draws = sixd_to_matrix(poses.sample(generator, SPREAD_DRAWS)[0].view(-1, 24, 6))
                spread = geodesic_angle(draws, rotations).square().mean(0).sqrt().rad2deg()
            drawn = sixd_to_matrix(poses.sample(generator, samples)[0].view(-1, 24, 6))
        return Prediction(source, question, answer, rotations, std, spread, drawn, joints, vertices, box)

    def _place(self, joints: np.ndarray, data: bytes, box: Box | None, size: tuple[int, int]) -> Place:
        K = camera_fit.default_intrinsics(*size)
        square = self.processor.square(box, size)
        encoder = self.model.pose_encoder
        if encoder is not None:
            pixels = normalise(crop(data, square, encoder.image_size), IMAGENET_NORM)
            try:
                with torch.no_grad():
                    found = encoder.keypoints(pixels[None])[0].numpy()
            except PoseRftError:  # HMR2.0's encoder has no keypoints
                found = np.zeros((24, 3))
            weights = np.where(found[:, 2] > KEYPOINT_CONFIDENCE, found[:, 2], 0.0)
            if (weights > 0).sum() >= 6:
                transl = camera_fit.fit_translation(joints, square.to_picture(found[:, :2]), weights, K)
                if transl[2] + joints[:, 2].min() > 0.1:
                    return Place(K, transl, "keypoints")
        center = np.array([square.left + square.side / 2, square.top + square.side / 2])
        return Place(K, camera_fit.fit_box(joints, center, square.side / self.processor.image.box_scale, K), "box")


def read_picture(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        PoseRftError: there is no such file, or it is empty.
    """
    try:
        data = door.read_file(path)
    except door.Unreadable as error:
        raise PoseRftError(f"{path} {error.reason}; give a JPEG or PNG.") from None
    if not data:
        raise PoseRftError(f"{path} is empty, expected a JPEG or PNG.")
    try:
        pictures.check(data)
    except pictures.BadPicture as error:
        raise PoseRftError(f"{path}: {error}") from None
    return data


def decode(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB; rotation by EXIF is not applied, as boxes and annotations refer to the stored pixels."""
    return pictures.decode(data)


def draw_box(image: np.ndarray, box: Box) -> None:
    (x, y), half = box.center, box.side / 2
    corners = [round(v) for v in (x - half, y - half, x + half, y + half)]
    cv2.rectangle(image, tuple(corners[:2]), tuple(corners[2:]), (255, 255, 255), 2)


def parse_box(text: str) -> Box:
    """`X,Y,W,H` in px as a square box around that rectangle.

    Raises:
        PoseRftError: not four numbers, or no area.
    """
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise PoseRftError(
            f"--box {text!r} is not X,Y,W,H: the left, top, width and height of the person, px."
        ) from None
    if w <= 0 or h <= 0:
        raise PoseRftError(f"--box {text!r} has no area; width and height must be positive.")
    return Box((x + w / 2, y + h / 2), max(w, h), "given")


def boxes_from_coco(path: Path) -> dict[str, list[Box]]:
    """{file name: boxes of its persons} from a COCO annotation file; crowds and boxes without area are left out.

    Raises:
        PoseRftError: no such file, or not in COCO's format.
    """
    try:
        content = read_json(path, dict)
        names = {image["id"]: image["file_name"] for image in content["images"]}
        found: dict[str, list[Box]] = {name: [] for name in names.values()}
        for row in content["annotations"]:
            x, y, w, h = row["bbox"]
            if not row.get("iscrowd") and w > 0 and h > 0:
                found[names[row["image_id"]]].append(Box((x + w / 2, y + h / 2), max(w, h), "annotation"))
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PoseRftError(
            f"{path} is not a COCO annotation file ({error!r}); expected `images` and `annotations`."
        ) from None


def write(
    prediction: Prediction, predictor: Predictor, stem: Path, mesh: Literal["glb", "obj"], photograph: bytes | None
) -> list[Path]:
    """`STEM.json`, `STEM.glb|obj` and `STEM.png`; returns their paths."""
    content = prediction.content(predictor.folder, predictor.body, predictor.is_sample)
    outputs = [stem.with_name(f"{stem.name}.{extension}") for extension in ("json", mesh, "png")]
    # Viewers expect y up, z towards the viewer: half a turn about x from the camera's axes.
    vertices = prediction.vertices.numpy() * np.array([1.0, -1.0, -1.0])
    shape = trimesh.Trimesh(vertices, predictor.body.faces.numpy(), process=False)
    exported: Any = shape.export(file_type=mesh)
    picture = predictor.picture(prediction, photograph)
    ok, png = cv2.imencode(".png", picture[..., ::-1])
    assert ok
    atomic.write_json(outputs[0], content)
    atomic.write_bytes(outputs[1], exported if isinstance(exported, bytes) else exported.encode())
    atomic.write_bytes(outputs[2], png.tobytes())
    return outputs


def persons(paths: Sequence[Path], box: Box | None, boxes: Path | None) -> list[tuple[Path, Box | None]]:
    """Whom to predict: the person in `box`, those that a COCO file lists for each picture, or one per whole picture.

    Raises:
        PoseRftError: the file lists nobody in one of the pictures.
    """
    if boxes is None:
        return [(path, box) for path in paths]
    known = boxes_from_coco(boxes)
    for path in paths:
        if not known.get(path.name):
            raise PoseRftError(f"{boxes} lists no person in {path.name}; give --box, or leave --boxes out.")
    return [(path, one) for path in paths for one in known[path.name]]


def stems(jobs: Sequence[tuple[Path, Box | None]], out: Path) -> list[tuple[Path, Box | None, Path]]:
    """(picture, box, output stem) for every person; stems are unique even where two folders share a file name."""
    total = Counter(path.stem for path, _ in jobs)
    seen: Counter[str] = Counter()
    placed = []
    for path, box in jobs:
        name = path.stem if total[path.stem] == 1 else f"{path.stem}_{seen[path.stem]}"
        seen[path.stem] += 1
        placed.append((path, box, out / name))
    return placed
