"""Converts images and sentences to the inputs of `PoseLlava`, and its answers back to text; saved in the model folder.

Prompt and answer of a dialogue are tokenised separately and their ids concatenated, so the prompts of training examples
and of rollouts have the same ids, and the template answer is one known list of ids. Format checks work on ids, never on
decoded text. `<POSE>` is an ordinary added token, because decoding drops special tokens.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AddedToken, AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.json_files import read_json
from pose_rft.io.model_folder import try_words
from pose_rft.params import Pixels, Positive, Section, parse
from pose_rft.policy import person_crops as crops
from pose_rft.policy import templates
from pose_rft.policy.config import CLIP_NORM, IMAGENET_NORM, PoseLlavaConfig
from pose_rft.policy.person_crops import Picture, Square
from pose_rft.policy.templates import IMAGE_TOKEN, POSE_TOKEN
from pose_rft.record import Box

FILE = "processor_config.json"


class ImageParams(Section):
    """`image`: crop side in px for CLIP (`size`) and the pose encoder (`pose_size`); `box_scale` enlarges the box."""

    size: Pixels
    pose_size: Pixels
    box_scale: Positive


@dataclass(frozen=True, eq=False)
class Encoded:
    """One dialogue of T tokens: input_ids (T,), labels_mask (T,) bool, True on the answer and its EOS.

    pose_position: index of the state that *predicts* `<POSE>` (the position before the token), None without `<POSE>`.
    """

    input_ids: Tensor
    labels_mask: Tensor
    pose_position: int | None


class PoseProcessor:
    """Crops, templates and tokens of one policy."""

    image_questions = templates.IMAGE_QUESTIONS
    text_questions = templates.TEXT_QUESTIONS
    image_text_questions = templates.IMAGE_TEXT_QUESTIONS
    ANSWER = templates.ANSWER

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, image: ImageParams, num_image_tokens: int, form: str = "llava"
    ) -> None:
        """form: the chat format, a key of `templates.FORMS`."""
        self.tokenizer, self.image, self.num_image_tokens, self.form = tokenizer, image, num_image_tokens, form
        self.image_token_id = token_id(tokenizer, IMAGE_TOKEN)
        self.pose_token_id = token_id(tokenizer, POSE_TOKEN)
        if tokenizer.eos_token_id is None:
            raise PoseRftError("The tokenizer has no end-of-sentence token, so answers could not end.")
        self.eos_token_id: int = tokenizer.eos_token_id
        if tokenizer.unk_token_id in self.answer_ids:
            raise PoseRftError(
                f"The tokenizer does not know every word of {self.ANSWER!r}; build it with that sentence."
            )
        self.pad_token_id: int = self.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    # --- pictures

    def square(self, box: Box | None, size: tuple[int, int]) -> Square:
        """The square of an image of `size` (width, height) px that a crop shows; without a box, the whole image."""
        return Square.around(box, size, self.image.box_scale)

    def cut(self, picture: Picture, box: Box | None, flip: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The crops before normalisation: (S, S, 3) and (P, P, 3) RGB, mirrored if `flip`.

        Raises:
            PoseRftError: the bytes are empty, truncated, or not an image; or the box has no area.
        """
        square = self.square(box, crops.size_of(picture) if box is None else (0, 0))
        first = crops.crop(picture, square, self.image.size, flip)
        same = self.image.size == self.image.pose_size
        return first, first if same else crops.crop(picture, square, self.image.pose_size, flip)

    def crop(self, picture: Picture, box: Box | None, flip: bool = False) -> tuple[Tensor, Tensor]:
        """pixel_values (3, S, S) for CLIP and pose_pixel_values (3, P, P) for the pose encoder; raises as `cut`."""
        first, second = self.cut(picture, box, flip)
        return crops.normalise(first, CLIP_NORM), crops.normalise(second, IMAGENET_NORM)

    # --- sentences

    def encode(self, question: str, answer: str | None, has_image: bool) -> Encoded:
        """Encodes a dialogue: the prompt, with image placeholders, and (unless None) the answer with its EOS."""
        ids = self.prompt_ids(question, has_image)
        start = len(ids)
        if answer is not None:
            ids = ids + self.sentence_ids(answer) + [self.eos_token_id]
        labels_mask = torch.arange(len(ids)) >= start
        pose = ids.index(self.pose_token_id, start) - 1 if self.pose_token_id in ids[start:] else None
        return Encoded(torch.tensor(ids), labels_mask, pose)

    def prompt_ids(self, question: str, has_image: bool) -> list[int]:
        """Ids of the prompt; a question cannot inject `<image>`, `<POSE>` or the end of a turn."""
        clean = self._marks.sub(" ", question)
        ids: list[int] = self.tokenizer.encode(templates.prompt(clean, has_image, self.form))
        if ids[-1] == self.eos_token_id:  # some tokenizers append EOS to every text
            ids = ids[:-1]
        if has_image:
            at = ids.index(self.image_token_id)
            ids[at : at + 1] = [self.image_token_id] * self.num_image_tokens
        return ids

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        """Matches `<image>`, `<POSE>` and all special tokens."""
        marks = {IMAGE_TOKEN, POSE_TOKEN, *filter(None, self.tokenizer.all_special_tokens)}
        return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))

    def sentence_ids(self, text: str) -> list[int]:
        """The token ids of a sentence, without BOS."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    @cached_property
    def answer_ids(self) -> tuple[int, ...]:
        """The ids of the template answer, with EOS."""
        return (*self.sentence_ids(self.ANSWER), self.eos_token_id)

    def answer_is_pose(self, ids: Sequence[int] | Tensor) -> bool:
        """Whether `ids`, up to and including EOS, are exactly the template answer, which has one `<POSE>`."""
        return tuple(_list(ids)) == self.answer_ids

    def answer_is_clean_text(self, ids: Sequence[int] | Tensor) -> bool:
        """Whether `ids` are non-empty text with a single EOS, at the end, and no `<POSE>`."""
        answer = _list(ids)
        inner = answer[:-1]
        ends = bool(inner) and answer[-1] == self.eos_token_id and self.eos_token_id not in inner
        return ends and self.pose_token_id not in inner

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Decodes to readable text; keeps `<POSE>`, drops start and end tokens."""
        text = str(self.tokenizer.decode(_list(ids), skip_special_tokens=True))
        text = re.sub(rf"\s*{re.escape(POSE_TOKEN)}", f" {POSE_TOKEN}", text)
        return re.sub(r"\s+([.,;:?!])", r"\1", text).strip()

    # --- folders

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Writes tokenizer and processor files into a model folder."""
        self.tokenizer.save_pretrained(folder)
        content = {"processor_class": type(self).__name__, "image": self.image.model_dump(), "form": self.form}
        atomic.write_json(Path(folder) / FILE, {**content, "num_image_tokens": self.num_image_tokens})

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_: Any) -> "PoseProcessor":
        """Loads the processor of a model folder.

        Raises:
            PoseRftError: it is missing or damaged.
        """
        path = Path(folder) / FILE
        try:
            content = read_json(path, dict)
            image = parse(content["image"], ImageParams, f"`image` in {path}")
            tokens = int(content["num_image_tokens"])
            form = str(content.get("form", "llava"))  # missing in folders of earlier versions
            if form not in templates.FORMS:
                raise ValueError(form)
        except (ValueError, TypeError, KeyError, ArithmeticError):
            raise PoseRftError(f"{path} is missing or damaged; a policy folder holds model and processor.") from None
        return cls(read_tokenizer(folder), image, tokens, form)


def _list(ids: Sequence[int] | Tensor) -> list[int]:
    return ids.tolist() if isinstance(ids, Tensor) else list(ids)


def read_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a folder or hub id.

    Raises:
        PoseRftError: it is missing or damaged.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        try_words(tokenizer)
        return tokenizer
    except Exception as error:  # the tokenizers library raises bare Exceptions for damaged files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PoseRftError(f"{source} holds no tokenizer that can be read ({reason}).") from None


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of a token.

    Raises:
        PoseRftError: the vocabulary lacks it.
    """
    found = tokenizer.get_added_vocab().get(token, tokenizer.get_vocab().get(token))
    if found is None:
        raise PoseRftError(f"The tokenizer has no {token} token, expected the tokenizer of a LLaVA model.")
    return found


def add_pose_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Adds `<POSE>` to the vocabulary, if it is not there yet, and returns its id.

    It is not a special token: `decode(skip_special_tokens=True)` would drop it and make every pose answer malformed.
    """
    tokenizer.add_tokens([AddedToken(POSE_TOKEN, special=False, normalized=False, lstrip=True)])
    return token_id(tokenizer, POSE_TOKEN)


AutoProcessor.register(PoseLlavaConfig, PoseProcessor)
