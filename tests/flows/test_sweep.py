import pytest

from flows.sweep import comparison, override
from pose_rft.errors import PoseRftError

BASE = {"rft": {"beta": 0.1, "rewards": {"text": 1.0}}, "sft": {"steps": 3}}


def test_an_override_sets_one_key_and_leaves_the_base_alone():
    assert override(BASE, {"rft.rewards.text": 0.0, "sft.steps": 5}) == {
        "rft": {"beta": 0.1, "rewards": {"text": 0.0}},
        "sft": {"steps": 5},
    }
    assert BASE["sft"] == {"steps": 3}


def test_an_override_may_name_a_key_that_stands_in_code_alone():
    content = override(BASE, {"rft.temperature": 0.9, "rft.stop.kl": 0.5, "rft.supervised": {"rotation": 1.0}})
    assert content["rft"] == BASE["rft"] | {"temperature": 0.9, "stop": {"kl": 0.5}, "supervised": {"rotation": 1.0}}


@pytest.mark.parametrize("name", ["rft.stop.kll", "rft.rewards.weight", "rft.bta", "rtf.beta", "rft.beta.x", "beta"])
def test_an_override_of_no_key_is_one_sentence(name):
    with pytest.raises(PoseRftError, match=f"no key `{name}`"):
        override(BASE, {name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rft.rewards", {"text": 0.0}),
        ("rft", {"coco; touch x": {}}),
        ("rft.rewards", 1.0),
        ("rft.beta", {"../../docs": 1}),
    ],
)
def test_an_override_makes_and_replaces_no_section(name, value):  # S7: names of sections are names of stages
    with pytest.raises(PoseRftError, match=f"`{name}` is or would be a section"):
        override(BASE, {name: value})


def test_a_comparison_has_a_column_per_run():
    rows = [{"run": "a", "state": "Completed", "x": 1.23456}, {"run": "b", "state": "Failed", "why": "no"}]
    assert comparison(rows) == [
        {"": "state", "a": "Completed", "b": "Failed"},
        {"": "x", "a": 1.2346, "b": ""},
        {"": "why", "a": "", "b": "no"},
    ]
