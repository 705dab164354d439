"""LLaVA-Instruct-150k: dialogues about COCO photographs (haotian-liu/LLaVA, docs/Data.md).

`llava_instruct_150k.json` is a list of {id, image, conversations}; ids are COCO image ids and repeat, so a sample's key
is `id_occurrence`. Images lie in COCO's train2017, or under 2014 names in train2014 and val2014. The release has no
split: an image is held out when the sha256 of its id says so, with all its dialogues.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pose_rft.core.errors import PoseRftError
from pose_rft.core.params import Fraction, Section
from pose_rft.core.record import Defect, Record, Turn
from pose_rft.io.json_files import read_json
from pose_rft.releases.base import Reader, Unit, check_split, existing_files, require, sample_key
from pose_rft.releases.pictures import UnreadablePicture, load_picture

IMAGE_MARKER = "<image>"
SPEAKERS: Mapping[str, Literal["human", "assistant"]] = {"human": "human", "gpt": "assistant"}
# In the order tried: folder and what stands before the 12 digits.
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
        """COCO's folder, or any folder with its trees."""
        return self.data_root / self.params.images

    def units(self, split: str) -> list[Unit]:
        check_split(split, ("train", "heldout"), self.dataset)
        path = require(self.root / self.params.file, self.dataset, self.where_to_get)
        require(self.images, f"{self.dataset} (its photographs)", "https://cocodataset.org/#download")
        seen: Counter[str] = Counter()
        by_image: dict[str, list[tuple[str, int, Any]]] = defaultdict(list)
        for number, row in enumerate(read_json(path, list)):
            try:
                identity, image = str(row["id"]), coco_id(row["image"])
                conversation = row["conversations"]
            except (KeyError, TypeError, ValueError):
                raise PoseRftError(
                    f"{path}, record {number}: expected `id`, `image` and `conversations` as in LLaVA-Instruct-150k."
                ) from None
            by_image[image].append((identity, seen[identity], conversation))
            seen[identity] += 1
        units = [
            Unit(sample_key(image), len(rows), (image, tuple(rows)))
            for image, rows in by_image.items()
            if is_heldout(image, self.params.heldout_percent) == (split == "heldout")
        ]
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        image, rows = unit.payload
        path = find_image(self.images, image)
        try:
            picture = load_picture(path or self.images / "train2017" / f"{image}.jpg")
        except UnreadablePicture as problem:
            yield from (problem.defect(unit.key, f"{identity}_{n}") for identity, n, _ in rows)
            return
        assert path is not None
        for identity, occurrence, conversation in rows:
            try:
                turns = dialogue(conversation)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                yield Defect(unit.key, f"{identity}_{occurrence}", "malformed dialogue", str(error))
                continue
            yield Record(
                key=sample_key("llava", identity, str(occurrence)),
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


def coco_id(name: str) -> str:
    """The id in a picture's name, which may have a folder (`coco/train2017/…`) or 2014's `COCO_train2014_`.

    So a picture has one name whatever tree it lies in, and is held out under all of them or none.

    Raises:
        ValueError: no such name.
    """
    match = re.fullmatch(r"(?:.*/)?(?:COCO_(?:train|val)2014_)?(\d{12})\.jpg", name)
    if match is None:
        raise ValueError(f"{name!r:.60} is no picture of COCO")
    return match[1]


def is_heldout(image: str, percent: float) -> bool:
    """Whether an image, named by its COCO id of 12 digits, is held out: a pure function of the name."""
    number = int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big")
    return number / 2**64 < percent / 100


def find_image(root: Path, image: str) -> Path | None:
    """The photograph in whichever of COCO's trees has it; `image`: 12 digits."""
    candidates = (root / folder / f"{prefix}{image}.jpg" for folder, prefix in PLACES)
    return next((path for path in candidates if path.is_file()), None)


def dialogue(conversation: list[dict[str, str]]) -> tuple[Turn, ...]:
    """Turns in order, `<image>` and the line break beside it removed.

    Raises:
        ValueError: no turns, a question without answer, speakers that do not alternate, or a turn without text.
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
