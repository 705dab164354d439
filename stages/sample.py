"""Stage `sample`: writes the embedded sample to `data/sample/`, or only its stamp if `data.source` is `releases`.

The policy's templates are passed to the tokenizer here, since the sample layer lies below the policy.
"""

from pathlib import Path

from pose_rft import params
from pose_rft.datasets.names import chosen_datasets
from pose_rft.datasets.registry import DataParams
from pose_rft.io import atomic
from pose_rft.params_file import params_path, read_yaml
from stages.common import stage_main

OUT = Path("data/sample")


def main(arguments: list[str]) -> None:
    chosen_datasets(read_yaml(params_path()))  # first stage of all: reports unknown names before any work
    seed = params.load("seed", params.Seeds).data
    if params.load("data", DataParams).source != "sample":
        from pose_rft.sample.stamp import STAMP, stamp

        atomic.write_json(OUT / STAMP, stamp("releases", seed))
        return
    from pose_rft.policy import templates
    from pose_rft.sample.build import build_sample
    from pose_rft.sample.plan import SampleParams

    texts = (templates.IMAGE_QUESTIONS, templates.TEXT_QUESTIONS, templates.IMAGE_TEXT_QUESTIONS)
    words = [templates.ANSWER, *(templates.prompt(text, True) for group in texts for text in group)]
    # The placeholder is not a word of any prompt.
    build_sample(params.load("sample", SampleParams), seed, OUT, [text.replace("{caption}", " ") for text in words])


if __name__ == "__main__":
    stage_main(main)
