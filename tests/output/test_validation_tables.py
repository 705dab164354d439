from pathlib import Path

import jinja2

from pose_rft import report
from pose_rft.validation.checks import Check, as_rows, tables


def test_the_report_has_one_table_of_checks_per_data_set_and_escapes_what_stands_in_it():
    checks = [
        Check("h36m", "train", "samples", 3, "3", "ok"),
        Check("coco", "val", "published samples", 0.5, "7", "failed", "<b>"),
    ]
    folder = Path(report.__file__).parent
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    nothing = {
        "tables": [],
        "reliability": [],
        "charts": [],
        "photographs": {},
        "sentences": [],
        "fixed": [],
        "image_names": [],
    }
    page = environment.get_template("page.html").render(
        sample=True, data={"header": [], "rows": []}, validation=tables(as_rows(checks)), **nothing
    )
    part = page[page.index("What <code>validate</code> checked") :]
    assert part.count("<table>") == 2 and "<h3>h36m</h3>" in part and "<h3>coco</h3>" in part
    assert "<td>0.5</td>" in part and "<td>failed</td>" in part and "&lt;b&gt;" in part and "<b>" not in part
