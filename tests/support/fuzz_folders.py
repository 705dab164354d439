"""What `doors.py` feeds beside single files: folders that models, trainings and conversions wrote, one file damaged.

Everything is tiny and made here; what needs torch is imported when the first folder of its kind is made.
"""

import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.errors import PoseRftError

TESTS = Path(__file__).resolve().parents[1]

Maker = Callable[[Path], object]
Reader = Callable[[Path], object]


@cache
def _base() -> Any:

    from pose_rft.policy.hub import create_base
    from pose_rft.policy.params import BaseModelParams
    from tests.support.tiny_policies import BASE, IMAGE, word_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        word_tokenizer().save_pretrained(folder)
        return create_base(BaseModelParams.model_validate(BASE), IMAGE, Path(folder))


def make_base(folder: Path) -> None:
    _base().save(folder)


def read_base(folder: Path) -> None:
    from pose_rft.policy.hub import load_base

    load_base(folder)


def make_policy(folder: Path) -> None:
    """With adapters, pose head and processor."""
    from copy import deepcopy

    from pose_rft.policy.hub import save_policy
    from pose_rft.policy.lora import add_lora
    from pose_rft.policy.params import LoRAParams
    from tests.support.tiny_policies import tiny_policy

    model, processor = tiny_policy(deepcopy(_base()), covariance="low_rank")
    save_policy(folder, add_lora(model, LoRAParams(rank=2, alpha=4, dropout=0.0, targets=["q_proj"])), processor)


def read_policy(folder: Path) -> None:
    from pose_rft.policy.hub import load_policy

    load_policy(folder)


def make_encoder(folder: Path) -> None:
    from tests.support.tiny_policies import tiny_encoder

    tiny_encoder().save_pretrained(folder)


def read_encoder(folder: Path) -> None:
    from pose_rft.policy.hub import load_pose_encoder

    load_pose_encoder(folder)


def make_judge(folder: Path) -> None:
    import torch

    from pose_rft.params import load
    from pose_rft.retrieval.judge import Vocabulary
    from pose_rft.retrieval.model import JudgeModel
    from pose_rft.retrieval.params import RetrievalParams

    small = {"word_width": 4, "recurrent_width": 4, "latent": 4, "pose_width": 4}
    params = load("retrieval", RetrievalParams, TESTS.parent / "params.yaml").judge.model_copy(update=small)
    JudgeModel(params, Vocabulary.of(["a person stands"]), torch.zeros(24, 3)).save(folder)


def read_judge(folder: Path) -> None:
    from pose_rft.retrieval.model import load_retrieval

    load_retrieval(folder)


@cache
def _engine() -> Any:
    import torch

    from pose_rft.training.engine import Engine, EngineParams

    torch.manual_seed(0)
    return Engine(torch.nn.Linear(4, 3), EngineParams(lr=1e-2, zero_stage=2, warmup=0.2), 9)


def make_checkpoint(folder: Path) -> None:
    from pose_rft.training import checkpoint

    checkpoint.save(_engine(), folder / "checkpoints", 2)
    (folder / "log.jsonl").write_text('{"step": 0, "loss": 1.5}\n{"step": 1, "loss": 1.25}\n')


def read_checkpoint(folder: Path) -> None:
    from pose_rft.training import checkpoint, loop

    loop._rows_before(folder / "log.jsonl", checkpoint.restore(_engine(), folder / "checkpoints"))


def make_hmr2(folder: Path) -> None:
    import torch

    from pose_rft.policy.config import Hmr2VitConfig
    from pose_rft.policy.pose_encoder import Hmr2Vit

    sizes = {"image_size": (64, 48), "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 1}
    encoder = Hmr2Vit(Hmr2VitConfig(**sizes, num_attention_heads=16, mlp_ratio=2))
    state = {f"backbone.{key}": value for key, value in encoder.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "epoch.ckpt")


def read_hmr2(folder: Path) -> None:
    from pose_rft.policy.hub import load_hmr2

    load_hmr2(folder / "epoch.ckpt")


@cache
def tiny_bodies() -> Path:
    """`data.body_model` with the small body of tests/conftest.py, in the child's folder."""
    from importlib.util import module_from_spec, spec_from_file_location

    from pose_rft.sample import python2_pickle

    spec = spec_from_file_location("tests_conftest", TESTS / "conftest.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    content = module.tiny_content()
    folder = Path(tempfile.mkdtemp())
    python2_pickle.dump(content, folder / "smpl/SMPL_NEUTRAL.pkl")
    np.save(folder / "J_regressor_h36m.npy", module.tiny_h36m_regressor(content))
    return folder


def make_sentences(folder: Path) -> None:
    from tests.support.retrieval_fakes import tiny_encoder as tiny_bert

    tiny_bert(folder)


def read_sentences(folder: Path) -> None:
    from pose_rft.retrieval.sentence_encoder import SentenceEncoder

    encoder = SentenceEncoder(str(folder))
    assert len(encoder.encode(["a person", "the left arm"])) == 2
    encoder.token_features(["a person", "the left arm"])


@cache
def _distilbert() -> Path:
    from tests.support.retrieval_fakes import tiny_encoder as tiny_bert

    return tiny_bert(tiny_bodies() / "distilbert", kind="distilbert")


def make_posescript(folder: Path) -> None:
    from tests.support.retrieval_fakes import released_posescript

    released_posescript(_distilbert(), folder)


def read_posescript(folder: Path) -> None:
    from pose_rft.retrieval.posescript import load_posescript
    from tests.support.retrieval_fakes import tiny_params

    load_posescript(folder / "checkpoint_best.pth", tiny_params(_distilbert()).reward)


def make_shards(folder: Path) -> None:
    from pose_rft.shards.convert import convert
    from pose_rft.shards.plan import ShardParams
    from tests.support.fake_release import FakeRelease

    params = ShardParams(samples_per_shard=20, executor="serial", workers=1, jpeg_quality=92)
    folder.rmdir()
    scratch = folder.with_name(f"{folder.name}.scratch")
    convert(FakeRelease(), "train", folder, params, 0.0, "digest", scratch)
    shutil.rmtree(scratch)


def read_shards(folder: Path) -> None:
    """Everything that a person does with a folder of shards."""
    from pose_rft.shards.loader import ShardSet
    from pose_rft.shards.stats import stats
    from pose_rft.shards.verify import verify

    for problem in verify(folder).problems:
        assert "\n" not in problem
    stats(folder)
    samples = ShardSet(folder)
    for row in range(min(len(samples), 3)):
        samples.record(row)


def make_scratch(folder: Path) -> None:
    """A conversion that a kill left: two of three shards are done."""
    from pose_rft.shards.convert import convert
    from pose_rft.shards.plan import ShardParams
    from tests.support.fake_release import FakeRelease

    params = ShardParams(samples_per_shard=20, executor="serial", workers=1, jpeg_quality=92)
    try:
        convert(FakeRelease(bad={"u05": "error"}), "train", folder / "out", params, 0.0, "digest", folder)
    except PoseRftError:
        return


def read_scratch(folder: Path) -> None:
    from pose_rft.shards.convert import _stored_identity
    from pose_rft.shards.writer import complete, read_rows

    _stored_identity(folder)
    for number in range(2):
        if complete(folder / "shards", folder / "work", number):
            read_rows(folder / "work", number)


FOLDERS: dict[str, tuple[Maker, Reader]] = {
    "folder: base model": (make_base, read_base),
    "folder: policy": (make_policy, read_policy),
    "folder: pose encoder": (make_encoder, read_encoder),
    "folder: retrieval model": (make_judge, read_judge),
    "folder: training checkpoint": (make_checkpoint, read_checkpoint),
    "folder: HMR2.0 checkpoint": (make_hmr2, read_hmr2),
    "folder: sentence encoder": (make_sentences, read_sentences),
    "folder: PoseScript checkpoint": (make_posescript, read_posescript),
    "folder: shards": (make_shards, read_shards),
    "folder: conversion's scratch": (make_scratch, read_scratch),
}


def file_of(folder: Path, rng: np.random.Generator) -> Path:
    """The file to damage: any, the small ones that say what the others are twice as often."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files += [path for path in files if path.suffix in (".json", ".parquet")]
    return files[int(rng.integers(len(files)))]
