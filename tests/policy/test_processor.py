"""Dialogues to ids and back, and what counts as the answer to a pose question."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pose_rft.errors import PoseRftError
from pose_rft.policy import templates
from pose_rft.policy.processor import PoseProcessor, add_pose_token
from tests.support.tiny_policies import IMAGE, word_tokenizer


@pytest.fixture(scope="module")
def processor() -> PoseProcessor:
    tokenizer = word_tokenizer()
    add_pose_token(tokenizer)
    return PoseProcessor(tokenizer, IMAGE, num_image_tokens=4)


def test_a_dialogue_is_its_prompt_followed_by_its_answer(processor: PoseProcessor) -> None:
    for has_image in (False, True):
        encoded = processor.encode(processor.image_questions[0], processor.ANSWER, has_image)
        prompt = processor.prompt_ids(processor.image_questions[0], has_image)
        assert encoded.input_ids.tolist() == [*prompt, *processor.answer_ids]
        assert encoded.labels_mask.tolist() == [False] * len(prompt) + [True] * len(processor.answer_ids)
        assert (encoded.input_ids == processor.image_token_id).sum() == (4 if has_image else 0)
        assert encoded.input_ids[encoded.pose_position + 1] == processor.pose_token_id
        assert encoded.input_ids[-1] == processor.eos_token_id


def test_a_prompt_ends_where_the_policy_speaks(processor: PoseProcessor) -> None:
    encoded = processor.encode("he stands", None, False)
    assert encoded.input_ids.tolist() == processor.prompt_ids("he stands", False)
    assert not encoded.labels_mask.any() and encoded.pose_position is None
    assert processor.decode(encoded.input_ids[-2:]) == "ASSISTANT:"


def test_a_text_answer_has_no_pose_position(processor: PoseProcessor) -> None:
    assert processor.encode("he stands", "yes, a red shirt", True).pose_position is None


def test_a_question_cannot_smuggle_in_markers(processor: PoseProcessor) -> None:
    ids = processor.prompt_ids("he <image> stands <POSE>", False)
    assert processor.image_token_id not in ids and processor.pose_token_id not in ids


def test_pose_survives_decoding_because_it_is_no_special_token(processor: PoseProcessor) -> None:
    """Trap: as a special token `<POSE>` would vanish and no answer would ever match the template."""
    assert processor.decode(processor.answer_ids) == templates.ANSWER
    assert processor.pose_token_id not in processor.tokenizer.all_special_ids


def test_only_the_template_with_one_pose_and_a_clean_end_is_a_pose_answer(processor: PoseProcessor) -> None:
    right, pose, end = list(processor.answer_ids), processor.pose_token_id, processor.eos_token_id
    assert processor.answer_is_pose(right) and processor.answer_is_pose(torch.tensor(right))
    at = right.index(pose)
    wrong = {
        "without end": right[:-1],
        "two poses": [*right[:at], pose, *right[at:]],
        "no pose": [token for token in right if token != pose],
        "only pose": [pose, end],
        "words behind": [*right[:-1], right[0], end],
        "pose behind the end": [*right[:at], *right[at + 1 :], pose],
        "empty": [],
    }
    for why, answer in wrong.items():
        assert not processor.answer_is_pose(answer), why


def test_clean_text_has_words_one_end_and_no_pose(processor: PoseProcessor) -> None:
    words, end = processor.sentence_ids("a red shirt"), processor.eos_token_id
    assert processor.answer_is_clean_text([*words, end])
    for wrong in (words, [end], [], [*words, end, end], [*words, processor.pose_token_id, end]):
        assert not processor.answer_is_clean_text(wrong)


def test_every_question_of_the_templates_is_known_words_and_varies(processor: PoseProcessor) -> None:
    questions = [*templates.IMAGE_QUESTIONS, *templates.TEXT_QUESTIONS, *templates.IMAGE_TEXT_QUESTIONS]
    assert len(set(questions)) == len(questions)
    assert all("{caption}" in question for question in questions[len(templates.IMAGE_QUESTIONS) :])
    unknown = processor.tokenizer.unk_token_id
    for question in questions:
        assert unknown not in processor.prompt_ids(question.format(caption="he stands"), True)


def test_a_processor_survives_its_folder(processor: PoseProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    loaded = PoseProcessor.from_pretrained(tmp_path)
    assert (loaded.image, loaded.num_image_tokens) == (processor.image, 4)
    question = processor.image_questions[1]
    assert loaded.prompt_ids(question, True) == processor.prompt_ids(question, True)
    assert loaded.answer_ids == processor.answer_ids and loaded.decode(loaded.answer_ids) == templates.ANSWER


def test_a_folder_without_processor_or_a_tokenizer_without_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(PoseRftError, match=r"processor_config\.json does not exist"):
        PoseProcessor.from_pretrained(tmp_path)
    with pytest.raises(PoseRftError, match="no <POSE> token"):
        PoseProcessor(word_tokenizer(), IMAGE, 4)


def test_a_tokenizer_that_cannot_write_the_template_is_refused(
    processor: PoseProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PoseProcessor, "ANSWER", "Voilà the pose is <POSE>.")
    with pytest.raises(PoseRftError, match="does not know every word"):
        PoseProcessor(processor.tokenizer, IMAGE, 4)


def test_a_llama_like_tokenizer_writes_and_reads_the_template() -> None:
    """Pieces with spaces inside: prompt and answer are cut apart where the joint text would be cut."""
    tokenizer = sentence_pieces()
    processor = PoseProcessor(tokenizer, IMAGE, num_image_tokens=3)
    question = processor.image_questions[0]
    assert processor.decode(processor.answer_ids) == templates.ANSWER
    encoded = processor.encode(question, templates.ANSWER, True).input_ids.tolist()
    joint = tokenizer.encode(f"{templates.prompt(question, True)} {templates.ANSWER}")
    at = joint.index(processor.image_token_id)
    assert encoded == [*joint[:at], *[processor.image_token_id] * 3, *joint[at + 1 :], processor.eos_token_id]


def sentence_pieces() -> PreTrainedTokenizerFast:
    """Byte pairs over text in which a space is part of the piece, as in Llama's vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>", "<pad>"])
    tokenizer.train_from_iterator([*templates.IMAGE_QUESTIONS, templates.ANSWER, "USER: ASSISTANT:\n"] * 2, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    wrapped.add_special_tokens({"additional_special_tokens": ["<image>"]})
    add_pose_token(wrapped)
    return wrapped
