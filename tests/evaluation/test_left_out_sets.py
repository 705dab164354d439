"""Tables and report of a run that does not have every test set (A13)."""

import json

import pytest

from pose_rft.evaluation.tables import PAPER_SETS, RUNS, summary, table1, table2, table3
from pose_rft.report.build import rewards_table
from tests.evaluation.test_tables import write_results


def without(folder, sets: tuple[str, ...], rewards: tuple[str, ...]) -> None:
    """Takes test sets and rewards out of the results of every run, as `stages.evaluate` leaves them out."""
    for run in RUNS:
        path = folder / f"evaluate_{run}/metrics.json"
        content = json.loads(path.read_text())
        for kind, names in (("pose_error", sets), ("heldout_reward", rewards)):
            content[kind] = {name: value for name, value in content[kind].items() if name not in names}
        path.write_text(json.dumps(content))
        if "joint" in rewards:
            (folder / f"evaluate_{run}/image_pose.parquet").unlink()


@pytest.mark.parametrize(
    ("sets", "rewards"),
    [((), ("text",)), (("3dpw",), ()), (("h36m_p2",), ("text",)), (("3dpw", "h36m_p2"), ("joint", "text"))],
)
def test_what_a_run_does_not_have_is_a_dash_and_all_else_stays(tmp_path, sets, rewards):  # A13
    whole = summary(write_results(tmp_path))
    without(tmp_path, sets, rewards)
    content = summary(tmp_path)
    assert set(content["pose_error"]) == set(PAPER_SETS) - set(sets)
    assert content["recall"] == whole["recall"] and table2(content) == table2(whole)
    for table in (table1, table3):
        full, partial = table(whole), table(content)
        assert [row.label for row in partial.rows] == [row.label for row in full.rows]
        for before, after in zip(full.rows, partial.rows, strict=True):
            assert all(mine in ("–", cell) for mine, cell in zip(after.cells, before.cells, strict=True))
    ours = [row for row in table1(content).rows if row.kind == "ours"]
    assert {row.cells.count("–") for row in ours} == {2 * len(sets)}
    (dashes,) = {row.cells[:4].count("–") for row in rewards_table(content).rows}
    assert dashes == len(rewards)
