"""The steps of `pose-rft predict`: look at all inputs, load the model, predict one by one, name what failed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.predict.boxes import boxes_from_coco, check_inside, parse_box
from pose_rft.predict.photographs import read_photograph
from pose_rft.predict.prediction import SAMPLE_NOTICE, Prediction
from pose_rft.predict.predictor import Predictor, check_text
from pose_rft.predict.results import Mesh, Writer, check_folder, spoken
from pose_rft.record import Box


@dataclass(frozen=True)
class Inputs:
    """What a user asks for; after `check`, `people` holds the boxes of each photograph that can be predicted (none:
    everyone is looked for) and `failures` a sentence for each that cannot."""

    photographs: Sequence[Path]
    sentences: Sequence[str]
    box: str | None
    boxes: Path | None
    out: Path
    people: Sequence[tuple[Path, Sequence[Box]]] = ()
    failures: Sequence[str] = field(default=())


def check(inputs: Inputs) -> Inputs:
    """Finds everything that is wrong before anything heavy is done.

    Raises:
        PoseRftError: an option, a sentence or the output folder is wrong, or there is no photograph that can be read.
    """
    for sentence in inputs.sentences:
        check_text(sentence)
    given = [parse_box(inputs.box)] if inputs.box else []
    known = boxes_from_coco(inputs.boxes) if inputs.boxes else {}
    people, failures = [], []
    for path in inputs.photographs:
        try:
            size = read_photograph(path).size
            boxes = known.get(path.name, []) if inputs.boxes else given
            if inputs.boxes and not boxes:
                raise PoseRftError(
                    f"{inputs.boxes} lists no person in {spoken(path)}; give --box, or leave --boxes out."
                )
            for box in boxes:
                check_inside(box, size, spoken(path))
            people.append((path, boxes))
        except PoseRftError as error:
            failures.append(str(error))
    if failures and not people and not inputs.sentences:
        raise PoseRftError("\nerror: ".join(failures))
    check_folder(inputs.out)
    return replace(inputs, people=people, failures=failures)


def run(inputs: Inputs, model: Path, body: Path, seed: int, samples: int, mesh: Mesh) -> bool:
    """Predicts and writes; one photograph that fails does not stop the others. Returns whether all went well.

    Raises:
        PoseRftError: the model cannot be loaded, or results cannot be written.
    """
    for sentence in inputs.failures:
        _complain(sentence)
    predictor = Predictor(model, body, seed)
    if predictor.body.is_standin:
        print(f"note: {SAMPLE_NOTICE}", file=sys.stderr)
    writer = Writer(predictor, inputs.out, mesh)
    well = not inputs.failures
    for path, boxes in inputs.people:
        try:
            photograph = read_photograph(path)
            found = predictor.photograph(photograph, boxes, samples)
        except PoseRftError as error:
            _complain(str(error))
            well = False
            continue
        for one, files in zip(found, writer.people(found, photograph), strict=True):
            _report(one, files)
    for number, sentence in enumerate(inputs.sentences):
        prediction = predictor.text(sentence, samples)
        _report(prediction, writer.sentence(prediction, number))
    return well


def _complain(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)


def _report(prediction: Prediction, files: Sequence[Path]) -> None:
    spread = "" if prediction.spread is None else f" (mean spread {float(prediction.spread.mean()):.1f} degrees)"
    print(f"{prediction.source}: {prediction.answer}{spread} -> {', '.join(map(spoken, files))}")
