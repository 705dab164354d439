"""The methods that HyGRPO is compared with, each a few values of params.yaml, and the forms of HyGRPO that keep σ.

All start from one SFT model with a Gaussian head and use the same prompts. `opponents` asks whether another method is
better, `distribution` which form of HyGRPO preserves the distribution; `main` is the table of docs/results.md.
"""

from typing import Any, NamedTuple

from pose_rft.evaluation.tables import BASELINE

JOINTS: dict[str, Any] = {"answer": 1.0, "rotation": 2.0, "nll": 0.1, "joints": 10.0}  # `sft.loss` of the sample
ENERGY = {
    "rft.rewards.joint_form": "energy",
    "rft.rewards.semantic_form": "energy",
    "rft.engine.lr": 2e-4,
    "rft.beta_pose": 1.0,
}
FEW_DRAWS = {"rft.poses_per_answer": 8, "rft.pose_draws": "independent"}  # where each draw yields a full gradient
PATHWISE = {"rft.pose_gradient": "pathwise", **FEW_DRAWS}
PAPERS: dict[str, Any] = {  # the paper's rewards and gradient, with the draws and learning rate that suit them here
    "rft.pose_gradient": "score",
    "rft.poses_per_answer": 72,
    "rft.pose_draws": "orthogonal",
    "rft.rewards.joint_form": "inverse",
    "rft.rewards.semantic_form": "cosine",
    "rft.engine.lr": 6e-4,
    "rft.beta_pose": 0.04,
}


class Method(NamedTuple):
    """label: its table row; overrides: dotted params; run: the graph's run that trains it."""

    label: str
    overrides: dict[str, Any]
    run: str = "rft_hygrpo"

    @property
    def steps(self) -> str:
        """The key of params.yaml that the time budget determines."""
        return "sft.steps" if self.run == BASELINE else "rft.steps"


def varied(label: str, *changes: dict[str, Any]) -> Method:
    """Returns the paper's HyGRPO with `changes`; sets all of its values, so that a row is the same in any preset."""
    return Method(label, {key: value for part in (PAPERS, *changes) for key, value in part.items()})


HYGRPO = Method("HyGRPO, as in the preset", {})
SCORE = varied("score function, the paper's rewards")
SFT_ALONE = Method("SFT with joints for all the time", {}, BASELINE)
ONLY_SFT = {"rft.reinforced": False, "rft.engine.lr": 2e-4}
SFT_JOINTS = Method("SFT with joints continued", {**ONLY_SFT, "rft.supervised": JOINTS, "rft.engine.lr": 6e-4})
ENERGY_PATHWISE = varied("energy score, pathwise", ENERGY, PATHWISE)

OPPONENTS = [
    ENERGY_PATHWISE,
    SCORE,
    SFT_ALONE,
    Method("SFT continued at 2e-4", {**ONLY_SFT, "rft.supervised": {**JOINTS, "joints": 0.0}}),
    SFT_JOINTS,
    Method("SFT with joints continued at 2e-4", {**ONLY_SFT, "rft.supervised": JOINTS}),
    varied("reward's gradient at the mean", {"rft.pose_gradient": "mean", **FEW_DRAWS}),
    varied("pathwise", PATHWISE),
    # Unnormalised rewards differ in scale: 1/metre against a cosine. The weights equalise their typical deviations.
    varied("RLOO", {"rft.advantage": "rloo", "rft.rewards.joint_weight": 0.3, "rft.rewards.semantic_weight": 10.0}),
    varied("DPO, best and worst draw", {"rft.pose_gradient": "dpo", "rft.pose_weight": 0.1}),
    varied("GRPO, words only")._replace(run="rft_grpo"),
    varied(
        "the paper's settings",
        {
            "rft.poses_per_answer": 1,
            "rft.group_size": 8,
            "rft.pose_draws": "independent",
            "rft.pose_ratio": "sum",
            "rft.pose_weight": 12.0,
            "rft.pose_kl": "sum",
            "rft.kl_estimator": "k3",
            "rft.beta_text": 0.04,
        },
    ),
]
FORMS = [
    SCORE,
    varied("σ outside the gradient", {"rft.reward_moves_sigma": False}),
    varied("σ with a tighter KL", {"rft.beta_spread": 1.0}),
    varied("entropy floor", {"rft.entropy_weight": 1.0}),
    varied("energy score", ENERGY),
    varied("pathwise, σ outside", PATHWISE, {"rft.reward_moves_sigma": False}),
    ENERGY_PATHWISE,
    varied("energy score, pathwise, SFT's loss beside", ENERGY, PATHWISE, {"rft.supervised": JOINTS}),
    varied("four retrieval models", {"retrieval.members": 4}),
]
MAIN = [SFT_ALONE, SFT_JOINTS, ENERGY_PATHWISE]
# Networks and batches that fill one GPU: about 300 million parameters instead of one. Steps and LRs are guesses.
WIDE: dict[str, Any] = {
    "base_model.tiny.vision.width": 512,
    "base_model.tiny.vision.layers": 12,
    "base_model.tiny.vision.heads": 8,
    "base_model.tiny.language.width": 1024,
    "base_model.tiny.language.layers": 16,
    "base_model.tiny.language.heads": 16,
    "policy.inner_width": 1024,
    "sft.batch": 256,
    "sft.engine.lr": 3.0e-4,
    "sft.engine.accumulation": 1,
    "rft.batch": 160,
    "rft.engine.lr": 1.5e-4,
    "rft.engine.accumulation": 1,
    "evaluate.batch": 256,
}
METHODS = {"opponents": OPPONENTS, "distribution": FORMS, "main": MAIN}
