"""Whole steps of the trainer on a policy of a few thousand weights."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pose_rft.errors import PoseRftError
from pose_rft.hygrpo.trainer import Trainer
from pose_rft.inference.passes import sampling, score_packed, score_separate, scoring
from pose_rft.inference.types import PoseRewards, Scores
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.training import loop
from tests.support.rft_fakes import LORA, Scripted, fake_rewards, make_trainer, rft_params, three_answers

POSES_ONLY = {"mixture": {"image_pose": {"coco": 1.0}}}


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.engine.module.named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_first_update_has_ratio_one_no_clipping_and_kl_exactly_zero(tmp_path, lora):
    trainer, _ = make_trainer(tmp_path, rft_params(lora=lora))
    trainer.engine.module.train()
    values = trainer.step(0).values
    assert values["kl"] == 0 and values["pose/kl"] == 0
    for branch in ("", "pose/"):
        assert values[f"{branch}log_ratio_max"] == 0 and values[f"{branch}clip_ratio/region_mean"] == 0
    assert values["grad_norm"] > 0, "a ratio of one still carries the policy gradient"


@pytest.mark.parametrize("zero_stage", [0, 2])
@pytest.mark.parametrize("lora", [None, LORA])
def test_the_first_ratio_is_exactly_one_in_bfloat16_too(tmp_path, lora, zero_stage):
    engine = {"lr": 3e-3, "bf16": True, "zero_stage": zero_stage, "checkpoint_activations": True}
    seen = []
    trainer, _ = make_trainer(tmp_path, rft_params(lora=lora, engine=engine), after=lambda step, e: seen.extend(e))
    trainer.tools = replace(trainer.tools, rollout=sampling(3, 14, 1.0))
    trainer.engine.module.train()
    values = trainer.step(0).values
    assert values["kl"] == 0 and values["pose/kl"] == 0
    assert values["log_ratio_max"] == 0 and values["pose/log_ratio_max"] == 0 and values["grad_norm"] > 0
    e = seen[0]
    for stored in (e.poses, e.pose_anchor, e.token_anchor, e.reference.poses.mean, e.pose_advantages.values):
        assert stored.dtype == torch.float32, "sums of 144 log-densities in bfloat16 are wrong by half a nat"


def test_a_low_rank_covariance_trains_from_the_first_ratio_of_one(tmp_path):
    policy = {"covariance": "low_rank"}
    trainer, _ = make_trainer(tmp_path, rft_params(updates_per_rollout=2), policy=policy)
    assert trainer.engine.module.pose_head.factor is not None
    before = weights(trainer)
    first = trainer.step(0).values
    assert first["pose/log_ratio_max"] > 0, "of the second update"
    assert any(name.startswith("pose_head.factor") for name in changed(before, weights(trainer)))
    alone, _ = make_trainer(tmp_path / "once", rft_params(), policy=policy)
    values = alone.step(0).values
    assert values["pose/log_ratio_max"] == 0 and values["pose/kl"] == pytest.approx(0, abs=1e-5)
    assert all(value == value for value in (*first.values(), *values.values()))


def test_joints_of_a_low_rank_covariance_have_no_ratio_of_their_own(tmp_path):
    trainer, _ = make_trainer(tmp_path, rft_params(pose_ratio="per_joint"), policy={"covariance": "low_rank"})
    with pytest.raises(PoseRftError, match="per-joint density needs `diagonal`"):
        trainer.step(0)


@pytest.mark.parametrize("anchor", ["old", "ref"])
@pytest.mark.parametrize("form", ["sum", "sqrt", "mean", "per_joint"])
def test_a_second_update_on_the_same_rollout_moves_the_ratios(tmp_path, anchor, form):
    trainer, _ = make_trainer(tmp_path, rft_params(updates_per_rollout=2, ratio_anchor=anchor, pose_ratio=form))
    values = trainer.step(0).values
    assert values["log_ratio_max"] > 0 and values["pose/log_ratio_max"] > 0
    assert all(value == value for value in values.values())


def test_a_batch_without_any_pose_gives_a_finite_step_that_leaves_the_pose_head_alone(tmp_path):
    trainer, processor = make_trainer(tmp_path, rft_params(examples=POSES_ONLY))
    speechless = Scripted(processor, [three_answers(processor)[2]] * 2 + [[processor.eos_token_id]])
    trainer.tools = trainer.tools.__class__(**(vars(trainer.tools) | {"rollout": speechless}))
    before = weights(trainer)
    values = trainer.step(0).values
    assert values["pose/valid_frac"] == 0 and values["grad_norm"] == 0
    assert not changed(before, weights(trainer)), "no answer was better than another and no pose was shown"


def test_only_poses_of_answers_with_one_pose_token_take_part(tmp_path):
    seen = []
    trainer, processor = make_trainer(tmp_path, rft_params(examples=POSES_ONLY), after=lambda step, e: seen.extend(e))
    template = list(processor.answer_ids)
    late = [processor.eos_token_id, *template]  # a pose after the end is no pose
    twice = [processor.pose_token_id, *template]
    answers = Scripted(processor, [template, twice, late])
    trainer.tools = trainer.tools.__class__(**(vars(trainer.tools) | {"rollout": answers}))
    trainer.step(0)
    assert seen[0].valid.tolist() == [[True, False, False]] * 4
    assert seen[0].answer_rewards.format.tolist() == [[1.0, 0.0, 0.0]] * 4
    poses = seen[0].pose_advantages.values.view(4, 3, 2)
    assert (poses[:, 0] != 0).all() and (poses[:, 1:] == 0).all()


def test_the_stored_pose_scores_the_same_under_the_distribution_that_drew_it(tmp_path):
    seen = []
    trainer, _ = make_trainer(tmp_path, rft_params(examples=POSES_ONLY), after=lambda step, e: seen.extend(e))
    before = copy.deepcopy(trainer.engine.module)
    trainer.step(0)
    e = seen[0]
    again = score_packed(before, e.prompts, e.answers, temperature=1.0)
    density = again.poses.log_prob(e.poses.flatten(0, 1), e.joint_mask.repeat_interleave(3, 0))
    assert torch.equal(density.view_as(e.pose_anchor[..., 0])[e.valid], e.pose_anchor[..., 0][e.valid])
    assert e.poses.dtype == e.pose_anchor.dtype == torch.float32


def test_reference_and_encoders_do_not_move_and_the_rest_does(tmp_path):
    trainer, _ = make_trainer(tmp_path)
    kept = copy.deepcopy(trainer.reference._model.state_dict())
    before = weights(trainer)
    for step in range(2):
        trainer.step(step)
    assert all(torch.equal(value, kept[name]) for name, value in trainer.reference._model.state_dict().items())
    moved = changed(before, weights(trainer))
    assert not [name for name in moved if "vision_tower" in name or name.startswith("pose_encoder")]
    assert {name.split(".")[0] for name in moved} == {"llava", "fusion", "pose_head"}


def test_without_kl_the_text_term_never_reaches_the_pose_head_and_the_pose_term_never_the_vocabulary(tmp_path):
    off = {"beta_text": 0.0, "beta_pose": 0.0, "examples": POSES_ONLY}
    trainer, _ = make_trainer(tmp_path / "text", rft_params(**off), variant="grpo")
    before = weights(trainer)
    trainer.step(0)
    moved = changed(before, weights(trainer))
    assert "llava.lm_head.weight" in moved and not [name for name in moved if name.startswith("pose_head")]

    silent = {"rewards": fake_rewards(trainer.tools.rewards.processor, format_weight=0.0)}
    trainer, _ = make_trainer(tmp_path / "pose", rft_params(**off), **silent)
    before = weights(trainer)
    trainer.step(0)
    moved = changed(before, weights(trainer))
    assert "llava.lm_head.weight" not in moved and "pose_head.mean.outer.weight" in moved
    assert [name for name in moved if "language_model" in name], "the pose term reaches the backbone through its state"


def test_packed_and_separate_rows_give_the_same_update(tmp_path):
    found = []
    for name, score in (("packed", score_packed), ("separate", score_separate)):
        trainer, _ = make_trainer(tmp_path / name, score=lambda *args, s=score: s(*args, temperature=1.0))
        values = trainer.step(0).values
        found.append((values["grad_norm"], weights(trainer)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for name, value in found[0][1].items():
        # AdamW's first step is lr · sign(gradient): entries without gradient may differ by that much.
        share = (value - found[1][1][name]).abs().gt(1e-5).float().mean()
        assert share < 0.02, name


def test_a_killed_run_continues_to_the_same_weights_and_the_same_log(tmp_path):
    def run(name: str, stop: int | None) -> tuple[dict[str, torch.Tensor], list[dict]]:
        trainer, _ = make_trainer(tmp_path)
        tools = vars(trainer.tools) | {"rollout": sampling(3, 14, 1.0)}
        trainer.tools = trainer.tools.__class__(**tools)

        def step(number: int) -> loop.StepStats:
            if number == stop:
                raise KeyboardInterrupt
            return trainer.step(number)

        scratch = tmp_path / name
        scratch.mkdir(exist_ok=True)
        loop.run(trainer.engine, step, 4, scratch, save_every=2, label="rft", seed=0)
        timed = (
            "seconds",
            "samples_per_second",
            "step_time",
            "tokens_per_second/",
            "flops_per_second",
            "memory/",
            "time/",
        )
        rows = [json.loads(line) for line in (scratch / "log.jsonl").read_text().splitlines()]
        return weights(trainer), [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]

    whole = run("whole", None)
    with pytest.raises(KeyboardInterrupt):
        run("cut", 3)
    resumed = run("cut", None)
    assert whole[1] == resumed[1]
    assert not changed(whole[0], resumed[0])


def test_every_position_of_the_stream_is_drawn_once(tmp_path):
    drawn = []
    trainer, _ = make_trainer(tmp_path, rft_params(engine={"lr": 1e-3, "accumulation": 2}))
    draw = trainer.tools.draw
    trainer.tools = trainer.tools.__class__(**(vars(trainer.tools) | {"draw": lambda p: drawn.append(p) or draw(p)}))
    trainer.step(0)
    trainer.step(1)
    assert drawn == list(range(8))


def test_no_two_groups_draw_the_same_numbers_and_a_group_always_draws_its_own(tmp_path):
    """Numbers belong to a position of the stream, so two ranks, which have different positions, never share any."""
    trainer, _ = make_trainer(tmp_path)
    numbers = trainer._uniforms([0, 1, 2, 3])
    assert len({float(row.flatten()[0]) for row in numbers}) == 4
    assert torch.equal(trainer._uniforms([2]), numbers[2:3])
    one = PoseDistribution(torch.zeros(6, 144), torch.zeros(6, 144))  # two groups of three equal candidates
    scores = Scores(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), one, torch.ones(2, 3, dtype=torch.bool))
    drawn = trainer._noise(scores, [4, 5])
    assert len({float(x) for x in drawn[..., 0].flatten()}) == drawn[..., 0].numel()
    assert torch.equal(trainer._noise(scores, [5, 4]), drawn.flip(0))


def test_a_batch_that_the_ranks_cannot_share_evenly_is_refused(tmp_path):
    trainer, _ = make_trainer(tmp_path)
    three = SimpleNamespace(world_size=3, accumulation=1)
    with pytest.raises(PoseRftError, match=r"rft\.batch is 4, expected a multiple of 3 processes"):
        Trainer(three, trainer.reference, trainer.tools, trainer.params, "hygrpo", 0)


def test_a_run_that_crosses_a_limit_ends_there_and_its_records_say_after_which_step(tmp_path):
    p = rft_params(stop={"kl": 1e-9})
    trainer, _ = make_trainer(tmp_path, p)
    (tmp_path / "scratch").mkdir()
    log = loop.run(trainer.engine, trainer.step, p.steps, tmp_path / "scratch", 4, "rft", 0, p.stop.reason)
    assert log["kl"].to_list()[0] == 0 and len(log) == 2, "the first step's KL is 0, the second's is not"
    assert p.stop.reason(log.row(-1, named=True)).startswith("kl is")
    assert (tmp_path / "scratch/checkpoints/latest").read_text() == "00000002"


def test_groups_draw_their_poses_whatever_their_micro_batch(tmp_path):
    found = []
    for accumulation in (1, 2):
        seen = []
        p = rft_params(engine={"lr": 1e-3, "accumulation": accumulation}, examples=POSES_ONLY)
        trainer, _ = make_trainer(tmp_path / str(accumulation), p, after=lambda step, e, seen=seen: seen.extend(e))
        norm = trainer.step(0).values["grad_norm"]
        found.append((torch.cat([e.poses for e in seen]), norm))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=0)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4), "two half batches are one whole batch"


def test_a_reward_that_is_not_finite_stops_the_run_and_names_the_samples(tmp_path):
    trainer, _ = make_trainer(tmp_path, rft_params(examples=POSES_ONLY))
    trainer.tools.rewards.body.bones[5] = float("nan")
    with pytest.raises(PoseRftError, match=r"not finite for samples coco_\d"):
        trainer.step(0)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(tmp_path):
    def broken(model, prompts, answers):
        scores = score_packed(model, prompts, answers, temperature=1.0)
        return scores._replace(token_log_prob=scores.token_log_prob * float("inf"))

    trainer, _ = make_trainer(tmp_path, score=broken)
    with pytest.raises(PoseRftError, match="loss is nan for samples"):
        trainer.step(0)


def test_the_same_temperature_scales_sampling_and_scoring(tmp_path):
    trainer, _ = make_trainer(tmp_path)
    prompts = trainer.tools.prepare([trainer.tools.draw(p) for p in range(4)])
    answers = trainer.tools.rollout(trainer.engine.module, prompts, None)
    cold, warm = (scoring(t)(trainer.engine.module, prompts, answers) for t in (0.5, 1.0))
    assert (cold.entropy.sum() < warm.entropy.sum()) and not torch.equal(cold.token_log_prob, warm.token_log_prob)


def test_samples_with_picture_and_caption_take_the_joint_reward(tmp_path):
    seen = []
    one = {"mixture": {"image_text_pose": {"bedlam": 1.0}}}
    trainer, _ = make_trainer(tmp_path, rft_params(examples=one), after=lambda step, e: seen.extend(e))
    trainer.step(0)
    rewards: PoseRewards = seen[0].pose_rewards
    assert rewards.joint.isfinite().all() and rewards.semantic.isnan().all()


def test_a_batch_that_does_not_split_is_refused():
    from pose_rft.params import parse

    content = rft_params().model_dump(mode="json") | {"batch": 5, "engine": {"lr": 1e-3, "accumulation": 2}}
    with pytest.raises(PoseRftError, match=r"batch 5 must be a multiple of engine\.accumulation 2"):
        parse(content, type(rft_params()), "`rft`")


def test_dropout_in_adapters_is_refused():
    with pytest.raises(ValueError, match="expected 0"):
        rft_params(lora=LORA | {"dropout": 0.1})


def test_the_log_has_trl_names_for_text_and_a_mirror_for_poses(tmp_path):
    trainer, _ = make_trainer(tmp_path)
    values = trainer.step(0).values
    text = (
        "num_tokens completions/mean_length completions/clipped_ratio reward reward_std frac_reward_zero_std entropy kl"
    )
    text += " entropy kl clip_ratio/region_mean rewards/format/mean"
    pose = "pose/kl pose/clip_ratio/region_mean pose/sigma_mean pose/valid_frac pose/entropy_per_dim pose/ess"
    cost = "time/rollout time/score time/reward time/update grad_norm"
    for name in f"{text} {pose} {cost}".split():
        assert name in values, name
    assert values["completions/max_length"] >= values["completions/mean_length"] >= values["completions/min_length"]


def test_semantic_rewards_read_the_bare_caption(tmp_path):
    one = {"mixture": {"text_pose": {"posescript": 1.0}}}
    trainer, _ = make_trainer(tmp_path, rft_params(examples=one))
    trainer.step(0)
    read = trainer.tools.rewards.retrieval.read
    assert read and all("words of" in text and "pose" not in text.lower() for text in read)


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("zero_stage", [2, 3])
def test_every_zero_stage_takes_the_same_step(tmp_path, zero_stage, lora):
    norms = []
    for stage in (0, zero_stage):
        trainer, _ = make_trainer(
            tmp_path / str(stage), rft_params(engine={"lr": 1e-3, "zero_stage": stage}, lora=lora)
        )
        norms.append([trainer.step(step).values["grad_norm"] for step in range(2)])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
