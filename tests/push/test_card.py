"""The model card is about the summary that the pipeline writes: read from this repository's metrics/summary.json."""

import json
from pathlib import Path

import pytest

from pose_rft.push.card import MEASURES, model_card

SUMMARY = json.loads((Path(__file__).resolve().parents[2] / "metrics/summary.json").read_text())
NO_MEASURE = "no measure of calibration"


def card(run: str = "rft_hygrpo", summary: dict = SUMMARY, from_sample: bool = True) -> str:
    return model_card("me/pose", run, {}, summary, from_sample)


def rows(text: str, title: str) -> dict[str, list[str]]:
    """{first cell: the others} of the table below a heading."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines[2:]}


@pytest.mark.parametrize("run", ["rft_hygrpo", "rft_grpo", "sft_gaussian"])
def test_calibration_is_the_summarys_before_and_after(run: str) -> None:
    found = rows(card(run), "Calibration")
    tests = {test for test, by_run in SUMMARY["distribution"].items() if run in by_run}
    assert tests and found.keys() == tests and NO_MEASURE not in card(run)
    for test in tests:
        before = SUMMARY["distribution"][test][run]
        after = before["calibrated"]
        for measure, cell in zip(MEASURES, found[test], strict=True):
            shown = [float(number) for number in cell.split(" → ")]
            expected = [form[measure.key] * measure.scale for form in (before, after)]
            assert shown == pytest.approx(expected, abs=0.5001 * 10**-measure.decimals), (test, measure.key)


def test_coverage_rms_z_nll_and_energy_score_are_told() -> None:
    assert [measure.key for measure in MEASURES] == ["coverage_90", "rms_z", "nll_per_number", "energy_score"]


def test_every_part_of_the_card_finds_its_numbers_in_the_summary() -> None:
    text = card()
    data = {name: facts["samples"] for name, facts in SUMMARY["data"].items()}
    assert {name: int(cells[0]) for name, cells in rows(text, "Trained with").items()} == {
        f"{name} (miniature)": samples for name, samples in data.items()
    }
    assert rows(text, "Measured") == {
        test: [f"{by_run['rft_hygrpo'][key]:.1f}" for key in ("mpjpe", "pa_mpjpe")]
        for test, by_run in SUMMARY["pose_error"].items()
    }
    for kind, groups in SUMMARY["recall"].items():
        found, chance = (groups["full"][who]["t2p"]["10"] for who in ("rft_hygrpo", "chance"))
        assert f"by the {kind} model: {found:.1f} % (chance {chance:.1f} %)" in text


def test_a_policy_without_a_spread_or_a_calibration_says_so() -> None:
    assert "one pose and no distribution" in card("sft_point") and not rows(card("sft_point"), "Calibration")
    assert NO_MEASURE in card(summary={key: part for key, part in SUMMARY.items() if key != "distribution"})
    of_set = SUMMARY["distribution"]["3dpw"]["rft_hygrpo"]
    raw = {key: value for key, value in of_set.items() if key != "calibrated"}
    (cells,) = rows(card(summary={"distribution": {"3dpw": {"rft_hygrpo": raw}}}), "Calibration").values()
    assert all("→" not in cell for cell in cells)


def test_who_saw_licensed_data_is_for_research_only() -> None:
    assert "license: other" in card(from_sample=False) and "no redistribution" in card(from_sample=False)
    assert "license: apache-2.0" in card() and "(miniature)" in card()
