"""Stage `report`: metrics/summary.json (in git) and report/index.html (offline), from the results of all stages."""

from pathlib import Path

from pose_rft.io import atomic
from pose_rft.params import load
from stages.common import stage_main

RESULTS, SHARDS = Path("results"), Path("data/shards")
SUMMARY, PAGE = Path("metrics/summary.json"), Path("report/index.html")


def main(arguments: list[str]) -> None:
    from pose_rft.body.smpl import load_body_model
    from pose_rft.evaluation.tables import summary
    from pose_rft.releases import DataParams
    from pose_rft.report.build import build

    data = load("data", DataParams)
    content = summary(RESULTS)
    page = build(content, RESULTS, SHARDS, load_body_model(data.body_model), data.source == "sample")
    atomic.write_json(SUMMARY, content)
    atomic.write_text(PAGE, page)


if __name__ == "__main__":
    stage_main(main)
