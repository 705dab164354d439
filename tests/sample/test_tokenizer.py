from pathlib import Path

import pytest

from pose_rft.policy import templates
from pose_rft.sample.tokenizer import build_tokenizer, write_tokenizer

TEXTS = [
    "The person is sitting cross-legged, with both arms bent.",
    "They don't stand; the left arm is raised: up!",
    *(templates.prompt(text, True).replace("{caption}", "") for text in templates.TEXT_QUESTIONS),
    templates.ANSWER,
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(TEXTS, 500)


@pytest.mark.parametrize(
    "text",
    [
        "the person is sitting cross-legged, with both arms bent.",
        "they don't stand; the left arm is raised: up!",
        "the smpl pose of this person is <POSE>.",
    ],
)
def test_sentences_survive_encoding(tokenizer, text: str) -> None:
    shown = tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True)
    assert shown.replace(" ;", ";").replace(" :", ":") == text


def test_the_pose_token_is_one_id_that_decoding_keeps_and_end_is_dropped(tokenizer) -> None:
    ids = [*tokenizer.encode(templates.ANSWER), tokenizer.eos_token_id]
    pose = tokenizer.convert_tokens_to_ids("<POSE>")
    assert ids.count(pose) == 1 and tokenizer.unk_token_id not in ids
    shown = tokenizer.decode(ids, skip_special_tokens=True)
    assert "<POSE>" in shown and "<eos>" not in shown


def test_prompts_with_an_image_have_one_image_token_and_no_unknown_word(tokenizer) -> None:
    ids = tokenizer.encode(templates.prompt("What is the SMPL pose?", True))
    assert ids.count(tokenizer.convert_tokens_to_ids("<image>")) == 1
    assert tokenizer.unk_token_id not in ids


def test_words_it_has_not_seen_are_unknown(tokenizer) -> None:
    assert tokenizer.encode("rhinoceros") == [tokenizer.unk_token_id]


def test_ids_depend_on_the_words_only(tokenizer) -> None:
    assert build_tokenizer(reversed(TEXTS), 500).get_vocab() == tokenizer.get_vocab()


def test_the_most_frequent_words_fit_the_vocabulary() -> None:
    vocab = build_tokenizer(["a b c", "a b", "a"], 2).get_vocab()
    assert set(vocab) == {"a", "b", "<pad>", "<unk>", "<eos>", "<image>", "<POSE>"}


def test_it_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    saved = write_tokenizer(tmp_path, TEXTS, 500)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = templates.prompt("Show the pose.", True) + " " + templates.ANSWER
    assert loaded.encode(text) == saved.encode(text)
    assert (loaded.pad_token, loaded.eos_token, loaded.unk_token) == ("<pad>", "<eos>", "<unk>")
