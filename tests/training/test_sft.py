"""Supervised pretraining of a policy of a few thousand weights."""

import subprocess
from pathlib import Path

import pytest
import torch

from pose_rft.batches.collate import Collator
from pose_rft.batches.examples import Example, ExampleStream
from pose_rft.batches.feature_cache import EncodedTokens
from pose_rft.batches.samples import Samples
from pose_rft.errors import PoseRftError
from pose_rft.policy.lora import add_lora, trainable_parameters
from pose_rft.policy.params import LoRAParams
from pose_rft.record import Caption
from pose_rft.training import sft
from pose_rft.training.engine import Engine
from pose_rft.training.sft import SFTParams, batch_loss
from tests.support import two_ranks
from tests.support.training_fakes import IMAGE, Chain, image_record, samples, text_record, tiny_policy, vqa_record

torch.set_num_threads(1)
CAPTION = (Caption("arms up", "automatic"),)
MIXTURE = {
    "image_pose": {"coco": 0.4},
    "text_pose": {"posescript": 0.3},
    "image_text_pose": {"bedlam": 0.1},
    "vqa": {"llava_instruct": 0.2},
}


def params(**changes: object) -> SFTParams:
    content = {
        "steps": 6,
        "batch": 4,
        "save_every": 3,
        "cache_tokens": False,
        "engine": {"lr": 3e-3},
        "examples": {"mixture": MIXTURE},
        "loss": {"rotation": 1.0, "nll": 0.1},
        "heldout": {"samples": 4, "image_pose": {}, "text_pose": {}},
    }
    return SFTParams.model_validate(content | changes)


def training_sets(tmp_path: Path) -> dict[str, Samples]:
    content = {
        "coco": [image_record(i) for i in range(8)],
        "bedlam": [image_record(i, dataset="bedlam", captions=CAPTION) for i in range(8, 11)],
        "posescript": [text_record(i) for i in range(5)],
        "llava_instruct": [vqa_record(i) for i in range(4)],
    }
    return {name: samples(f"{name}/train", records, tmp_path / "samples") for name, records in content.items()}


def run(tmp_path: Path, scratch: str, p: SFTParams, head: str = "gaussian", stop: int | None = None):
    """Trains the tiny policy; returns its weights by name and the log."""
    sets = training_sets(tmp_path)
    model, processor = tiny_policy(tmp_path, head)
    if p.lora is not None:
        add_lora(model, p.lora)
    trainable_parameters(model, "full" if p.lora is None else "lora")
    tokens = EncodedTokens(model, IMAGE, {s.name: s for s in sets.values()})
    engine = Engine(model, p.engine, p.steps)
    stream = ExampleStream(sets, p.examples, processor, Chain(), seed=0)  # type: ignore[arg-type]
    draw = stream.draw

    def breaking(position: int) -> Example:
        if stop is not None and position == stop * p.batch:
            raise KeyboardInterrupt
        return draw(position)

    stream.draw = breaking  # type: ignore[method-assign]
    collator = Collator(processor)
    log = sft.train(engine, stream, collator, tokens, Chain(), p, tmp_path / scratch, "sft", 0)  # type: ignore[arg-type]
    trained = engine.finish()
    return {name: value.detach().clone() for name, value in trained.state_dict().items()}, log


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_sft_trains_everything_but_the_encoders(tmp_path: Path, stage: int) -> None:
    before = {name: value.clone() for name, value in tiny_policy(tmp_path)[0].state_dict().items()}
    p = params(engine={"lr": 3e-3, "zero_stage": stage, "accumulation": 2})
    after, log = run(tmp_path, "scratch", p)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name in before if "vision_tower" in name or name.startswith("pose_encoder.")}
    fixed = frozen | {"pose_head.mean_pose"}
    assert not changed & fixed
    assert changed == set(before) - fixed
    assert {"answer/vqa", "rotation/image_pose", "nll/text_pose", "sigma", "gradient_norm"} <= set(log.columns)


def test_zero_stages_agree(tmp_path: Path) -> None:
    results = {}
    for stage in (0, 3):
        results[stage], _ = run(tmp_path, f"zero-{stage}", params(engine={"lr": 1e-3, "zero_stage": stage}, steps=3))
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[3][name], rtol=1e-3, atol=1e-4)


def test_a_broken_run_of_sft_resumes_to_the_same_bits(tmp_path: Path) -> None:
    whole, log = run(tmp_path, "whole", params())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "broken", params(), stop=4)
    resumed, resumed_log = run(tmp_path, "broken", params())
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert log["loss"].equals(resumed_log["loss"])


def test_lora_trains_adapters_and_leaves_the_language_model(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in tiny_policy(tmp_path)[0].state_dict().items()}
    lora = LoRAParams(rank=2, alpha=4, dropout=0.1, targets=["q_proj", "v_proj"])
    after, _ = run(tmp_path, "lora", params(lora=lora.model_dump()))
    plain = {name.replace(".base_layer", ""): value for name, value in after.items() if "lora_" not in name}
    language = [name for name in before if "language_model" in name or "lm_head" in name]
    assert all(torch.equal(before[name], plain[name]) for name in language)
    adapters = [value for name, value in after.items() if "lora_B" in name]
    assert len(adapters) == 4 and all(value.abs().max() > 0 for value in adapters)


def test_lora_in_bf16_trains_as_the_paper_preset_asks(tmp_path: Path) -> None:
    lora = {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}
    losses = {}
    for bf16 in (False, True):
        engine = {"lr": 3e-3, "bf16": bf16, "zero_stage": 2, "accumulation": 2}
        _, log = run(tmp_path, f"bf16-{bf16}", params(engine=engine, lora=lora, steps=4))
        losses[bf16] = log["loss"].to_list()
    assert losses[True] == pytest.approx(losses[False], rel=0.03) and losses[True] != losses[False]


def test_the_loss_falls_and_a_point_head_has_no_likelihood(tmp_path: Path) -> None:
    _, log = run(tmp_path, "point", params(steps=40, engine={"lr": 1e-2}), head="point")
    assert not [name for name in log.columns if name.startswith(("nll", "sigma"))]
    assert log["loss"].tail(8).mean() < 0.6 * log["loss"].head(8).mean()  # type: ignore[operator]


def test_a_batch_of_texts_only_gives_every_trained_parameter_a_gradient(tmp_path: Path) -> None:
    sets = training_sets(tmp_path)
    model, processor = tiny_policy(tmp_path)
    trained = trainable_parameters(model, "full")
    for task, name in (("text_pose", "posescript"), ("vqa", "llava_instruct")):
        p = params(examples={"mixture": {task: {name: 1.0}}})
        stream = ExampleStream(sets, p.examples, processor, Chain(), seed=0)  # type: ignore[arg-type]
        batch = Collator(processor)([stream.draw(i) for i in range(3)])
        tokens = EncodedTokens(model, IMAGE, {s.name: s for s in sets.values()})(batch.image_refs)
        model.zero_grad()
        loss, _ = batch_loss(model, batch, tokens, p.loss, Chain(), len(batch.pose_rows))  # type: ignore[arg-type]
        loss.backward()
        assert torch.isfinite(loss) and all(parameter.grad is not None for parameter in trained)


def test_the_state_of_the_pose_is_the_one_before_its_token(tmp_path: Path) -> None:
    sets = training_sets(tmp_path)
    _, processor = tiny_policy(tmp_path)
    stream = ExampleStream(sets, params().examples, processor, Chain(), seed=0)  # type: ignore[arg-type]
    batch = Collator(processor)([stream.draw(i) for i in range(12)])
    following = batch.input_ids[batch.pose_rows, batch.pose_positions + 1]
    assert (following == processor.pose_token_id).all() and len(batch.pose_rows)
    learned = batch.labels != -100
    assert (batch.labels[learned] == batch.input_ids[learned]).all()
    assert (batch.labels == processor.eos_token_id).sum(1).eq(1).all()
    assert not (learned & (batch.attention_mask == 0)).any()


def test_a_loss_that_is_not_finite_names_the_samples(tmp_path: Path) -> None:
    sets = training_sets(tmp_path)
    sets["coco"].rotations[3] = float("nan")
    model, processor = tiny_policy(tmp_path)
    trainable_parameters(model, "full")
    p = params(examples={"mixture": {"image_pose": {"coco": 1.0}}}, batch=8)
    tokens = EncodedTokens(model, IMAGE, {s.name: s for s in sets.values()})
    stream = ExampleStream(sets, p.examples, processor, Chain(), seed=0)  # type: ignore[arg-type]
    with pytest.raises(PoseRftError, match="coco_3"):
        engine = Engine(model, p.engine, p.steps)
        sft.train(engine, stream, Collator(processor), tokens, Chain(), p, tmp_path / "nan", "sft", 0)  # type: ignore[arg-type]


def test_a_batch_that_cannot_be_accumulated_is_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of engine.accumulation"):
        params(engine={"lr": 1e-3, "accumulation": 3})


WORKER = """
import sys
from pathlib import Path
import torch, os
from tests.training.test_sft import params, run
torch.set_num_threads(1)
folder = Path(sys.argv[1])
stage = int(sys.argv[2])
texts = {"text_pose": {"posescript": 0.5}, "vqa": {"llava_instruct": 0.5}}
p = params(engine={"lr": 1e-3, "zero_stage": stage}, batch=2, steps=8, examples={"mixture": texts})
weights, log = run(folder / f"data-{os.environ['RANK']}", "scratch", p)
if os.environ["RANK"] == "0":
    torch.save({"weights": weights, "loss": log["loss"].to_list()}, folder / "result.pt")
torch.distributed.barrier()
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_ranks_of_which_one_has_no_pose_train_like_one_rank(tmp_path: Path, stage: int) -> None:
    """One example per rank and step: often one has a picture and no pose, the other a pose and no picture."""
    (tmp_path / "worker.py").write_text(WORKER)
    arguments = [str(tmp_path / "worker.py"), str(tmp_path), str(stage)]
    environment = two_ranks.environment()
    done = subprocess.run([*two_ranks.LAUNCHER, *arguments], capture_output=True, env=environment, timeout=240)
    assert (tmp_path / "result.pt").is_file(), done.stderr.decode()[-3000:]
    two = torch.load(tmp_path / "result.pt", weights_only=True)
    texts = {"text_pose": {"posescript": 0.5}, "vqa": {"llava_instruct": 0.5}}
    p = params(engine={"lr": 1e-3, "accumulation": 2}, batch=2, steps=8, examples={"mixture": texts})
    one, log = run(tmp_path / "one", "scratch", p)
    assert two["loss"] == pytest.approx(log["loss"].to_list(), rel=1e-4)
    for name in one:
        torch.testing.assert_close(two["weights"][name], one[name], rtol=1e-3, atol=1e-5)
