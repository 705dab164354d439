"""What to expect of the sample model: one text for `predict`, its page and the report.

The pipeline has no photographs. The numbers on photographs come from `python -m benchmarks.photographs` on the four
COCO photographs of docs/photographs.md, with the model of this revision.
"""

ON_PHOTOGRAPHS = (
    "On four COCO photographs (its detector was set on them) it found 11 of 12 people and one who is none; their "
    "limb joints lie 4.7 % of the person's box off (median), 83 % within a tenth. Upright people in full view come out "
    "well; whoever sits towards the camera, lies, hangs head down or is hidden often does not (290 mm against 121 mm "
    "on rendered people)."
)
SAMPLE_NOTICE = (
    "This is the sample model: a tiny policy with a stand-in body, trained for minutes on rendered people behind a "
    f"pose network that knows photographs. {ON_PHOTOGRAPHS} Its numbers cannot stand beside published results."
)
