"""A miniature LLaVA-Instruct-150k about the training images of the miniature COCO.

`llava_instruct/llava_instruct_150k.json`: {id, image, conversations}. The id repeats if an image has two dialogues; the
first question has `<image>` before or after its text. Questions and correct answers come from `questions`.
Source: haotian-liu/LLaVA docs/Data.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pose_rft.io.atomic import canonical_json, write_text
from pose_rft.sample.plan import SampleParams
from pose_rft.sample.questions import ask
from pose_rft.sample.write_coco import Picture
from pose_rft.seeds import numpy_rng

RELEASE = "llava_instruct"
TWICE = 0.25  # share of the images that have a second dialogue


def records(params: SampleParams, seed: int, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Returns the dialogues about as many of COCO's training images as needed."""
    chosen = [picture for picture in pictures if picture.split == "train"]
    rows: list[dict[str, Any]] = []
    for number, picture in enumerate(chosen):
        rng = numpy_rng(seed, "sample", RELEASE, number)
        for _ in range(1 + (rng.uniform() < TWICE)):
            turns = ask(picture.facts, rng, int(rng.integers(1, params.llava_instruct.longest + 1)))
            if not turns:
                continue
            conversation: list[dict[str, str]] = []
            for i, (question, answer) in enumerate(turns):
                if i == 0:
                    question = f"<image>\n{question}" if rng.uniform() < 0.5 else f"{question}\n<image>"
                conversation += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            name = picture.image["file_name"]
            rows.append({"id": Path(name).stem, "image": name, "conversations": conversation})
            if len(rows) == params.llava_instruct.dialogues:
                return rows
    return rows


def write(params: SampleParams, seed: int, pictures: Sequence[Picture], root: Path) -> list[dict[str, Any]]:
    """Writes dialogues about COCO's images and returns them."""
    rows = records(params, seed, pictures)
    write_text(root / RELEASE / "llava_instruct_150k.json", canonical_json(rows))
    return rows
