import pytest
import torch

from pose_rft.hygrpo.experience import pose_log_prob
from pose_rft.hygrpo.objective import (
    answer_kl,
    answer_surrogate,
    clipped,
    pose_balance,
    pose_kl,
    pose_ratio_scale,
    pose_surrogate,
    ratio_metrics,
)
from pose_rft.policy.pose_head import PoseDistribution

EPSILON = 0.2


def gradient(value: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value.sum(), at, allow_unused=True)[0]


def answers(seed: int = 0, b: int = 2, g: int = 3, r: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    log_prob = -torch.rand(b, g, r, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, r + 1, (b, g), generator=generator)
    mask = torch.arange(r) < lengths[..., None]
    return log_prob.requires_grad_(), mask, torch.randn(b, g, generator=generator, dtype=torch.float64)


def poses(f: int = 1, seed: int = 0, b: int = 2, g: int = 3, k: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "log_prob": torch.randn(b, g, k, f, generator=generator, dtype=torch.float64).requires_grad_(),
        "valid": torch.ones(b, g, dtype=torch.bool),
        "factor_mask": torch.ones(b, f, dtype=torch.bool),
        "scale": torch.ones(b, dtype=torch.float64),
        "advantages": torch.randn(b, g, k, generator=generator, dtype=torch.float64),
    }


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize(("ratio", "region"), [(0.5, "below"), (1.0, "inside"), (1.1, "inside"), (1.9, "above")])
def test_the_gradient_is_exactly_zero_where_clipped_and_the_plain_one_elsewhere(ratio, region, advantage):
    log_ratio = torch.tensor(ratio, dtype=torch.float64).log().requires_grad_()
    found = gradient(clipped(log_ratio, torch.tensor(advantage, dtype=torch.float64), EPSILON), log_ratio)
    flat = (region == "above" and advantage > 0) or (region == "below" and advantage < 0)
    assert found == (0.0 if flat else pytest.approx(advantage * ratio, rel=1e-12))


@pytest.mark.parametrize("log_ratio", [1e3, -1e3])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_extreme_log_ratios_give_a_finite_value_and_gradient(log_ratio, advantage):
    at = torch.tensor(log_ratio, requires_grad=True)
    value = clipped(at, torch.tensor(advantage), EPSILON)
    assert value.isfinite() and gradient(value, at).isfinite()


@pytest.mark.parametrize("level", ["token", "sequence", "sequence_mean"])
def test_at_the_anchor_the_ratio_is_one_and_nothing_is_clipped(level):
    log_prob, mask, advantages = answers()
    surrogate = answer_surrogate(log_prob, log_prob, mask, advantages, EPSILON, level)
    metrics = ratio_metrics(surrogate, EPSILON)
    assert (surrogate.log_ratio == 0).all()
    assert metrics["clip_ratio/region_mean"] == 0 and metrics["ess"] == pytest.approx(1.0)
    torch.testing.assert_close(surrogate.value, advantages.mean(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("level", ["token", "sequence", "sequence_mean"])
def test_tokens_after_the_end_change_no_value_and_no_gradient(level):
    log_prob, mask, advantages = answers()
    anchor = log_prob.detach() + 0.01
    garbage = log_prob.detach().clone()
    garbage[~mask] = float("-inf")
    garbage.requires_grad_()
    first = answer_surrogate(log_prob, anchor, mask, advantages, EPSILON, level).value
    second = answer_surrogate(garbage, anchor, mask, advantages, EPSILON, level).value
    assert torch.equal(first, second)
    found = gradient(second, garbage)
    assert torch.equal(found, gradient(first, log_prob)) and (found[~mask] == 0).all()
    last = mask & ~torch.nn.functional.pad(mask[..., 1:], (0, 1))
    assert (found[last] != 0).all(), "the end token itself must be trained"


def test_a_token_ratio_weighs_every_answer_alike_and_more_padding_changes_nothing():
    log_prob, mask, advantages = answers()
    value = answer_surrogate(log_prob, log_prob, mask, advantages, EPSILON, "token").value
    padded = torch.nn.functional.pad(log_prob, (0, 4))
    wider = answer_surrogate(padded, padded, torch.nn.functional.pad(mask, (0, 4)), advantages, EPSILON, "token").value
    assert torch.equal(value, wider)
    per_answer = gradient(value, log_prob).sum(-1)
    torch.testing.assert_close(per_answer, advantages / advantages.shape[1], rtol=1e-12, atol=1e-12)


def test_the_sequence_ratio_is_the_product_over_the_answer_and_its_mean_form_the_geometric_mean():
    log_prob = torch.tensor([[[0.1, 0.2, 0.3]]])
    mask = torch.ones(1, 1, 3, dtype=torch.bool)
    whole = answer_surrogate(log_prob, torch.zeros_like(log_prob), mask, torch.ones(1, 1), 9.0, "sequence")
    mean = answer_surrogate(log_prob, torch.zeros_like(log_prob), mask, torch.ones(1, 1), 9.0, "sequence_mean")
    assert whole.log_ratio.item() == pytest.approx(0.6) and mean.log_ratio.item() == pytest.approx(0.2)


@pytest.mark.parametrize("f", [1, 24])
def test_a_group_without_a_pose_adds_exactly_zero_and_no_gradient(f):
    parts = poses(f)
    parts["valid"][1] = False
    with torch.no_grad():
        parts["log_prob"][1] = float("nan")
    surrogate = pose_surrogate(**parts, anchor=parts["log_prob"].detach().clone(), epsilon=EPSILON)
    assert surrogate.value[1] == 0 and surrogate.value.isfinite().all()
    assert (gradient(surrogate.value, parts["log_prob"])[1] == 0).all()


def test_the_pose_term_averages_over_the_valid_candidates_only():
    parts = poses()
    parts["valid"][0, 1] = False
    value = pose_surrogate(**parts, anchor=parts["log_prob"].detach(), epsilon=EPSILON).value
    assert value[0].item() == pytest.approx(parts["advantages"][0, [0, 2]].mean().item(), rel=1e-6)
    assert value[1].item() == pytest.approx(parts["advantages"][1].mean().item(), rel=1e-6)


def test_joint_ratios_leave_unlabelled_joints_out():
    parts = poses(f=24)
    parts["factor_mask"][:, 22:] = False
    value = pose_surrogate(**parts, anchor=parts["log_prob"].detach() - 0.01, epsilon=EPSILON).value
    found = gradient(value, parts["log_prob"])
    assert (found[..., 22:] == 0).all() and (found[..., :22] != 0).all()


def test_pose_ratio_forms_scale_the_same_log_ratio():
    numbers = torch.tensor([144, 132])
    assert pose_ratio_scale("sum", numbers).tolist() == [1, 1]
    assert pose_ratio_scale("mean", numbers).tolist() == [144, 132]
    assert pose_ratio_scale("sqrt", numbers)[0] == 12
    # mean with ε/d clips where sum with ε does, to first order in ε.
    log_ratio = torch.linspace(-0.5, 0.5, 101)
    summed = (log_ratio.exp() - 1).abs() > 0.02
    scaled = ((log_ratio / 144).exp() - 1).abs() > 0.02 / 144
    assert (summed != scaled).float().mean() < 0.03


def test_the_sum_over_144_numbers_clips_after_a_small_step_and_the_root_form_does_not():
    """A shift of every mean by δσ spreads the log-ratio by 12 δ: at δ = 0.02 two of five ratios leave 1 ± 0.2."""
    old = PoseDistribution(torch.zeros(1, 144), torch.full((1, 144), -2.0))
    new = PoseDistribution(old.mean + 0.02 * old.std(), old.log_std)
    x = old.sample(torch.Generator().manual_seed(0), 20_000)
    log_ratio = new.log_prob(x) - old.log_prob(x)
    assert log_ratio.std() == pytest.approx(0.24, rel=0.03)
    outside = {
        form: ((log_ratio / pose_ratio_scale(form, torch.tensor([144]))).exp() - 1).abs().gt(0.2).float().mean()
        for form in ("sum", "sqrt", "mean")
    }
    assert outside["sum"] == pytest.approx(0.40, abs=0.02) and outside["sqrt"] == outside["mean"] == 0


def test_only_the_pose_term_moves_pose_densities_and_only_the_text_term_token_probabilities():
    log_prob, mask, advantages = answers()
    parts = poses()
    text = answer_surrogate(log_prob, log_prob, mask, advantages, EPSILON, "token").value
    pose = pose_surrogate(**parts, anchor=parts["log_prob"].detach(), epsilon=EPSILON).value
    assert gradient(text, parts["log_prob"]) is None and gradient(pose, log_prob) is None


@pytest.mark.parametrize("estimator", ["k2", "k3", "k3+"])
def test_the_token_kl_to_itself_is_exactly_zero_with_zero_gradient(estimator):
    log_prob, mask, _ = answers()
    value = answer_kl(log_prob, log_prob.detach(), mask, estimator)
    assert (value == 0).all() and (gradient(value, log_prob) == 0).all()


def test_token_kl_estimators_average_to_the_true_kl_of_policy_to_reference():
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 12, generator=generator, dtype=torch.float64).mul(0.3).log_softmax(-1)
    truth = (policy.exp() * (policy - reference)).sum()
    drawn = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=generator)
    everything = torch.ones(1, 1, len(drawn), dtype=torch.bool)
    for estimator in ("k3", "k3+"):
        estimate = answer_kl(policy[drawn][None, None], reference[drawn][None, None], everything, estimator)
        assert estimate.item() == pytest.approx(truth.item(), rel=0.03)


def test_k3_plus_has_the_gradient_of_the_kl_where_k3_has_not():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, generator=generator, dtype=torch.float64).requires_grad_()
    reference = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    truth = gradient((policy.exp() * (policy - reference)).sum(), logits)

    def expected(estimator: str) -> torch.Tensor:
        # The exact expectation over tokens of the estimator's gradient.
        log_prob = logits.log_softmax(-1)[:, None, None]
        value = answer_kl(log_prob, reference[:, None, None], torch.ones(6, 1, 1, dtype=torch.bool), estimator)
        return gradient(log_prob.detach()[:, 0, 0].exp() * value, logits)

    torch.testing.assert_close(expected("k3+"), truth, rtol=1e-9, atol=1e-12)
    assert (expected("k3") - truth).abs().max() > 0.01


def test_the_pose_kl_is_the_mean_over_candidates_with_a_pose():
    kl = torch.tensor([[1.0, 3.0, float("nan")], [float("nan")] * 3])
    valid = torch.tensor([[True, True, False], [False] * 3])
    assert pose_kl(kl, valid).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("level", ["token", "sequence", "sequence_mean"])
def test_equal_micro_batches_average_to_the_gradient_of_the_whole_batch(level):
    log_prob, mask, advantages = answers(b=4)
    parts = poses(f=24, b=4)
    parts["valid"][2] = False
    leaves = (log_prob, parts["log_prob"])
    anchors = [leaf.detach() + 0.1 * torch.sin(17 * leaf.detach()) for leaf in leaves]

    def loss(rows: slice) -> torch.Tensor:
        text = answer_surrogate(log_prob[rows], anchors[0][rows], mask[rows], advantages[rows], EPSILON, level).value
        kl = answer_kl(log_prob[rows], anchors[0][rows], mask[rows], "k3")
        pose = pose_surrogate(
            **{name: part[rows] for name, part in parts.items()}, anchor=anchors[1][rows], epsilon=EPSILON
        ).value
        return -(text + pose - 0.04 * kl).mean()

    whole = torch.autograd.grad(loss(slice(0, 4)), leaves)
    for size in (1, 2):
        pieces = [torch.autograd.grad(loss(slice(i, i + size)), leaves) for i in range(0, 4, size)]
        for full, *split in zip(whole, *pieces, strict=True):
            assert (full - sum(split) / len(split)).abs().max() < 1e-10


def test_clip_fractions_count_only_where_the_clip_takes_the_gradient():
    log_prob = torch.tensor([[[0.5], [0.5], [-0.5], [-0.5]]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    mask = torch.ones(1, 4, 1, dtype=torch.bool)
    metrics = ratio_metrics(answer_surrogate(log_prob, torch.zeros_like(log_prob), mask, advantages, 0.2, "token"), 0.2)
    assert metrics["clip_ratio/high_mean"] == pytest.approx(0.25)
    assert metrics["clip_ratio/low_mean"] == pytest.approx(0.25)
    assert metrics["clip_ratio/region_mean"] == pytest.approx(0.5)
    assert metrics["log_ratio_max"] == pytest.approx(0.5)


@pytest.mark.parametrize("rank", [0, 3], ids=["diagonal", "low_rank"])
@pytest.mark.parametrize("labelled", [24, 22, 7])
def test_at_ratio_one_every_form_has_the_same_gradient(rank, labelled):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    b, g, k = 2, 3, 4
    start, log_std, factor = draw(b * g, 144), 0.1 * draw(b * g, 144) - 2, 0.1 * draw(b * g, 144, max(rank, 1))
    drawn, advantages = start.view(b, g, 1, 144) + 0.1 * draw(b, g, k, 144), draw(b, g, k)
    mask = torch.zeros(b, 24, dtype=torch.bool)
    mask[:, :labelled] = True
    valid = torch.tensor([[True, False, True], [True, True, True]])
    numbers, found = 6 * mask.sum(-1), {}
    for form in ("sum", "sqrt", "mean", *(() if rank else ("per_joint",))):
        mean = start.clone().requires_grad_()
        poses = PoseDistribution(mean, log_std, factor if rank else None)
        per_joint = form == "per_joint"
        log_prob = pose_log_prob(poses, drawn, mask, per_joint)
        factors = mask if per_joint else mask.any(-1, keepdim=True)
        scale = pose_ratio_scale(form, numbers)
        term = pose_surrogate(log_prob, log_prob.detach(), valid, factors, scale, advantages, EPSILON)
        found[form] = gradient(pose_balance(form, numbers) * term.value, mean)
    whole = start.clone().requires_grad_()
    log_prob = pose_log_prob(PoseDistribution(whole, log_std, factor if rank else None), drawn, mask, False)[..., 0]
    weight = valid[..., None] / (k * valid.sum(1))[:, None, None]
    expected = gradient((weight * advantages * log_prob).sum((1, 2)) / numbers.double().sqrt(), whole)
    assert expected.abs().max() > 1e-3
    for form, one in found.items():
        torch.testing.assert_close(one.double(), expected, rtol=1e-5, atol=1e-7, msg=form)
