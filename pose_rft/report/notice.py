"""What to expect of the sample model: one text for `predict`, its page and the report.

The pipeline has no photographs: what it says of them is measured apart, by `python -m benchmarks.photographs` on the
four COCO photographs of docs/results.md, with the model of this revision.
"""

ON_PHOTOGRAPHS = (
    "On four COCO photographs, on which its detector was set, it found 11 of 12 people and one who is none, put their "
    "limb joints 5.0 % of the person's box off (median), and 81 % of them within a tenth of the box. Upright people in "
    "full view come out well. People who sit towards the camera come out kneeling or too small; who lies, hangs head "
    "down or is hidden errs more than twice as far (292 mm against 128 mm on rendered people)."
)
SAMPLE_NOTICE = (
    "This is the sample model: a tiny policy with a stand-in body, trained for minutes on rendered people behind a "
    f"pose network that knows photographs. {ON_PHOTOGRAPHS} Its numbers cannot stand beside published results."
)
