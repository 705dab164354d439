"""Stage `report`: metrics/summary.json (in git), report/index.html (offline) and report/curves (for DVC's plots)."""

from pathlib import Path

from pose_rft.io import atomic
from pose_rft.params import load
from stages.common import stage_main

RESULTS, SHARDS = Path("results"), Path("data/shards")
SUMMARY, PAGE, CURVES = Path("metrics/summary.json"), Path("report/index.html"), Path("report/curves")


def main(arguments: list[str]) -> None:
    from pose_rft.body.smpl import load_body_model
    from pose_rft.datasets.registry import DataParams
    from pose_rft.evaluation.distribution_tables import whole_summary
    from pose_rft.report.build import build
    from pose_rft.report.curves import write_curves
    from pose_rft.report.machine import facts

    data = load("data", DataParams)
    content = whole_summary(RESULTS)
    page = build(content, RESULTS, SHARDS, load_body_model(data.body_model), data.source == "sample")
    atomic.write_json(SUMMARY, content | {"machine": facts()})  # for `make diff`: where the metrics come from
    atomic.write_text(PAGE, page)
    write_curves(RESULTS, CURVES)


if __name__ == "__main__":
    stage_main(main)
