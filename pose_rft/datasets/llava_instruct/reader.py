"""LLaVA's dialogues about COCO photographs (haotian-liu/LLaVA, docs/Data.md).

`llava_instruct_150k.json` and `llava_v1_5_mix665k.json` are lists of {id, image, conversations}. Ids repeat, so a
sample's key is the image's COCO id and the index of the dialogue among those of the image. Images are in COCO's
train2017, or under 2014 names in train2014 and val2014. The release has no split, so the sha256 of the image's id
decides whether the image is held out, with all its dialogues.

The larger file also has dialogues about images of other sources (`gqa/…`, `ocr_vqa/…`) and without images. These are
not samples; the defects table has one row per source with their count.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pose_rft.datasets.common.base import Reader, Unit, check_split, existing_files, require, sample_key
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture
from pose_rft.errors import PoseRftError
from pose_rft.io.json_files import read_json
from pose_rft.params import Fraction, Section
from pose_rft.record import Defect, Record, Turn

IMAGE_MARKER = "<image>"
SPEAKERS: Mapping[str, Literal["human", "assistant"]] = {"human": "human", "gpt": "assistant"}
# In the order tried: folder, and file name prefix before the 12 digits.
PLACES = (("train2017", ""), ("train2014", "COCO_train2014_"), ("val2014", "COCO_val2014_"), ("val2017", ""))


class LlavaInstructParams(Section):
    """`datasets.llava_instruct` in params.yaml."""

    root: str = "llava_instruct"
    images: str = "coco"
    file: str = "llava_instruct_150k.json"
    splits: tuple[Literal["train", "heldout"], ...] = ("train", "heldout")
    heldout_percent: float = Field(default=5.0, gt=0, lt=100)
    max_defect_rate: Fraction = 0.01


class LlavaInstruct(Reader):
    """Reader of LLaVA-Instruct; a unit is one image with all its dialogues."""

    Params = LlavaInstructParams
    params: LlavaInstructParams
    dataset = "llava_instruct"
    licence = "CC BY-NC 4.0 (dialogues made with GPT-4); photographs under COCO's terms"
    where_to_get = "https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K"

    @property
    def images(self) -> Path:
        """COCO's folder, or any folder with COCO's subfolders."""
        return self.data_root / self.params.images

    def units(self, split: str) -> list[Unit]:
        check_split(split, ("train", "heldout"), self.dataset)
        path = require(self.root / self.params.file, self.dataset, self.where_to_get)
        require(self.images, f"{self.dataset} (its photographs)", "https://cocodataset.org/#download")
        records = sort_records(read_json(path, list))
        if not records.by_image:
            first = next(iter([*records.elsewhere.values(), *records.malformed]), None)
            found = f"{first[0]} ({first[1]})" if first else "none"
            raise PoseRftError(
                f"{path} has no dialogue about a picture of COCO: expected `id`, `image` and `conversations` as in "
                f"LLaVA-Instruct-150k, found record {found}."
            )
        units = [
            Unit(sample_key(image), len(rows), (image, tuple(rows)))
            for image, rows in records.by_image.items()
            if is_heldout(image, self.params.heldout_percent) == (split == "heldout")
        ]
        if split == "train":
            units += [Unit(key, len(rows), (None, rows)) for key, rows in records.left_out(path.name).items()]
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        image, rows = unit.payload
        if image is None:
            yield from (Defect(unit.key, *row) for row in rows)
            return
        path = find_image(self.images, image)
        try:
            picture = load_picture(path or self.images / "train2017" / f"{image}.jpg")
        except UnreadablePicture as problem:
            yield from (problem.defect(unit.key, f"{identity}_{n}") for n, (identity, _) in enumerate(rows))
            return
        assert path is not None
        for occurrence, (identity, conversation) in enumerate(rows):
            try:
                turns = dialogue(conversation)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                yield Defect(unit.key, f"{identity}_{occurrence}", "malformed dialogue", str(error))
                continue
            yield Record(
                key=sample_key("llava", image, str(occurrence)),
                dataset=self.dataset,
                split=split,
                image=picture,
                sequence=image,
                dialogue=turns,
                flags=(f"coco_{path.parent.name}",),
                provenance=(("image", f"{path.parent.name}/{path.name}"),),
            )

    def inventory(self) -> list[Path]:
        patterns = [f"{folder}/*.jpg" for folder, _ in PLACES]
        return sorted(existing_files(self.root, [self.params.file]) + existing_files(self.images, patterns))


@dataclass(frozen=True, eq=False)
class Records:
    """by_image: (id, conversation) pairs of each COCO image, in file order.

    elsewhere: for every other source, the index of the first record, a description, and the number of records;
    malformed: index and problem of each record.
    """

    by_image: dict[str, list[tuple[str, Any]]]
    elsewhere: dict[str, tuple[int, str, int]]
    malformed: list[tuple[int, str]]

    def left_out(self, file: str) -> dict[str, tuple[tuple[str, str, str], ...]]:
        """Returns (row, reason, detail) of the defects, by key of their unit."""
        sources = tuple(
            (source, what, f"{file}: {count} records, the first is record {first}")
            for source, (first, what, count) in sorted(self.elsewhere.items())
        )
        bad = tuple(
            (str(number), "malformed record", f"{file}, record {number}: {what}") for number, what in self.malformed
        )
        return {key: rows for key, rows in (("other-sources", sources), ("malformed", bad)) if rows}


def sort_records(rows: list[Any]) -> Records:
    """Groups the records of a file by COCO image or other source."""
    by_image: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    elsewhere: dict[str, tuple[int, str, int]] = {}
    malformed = []
    for number, row in enumerate(rows):
        try:
            identity, image, conversation = str(row["id"]), row.get("image"), row["conversations"]
            if image is not None and not isinstance(image, str):
                raise TypeError(f"`image` is {image!r:.40}")
        except (AttributeError, KeyError, TypeError) as error:
            malformed.append((number, f"{type(error).__name__}: {error!s:.80}"))
            continue
        try:
            by_image[coco_id(image or "")].append((sample_key(identity), conversation))
        except ValueError:
            folder = sample_key((image or "").rpartition("/")[0].partition("/")[0]) or "no folder"
            source, what = ("text only", "no picture") if not image else (folder, "picture of another source")
            first, _, count = elsewhere.get(source, (number, what, 0))
            elsewhere[source] = (first, what, count + 1)
    return Records(dict(by_image), elsewhere, malformed)


def coco_id(name: str) -> str:
    """Returns the COCO id in an image name, which may have a folder (`coco/train2017/…`) or prefix `COCO_train2014_`.

    An image thus has the same id in every folder, and is held out in all of them or in none.

    Raises:
        ValueError: not the name of a COCO image.
    """
    match = re.fullmatch(r"(?:.*/)?(?:COCO_(?:train|val)2014_)?([0-9]{12})\.jpg", name)
    if match is None:
        raise ValueError(f"{name!r:.60} is no picture of COCO")
    return match[1]


def is_heldout(image: str, percent: float) -> bool:
    """Whether an image, given by its 12-digit COCO id, is held out; depends only on the id and `percent`."""
    number = int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big")
    return number / 2**64 < percent / 100


def find_image(root: Path, image: str) -> Path | None:
    """Returns the image's path in the first COCO folder that has it; `image`: 12 digits."""
    candidates = (root / folder / f"{prefix}{image}.jpg" for folder, prefix in PLACES)
    return next((path for path in candidates if path.is_file()), None)


def dialogue(conversation: list[dict[str, str]]) -> tuple[Turn, ...]:
    """Returns the turns in order, without `<image>` and the adjacent line break.

    Raises:
        ValueError: there are no turns, a question has no answer, speakers do not alternate, or a turn has no text.
    """
    turns = tuple(
        Turn(SPEAKERS[turn["from"]], turn["value"].replace(IMAGE_MARKER, "").strip()) for turn in conversation
    )
    if not turns or len(turns) % 2:
        raise ValueError(f"{len(turns)} turns, expected questions each with an answer")
    for i, turn in enumerate(turns):
        if turn.speaker != ("human", "assistant")[i % 2]:
            raise ValueError(f"turn {i} is by {turn.speaker}")
        if not turn.text:
            raise ValueError(f"turn {i} is empty")
    return turns


READER = LlavaInstruct
