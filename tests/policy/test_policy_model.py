"""PoseLlava: image path, states, folders, and the traps of transformers."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, DynamicCache

from pose_rft.errors import PoseRftError
from pose_rft.policy.config import PoseLlavaConfig
from pose_rft.policy.hub import Base, load_policy, save_policy
from pose_rft.policy.lora import trainable_parameters
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.pose_head import IDENTITY_6D
from pose_rft.policy.processor import PoseProcessor
from tests.support.tiny_policies import POLICY, image_tokens_of, random_crops, tiny_policy

Policy = tuple[PoseLlava, PoseProcessor]


def outputs(model: PoseLlava, processor: PoseProcessor) -> tuple[torch.Tensor, torch.Tensor]:
    encoded = processor.encode(processor.image_questions[0], processor.ANSWER, True)
    with torch.no_grad():
        out = model(encoded.input_ids[None], image_tokens=image_tokens_of(model, processor, 1))
        return out.logits, model.pose_distribution(out.hidden_states[:, encoded.pose_position]).mean


def test_clip_only_says_what_llava_itself_says(base: Base) -> None:
    model, processor = tiny_policy(base, fusion="clip_only")
    encoded = processor.encode(processor.image_questions[0], processor.ANSWER, True)
    pixels, _ = random_crops(processor, 2)
    ids = encoded.input_ids[None].expand(2, -1)
    with torch.no_grad():
        ours = model(ids, pixel_values=pixels).logits
        theirs = model.llava(input_ids=ids, pixel_values=pixels).logits
    words = len(processor.tokenizer)
    kept = [i for i in range(words) if i not in model.config.suppressed_token_ids]
    assert torch.allclose(ours[..., kept], theirs[..., kept], atol=1e-5)
    assert float(ours.softmax(-1)[..., model.config.suppressed_token_ids].max()) == 0


def test_each_row_sees_its_own_image(policy: Policy) -> None:
    model, processor = policy
    tokens = image_tokens_of(model, processor, 2)
    assert tokens is not None
    with_image = processor.encode(processor.image_questions[0], None, True).input_ids
    text = torch.full_like(with_image, processor.sentence_ids("he")[0])
    together = model(torch.stack([with_image, text, with_image]), image_tokens=tokens).logits
    for row, image in ((0, 0), (2, 1)):
        alone = model(with_image[None], image_tokens=tokens.select([image])).logits[0]
        assert torch.allclose(together[row], alone, atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-3)


def test_placeholders_and_images_must_match(policy: Policy) -> None:
    model, processor = policy
    ids = processor.encode(processor.image_questions[0], None, True).input_ids[None]
    with pytest.raises(ValueError, match="placeholders"):
        model(ids)
    with pytest.raises(ValueError, match="placeholders"):
        model(ids, image_tokens=image_tokens_of(model, processor, 2))


def test_the_teacher_forced_state_equals_the_state_of_cached_generation(policy: Policy) -> None:
    model, processor = policy
    tokens = image_tokens_of(model, processor, 1)
    encoded = processor.encode(processor.image_questions[0], processor.ANSWER, True)
    with torch.no_grad():
        forced = model(encoded.input_ids[None], image_tokens=tokens).hidden_states[0]
        start = int((~encoded.labels_mask).sum())
        cache = DynamicCache(config=model.llava.model.language_model.config)
        model(encoded.input_ids[None, :start], image_tokens=tokens, past_key_values=cache, use_cache=True)
        for position in range(start, len(encoded.input_ids)):
            step = model(encoded.input_ids[None, position : position + 1], past_key_values=cache, use_cache=True)
            assert torch.allclose(step.hidden_states[0, 0], forced[position], atol=1e-4)


@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_pose_moves_by_the_room_that_the_image_takes(base: Base, fusion: str) -> None:
    model, processor = tiny_policy(base, fusion=fusion)
    assert model.num_image_tokens == (4 if fusion == "add" else 8)
    question = processor.image_text_questions[0].format(caption="he stands")
    with_image, without = (processor.encode(question, processor.ANSWER, has) for has in (True, False))
    assert with_image.pose_position - without.pose_position == model.num_image_tokens
    assert with_image.input_ids[with_image.pose_position + 1] == processor.pose_token_id


def test_the_loss_is_the_mean_cross_entropy_of_the_answer(policy: Policy) -> None:
    model, processor = policy
    encoded = processor.encode(processor.text_questions[0].format(caption="he stands"), processor.ANSWER, False)
    labels = torch.where(encoded.labels_mask, encoded.input_ids, -100)[None]
    out = model(encoded.input_ids[None], labels=labels)
    start = int((~encoded.labels_mask).sum())
    logits = model(encoded.input_ids[None]).logits[0, start - 1 : -1]
    expected = torch.nn.functional.cross_entropy(logits, encoded.input_ids[start:])
    assert torch.allclose(out.loss, expected, atol=1e-6)
    assert out.logits.shape == logits.shape


def test_logits_are_computed_where_they_are_asked_for(policy: Policy) -> None:
    model, processor = policy
    ids = processor.encode(processor.text_questions[0].format(caption="he"), None, False).input_ids.expand(2, -1)
    everywhere = model(ids).logits
    assert torch.equal(model(ids, logits_to_keep=2).logits, everywhere[:, -2:])
    assert torch.allclose(model(ids, logits_to_keep=torch.tensor([1, 3])).logits, everywhere[:, [1, 3]], atol=1e-5)
    where = torch.zeros_like(ids, dtype=torch.bool)
    where[0, 2] = where[1, 4] = True
    expected = torch.stack([everywhere[0, 2], everywhere[1, 4]])
    assert torch.allclose(model(ids, logits_to_keep=where).logits, expected, atol=1e-5)


# --- folders


@pytest.mark.parametrize(
    "changes", [{}, {"fusion": "concat"}, {"fusion": "channel"}, {"fusion": "clip_only"}, {"covariance": "low_rank"}]
)
def test_a_saved_policy_answers_the_same_after_loading(base: Base, tmp_path: Path, changes: dict[str, str]) -> None:
    model, processor = tiny_policy(base, **changes)
    model.set_mean_pose(torch.randn(24, 6))
    save_policy(tmp_path, model, processor)
    loaded, loaded_processor = load_policy(tmp_path)
    for (name, ours), (_, theirs) in zip(outputs_by_name(model), outputs_by_name(loaded), strict=True):
        assert torch.equal(ours, theirs), name
    for ours, theirs in zip(outputs(model, processor), outputs(loaded, loaded_processor), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)  # memory alignment may round differently


def outputs_by_name(model: PoseLlava) -> list[tuple[str, torch.Tensor]]:
    """Weights and every buffer, also those that no checkpoint holds."""
    return sorted([*model.named_parameters(), *model.named_buffers()], key=lambda pair: pair[0])


def assert_same_weights(one: PoseLlava, other: PoseLlava) -> None:
    weights, others = one.state_dict(), other.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_point_policy_survives_its_folder(base: Base, tmp_path: Path) -> None:
    model, processor = tiny_policy(base, head="point")
    save_policy(tmp_path, model, processor)
    loaded, _ = load_policy(tmp_path)
    assert loaded.pose_head.log_std is None
    assert_same_weights(model, loaded)
    torch.testing.assert_close(outputs(model, processor)[1], outputs(loaded, processor)[1])


def test_auto_classes_find_model_and_processor(policy: Policy, tmp_path: Path) -> None:
    save_policy(tmp_path, *policy)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), PoseLlavaConfig)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(model, PoseLlava)
    assert torch.equal(outputs(*policy)[0], outputs(model.eval(), policy[1])[0])
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, PoseProcessor) and processor.image == policy[1].image


def test_missing_and_unexpected_weights_are_an_error_that_lists_them(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[logging.LogRecord] = []
    library = logging.getLogger("transformers")
    library.setLevel(logging.WARNING)
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    monkeypatch.setattr(library, "handlers", [handler])
    save_policy(tmp_path, *policy)
    weights = load_file(tmp_path / "model.safetensors")
    weights["pose_head.something.weight"] = weights.pop("pose_head.mean.inner.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PoseRftError, match=r"missing: pose_head.mean.inner.weight; unexpected: pose_head.something"):
        load_policy(tmp_path)
    weights["pose_head.mean.inner.weight"] = torch.zeros(3, 3)
    del weights["pose_head.something.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PoseRftError, match=r"of another shape: pose_head.mean.inner.weight"):
        load_policy(tmp_path)
    assert not told  # no report of the library's beside the sentence


def test_a_folder_without_a_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(PoseRftError, match=r"holds no policy"):
        load_policy(tmp_path)
    with pytest.raises(PoseRftError, match="holds no policy"):
        PoseLlava.from_pretrained(tmp_path)


# --- traps of transformers (rl_training notes, section 4)


def test_an_untrained_head_predicts_exactly_the_mean_pose_and_the_initial_deviation(base: Base) -> None:
    """Trap: what a constructor initialises is overwritten afterwards, unless _init_weights says so."""
    model, _ = tiny_policy(base, stirred=False)
    hidden = torch.randn(3, 32)
    assert torch.equal(model.pose_distribution(hidden).mean, torch.tensor(IDENTITY_6D).repeat(24).expand(3, -1))
    mean = torch.randn(24, 6)
    model.set_mean_pose(mean)
    start = model.pose_distribution(hidden)
    assert torch.equal(start.mean, mean.flatten().expand(3, -1))
    assert start.log_std is not None
    assert torch.allclose(start.log_std, torch.full((3, 144), -2.0), atol=1e-5)


def test_an_untrained_low_rank_head_has_a_gradient(base: Base) -> None:
    model, _ = tiny_policy(base, stirred=False, covariance="low_rank")
    model.pose_distribution(torch.randn(3, 32)).log_prob(torch.zeros(3, 144)).sum().backward()
    assert float(model.pose_head.factor.outer.weight.grad.abs().sum()) > 0


def test_weights_that_a_checkpoint_lacks_are_initialised_not_left_over_memory(policy: Policy, tmp_path: Path) -> None:
    """Trap: from_pretrained builds without memory; bare parameters and buffers need _init_weights."""
    save_policy(tmp_path, *policy)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not name.startswith(("pose_head", "pose_encoder"))}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, info = super(PoseLlava, PoseLlava).from_pretrained(tmp_path, output_loading_info=True)  # not strict
    assert "pose_head.mean_pose" in info["missing_keys"] and "pose_encoder.position" in info["missing_keys"]
    assert torch.equal(model.pose_head.mean_pose, torch.tensor(IDENTITY_6D).repeat(24))
    assert 0 < model.pose_encoder.position.abs().max().item() < 0.2
    assert torch.equal(model.pose_head.mean.outer.weight, torch.zeros(144, 32))
    assert torch.equal(model.pose_encoder.stem[1].running_var, torch.ones(4))


def test_log_std_stays_between_its_bounds_with_a_gradient(policy: Policy) -> None:
    model, _ = policy
    hidden = (1e2 * torch.randn(50, 32)).requires_grad_()
    log_std = model.pose_distribution(hidden).log_std
    assert log_std is not None
    assert log_std.min().item() >= -5 and log_std.max().item() <= -0.5
    small = model.pose_distribution(torch.randn(50, 32, requires_grad=True)).log_std
    assert small is not None and float(small.std()) > 0
    small.sum().backward()
    assert float(model.pose_head.log_std.outer.bias.grad.abs().min()) > 0


def test_log_std_bounds_must_be_in_order(base: Base) -> None:
    with pytest.raises(PoseRftError, match=r"policy.log_std"):
        tiny_policy(base, log_std={"min": -1.0, "max": -0.5, "init": -2.0})


@pytest.mark.parametrize("autocast", [False, True])
def test_the_pose_head_works_in_float32_even_in_bfloat16_models(base: Base, autocast: bool, tmp_path: Path) -> None:
    """Trap: 144 log-densities in bfloat16 are off by half a nat."""
    model, processor = tiny_policy(base)
    if not autocast:
        model.to(torch.bfloat16)
    hidden = torch.randn(4, 32).to(model.llava.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        pose = model.pose_distribution(hidden)
    assert pose.mean.dtype == torch.float32 and pose.log_std is not None and pose.log_std.dtype == torch.float32
    assert pose.log_prob(pose.mean).dtype == pose.sample(torch.Generator(), 1).dtype == torch.float32
    if autocast:
        assert torch.equal(pose.mean, model.pose_distribution(hidden).mean)
    else:
        outputs(model, processor)


def test_a_saved_bfloat16_policy_keeps_its_pose_head_in_float32(base: Base, tmp_path: Path) -> None:
    base.llava.to(torch.bfloat16)
    model, processor = tiny_policy(base)
    assert model.fusion.projector.linear_1.weight.dtype == torch.bfloat16
    assert model.pose_head.mean.inner.weight.dtype == torch.float32
    save_policy(tmp_path, model, processor)
    loaded, _ = load_policy(tmp_path)
    assert loaded.llava.lm_head.weight.dtype == torch.bfloat16
    assert loaded.pose_head.mean.inner.weight.dtype == torch.float32
    assert_same_weights(model, loaded)  # outputs in bfloat16 depend on where in memory the same weights lie


def test_encoders_stay_in_eval_mode_and_get_no_gradient(policy: Policy) -> None:
    model, processor = policy
    trained = trainable_parameters(model, "full")
    model.train()
    assert not any(module.training for tower in model.towers() for module in tower.modules())
    encoded = processor.encode(processor.image_questions[0], processor.ANSWER, True)
    pixels = random_crops(processor, 1)
    labels = torch.where(encoded.labels_mask, encoded.input_ids, -100)[None]
    out = model(encoded.input_ids[None], pixel_values=pixels[0], pose_pixel_values=pixels[1], labels=labels)
    pose = model.pose_distribution(out.hidden_states[:, encoded.pose_position])
    (out.loss + pose.log_prob(torch.zeros(1, 144)).sum()).backward()
    assert all(parameter.grad is not None for parameter in trained)
    assert all(parameter.grad is None for tower in model.towers() for parameter in tower.parameters())


def test_pose_loss_gives_the_output_matrix_no_gradient_and_text_loss_the_pose_head_none(policy: Policy) -> None:
    model, processor = policy
    encoded = processor.encode(processor.text_questions[0].format(caption="he"), processor.ANSWER, False)
    out = model(encoded.input_ids[None], labels=torch.where(encoded.labels_mask, encoded.input_ids, -100)[None])
    out.loss.backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in model.pose_head.parameters())
    model.zero_grad()
    model.pose_distribution(out.hidden_states[:, encoded.pose_position]).mean.sum().backward()
    assert model.llava.lm_head.weight.grad is None
    assert model.llava.get_input_embeddings().weight.grad is not None


def test_activation_checkpointing_changes_no_gradient(base: Base) -> None:
    gradients = []
    model, processor = tiny_policy(base)
    encoded = processor.encode(processor.image_questions[0], processor.ANSWER, True)
    labels = torch.where(encoded.labels_mask, encoded.input_ids, -100)[None]
    tokens = image_tokens_of(model, processor, 1)
    trainable_parameters(model, "full")
    model.train()
    for on in (False, True):
        if on:
            model.activation_checkpointing_enable()
            assert model.llava.model.language_model.layers[0].gradient_checkpointing
        model.zero_grad()
        model(encoded.input_ids[None], image_tokens=tokens, labels=labels).loss.backward()
        gradients.append([p.grad.clone() for p in model.llava.model.language_model.layers.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_a_policy_built_twice_from_one_seed_is_the_same_and_leaves_the_global_seed_alone(base: Base) -> None:
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    first, _ = tiny_policy(base, stirred=False)
    torch.manual_seed(9)
    assert torch.equal(torch.random.get_rng_state(), before)
    again, _ = tiny_policy(base, stirred=False)
    assert torch.equal(first.fusion.projector.linear_1.weight, again.fusion.projector.linear_1.weight)
    assert POLICY["fusion"] == "add"
