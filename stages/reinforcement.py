"""The parts of a run of `rft`: the held-out examples that it tracks, its rewards, its records, and one step.

Imports torch, so only processes that train import it, not the one that launches them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pose_rft.batches.collate import Collator
from pose_rft.batches.examples import Example, Task
from pose_rft.hygrpo.params import Variant
from pose_rft.hygrpo.reference import ReferencePolicy
from pose_rft.hygrpo.run_artifacts import Records, watched
from pose_rft.hygrpo.trainer import Trainer, TrainerComponents, captions_ahead
from pose_rft.inference.answers import Predictions, heldout_examples, predict
from pose_rft.inference.passes import Preparer, sampling, scoring
from pose_rft.inference.rewards import Rewards
from pose_rft.retrieval.ensemble import load_ensemble
from pose_rft.retrieval.sentence_encoder import SentenceEncoder
from pose_rft.seeds import torch_generator
from pose_rft.training import sft
from pose_rft.training.loop import StepStats
from stages.sessions import Session

PROMPTS_AT_ONCE = 64
Followed = Mapping[tuple[Task, str], Sequence[Example]]


def followed(session: Session) -> Followed:
    """Returns the held-out examples whose rewards are tracked during training, by task and set."""
    most = session.params.heldout.samples
    return {
        (task, name): heldout_examples(task, found, session.processor, session.body, most)
        for (task, name), found in session.sets.heldout.items()
    }


def judges(session: Session, retrieval: Path) -> Rewards:
    """Returns the rewards, on the device, with all captions of the run embedded in advance."""
    params, device = session.params, session.engine.device
    session.body.to(device)
    encoder = SentenceEncoder(params.rewards.sentence_encoder, device=device)
    rewards = Rewards(session.body, load_ensemble(retrieval).to(device), encoder, session.processor, params.rewards)
    rewards.remember(captions_ahead(session.stream.draw, params.steps * params.batch))
    return rewards


def records(session: Session, rewards: Rewards, examples: Followed, scratch: Path) -> Records:
    """Returns the run's records beside its log, with the poses of some evenly spaced sentences tracked over time."""
    params = session.params
    sentences = [one for (task, _), found in examples.items() if task == "text_pose" for one in found]
    return Records(
        scratch,
        _answerer(session),
        rewards,
        {f"{task}/{name}": found for (task, name), found in examples.items()},
        sentences[:: max(1, len(sentences) // params.fixed_sentences)][: params.fixed_sentences],
        params.steps,
        params.heldout_every,
        params.table_every,
        leader=session.engine.rank == 0,
    )


def _answerer(session: Session) -> Callable[[Sequence[Example]], Predictions]:
    """Returns a function that answers held-out examples with the current policy, with the same draws at every call."""
    engine = session.engine
    prepare = Preparer(session.processor, session.tokens, engine.device)

    def answer(asked: Sequence[Example]) -> Predictions:
        return predict(
            engine.module,
            prepare,
            asked,
            end_token_id=session.processor.eos_token_id,
            max_new_tokens=session.params.max_new_tokens,
            batch=PROMPTS_AT_ONCE,
            generator=torch_generator(session.seed, "rft", "heldout", device=engine.device),
        )

    return answer


def step(
    session: Session, reference: ReferencePolicy, rewards: Rewards, kept: Records, variant: Variant
) -> Callable[[int], StepStats]:
    """Returns one update as a function of its number: of HyGRPO, or of continued SFT if `rft.reinforced` is false."""
    params, engine, stream, processor = session.params, session.engine, session.stream, session.processor
    collator, weights = Collator(processor), params.supervised
    if not params.reinforced:
        alone = sft.stepper(engine, stream, collator, session.tokens, session.body, params.batch, weights)
        return watched(alone, kept.before)
    beside = weights and sft.supervision(collator, session.tokens, session.body, weights, engine.device)
    components = TrainerComponents(
        stream.draw,
        Preparer(processor, session.tokens, engine.device),
        sampling(params.group_size, params.max_new_tokens, params.temperature),
        scoring(params.temperature),
        rewards,
        beside,
        kept.before,
        kept.after,
    )
    return Trainer(engine, reference, components, params, variant, session.seed).step
