"""Runs a trained policy: on the people of one or many photographs, in one batch, or on a sentence.

The answer is decoded greedily, and the pose is the mean of the policy's Gaussian. `samples` draws from that Gaussian,
with σ calibrated on validation data (`policy/calibration.py`). Shape is not predicted: betas are 0. A person's square
may be rotated (`predict/regions.py`); the predicted root is then rotated back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import geodesic_angle, sixd_to_matrix
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.inference.answers import ask
from pose_rft.inference.types import Prompts
from pose_rft.io.model_folder import one_sentence
from pose_rft.policy.blazepose import LANDMARKS, BlazePose, import_blazepose
from pose_rft.policy.config import CLIP_NORM, IMAGENET_NORM
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.hub import load_policy
from pose_rft.policy.params import BlazePoseParams
from pose_rft.policy.person_crops import Square, normalise
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.predict import people, views
from pose_rft.predict.boxes import check_inside
from pose_rft.predict.person_detector import PersonDetector
from pose_rft.predict.photographs import Photograph
from pose_rft.predict.place import Points, named_joints, place
from pose_rft.predict.prediction import Prediction, Seen
from pose_rft.predict.regions import Region
from pose_rft.predict.store import readable
from pose_rft.record import Box
from pose_rft.seeds import torch_generator

LONGEST_ANSWER = 48  # tokens
LONGEST_TEXT = 200  # words; PoseScript's human captions are shorter
SPREAD_DRAWS = 64


@dataclass(frozen=True, eq=False)
class Looked:
    """A picture and the people in it; `frame`: its frame number if it comes from a video."""

    photograph: Photograph
    seen: Sequence[Seen]
    frame: int | None = None

    @property
    def source(self) -> str:
        """The picture's path in writable form."""
        return readable(str(self.photograph.path))


@dataclass(frozen=True, eq=False)
class _Asked:
    """One person or sentence in a batch; index: the person's position among the picture's people."""

    source: str
    question: str
    answer: str
    index: int = 0
    frame: int | None = None
    seen: Seen | None = None
    photograph: Photograph | None = None

    def turn(self) -> Tensor:
        """(3, 3): rotation from the axes of the crop's camera to those of the picture's camera."""
        if self.seen is None or self.photograph is None:
            return torch.eye(3)
        region = self.seen.region
        return torch.from_numpy(region.view_turn(self.photograph.K) @ region.root_turn()).float()


class Predictor:
    """A policy with its body model, ready for photographs and sentences.

    Raises:
        PoseRftError: a folder holds no policy or no body model, or the policy cannot be used.
    """

    def __init__(self, model_folder: Path, body_folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = model_folder, seed
        self.model, self.processor = load_policy(model_folder)
        self.body = load_body_model(body_folder)
        with one_sentence(model_folder, "policy"):
            self._look_at_nothing()

    def _look_at_nothing(self) -> None:
        """Runs all networks on an all-zero picture and a question, so that a wrong configuration fails here."""
        image = self.processor.image
        prompt = torch.tensor([self.processor.prompt_ids(self.processor.image_questions[0], True)])
        clip, pose = (torch.zeros(1, 3, side, side) for side in (image.size, image.pose_size))
        with torch.no_grad():
            said = self.model(prompt, pixel_values=clip, pose_pixel_values=pose)
            self.model.pose_distribution(said.hidden_states[:, -1], said.pose_start)

    def photograph(self, photograph: Photograph, boxes: Sequence[Box] = (), samples: int = 0) -> list[Prediction]:
        """Predicts the people in the boxes, in box order, or everyone in the picture from left to right.

        Raises:
            PoseRftError: a box lies outside the picture, nobody is found, or an answer holds no pose.
        """
        (found,) = self.people([Looked(photograph, self.see(photograph, boxes))], samples)
        if isinstance(found, PoseRftError):
            raise found
        return found

    def see(self, photograph: Photograph, boxes: Sequence[Box] = (), most: int | None = None) -> list[Seen]:
        """Returns the people in the boxes, or else everyone found, limited to the `most` highest scores.

        Raises:
            PoseRftError: a box lies outside the picture, or nobody is found.
        """
        if boxes:
            return self.given(photograph, boxes)
        found = self.everyone(photograph)
        if most is None or len(found) <= most:
            return found
        surest = sorted(found, key=lambda one: -(one.score or 0.0))[:most]
        return [one for one in found if one in surest]

    def people(self, looked: Sequence[Looked], samples: int = 0) -> list[list[Prediction] | PoseRftError]:
        """Predicts the people of many pictures in one batch; returns the predictions or the error of each picture."""
        everyone = [(one, index) for one in looked for index in range(len(one.seen))]
        if not everyone:
            return [[] for _ in looked]
        tokens, seen = self._encode([(one.photograph, one.seen[index]) for one, index in everyone])
        question = self.processor.image_questions[0]
        answers, poses, has_pose = self._ask(question, tokens, len(everyone))
        asked = [
            _Asked(one.source, question, answer, index, one.frame, who, one.photograph)
            for (one, index), answer, who in zip(everyone, answers, seen, strict=True)
        ]
        posed = [index for index, has in enumerate(has_pose) if has]
        predictions: dict[int, Prediction] = {}
        if posed:  # without a pose in the answer, the values are undefined
            chosen = poses.select(torch.tensor(posed))
            found = self._predictions([asked[index] for index in posed], chosen, samples)
            predictions = dict(zip(posed, found, strict=True))
        results: list[list[Prediction] | PoseRftError] = []
        numbers = iter(range(len(asked)))
        for one in looked:
            own = [next(numbers) for _ in one.seen]
            silent = next((index for index in own if not has_pose[index]), None)
            if silent is None:
                results.append([predictions[index] for index in own])
            else:
                results.append(_no_pose(asked[silent].answer, one.source))
        return results

    def text(self, sentence: str, samples: int = 0) -> Prediction:
        """Predicts the pose that a sentence describes, heading removed.

        Raises:
            PoseRftError: the text is empty, too long or invalid UTF-8, or the answer holds no pose.
        """
        check_text(sentence)
        question = self.processor.text_questions[0].format(caption=sentence.strip())
        answers, poses, has_pose = self._ask(question, None, 1)
        if not has_pose[0]:
            raise _no_pose(answers[0], repr(sentence))
        return self._predictions([_Asked(sentence, question, answers[0])], poses, samples)[0]

    # --- people in a photograph

    @cached_property
    def network(self) -> BlazePose | None:
        """The landmark network: the policy's own encoder, else the fetched one; None if it was not fetched."""
        if isinstance(self.model.pose_encoder, BlazePose):
            return self.model.pose_encoder
        try:
            return import_blazepose(BlazePoseParams(variant="full", width=1, layers=1))
        except PoseRftError:
            return None

    @cached_property
    def detector(self) -> PersonDetector:
        """The person detector, loaded on first use."""
        return PersonDetector()

    def everyone(self, photograph: Photograph) -> list[Seen]:
        """Returns all people found; without a landmark network, the whole picture counts as one person.

        Raises:
            PoseRftError: nobody is found.
        """
        if self.network is None:
            return [Seen(Region.of(Square.around(None, photograph.size, 1.0)), "whole picture")]
        with torch.inference_mode():
            candidates = self.detector(photograph.pixels)
        found = people.find_people(photograph.pixels, candidates, self.network.glance)
        if not found:
            raise PoseRftError(f"{readable(str(photograph.path))} shows no person that is found; name one with --box.")
        return [_seen(person, "detector") for person in found]

    def given(self, photograph: Photograph, boxes: Sequence[Box]) -> list[Seen]:
        """Returns the people in the boxes; for a policy that reads landmarks, their squares may be rotated.

        Raises:
            PoseRftError: a box lies outside the picture.
        """
        for box in boxes:
            check_inside(box, photograph.size, readable(str(photograph.path)))
        upright = [Region.of(self.processor.square(box, photograph.size)) for box in boxes]
        encoder = self.model.pose_encoder
        if not isinstance(encoder, BlazePose):
            return [Seen(region, box.convention) for region, box in zip(upright, boxes, strict=True)]
        first = people.look(photograph.pixels, upright, encoder.landmarks)
        turned = [Region(one.region.center, one.region.side, people.torso_angle(one.landmarks)) for one in first]
        second = people.look(photograph.pixels, turned, encoder.landmarks)
        pairs = zip(boxes, zip(first, second, strict=True), strict=True)
        return [_seen(people.surest(pair), box.convention) for box, pair in pairs]

    # --- the policy's answers

    def _encode(self, people: Sequence[tuple[Photograph, Seen]]) -> tuple[ImageTokens, list[Seen]]:
        """Returns the image tokens of the people, and the people with the landmarks that the tokens encode."""
        image, encoder = self.processor.image, self.model.pose_encoder
        given = [seen for _, seen in people]

        def crops(size: int, norm: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
            return normalise(np.stack([seen.region.cut(photo.pixels, size) for photo, seen in people]), norm)

        with torch.no_grad():
            clip = crops(image.size, CLIP_NORM)
            if not isinstance(encoder, BlazePose):
                looks = None if encoder is None else crops(image.pose_size, IMAGENET_NORM)
                return self.model.encode_images(clip, looks), given
            observed = views.observe(encoder, [(photo.pixels, seen.region) for photo, seen in people])
            tokens = ImageTokens(self.model.clip_tokens(clip), encoder.interpret(observed))
        found = encoder.read(observed.double())
        points = zip(found.points[..., :2].numpy(), found.visibility.numpy(), strict=True)
        return tokens, [
            replace(one, points=Points(LANDMARKS, one.region.to_picture(where), visibility))
            for one, (where, visibility) in zip(given, points, strict=True)
        ]

    def _ask(
        self, question: str, tokens: ImageTokens | None, people: int
    ) -> tuple[list[str], PoseDistribution, list[bool]]:
        """Returns the answer for each person, the pose of each answer, and whether the answer holds one."""
        ids = tuple(self.processor.prompt_ids(question, tokens is not None))
        answers, scores = ask(self.model, Prompts((), (ids,) * people, tokens), LONGEST_ANSWER)
        said = [self.processor.decode(answers.answer(index, 0)) for index in range(people)]
        self._check_numbers(scores.poses.mean[scores.has_pose[:, 0]])
        calibrated = self.model.calibrated(scores.poses, "text" if tokens is None else "image")
        return said, calibrated, scores.has_pose[:, 0].tolist()

    def _check_numbers(self, found: Tensor) -> None:
        """
        Raises:
            PoseRftError: the networks' output is infinite or NaN, as with damaged weights.
        """
        if not torch.isfinite(found).all():
            raise PoseRftError(
                f"{self.folder} gives poses that are no numbers: its weights are damaged; copy it again."
            )

    def _predictions(self, asked: Sequence[_Asked], poses: PoseDistribution, samples: int) -> list[Prediction]:
        """Makes a prediction from each distribution: the mean body, uncertainty and samples, placed in its picture."""
        with torch.no_grad():
            means = sixd_to_matrix(poses.mean.view(-1, 24, 6))
            drawn = [
                self._drawn(one, poses.select(slice(index, index + 1)), means[index], samples)
                for index, one in enumerate(asked)
            ]
            turned = torch.stack([turned_root(one.turn(), mean) for one, mean in zip(asked, means, strict=True)])
            joints, vertices = self.body.joints(turned), self.body.vertices(turned)
        found = []
        for index, (one, (std, spread, draws)) in enumerate(zip(asked, drawn, strict=True)):
            draws = turned_root(one.turn(), draws)
            prediction = Prediction(
                one.source, one.question, one.answer, turned[index], std, spread, draws, joints[index], vertices[index],
                one.seen,
            )  # fmt: skip
            found.append(prediction if one.photograph is None else self._placed(prediction, one.photograph))
        return found

    def _drawn(
        self, asked: _Asked, pose: PoseDistribution, mean: Tensor, samples: int
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """std (24, 6), spread (24,) degrees and samples (n, 24, 3, 3); the draws are seeded by picture, frame and
        person, so they do not depend on the batch."""
        frame = () if asked.frame is None else (asked.frame,)
        generator = torch_generator(self.seed, "predict", asked.source, *frame, asked.index)
        std = spread = None
        if pose.log_std is not None:
            std = pose.std()[0].view(24, 6)
            draws = sixd_to_matrix(pose.sample(generator, SPREAD_DRAWS)[0].view(-1, 24, 6))
            spread = geodesic_angle(draws, mean).square().mean(0).sqrt().rad2deg()
        return std, spread, sixd_to_matrix(pose.sample(generator, samples)[0].view(-1, 24, 6))

    # --- where the body stands

    def _placed(self, prediction: Prediction, photograph: Photograph) -> Prediction:
        seen = prediction.seen
        assert seen is not None
        if seen.points is None:
            seen = replace(seen, points=self._keypoints(photograph, seen.region))
        if seen.points is not None:
            self._check_numbers(torch.from_numpy(seen.points.xy))
        joints = named_joints(self.body, prediction.joints, prediction.vertices)
        box = (np.asarray(seen.region.center), seen.region.side / self.processor.image.box_scale)
        found = place(joints, seen.points, box, photograph.K)
        moved = torch.from_numpy(found.transl).float()
        return replace(
            prediction,
            seen=seen,
            place=found,
            focal_source=photograph.focal_source,
            joints=prediction.joints + moved,
            vertices=prediction.vertices + moved,
        )

    def _keypoints(self, photograph: Photograph, region: Region) -> Points | None:
        """Returns the keypoints of an encoder without landmarks; None if it has none (HMR2.0's)."""
        encoder = self.model.pose_encoder
        if encoder is None:
            return None
        pixels = normalise(region.cut(photograph.pixels, encoder.image_size), IMAGENET_NORM)
        try:
            with torch.no_grad():
                found = encoder.keypoints(pixels[None])[0].double().numpy()
        except PoseRftError:
            return None
        return Points(SMPL24.joints, region.to_picture(found[:, :2]), found[:, 2])


def _no_pose(answer: str, source: str) -> PoseRftError:
    return PoseRftError(f"The policy answered {answer!r} to {source}, without a pose; ask for a pose or retrain.")


def check_text(sentence: str) -> None:
    """Refuses a sentence that is empty, too long or invalid UTF-8.

    Raises:
        PoseRftError: the text is empty, too long or invalid UTF-8.
    """
    if not sentence.strip():
        raise PoseRftError("The text is empty; describe a pose, e.g. --text 'sitting with crossed legs'.")
    words = len(sentence.split())
    if words > LONGEST_TEXT:
        raise PoseRftError(f"The text has {words} words, expected at most {LONGEST_TEXT}; describe one pose.")
    try:
        sentence.encode()
    except UnicodeEncodeError as error:
        raise PoseRftError(
            f"The text is no valid UTF-8 at character {error.start + 1}; give it in this terminal's encoding."
        ) from None


def turned_root(turn: Tensor, rotations: Tensor) -> Tensor:
    """Returns `rotations` (..., 24, 3, 3) with the root left-multiplied by `turn` (3, 3)."""
    return torch.cat([turn @ rotations[..., :1, :, :], rotations[..., 1:, :, :]], -3)


def _seen(person: people.Person, source: str) -> Seen:
    points = Points(LANDMARKS, person.landmarks, person.visibility)
    return Seen(person.region, source, round(person.score, 4), points)
