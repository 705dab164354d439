"""A pose encoder's observations of every image of a set, cached in scratch.

An observation (`PoseEncoder.observe`) is the expensive half of the encoder and does not depend on the parts trained on
top: the lifter is trained on these files, and SFT, RFT and evaluation read the same ones. Stored in half precision.
Images are processed in parallel, one core each.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pose_rft.batches.cached_folder import cached_folder
from pose_rft.batches.crop_cache import Crops, load_crops, pixels
from pose_rft.batches.samples import Samples
from pose_rft.cores import cores
from pose_rft.io import atomic
from pose_rft.io.mapped import new_array, open_array
from pose_rft.policy.config import IMAGENET_NORM
from pose_rft.policy.pose_encoder import PoseEncoder
from pose_rft.policy.processor import ImageParams
from pose_rft.progress import Progress

CHUNK = 64
FORM = 3  # version of the files; increment it when an encoder's code gives other observations for the same weights


def observed(
    encoder: PoseEncoder, samples: Samples, image: ImageParams, flip: bool, cache: Path
) -> NDArray[np.float16]:
    """(N, L, W) float16 observations of the N samples with an image, in order; of mirrored images if `flip`.

    An encoder that can mirror its observations does not process the mirrored images.

    Args:
        cache: folder of all features; observations are in `cache/observed`, the crops in `cache/crops`.
    Raises:
        PoseRftError: an image cannot be decoded; the message names the sample.
    """
    if flip and (mirrored := _mirrored(encoder, observed(encoder, samples, image, False, cache))) is not None:
        return mirrored
    content = [FORM, observer_digest(encoder), samples.shards.fingerprint, image.pose_size, image.box_scale, flip]
    key = hashlib.sha256(atomic.canonical_json(content).encode()).hexdigest()[:24]
    folder = cached_folder(
        cache / "observed" / key, lambda temporary: _write(temporary, encoder, samples, image, flip, cache)
    )
    return open_array(folder / "observed.npy")


def _mirrored(encoder: PoseEncoder, seen: NDArray[np.float16]) -> NDArray[np.float16] | None:
    if not encoder.mirrors:
        return None
    return encoder.mirror(torch.from_numpy(seen.astype(np.float32))).half().numpy()


def observer_digest(encoder: PoseEncoder) -> str:
    """sha256 of the weights and sizes that an observation depends on."""
    own = f"{encoder.learned}."
    state = {name: value for name, value in encoder.state_dict().items() if not name.startswith(own)}
    return weights_digest(type(encoder), state, [*encoder.grid, encoder.image_size])


def weights_digest(kind: type[nn.Module], state: Mapping[str, Tensor], read: list[object]) -> str:
    """sha256 of a module's class, its weights, and the plain values in `read` that select its output."""
    digest = hashlib.sha256(atomic.canonical_json([kind.__name__, read]).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write(folder: Path, encoder: PoseEncoder, samples: Samples, image: ImageParams, flip: bool, cache: Path) -> None:
    encoder.eval()
    crops = load_crops(samples, image.pose_size, image.box_scale, cache / "crops")
    rows = samples.has_image.nonzero()[:, 0].numpy()
    once, place = _distinct(crops, rows)
    parameter = next(encoder.parameters())
    file: np.ndarray | None = None

    @torch.no_grad()  # the grad mode is per thread
    def see(some: NDArray[np.integer]) -> NDArray[np.float16]:
        shown = pixels(crops, some, IMAGENET_NORM, flip).to(parameter.device, parameter.dtype)
        return encoder.observe(shown).half().cpu().numpy()

    label = f"observing {samples.name}{' mirrored' if flip else ''}"
    chunks = [once[first : first + CHUNK] for first in range(0, len(once), CHUNK)]
    with ExitStack() as written, one_core_each() as pool, Progress(label, len(once), "pictures") as progress:
        start = 0
        for values in pool.map(see, chunks):
            if file is None:
                shape = (len(rows), *values.shape[1:])
                file = written.enter_context(new_array(folder / "observed.npy", np.float16, shape))
            here = (place >= start) & (place < start + len(values))
            file[here] = values[place[here] - start]
            start += len(values)
            progress.advance(len(values))


def _distinct(crops: Crops, rows: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Rows with distinct crops (first occurrences), and for every row the index in them of its identical crop.

    LLaVA-Instruct has several questions about most images; each image is observed once.
    """
    places: dict[bytes, int] = {}
    digests = (hashlib.sha256(crops[row].tobytes()).digest() for row in rows)
    place = np.array([places.setdefault(digest, len(places)) for digest in digests], dtype=np.int64)
    return rows[np.unique(place, return_index=True)[1]], place


@contextmanager
def one_core_each() -> Iterator[ThreadPoolExecutor]:
    """A pool with one single-core thread per core of this process: idle pipeline stages leave their cores free."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores()) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
