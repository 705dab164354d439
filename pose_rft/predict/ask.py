"""An ordinary question to a policy, without a picture: what words it still has beside poses (`pose-rft ask`)."""

from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.inference.sampling import generate
from pose_rft.policy import hub


def answers(folder: Path, questions: list[str], longest: int) -> list[str]:
    """The likeliest answer to each question, of at most `longest` tokens.

    Raises:
        PoseRftError: the folder holds no policy.
    """
    if not folder.is_dir():
        raise PoseRftError(f"{folder} does not exist; run `make run` (or `dvc repro`), or name a policy with --model.")
    model, processor = hub.load_policy(folder)
    prompts = [processor.prompt_ids(question, False) for question in questions]
    said = generate(model.eval(), prompts, None, n=1, max_new_tokens=longest, temperature=0.0)
    return [processor.decode(said.answer(i, 0)) for i in range(len(questions))]
