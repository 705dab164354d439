"""Reads a video as a sequence of photographs and tracks its people from frame to frame."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pose_rft.body.smpl import BodyModel
from pose_rft.errors import PoseRftError
from pose_rft.export.motion import FARTHEST, numbers_of, rotations_of
from pose_rft.io import video
from pose_rft.predict.inputs import Input
from pose_rft.predict.photographs import Photograph, focal_length
from pose_rft.predict.prediction import Prediction
from pose_rft.predict.store import Head, heads, of_predict, read_lines, readable
from pose_rft.predict.tracking import LONGEST_GAP, Smoother, Tracker

MOST_PEOPLE = 10**8  # a higher track number was not assigned here


class Film:
    """Decodes a video, turns its frames upright and tracks its people. Holds one frame in memory at a time."""

    def __init__(self, source: Input, every: int, smooth: float) -> None:
        assert source.path is not None and source.rate
        self.path, self.rate, self.turns, self.every = source.path, source.rate, source.turns, every
        self.tracker = Tracker()
        self.smoother = Smoother(smooth) if smooth else None

    def pictures(self, start: int) -> Iterator[tuple[int, Photograph]]:
        """Yields (frame, picture), upright, for each `every`-th frame from `start` on.

        Raises:
            PoseRftError: the video is damaged; frames yielded before are good.
        """
        for frame, pixels in video.frames(self.path, every=self.every, start=start):
            upright = np.ascontiguousarray(np.rot90(pixels[..., ::-1], self.turns))
            focal, source = focal_length({}, upright.shape[1], upright.shape[0])
            yield frame, Photograph(self.path, upright, focal, source)

    def after(self, last: int) -> Iterator[tuple[int, Photograph]]:
        """Yields the pictures after frame `last`, whose lines are already written.

        Raises:
            PoseRftError: the video has no frame `last`, or is damaged.
        """
        rest = self.pictures(last)
        if next(rest, (None,))[0] != last:
            raise PoseRftError(f"{self.path} has no frame {last}, whose people are told of; name another --out.")
        yield from rest

    def follow(self, frame: int, people: Sequence[Prediction], body: BodyModel) -> tuple[list[Prediction], list[int]]:
        """Returns the people of a frame, smoothed if requested, and their track numbers in the video."""
        time = frame / self.rate
        tracks = self.tracker.numbers(time, [one.box for one in people])
        if self.smoother is None:
            return list(people), tracks
        return [self._smoothed(one, track, time, body) for one, track in zip(people, tracks, strict=True)], tracks

    def _smoothed(self, one: Prediction, track: int, time: float, body: BodyModel) -> Prediction:
        assert self.smoother is not None and one.place is not None
        transl = torch.from_numpy(one.place.transl)
        rotations, transl = self.smoother.smooth(track, time, one.rotations, transl)
        with torch.no_grad():
            moved = transl.float()[None]
            joints, vertices = body.joints(rotations[None], transl=moved), body.vertices(rotations[None], transl=moved)
        place = replace(one.place, transl=transl.numpy())
        return replace(one, rotations=rotations, joints=joints[0], vertices=vertices[0], place=place)

    def resume(self, path: Path, key: str, last: int | None) -> tuple[int, int]:
        """Restores the state of tracker and smoother from the lines of an earlier run.

        Returns:
            the number of pictures already processed, and the number of lines.
        Raises:
            PoseRftError: a line is damaged.
        """
        if last is None:
            return 0, 0
        recent: list[Head] = []
        count = 0
        for head in heads(path):
            if head.input != key:
                continue
            count += 1
            if (track := head.track or 0) >= MOST_PEOPLE:
                raise PoseRftError(f"{readable(str(path))} numbers somebody {track}; predict again into another --out.")
            self.tracker.next = max(self.tracker.next, 1 + track)
            recent = [old for old in recent if head.frame - old.frame <= LONGEST_GAP * self.rate]
            recent.append(head)
        with of_predict(path):
            for head, line in zip(recent, read_lines(path, recent), strict=True):
                track, time = head.track or 0, head.frame / self.rate
                self.tracker.last[track] = (time, numbers_of(line["person"]["box_px"], (4,), FARTHEST))
                if self.smoother is not None:
                    (pose,) = rotations_of(line["rotation_matrices"])
                    transl = numbers_of(line["camera"]["transl_metres"], (3,), FARTHEST)
                    self.smoother.last[track] = (time, torch.from_numpy(pose).float(), torch.from_numpy(transl))
        return last // self.every + 1, count
