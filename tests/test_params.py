from typing import Literal

import pytest
from pydantic import Field

from pose_rft.errors import PoseRftError
from pose_rft.params import Section, load, parse


class Inner(Section):
    rate: float = Field(gt=0)


class Outer(Section):
    steps: int = Field(ge=1)
    inner: Inner
    name: str | None = None
    flag: bool = False
    cores: Literal["auto"] | int = "auto"
    weights: dict[str, float] = Field(default_factory=dict)
    sizes: tuple[int, ...] = ()


GOOD = {"steps": 3, "inner": {"rate": 0.5}}


def test_a_good_section_is_read_and_frozen():
    section = parse(GOOD | {"flag": True, "name": "a", "sizes": [1, 2]}, Outer, "`outer`")
    assert section.inner.rate == 0.5 and section.flag and section.sizes == (1, 2)
    with pytest.raises(ValueError):
        section.steps = 4


@pytest.mark.parametrize(
    "content, words",
    [
        (
            GOOD | {"stepps": 1},
            ["unknown key `stepps`", "did you mean `steps`", "cores, flag, inner, name, sizes, steps"],
        ),
        (GOOD | {"inner": {"rate": 0.5, "rat": 1}}, ["unknown key `inner.rat`", "did you mean `rate`"]),
        (GOOD | {"steps": 0}, ["`steps` is 0", "greater than or equal to 1"]),
        ({"steps": 3}, ["key `inner` is missing"]),
        (GOOD | {"inner": {"rate": float("nan")}}, ["`inner.rate` is nan"]),
        (GOOD | {"inner": {"rate": float("inf")}}, ["`inner.rate` is inf", "finite"]),
        (GOOD | {"steps": True}, ["`steps` is true or false"]),  # YAML's `yes` and `on`, which Python counts as 1
        (GOOD | {"inner": {"rate": True}}, ["`inner.rate` is true or false"]),
        (GOOD | {"cores": True}, ["`cores` is true or false"]),
        (GOOD | {"weights": {"coco": True}}, ["`weights.coco` is true or false"]),
        (GOOD | {"sizes": [1, True]}, ["`sizes.1` is true or false"]),
        (GOOD | {"steps": "x" * 10_000}, ["`steps` is 'xxx", "valid integer"]),
    ],
)
def test_a_bad_section_is_one_sentence_that_says_what_is_allowed(content, words):
    with pytest.raises(PoseRftError) as caught:
        parse(content, Outer, "`outer` in params.yaml")
    text = str(caught.value)
    assert text.startswith("`outer` in params.yaml") and "\n" not in text and len(text) < 300
    assert all(word in text for word in words)


def test_missing_files_and_sections_are_named(tmp_path):
    with pytest.raises(PoseRftError, match=r"nowhere\.yaml does not exist"):
        load("outer", Outer, tmp_path / "nowhere.yaml")
    path = tmp_path / "params.yaml"
    path.write_text("other: {}\n")
    with pytest.raises(PoseRftError, match="no section `outer`"):
        load("outer", Outer, path)
    path.write_text("a: [1,\n")
    with pytest.raises(PoseRftError, match="not valid YAML"):
        load("outer", Outer, path)
