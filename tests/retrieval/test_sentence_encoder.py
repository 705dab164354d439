import json
import shutil
from pathlib import Path

import pytest
import torch

from pose_rft.errors import PoseRftError
from pose_rft.retrieval.sentence_encoder import MINILM, MINILM_SHA256, SentenceEncoder, locate, verify_minilm
from tests.support.retrieval_fakes import HIDDEN, tiny_encoder

TEXTS = ["a person points the left arm up .", "the right knee is bent", "the left arm is held down , straight ."]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> SentenceEncoder:
    return SentenceEncoder(str(tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert")))


def test_the_packaged_weights_are_the_originals():
    folder = Path(locate(MINILM))
    assert (folder / "config.json").is_file()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"])
def test_a_changed_file_is_refused_by_its_checksum(tmp_path, name):  # S22: modules.json names classes to build
    copy, source = tmp_path / "model", Path(locate(MINILM))
    for file in MINILM_SHA256:
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).symlink_to(source / file)
    verify_minilm(copy)
    changed = bytearray((copy / name).read_bytes())
    changed[len(changed) // 2] ^= 1
    (copy / name).unlink()
    (copy / name).write_bytes(changed)
    with pytest.raises(PoseRftError, match="sha256"):
        verify_minilm(copy)
    (copy / name).unlink()
    with pytest.raises(PoseRftError, match="does not exist"):
        verify_minilm(copy)


def test_code_beside_the_weights_is_refused(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(Path(locate(MINILM)), copy, copy_function=lambda source, target: Path(target).symlink_to(source))
    (copy / "pooling.py").write_text("")
    with pytest.raises(PoseRftError, match=r"pooling\.py is no part of"):
        verify_minilm(copy)


def test_token_features_do_not_depend_on_the_batch(encoder):
    together = encoder.token_features(TEXTS)
    for text, features in zip(TEXTS, together, strict=True):
        assert features.shape[1] == HIDDEN == encoder.width
        assert torch.allclose(encoder.token_features([text])[0], features, atol=1e-5)


def test_fewer_layers_give_the_state_after_those_layers(encoder, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    shallow = SentenceEncoder(encoder.name, layers=1)
    inputs = AutoTokenizer.from_pretrained(encoder.name)(TEXTS[:1], return_tensors="pt")
    states = AutoModel.from_pretrained(encoder.name).eval()(**inputs, output_hidden_states=True).hidden_states
    assert torch.allclose(shallow.token_features(TEXTS[:1])[0], states[1][0], atol=1e-5)
    assert not torch.allclose(encoder.token_features(TEXTS[:1])[0], states[1][0], atol=1e-3)
    with pytest.raises(PoseRftError, match="2 transformer layers"):
        SentenceEncoder(encoder.name, layers=3).token_features(TEXTS)


def test_sentences_are_vectors_of_length_one_and_like_ones_are_close():
    encoder = SentenceEncoder(MINILM)
    texts = ["A man sits on a chair.", "Somebody is seated on a chair.", "The stock market fell sharply."]
    vectors = encoder.encode(texts)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-4)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert torch.allclose(encoder.encode(texts[:1])[0], vectors[0], atol=1e-4)


@pytest.mark.parametrize("changes", [{"cls_token": "<new>"}, {"model_max_length": "long"}, {"model_max_length": 9.5}])
def test_a_tokenizer_of_another_model_is_one_sentence(tmp_path, changes):  # S21
    folder = tiny_encoder(tmp_path / "bert")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    for use in (SentenceEncoder.encode, SentenceEncoder.token_features):
        with pytest.raises(PoseRftError, match=r"do not belong together|cannot be loaded"):
            use(SentenceEncoder(str(folder)), TEXTS)


def test_an_encoder_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PoseRftError, match="holds no sentence encoder"):
        SentenceEncoder(str(tmp_path / "absent")).token_features(TEXTS)
