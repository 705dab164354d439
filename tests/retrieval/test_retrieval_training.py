import pytest
import torch

from pose_rft.body.frames import camera_to_amass
from pose_rft.body.rotations import mirror_rotations
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.retrieval.pairs import PreparedTexts
from pose_rft.training import retrieval as training
from pose_rft.training.retrieval import _Batches, ground_truth_recall, train
from tests.support.retrieval_fakes import REST_JOINTS, pairs, tiny_encoder, tiny_params


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def run(kind, params, scratch, seed=0, count=48):
    return train(kind, params, pairs(count), pairs(24, seed=1), REST_JOINTS, scratch, seed)


@pytest.mark.parametrize("kind", ["reward", "judge"])
def test_a_killed_run_continues_to_the_same_weights(kind, encoder, tmp_path, monkeypatch):
    params = tiny_params(encoder)
    undisturbed = run(kind, params, tmp_path / "a")

    class Killed(Exception):
        pass

    calls = 0
    update = training._Learner.step

    def dies_at_step_8(self, number):
        nonlocal calls
        calls += 1
        if calls == 9:
            raise Killed
        return update(self, number)

    monkeypatch.setattr(training._Learner, "step", dies_at_step_8)
    with pytest.raises(Killed):
        run(kind, params, tmp_path / "b")
    monkeypatch.setattr(training._Learner, "step", update)
    resumed = run(kind, params, tmp_path / "b")
    for (name, a), b in zip(undisturbed.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [row["loss"] for row in undisturbed.log] == [row["loss"] for row in resumed.log]
    assert undisturbed.best_step == resumed.best_step


def test_another_seed_trains_another_model(encoder, tmp_path):
    a, b = (run("judge", tiny_params(encoder), tmp_path / str(seed), seed) for seed in (0, 1))
    assert not torch.equal(
        a.model.embed_text(["the left arm points up."]), b.model.embed_text(["the left arm points up."])
    )


@pytest.mark.parametrize("kind", ["reward", "judge"])
def test_training_finds_the_poses_that_captions_describe(kind, encoder, tmp_path):
    trained = run(kind, tiny_params(encoder, pretrain=60, finetune=60), tmp_path, count=160)
    test = pairs(60, seed=2)
    recall = ground_truth_recall(trained.model, test)
    assert recall["pairs"] == 40
    for way in ("t2p", "p2t"):
        assert recall[way]["5"] > 1.6 * recall["chance"]["5"], recall


def test_the_true_pose_beats_others_and_a_wrong_frame_lowers_its_score(encoder, tmp_path):
    model = run("judge", tiny_params(encoder, pretrain=60, finetune=60), tmp_path, count=160).model
    test = pairs(60, seed=3).with_human()
    texts = model.embed_text([own[0] for own in test.human])
    fits = texts @ model.embed_pose(test.rotations).T
    own = fits.diagonal().mean()
    assert own > fits.mean() + 0.1
    wrong = test.rotations.clone()
    wrong[:, 0] = camera_to_amass(wrong[:, 0])
    assert (texts * model.embed_pose(wrong)).sum(1).mean() < own - 0.02


def test_mirrored_pairs_show_the_mirrored_pose_with_the_mirrored_caption(encoder):
    batches = _Batches("judge", "finetune", pairs(30), tiny_params(encoder), seed=0)
    rows, texts, mirrored = batches.draw(0)
    assert 0 < mirrored.sum() < len(rows)
    for row, text, flag in zip(rows, texts, mirrored.tolist(), strict=True):
        caption = batches.captions[row][0]
        swapped = caption.replace("left", "\0").replace("right", "left").replace("\0", "right")
        assert text == (swapped if flag else caption)
    poses = batches.pairs.rotations[rows]
    assert torch.allclose(mirror_rotations(mirror_rotations(poses)), poses)


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_every_pose_is_shown_once_an_epoch_and_every_text_was_prepared(phase, encoder):
    batches = _Batches("reward", phase, pairs(48), tiny_params(encoder), seed=0)
    per_epoch = len(batches.pairs) // batches.size
    shown = [row for step in range(per_epoch) for row in batches.draw(step)[0]]
    assert len(set(shown)) == len(shown)
    prepared = set(batches.texts())
    assert all(text in prepared for step in range(12) for text in batches.draw(step)[1])


def test_training_without_human_captions_says_so(encoder, tmp_path):
    with pytest.raises(PoseRftError, match="no human caption"):
        train("judge", tiny_params(encoder), pairs(20, human=False), pairs(20, seed=1), REST_JOINTS, tmp_path, 0)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_samples(encoder, tmp_path):
    broken = pairs(48)
    broken.rotations[:] = torch.nan
    with pytest.raises(PoseRftError, match=r"loss is nan at step 0 \(samples pose_0_"):
        train("judge", tiny_params(encoder), broken, pairs(24, seed=1), REST_JOINTS, tmp_path, 0)


def test_prepared_texts_are_read_back_and_prepared_once(tmp_path):
    texts = ["one", "two words", "one", "three more words"]
    arrays = {text: torch.randn(len(text.split()), 3).half().float() for text in texts}
    prepared = []

    def prepare(chunk):
        prepared.extend(chunk)
        return [arrays[text] for text in chunk]

    for _ in range(2):
        store = PreparedTexts.build(texts, prepare, tmp_path / "texts", "texts")
        assert all(torch.equal(store[text], arrays[text]) for text in texts)
    assert sorted(prepared) == sorted(set(texts))


def test_a_kill_while_preparing_leaves_nothing_half_done(tmp_path):
    def dies(_chunk):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PreparedTexts.build(["a"], dies, tmp_path / "texts", "texts")
    assert not (tmp_path / "texts").exists() and not list(tmp_path.iterdir())
    atomic.write_text(tmp_path / "note", "the folder is still usable")
