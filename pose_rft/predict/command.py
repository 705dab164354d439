"""The steps of `pose-rft predict`: check all inputs, load the model, predict in batches, report failures."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pose_rft.body.smpl import BodyModel, load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.export.motion import Kind as ExportKind
from pose_rft.predict.boxes import boxes_from_coco, parse_box
from pose_rft.predict.exports import export_inputs
from pose_rft.predict.film import Film
from pose_rft.predict.inputs import Input, expand, fingerprint, look_at
from pose_rft.predict.overlays import Overlays
from pose_rft.predict.photographs import Photograph, read_photograph
from pose_rft.predict.prediction import Prediction
from pose_rft.predict.predictor import Looked, Predictor, check_text
from pose_rft.predict.store import PREDICTIONS, SCHEMA, VERSION, Store, heads, readable, writing
from pose_rft.predict.table import write_table
from pose_rft.progress import Progress
from pose_rft.record import Box
from pose_rft.report.notice import SAMPLE_NOTICE

MOST_VALUES = 1 << 26  # channel values in total, of the pictures that wait for a batch


@dataclass(frozen=True)
class Request:
    """What a user asks for. batch: people per policy batch; smooth: time constant of the smoothing, seconds."""

    arguments: Sequence[str]
    sentences: Sequence[str]
    out: Path
    box: str | None = None
    boxes: Path | None = None
    most: int | None = None
    every: int = 1
    smooth: float = 0.0
    samples: int = 0
    seed: int = 0
    batch: int = 32
    overlay: bool = False
    export: Sequence[ExportKind] = ()
    table: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Plan:
    """A checked request: the readable inputs, the boxes, and an error message for each unreadable input."""

    request: Request
    inputs: Sequence[Input]
    given: Sequence[Box]
    known: dict[str, list[Box]] | None
    failures: Sequence[str]

    def boxes(self, one: Input) -> Sequence[Box]:
        """Returns the boxes of the people in an input.

        Raises:
            PoseRftError: the box file lists nobody in this picture.
        """
        if self.known is None or one.path is None:
            return self.given
        found = self.known.get(one.path.name, [])
        if not found:
            raise PoseRftError(
                f"{self.request.boxes} lists no person in {one.source}; give --box, or leave --boxes out."
            )
        return found


def check(request: Request, lines: Iterable[str] = ()) -> Plan:
    """Validates a request before any heavy work starts; `lines` are those of stdin.

    Raises:
        PoseRftError: an option, folder, pattern or sentence is invalid, or no input can be read.
    """
    for sentence in request.sentences:
        check_text(sentence)
    given = [parse_box(request.box)] if request.box else []
    known = boxes_from_coco(request.boxes) if request.boxes else None
    inputs, failures = [], []
    for path in expand(request.arguments, lines, request.out):
        try:
            inputs.append(look_at(path, request.every))
        except PoseRftError as error:
            failures.append(str(error))
    if failures and not inputs and not request.sentences:
        raise PoseRftError("\nerror: ".join(failures))
    if not inputs and not failures and not request.sentences:
        raise PoseRftError("The list of inputs is empty; give photographs, or --text 'a sentence'.")
    if given and (len(inputs) != 1 or inputs[0].kind != "photograph"):
        raise PoseRftError("--box names the person in exactly one photograph; use --boxes FILE for several.")
    inputs += [Input("text", sentence) for sentence in dict.fromkeys(request.sentences)]
    return Plan(request, inputs, given, known, failures)


@dataclass
class Job:
    """An input in progress: its key and name in the store, and how much of it has been written."""

    input: Input
    key: str
    name: str
    film: Film | None = None
    frames: int = 0
    persons: int = 0
    spread: float = 0.0
    failed: bool = False


class Run:
    """Predicts all inputs and writes the results; an input that fails does not stop the others."""

    def __init__(self, plan: Plan, model: Path, body: Path) -> None:
        self.plan, self.request, self.model, self.body = plan, plan.request, model, body
        self.well = not plan.failures
        self.store = Store(plan.request.out)
        self.waiting: list[tuple[Job, Looked]] = []

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor, loaded on first use: a run that finds everything done says so at once."""
        predictor = Predictor(self.model, self.body, self.request.seed)
        if predictor.body.is_standin:
            print(f"note: {SAMPLE_NOTICE}", file=sys.stderr)
        self.body_model = predictor.body
        return predictor

    @cached_property
    def body_model(self) -> BodyModel:
        """The body model, loaded alone if all is predicted already: overlays and exports need no policy."""
        return load_body_model(self.body)

    def __call__(self) -> bool:
        """Runs the plan; returns whether every input succeeded."""
        for sentence in self.plan.failures:
            complain(sentence)
        keys = self._keys()
        if self.request.overwrite:
            self.store = self.store.without(set(keys.values()))
        total = sum(one.pictures for one in keys)
        with Progress("predict", total, "pictures") as self.progress:
            if keys.values() - self.store.finished.keys():
                _ = self.predictor  # loads the model now, so that its error is reported once, not per input
            for one, key in keys.items():
                if key in self.store.finished:
                    old = self.store.finished[key]
                    print(f"{one.source}: is there already, {_count(one, old.persons, old.frames)} in {self._where}")
                    self.progress.advance(one.pictures)
                else:
                    self._start(one, key)
            self._flush()
        self.store.close()
        if self.request.overlay:
            self._draw({key: one for one, key in keys.items()})
        if self.request.export:
            self._export([key for key in keys.values() if key in self.store.finished])
        if self.request.table:
            with writing(self.request.out):
                print(f"-> {write_table(self._where)}")
        return self.well

    @property
    def _where(self) -> Path:
        return self.request.out / PREDICTIONS

    def _keys(self) -> dict[Input, str]:
        asked, found = self.request, {}
        settings = {"model": fingerprint(self.model), "body": str(self.body), "seed": asked.seed, "most": asked.most}
        settings |= {"samples": asked.samples, "every": asked.every, "smooth": asked.smooth}
        for one in self.plan.inputs:
            try:
                boxes = [] if one.kind == "text" else [[*box.center, box.side] for box in self.plan.boxes(one)]
                found[one] = one.key(settings | {"boxes": boxes})
            except PoseRftError as error:
                self._fail(None, error)
        return found

    def _start(self, one: Input, key: str) -> None:
        facts: dict[str, Any] = {"kind": one.kind, "source": one.source}
        if one.path is None:
            name = f"text_{[other.source for other in self.plan.inputs if other.path is None].index(one.source)}"
        else:
            name, facts["frames_per_second"] = one.path.stem, one.rate
        job = Job(one, key, self.store.begin(key, readable(name), facts))
        if one.kind != "video" and key in self.store.last:  # killed before it was marked as finished
            job.frames, job.persons = 1, sum(head.input == key for head in heads(self._where))
            self._close(job)
            return
        try:
            if one.path is None:
                self._write(job, [self.predictor.text(one.source, self.request.samples)], None)
                self._close(job)
                return
            for looked in self._pictures(job, one.path):
                self.waiting.append((job, looked))
                if self._full():
                    self._flush()
        except PoseRftError as error:
            self._fail(job, error)
        if one.kind == "video":  # a photograph is closed with its batch
            self._flush()
            self._close(job)

    def _full(self) -> bool:
        people = sum(len(looked.seen) for _, looked in self.waiting)
        pixels = sum(looked.photograph.pixels.size for _, looked in self.waiting)
        return people >= self.request.batch or pixels >= MOST_VALUES

    def _pictures(self, job: Job, path: Path) -> Iterator[Looked]:
        """Yields the pictures of an input that have no lines yet, with the people in them."""
        boxes = self.plan.boxes(job.input)
        if job.input.kind == "photograph":
            photograph, job.frames = read_photograph(path), 1
            yield Looked(photograph, self.predictor.see(photograph, boxes, self.request.most))
            return
        start = self.store.last.get(job.key)
        job.film = Film(job.input, self.request.every, self.request.smooth)
        job.frames, job.persons = job.film.resume(self._where, job.key, start)
        self.progress.advance(job.frames)
        for frame, photograph in job.film.pictures(0) if start is None else job.film.after(start):
            job.frames += 1
            try:
                seen = self.predictor.see(photograph, boxes, self.request.most)
            except PoseRftError:  # a frame may show nobody
                self.progress.advance()
                continue
            yield Looked(photograph, seen, frame)

    def _flush(self) -> None:
        """Predicts the waiting pictures and writes their lines."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        found = self.predictor.people([looked for _, looked in waiting], self.request.samples)
        for (job, looked), people in zip(waiting, found, strict=True):
            if isinstance(people, PoseRftError):
                self._fail(job, people)
            else:
                self._write(job, people, looked)
            if job.input.kind == "photograph":
                self._close(job)

    def _write(self, job: Job, people: Sequence[Prediction], looked: Looked | None) -> None:
        frame = 0 if looked is None or looked.frame is None else looked.frame
        tracks: Sequence[int | None] = [None] * len(people)
        if job.film is not None:
            people, tracks = job.film.follow(frame, people, self.predictor.body)
        photograph = None if looked is None else looked.photograph
        lines = [
            self._line(job, frame, index, len(people), track, one, photograph)
            for index, (one, track) in enumerate(zip(people, tracks, strict=True))
        ]
        self.store.add(lines)
        job.persons += len(people)
        job.spread += sum(float(one.spread.mean()) for one in people if one.spread is not None)
        self.progress.advance()

    def _line(
        self, job: Job, frame: int, index: int, persons: int, track: int | None, one: Prediction,
        photograph: Photograph | None,
    ) -> dict[str, Any]:  # fmt: skip
        head = {"schema": SCHEMA, "version": VERSION, "input": job.key, "frame": frame}
        head |= {"index": index, "persons": persons, "track": track, "name": job.name, "kind": job.input.kind}
        rate = job.input.rate
        head |= {"time_seconds": round(frame / rate, 6) if rate else None, "frames_per_second": rate}
        head |= {
            "picture_size_px": photograph and list(photograph.size),
            "smoothed_seconds": self.request.smooth or None if job.film else None,
        }
        return head | one.content(self.predictor.folder, self.predictor.body)

    def _close(self, job: Job) -> None:
        if job.failed:
            return
        if not job.persons:
            self._fail(job, PoseRftError(f"{job.input.source} shows no person that is found; name one with --box."))
            return
        self.store.finish(job.key, job.frames, job.persons)
        spread = f" (mean spread {job.spread / job.persons:.1f} degrees)" if job.spread else ""
        print(f"{job.input.source}: {_count(job.input, job.persons, job.frames)}{spread} -> {self._where}")

    def _draw(self, inputs: Mapping[str, Input]) -> None:
        """Draws overlays from the lines on disk, also those of earlier runs and of the good part of a damaged video."""
        asked = self.request
        overlays = Overlays(self._where, self.store.names, self.body_model, asked.every, asked.overwrite)
        with Progress("overlay", sum(one.pictures for one in inputs.values()), "pictures") as progress:
            for one, lines in overlays.pictures(inputs):
                try:
                    overlays.draw(one, lines)
                except PoseRftError as error:
                    self._fail(None, error)
                progress.advance()

    def _export(self, keys: Sequence[str]) -> None:
        names, asked = {key: self.store.names[key] for key in keys}, self.request
        for made in export_inputs(self._where, names, asked.export, asked.out, self.body_model, asked.overwrite):
            if isinstance(made, PoseRftError):
                self._fail(None, made)
            else:
                print(f"-> {made}")

    def _fail(self, job: Job | None, error: PoseRftError) -> None:
        complain(str(error))
        self.well = False
        if job is not None:
            job.failed = True
            self.progress.advance()


def _count(one: Input, persons: int, frames: int) -> str:
    """Describes how many people were found in an input."""
    return f"{persons} found in {frames} pictures" if one.kind == "video" else f"{persons} found"


def complain(sentence: str) -> None:
    """Prints one error message about an input to stderr."""
    print(f"error: {sentence}", file=sys.stderr)
