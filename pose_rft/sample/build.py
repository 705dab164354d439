"""Builds the embedded sample: stand-in body models, a miniature of every release, a tokenizer, a stamp.

The tasks of all releases share one process pool, heaviest first. Every task derives its random numbers from
(seed, release, index), so neither process count nor order changes a byte. The output folder is written atomically.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.progress import Progress
from pose_rft.sample import write_llava, write_posescript
from pose_rft.sample.people import Studio
from pose_rft.sample.plan import SampleParams, Task, Writer
from pose_rft.sample.stamp import STAMP, stamp
from pose_rft.sample.standin import build_standin
from pose_rft.sample.tokenizer import write_tokenizer

RELEASES, BODY_MODELS, TOKENIZER = "releases", "body_models", "tokenizer"
# Release → module. LLaVA-Instruct reuses COCO's images and renders nothing.
WRITERS = {
    "h36m": "write_h36m",
    "mpi_inf_3dhp": "write_3dhp",
    "coco": "write_coco",
    "mpii": "write_mpii",
    "posescript": "write_posescript",
    "bedlam": "write_bedlam",
    "3dpw": "write_pw3d",
    "emdb": "write_emdb",
    "chatpose": "write_chatpose",
}

_studio: Studio | None = None


def build_sample(params: SampleParams, seed: int, out: Path, texts: Sequence[str]) -> None:
    """Writes `out` (`releases/`, `body_models/`, `tokenizer/`, `stamp.json`) from scratch.

    Args:
        seed: `seed.data`.
        texts: texts that the tokenizer must cover besides captions and dialogues, such as the policy's templates.
    Raises:
        PoseRftError: a rendering process died, or the disk is full.
    """
    try:
        with atomic.folder(out) as folder:
            build_standin(folder / BODY_MODELS)
            root = folder / RELEASES
            results = render_all(params, seed, folder / BODY_MODELS, root)
            for release, name in WRITERS.items():
                _writer(name).finish(params, seed, results[release], root)
            pictures = [picture for result in results["coco"] for picture in result]
            dialogues = write_llava.write(params, seed, pictures, root)
            words = [*texts, *_caption_texts(root), *_dialogue_texts(dialogues)]
            write_tokenizer(folder / TOKENIZER, words, params.vocabulary)
            atomic.write_json(folder / STAMP, stamp("sample", seed, folder))
    except OSError as error:
        raise PoseRftError(
            f"The sample cannot be written to {out} ({error.strerror or error}); make room there."
        ) from None


def render_all(params: SampleParams, seed: int, body_models: Path, root: Path) -> dict[str, list[Any]]:
    """Runs the tasks of all releases; returns the results by release, in the order of its tasks."""
    tasks = {release: _writer(name).tasks(params, seed) for release, name in WRITERS.items()}
    waiting = sorted((task for own in tasks.values() for task in own), key=lambda task: -task.weight)
    results: dict[str, dict[int, Any]] = {release: {} for release in tasks}
    total = sum(task.weight for task in waiting)
    with Progress("sample", total, "pictures") as progress:
        for task, result in _run(waiting, params, seed, body_models, root):
            results[task.release][task.index] = result
            progress.advance(task.weight)
    return {release: [done[task.index] for task in tasks[release]] for release, done in results.items()}


def _run(
    tasks: Sequence[Task], params: SampleParams, seed: int, body_models: Path, root: Path
) -> Iterator[tuple[Task, Any]]:
    processes = min(params.processes, len(tasks))
    if processes == 1:
        studio = Studio(body_models)
        yield from ((task, _writer(WRITERS[task.release]).render(task, params, seed, studio, root)) for task in tasks)
        return
    Studio(body_models)  # compiles the renderer's kernels once, so that the processes do not all compile them at once
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _start, (body_models,))
    try:
        running = {pool.submit(_render, task, params, seed, root): task for task in tasks}
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool:
        raise PoseRftError(
            "A process that renders the sample died, probably for lack of memory; lower `sample.processes`."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start(body_models: Path) -> None:
    """Initialises a worker process, which renders on one core."""
    import cv2
    import torch

    global _studio
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _studio = Studio(body_models)


def _render(task: Task, params: SampleParams, seed: int, root: Path) -> Any:
    assert _studio is not None
    return _writer(WRITERS[task.release]).render(task, params, seed, _studio, root)


def _writer(name: str) -> Writer:
    return cast(Writer, import_module(f"pose_rft.sample.{name}"))


def _caption_texts(root: Path) -> Iterator[str]:
    release = root / write_posescript.RELEASE / "posescript_release"
    for path in sorted(release.glob("posescript_*.json")):
        for texts in json.loads(path.read_text()).values():
            yield from [texts] if isinstance(texts, str) else texts


def _dialogue_texts(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield from (turn["value"].replace("<image>", " ") for turn in row["conversations"])


# One BLAS thread per rendering process: numpy reads this variable when a spawned process imports it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
