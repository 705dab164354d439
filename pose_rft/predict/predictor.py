"""A trained policy at work: the people of one photograph in one batch, or a sentence.

The answer is decoded greedily and the pose is the mean of the policy's Gaussian; `samples` draws from it, its σ as
calibrated on validation data (`policy/calibration.py`). Shape is not predicted: betas are 0. A person's square may be
turned (`predict/regions.py`); the predicted root is turned back.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import geodesic_angle, sixd_to_matrix
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.inference.packing import pack, score
from pose_rft.inference.sampling import generate
from pose_rft.policy.blazepose import LANDMARKS, BlazePose, import_blazepose
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.params import BlazePoseParams
from pose_rft.policy.person_crops import CLIP_NORM, IMAGENET_NORM, Square, normalise
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.policy.processor import PoseProcessor
from pose_rft.predict import people, views
from pose_rft.predict.boxes import check_inside
from pose_rft.predict.person_detector import PersonDetector
from pose_rft.predict.photographs import Photograph
from pose_rft.predict.place import Points, named_joints, place
from pose_rft.predict.prediction import Prediction, Seen, readable
from pose_rft.predict.regions import Region
from pose_rft.record import Box
from pose_rft.seeds import torch_generator

LONGEST_ANSWER = 48  # tokens
LONGEST_TEXT = 200  # words; human captions of PoseScript stay below
SPREAD_DRAWS = 64


class Predictor:
    """A policy with its body model, ready for photographs and sentences.

    Raises:
        PoseRftError: a folder holds no policy or no body model.
    """

    def __init__(self, model_folder: Path, body_folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = model_folder, seed
        self.processor = PoseProcessor.from_pretrained(model_folder)
        self.model: PoseLlava = PoseLlava.from_pretrained(model_folder).eval()
        self.body = load_body_model(body_folder)

    def photograph(self, photograph: Photograph, boxes: Sequence[Box] = (), samples: int = 0) -> list[Prediction]:
        """The people in the boxes, in their order, or everyone in the picture from left to right.

        Raises:
            PoseRftError: a box lies outside, nobody is in the picture, or an answer holds no pose.
        """
        seen = self.given(photograph, boxes) if boxes else self.everyone(photograph)
        tokens, seen = self._encode(photograph, seen)
        question, source = self.processor.image_questions[0], readable(str(photograph.path))
        answers, poses = self._ask(question, tokens, len(seen), source)
        return [
            self._placed(
                self._prediction(source, index, question, answers[index], poses, samples, one, photograph.K), photograph
            )
            for index, one in enumerate(seen)
        ]

    def text(self, sentence: str, samples: int = 0) -> Prediction:
        """The pose that a sentence describes, heading removed.

        Raises:
            PoseRftError: there is no text, too much of it or broken text, or the answer holds no pose.
        """
        check_text(sentence)
        question = self.processor.text_questions[0].format(caption=sentence.strip())
        answers, poses = self._ask(question, None, 1, repr(sentence))
        return self._prediction(sentence, 0, question, answers[0], poses, samples)

    # --- who is in a photograph

    @cached_property
    def network(self) -> BlazePose | None:
        """What sees landmarks: the policy's own encoder, else the fetched one; None where it was not fetched."""
        if isinstance(self.model.pose_encoder, BlazePose):
            return self.model.pose_encoder
        try:
            return import_blazepose(BlazePoseParams(variant="full", width=1, layers=1))
        except PoseRftError:
            return None

    @cached_property
    def detector(self) -> PersonDetector:
        return PersonDetector()

    def everyone(self, photograph: Photograph) -> list[Seen]:
        """All the people that are found; the whole picture as one person where no network that finds people is there.

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
        """The people in boxes; a policy that reads landmarks may turn the square."""
        found = []
        for box in boxes:
            check_inside(box, photograph.size, readable(str(photograph.path)))
            upright = Region.of(self.processor.square(box, photograph.size))
            if self.network is not self.model.pose_encoder or self.network is None:
                found.append(Seen(upright, box.convention))
                continue
            first = people.look(photograph.pixels, [upright], self.network.landmarks)[0]
            turned = Region(upright.center, upright.side, people.torso_angle(first.landmarks))
            others = people.look(photograph.pixels, [turned], self.network.landmarks)
            found.append(_seen(people.surest([first, *others]), box.convention))
        return found

    # --- what the policy says

    def _encode(self, photograph: Photograph, seen: Sequence[Seen]) -> tuple[ImageTokens, list[Seen]]:
        """What the policy reads of each person, and the people with the points that it goes by."""
        image, encoder, regions = self.processor.image, self.model.pose_encoder, [one.region for one in seen]

        def crops(size: int, norm: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
            return normalise(np.stack([region.cut(photograph.pixels, size) for region in regions]), norm)

        with torch.no_grad():
            clip = crops(image.size, CLIP_NORM)
            if not isinstance(encoder, BlazePose):
                return self.model.encode_images(clip, crops(image.pose_size, IMAGENET_NORM)), list(seen)
            observed = views.observe(encoder, photograph.pixels, regions)
            tokens = ImageTokens(self.model.clip_tokens(clip), encoder.interpret(observed))
        found = encoder.read(observed.double())
        points = zip(found.points[..., :2].numpy(), found.visibility.numpy(), strict=True)
        return tokens, [
            replace(one, points=Points(LANDMARKS, one.region.to_picture(where), visibility))
            for one, (where, visibility) in zip(seen, points, strict=True)
        ]

    def _ask(
        self, question: str, tokens: ImageTokens | None, people: int, source: str
    ) -> tuple[list[str], PoseDistribution]:
        prompt = self.processor.prompt_ids(question, tokens is not None)
        prompts = [prompt] * people
        answers = generate(self.model, prompts, tokens, 1, LONGEST_ANSWER, temperature=0.0)
        said = [self.processor.decode(answers.answer(index, 0)) for index in range(people)]
        with torch.no_grad():
            scores = score(self.model, pack(prompts, answers, self.model.config), tokens)
        for index, answer in enumerate(said):
            if not bool(scores.has_pose[index, 0]):
                raise PoseRftError(
                    f"The policy answered {answer!r} to {source}, without a pose; ask for a pose or retrain."
                )
            poses = self.model.pose_distribution(scores.hidden[:, 0], scores.start[:, 0])
        return said, self.model.calibrated(poses, "text" if tokens is None else "image")

    def _prediction(
        self,
        source: str,
        index: int,
        question: str,
        answer: str,
        poses: PoseDistribution,
        samples: int,
        seen: Seen | None = None,
        K: NDArray[np.float64] | None = None,
    ) -> Prediction:
        generator = torch_generator(self.seed, "predict", source, index)
        one = poses.select(slice(index, index + 1))
        with torch.no_grad():
            rotations = sixd_to_matrix(one.mean[0].view(24, 6))
            std = spread = None
            if one.log_std is not None:
                std = one.std()[0].view(24, 6)
                draws = sixd_to_matrix(one.sample(generator, SPREAD_DRAWS)[0].view(-1, 24, 6))
                spread = geodesic_angle(draws, rotations).square().mean(0).sqrt().rad2deg()
            drawn = sixd_to_matrix(one.sample(generator, samples)[0].view(-1, 24, 6))
            if seen is not None and K is not None:
                back = torch.from_numpy(seen.region.view_turn(K) @ seen.region.root_turn()).to(rotations)
                rotations, drawn = turned_root(back, rotations), turned_root(back, drawn)
            joints, vertices = self.body.joints(rotations[None])[0], self.body.vertices(rotations[None])[0]
        return Prediction(source, question, answer, rotations, std, spread, drawn, joints, vertices, seen)

    # --- where the body stands

    def _placed(self, prediction: Prediction, photograph: Photograph) -> Prediction:
        seen = prediction.seen
        assert seen is not None
        if seen.points is None:
            seen = replace(seen, points=self._keypoints(photograph, seen.region))
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
        """Those of an encoder without landmarks; None where it has none (HMR2.0's)."""
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


def check_text(sentence: str) -> None:
    """Raises:
    PoseRftError: there is no text, too much of it, or broken text.
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
    """(..., 24, 3, 3) with the root turned by (3, 3) from the left."""
    return torch.cat([turn @ rotations[..., :1, :, :], rotations[..., 1:, :, :]], -3)


def _seen(person: people.Person, source: str) -> Seen:
    points = Points(LANDMARKS, person.landmarks, person.visibility)
    return Seen(person.region, source, round(person.score, 4), points)
