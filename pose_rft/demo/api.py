"""The JSON API of `pose-rft demo` (`/openapi.json` describes it) and the files of its page.

A photograph, a sentence or a question becomes a job, which the client polls until it is done. Errors that a user can
fix are returned as `{"error": SENTENCE}`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from pose_rft import __version__
from pose_rft.body.joints import SMPL24
from pose_rft.demo.desk import Desk, Full, Job
from pose_rft.demo.results import Person, Result, Studio
from pose_rft.errors import PoseRftError, visible
from pose_rft.io import pictures
from pose_rft.predict.predictor import LONGEST_TEXT, check_text

PAGE = Path(__file__).parent / "page"
MOST_BYTES = 25_000_000  # of a photograph
MOST_SAMPLES = 16
LONGEST_NAME = 80
SLOWEST_UPLOAD = 30.0  # seconds
CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
OCTETS, GLB, PNG = "application/octet-stream", "model/gltf-binary", "image/png"
PICTURE_BODY = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/jpeg", PNG)}

Samples = Annotated[int, Field(ge=0, le=MOST_SAMPLES)]


class SentenceRequest(BaseModel):
    """A pose described in words."""

    text: str
    samples: Samples = 8


class QuestionRequest(BaseModel):
    """A question about one person in a predicted photograph; people are numbered from 0, left to right."""

    job: str
    person: int = Field(0, ge=0)
    question: str


class PersonView(BaseModel):
    """outline: corners of the cropped square, px of the upright photograph. joints: (1 + samples, 24, 3) metres, y up,
    z towards the viewer, of the mean pose and the samples. spread_degrees: per joint."""

    answer: str
    caption: str
    outline: list[list[float]] | None
    score: float | None
    spread_degrees: dict[str, float] | None
    joints: list[list[list[float]]]


class ResultView(BaseModel):
    """size: width and height of the upright photograph, px. answer: to a question."""

    name: str
    size: tuple[int, int] | None
    answer: str | None
    people: list[PersonView]


class JobView(BaseModel):
    """state: waiting, working, done or failed; before: number of jobs ahead of it."""

    job: str
    state: str
    before: int
    error: str | None
    result: ResultView | None


class About(BaseModel):
    """The page's model, body and limits. The body's faces and weights: `/api/body/faces` and `/api/body/weights`.
    licence: the body's, which also holds for files that have no place for it."""

    version: str
    model: str
    notice: str | None
    licence: str
    joint_names: list[str]
    parents: list[int]
    most_bytes: int
    most_samples: int


class Refused(PoseRftError):
    """An error with its own HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def build(studio: Studio, desk: Desk[Result]) -> FastAPI:
    """Builds the application, without the gate in front of it."""
    app = FastAPI(title="Pose-RFT demo", version=__version__, docs_url=None, redoc_url=None)
    _answer_in_sentences(app)
    _add_jobs(app, studio, desk)
    _add_files(app, studio, desk)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def _add_jobs(app: FastAPI, studio: Studio, desk: Desk[Result]) -> None:
    def start(work: Callable[[], Result]) -> JobView:
        return _job_view(desk, desk.submit(work))

    @app.post("/api/photographs", status_code=202, openapi_extra={"requestBody": {"content": PICTURE_BODY}})
    async def photographs(
        request: Request,
        name: str = "photograph",
        samples: Annotated[int, Query(ge=0, le=MOST_SAMPLES)] = 8,
        box: Annotated[str | None, Query(max_length=200)] = None,
    ) -> JobView:
        """Predicts everyone in a JPEG or PNG (the request's body), or the person in `box` (X,Y,W,H px)."""
        called = visible(name)[-LONGEST_NAME:] or "photograph"
        data = await _body(request, called)
        try:
            pictures.header(data)  # does the cheap part of the job's checks at once
        except PoseRftError as error:
            raise Refused(422, f"{called}: {error}") from None
        return start(lambda: studio.photograph(data, called, samples, box))

    @app.post("/api/sentences", status_code=202)
    def sentences(wanted: SentenceRequest) -> JobView:
        """Predicts the pose that a sentence describes."""
        _check_words(wanted.text)
        return start(lambda: studio.sentence(wanted.text, wanted.samples))

    @app.post("/api/questions", status_code=202)
    def questions(wanted: QuestionRequest) -> JobView:
        """Answers a question about a person in a photograph, in words."""
        _check_words(wanted.question)
        result, person = _person(desk, wanted.job, wanted.person)
        if result.photograph is None or person.prediction.seen is None:
            raise Refused(422, "A question needs a photograph; this result is of a sentence.")
        return start(lambda: studio.question(result, wanted.person, wanted.question))

    @app.get("/api/jobs/{key}")
    def job(key: str) -> JobView:
        """Returns the state and, once done, the result of a photograph, a sentence or a question."""
        return _job_view(desk, _find(desk, key))


def _add_files(app: FastAPI, studio: Studio, desk: Desk[Result]) -> None:
    body = studio.predictor.body

    @app.get("/api/about")
    def about() -> About:
        """Returns the model, the body and the limits of this page."""
        model = studio.predictor.folder.name
        names, parents = list(SMPL24.joints), list(body.parents)
        return About(
            version=__version__, model=model, notice=studio.notice, licence=studio.rig.note, joint_names=names,
            parents=parents, most_bytes=MOST_BYTES, most_samples=MOST_SAMPLES,
        )  # fmt: skip

    @app.get("/api/body/faces", response_class=Response)
    def faces() -> Response:
        """(F, 3) uint32, little endian."""
        return Response(body.faces.numpy().astype("<u4").tobytes(), media_type=OCTETS)

    @app.get("/api/body/weights", response_class=Response)
    def weights() -> Response:
        """(V, 24) float32, little endian: the skinning weight of each joint for each vertex."""
        return Response(body.smplx.lbs_weights.numpy().astype("<f4").tobytes(), media_type=OCTETS)

    @app.get("/api/results/{key}/overlay.png", response_class=Response)
    def overlay(key: str) -> Response:
        """The photograph with everyone's body drawn over it."""
        picture = _result(desk, key).overlay
        if picture is None:
            raise Refused(404, "A sentence has no photograph.")
        return Response(picture, media_type=PNG)

    @app.get("/api/results/{key}/{person}/bodies", response_class=Response)
    def bodies(key: str, person: int) -> Response:
        """(1 + samples, V, 3) float32, little endian, in the frame of `joints`."""
        return Response(_person(desk, key, person)[1].bodies.astype("<f4").tobytes(), media_type=OCTETS)

    @app.get("/api/results/{key}/{person}/pose.json")
    def pose_json(key: str, person: int) -> dict[str, Any]:
        """The same JSON as from `pose-rft predict`."""
        return studio.json(_person(desk, key, person)[1])

    @app.get("/api/results/{key}/{person}/pose.glb", response_class=Response)
    def pose_glb(key: str, person: int) -> Response:
        """The body with its skeleton and skin weights, in the mean pose."""
        return Response(studio.file(_person(desk, key, person)[1], "glb"), media_type=GLB)

    @app.get("/api/results/{key}/{person}/pose.bvh", response_class=Response)
    def pose_bvh(key: str, person: int) -> Response:
        """The skeleton in the mean pose; BVH has no place for the body's licence, which `/api/about` returns."""
        return Response(studio.file(_person(desk, key, person)[1], "bvh"), media_type=OCTETS)


def _answer_in_sentences(app: FastAPI) -> None:
    def sentence(status: int, text: str) -> JSONResponse:
        return JSONResponse({"error": text}, status)

    @app.exception_handler(PoseRftError)
    async def ours(_: Request, error: PoseRftError) -> JSONResponse:
        status = error.status if isinstance(error, Refused) else 503 if isinstance(error, Full) else 422
        return sentence(status, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return sentence(422, visible(f"{place}: {first['msg']}; /openapi.json says what is expected.")[:300])

    @app.exception_handler(HTTPException)
    async def foreign(_: Request, error: HTTPException) -> JSONResponse:
        return sentence(error.status_code, f"{error.detail}.")


async def _body(request: Request, name: str) -> bytes:
    """Reads the request's body, but never holds more than the limit."""
    too_large = Refused(413, f"{name} has more than {MOST_BYTES // 1_000_000} MB; make the photograph smaller.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MOST_BYTES:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_UPLOAD):
            async for part in request.stream():
                data += part
                if len(data) > MOST_BYTES:
                    raise too_large
    except TimeoutError:
        raise Refused(408, f"{name} did not arrive within {SLOWEST_UPLOAD:g} s; send it again.") from None
    if not data:
        raise Refused(422, f"{name} is empty, expected a JPEG or PNG.")
    return bytes(data)


def _check_words(text: str) -> None:
    if not text.strip():
        raise Refused(422, "There are no words; describe a pose, e.g. sitting with crossed legs, or ask something.")
    if len(text) > 20 * LONGEST_TEXT:
        raise Refused(422, f"The text has {len(text)} characters, expected at most {20 * LONGEST_TEXT}.")
    check_text(text)


def _find(desk: Desk[Result], key: str) -> Job[Result]:
    try:
        return desk.job(key)
    except PoseRftError as error:
        raise Refused(404, str(error)) from None


def _result(desk: Desk[Result], key: str) -> Result:
    result = _find(desk, key).result
    if result is None:
        raise Refused(404, "This result is not there yet, or its request failed.")
    return result


def _person(desk: Desk[Result], key: str, number: int) -> tuple[Result, Person]:
    result = _result(desk, key)
    if not 0 <= number < len(result.people):
        raise Refused(404, f"This result has {len(result.people)} people, counted from 0.")
    return result, result.people[number]


def _job_view(desk: Desk[Result], job: Job[Result]) -> JobView:
    result = None if job.result is None else _result_view(job.result)
    return JobView(job=job.id, state=job.state, before=desk.before(job), error=job.error, result=result)


def _result_view(result: Result) -> ResultView:
    people = [_person_view(person) for person in result.people]
    size = result.photograph.size if result.photograph else None
    return ResultView(name=result.name, size=size, answer=result.answer, people=people)


def _person_view(person: Person) -> PersonView:
    one = person.prediction
    spread = one.spread
    return PersonView(
        answer=one.answer,
        caption=person.caption,
        outline=None if one.seen is None else one.seen.region.to_picture(CORNERS).round(1).tolist(),
        score=None if one.seen is None else one.seen.score,
        spread_degrees=None if spread is None else dict(zip(SMPL24.joints, spread.double().tolist(), strict=True)),
        joints=person.joints.astype(float).round(4).tolist(),
    )
