"""Image tokens of the frozen encoders: read from a cache in scratch, or encoded on demand.

The encoders never change after their own training, so SFT, RFT and evaluation use the same tokens for a crop. Small
data sets are encoded once, plain and mirrored, in half precision. Each encoder's cache is keyed by its weights, the
shards and the crop's size, so all stages share it. `cache_tokens: false` encodes in each step instead, for large data
sets or encoders.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pose_rft.batches.cached_folder import cached_folder
from pose_rft.batches.crop_cache import READERS, crop_of, load_crops, pixels
from pose_rft.batches.examples import ImageRef
from pose_rft.batches.observed import observed, weights_digest
from pose_rft.batches.samples import Samples
from pose_rft.io import atomic
from pose_rft.io.mapped import new_array, open_array
from pose_rft.policy.config import CLIP_NORM, IMAGENET_NORM
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.lockstep import passes_are_collective
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.person_crops import normalise
from pose_rft.policy.pose_encoder import PoseEncoder
from pose_rft.policy.processor import ImageParams
from pose_rft.progress import Progress

ImageTokenSource = Callable[[Sequence[ImageRef]], ImageTokens]
CHUNK = 128
FORM = 2  # version of the cached tokens; increment it when CLIP's code gives other tokens for the same weights


class CachedTokens:
    """Callable that returns the tokens of `ImageRef`s from cached files, which it creates on first use.

    Args:
        sets: {name in the references: samples}. cache: folder of all features: `clip`, `observed` (by the pose
            encoder) and `crops`, partly filled by earlier stages.
    """

    def __init__(self, model: PoseLlava, image: ImageParams, sets: Mapping[str, Samples], cache: Path) -> None:
        self._model, self._image, self._sets, self._cache = model, image, sets, cache
        self._clip = clip_digest(model)
        self._open: dict[tuple[str, bool], tuple[np.ndarray, np.ndarray | None, np.ndarray]] = {}

    def __call__(self, refs: Sequence[ImageRef]) -> ImageTokens:
        """(I, L, d) float32 tokens of the crops, on the CPU; empty without references.

        Raises:
            PoseRftError: an image cannot be decoded (on first use).
        """
        if not refs:
            return self._model.no_tokens(torch.device("cpu"))
        picked = [self._files(ref.name, ref.flip) for ref in refs]
        places = [int(where[ref.row]) for ref, (_, _, where) in zip(refs, picked, strict=True)]
        clip = np.stack([clip[i] for i, (clip, _, _) in zip(places, picked, strict=True)])
        pose = [pose[i] for i, (_, pose, _) in zip(places, picked, strict=True) if pose is not None]
        return ImageTokens(_floats(clip), _floats(np.stack(pose)) if pose else None)

    def prepare(self, mirrored: Collection[str]) -> None:
        """Encodes what is not cached yet, so that no training step has to; `mirrored`: sets also needed mirrored.

        Call it before the engine wraps the model: ZeRO-3 shards the encoders.
        """
        for name, samples in self._sets.items():
            if bool(samples.has_image.any()):
                self._files(name, False)
                if name in mirrored:
                    self._files(name, True)

    def _files(self, name: str, flip: bool) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """CLIP tokens, pose tokens, and the index into them of each row's sample (-1 without an image)."""
        if (name, flip) not in self._open:
            samples, encoder = self._sets[name], self._model.pose_encoder
            content = [FORM, self._clip, samples.shards.fingerprint, self._image.size, self._image.box_scale, flip]
            key = hashlib.sha256(atomic.canonical_json(content).encode()).hexdigest()[:24]
            folder = cached_folder(self._cache / "clip" / key, lambda temporary: self._encode(temporary, samples, flip))
            clip = open_array(folder / "clip.npy")
            pose = None
            if encoder is not None:
                pose = interpreted(encoder, observed(encoder, samples, self._image, flip, self._cache))
            shown = samples.has_image.numpy()
            self._open[name, flip] = (clip, pose, np.where(shown, np.cumsum(shown) - 1, -1))
        return self._open[name, flip]

    def _encode(self, folder: Path, samples: Samples, flip: bool) -> None:
        image, rows = self._image, samples.has_image.nonzero()[:, 0].numpy()
        crops = load_crops(samples, image.size, image.box_scale, self._cache / "crops")
        file: np.ndarray | None = None
        device = next(self._model.parameters()).device
        label = f"encoding {samples.name}{' mirrored' if flip else ''}"
        with ExitStack() as written, Progress(label, len(rows), "pictures") as progress:
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                tokens = self._model.clip_tokens(pixels(crops, some, CLIP_NORM, flip).to(device))
                if file is None:
                    shape = (len(rows), *tokens.shape[1:])
                    file = written.enter_context(new_array(folder / "clip.npy", np.float16, shape))
                file[start : start + len(some)] = tokens.half().cpu().numpy()
                progress.advance(len(some))


@torch.no_grad()
def interpreted(encoder: PoseEncoder, seen: np.ndarray) -> np.ndarray:
    """The tokens of cached observations (N, L, W); returns `seen` itself if the observations are the tokens."""
    if encoder.learned is None:
        return seen
    parameter = next(encoder.parameters())
    chunks = (torch.from_numpy(seen[first : first + CHUNK].copy()) for first in range(0, len(seen), CHUNK))
    return np.concatenate(
        [encoder.interpret(chunk.to(parameter.device, parameter.dtype)).half().cpu().numpy() for chunk in chunks]
    )


class EncodedTokens:
    """Decodes, crops and encodes `ImageRef`s at each call; same interface as `CachedTokens`."""

    def __init__(self, model: PoseLlava, image: ImageParams, sets: Mapping[str, Samples]) -> None:
        self._model, self._image, self._sets = model, image, sets
        self._pool = ThreadPoolExecutor(READERS)

    def __call__(self, refs: Sequence[ImageRef]) -> ImageTokens:
        """(I, L, d) tokens on the model's device; empty without references, but where forward passes are collective
        the encoders still run on a black image, so that other ranks do not wait forever.

        Raises:
            PoseRftError: an image cannot be decoded; the message names the sample.
        """
        device = next(self._model.parameters()).device
        if not refs:
            if passes_are_collective(self._model):
                black = torch.zeros(1, 3, self._image.size, self._image.size, device=device)
                self._model.encode_images(black, black.new_zeros(1, 3, *2 * [self._image.pose_size]))
            return self._model.no_tokens(device)
        pairs = self._pool.map(self._pixels, refs)
        clip, pose = (torch.stack(side).to(device) for side in zip(*pairs, strict=True))
        return self._model.encode_images(clip, pose)

    def _pixels(self, ref: ImageRef) -> tuple[Tensor, Tensor]:
        record, image = self._sets[ref.name].shards.record(ref.row), self._image
        first = crop_of(record, image.size, image.box_scale, ref.flip)
        same = image.size == image.pose_size
        second = first if same else crop_of(record, image.pose_size, image.box_scale, ref.flip)
        return normalise(first, CLIP_NORM), normalise(second, IMAGENET_NORM)


def image_token_source(
    model: PoseLlava, image: ImageParams, sets: Mapping[str, Samples], cache: Path | None
) -> CachedTokens | EncodedTokens:
    """Returns `CachedTokens` on the folder `cache`, or `EncodedTokens` if it is None; sets: {name: samples}."""
    return EncodedTokens(model, image, sets) if cache is None else CachedTokens(model, image, sets, cache)


def clip_digest(model: PoseLlava) -> str:
    """sha256 of CLIP's weights and of the configuration that selects its features."""
    llava = model.config.llava
    tower = model.llava.model.vision_tower
    read: list[object] = [llava.vision_feature_layer, llava.vision_feature_select_strategy]
    return weights_digest(type(tower), tower.state_dict(), read)


def _floats(tokens: np.ndarray) -> Tensor:
    return torch.from_numpy(tokens.astype(np.float32))
