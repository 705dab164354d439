"""What a pose encoder sees in every picture of a set, kept in scratch.

An observation (`PoseEncoder.observe`) is the costly half of the encoder and depends on nothing that is trained behind
it: the lifter is trained on these files, and SFT, RFT and evaluation interpret the same ones. Half precision; one core
a picture, several pictures at a time.
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
FORM = 3  # of the files; raise it when an encoder's code observes otherwise with the same weights


def observed(
    encoder: PoseEncoder, samples: Samples, image: ImageParams, flip: bool, cache: Path
) -> NDArray[np.float16]:
    """(N, L, W) float16 of the N samples with a picture, in their order; mirrored pictures if `flip`.

    An encoder that can mirror what it saw does not look a second time.

    Args:
        cache: folder of all features; observations lie in `cache/observed`, the crops in `cache/crops`.
    Raises:
        PoseRftError: a picture cannot be decoded; the sample is named.
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
    """sha256 over the weights and sizes that an observation depends on."""
    own = f"{encoder.learned}."
    state = {name: value for name, value in encoder.state_dict().items() if not name.startswith(own)}
    return weights_digest(type(encoder), state, [*encoder.grid, encoder.image_size])


def weights_digest(kind: type[nn.Module], state: Mapping[str, Tensor], read: list[object]) -> str:
    """sha256 over a module's class, its weights, and plain values that decide what is read from it."""
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

    @torch.no_grad()  # a thread's own setting
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
    """The rows whose crop no row before shows, and of every row the place in them of the one that shows the same.

    LLaVA-Instruct asks several things of most of its pictures, and each is looked at once.
    """
    places: dict[bytes, int] = {}
    digests = (hashlib.sha256(crops[row].tobytes()).digest() for row in rows)
    place = np.array([places.setdefault(digest, len(places)) for digest in digests], dtype=np.int64)
    return rows[np.unique(place, return_index=True)[1]], place


@contextmanager
def one_core_each() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core that this process may use, each computing on one: stages that wait leave theirs free."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores()) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
