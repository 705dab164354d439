import pytest

from pose_rft.errors import PoseRftError
from pose_rft.hygrpo.params import RFTParams
from pose_rft.params import parse
from tests.support.rft_fakes import rft_params


def content(**changes: object) -> dict[str, object]:
    return rft_params().model_dump(mode="json") | changes


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("group_size", 1),
        ("temperature", 0),
        ("epsilon", -0.1),
        ("ratio_anchor", "new"),
        ("pose_ratio", "max"),
        ("steps", 0),
    ],
)
def test_values_out_of_range_are_refused_by_name(key, value):
    with pytest.raises(PoseRftError, match=f"`{key}` is"):
        parse(content(**{key: value}), RFTParams, "`rft` in params.yaml")


def test_a_run_with_neither_rewards_nor_supervision_is_refused():
    with pytest.raises(PoseRftError, match="nothing would be trained"):
        parse(content(reinforced=False), RFTParams, "`rft` in params.yaml")
    assert parse(content(reinforced=False, supervised={"rotation": 1.0}), RFTParams, "`rft`").supervised is not None


def test_an_unknown_key_names_its_neighbour():
    with pytest.raises(PoseRftError, match="did you mean `poses_per_answer`"):
        parse(content(pose_per_answer=3), RFTParams, "`rft` in params.yaml")


def test_sampling_has_no_truncation_to_mismatch_with_scoring():
    assert not {"top_k", "top_p", "repetition_penalty"} & set(RFTParams.model_fields)


@pytest.mark.parametrize(
    ("limits", "row", "said"),
    [
        ({}, {"kl": 9.0, "pose/kl": 9.0, "pose/sigma_mean": 9.0}, None),
        ({"kl": 0.5}, {"kl": 0.4}, None),
        ({"kl": 0.5}, {"kl": 0.6}, "kl is 0.6, above its limit 0.5"),
        ({"pose_kl": 0.01}, {"kl": 1.0, "pose/kl": 0.02}, "pose/kl is 0.02, above its limit 0.01"),
        ({"sigma_below": 0.02}, {"pose/sigma_mean": 0.01}, "pose/sigma_mean is 0.01, below its limit 0.02"),
        ({"sigma_above": 0.3}, {"pose/sigma_mean": 0.4}, "pose/sigma_mean is 0.4, above its limit 0.3"),
        ({"sigma_above": 0.3}, {"kl": 0.1}, None),
    ],
)
def test_a_limit_that_is_crossed_is_named_and_no_limit_stops_nothing(limits, row, said):
    assert rft_params(stop=limits).stop.reason(row) == said
