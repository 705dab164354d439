import pytest
import torch
from safetensors.torch import load_file, save_file

from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.errors import PoseRftError
from pose_rft.retrieval.judge import Vocabulary, joint_positions, split_words
from pose_rft.retrieval.loss import symmetric_bbc
from pose_rft.retrieval.model import JudgeModel, RewardModel, TextPoseModel, frozen, load_retrieval
from pose_rft.retrieval.pose_encoder import smplh_axis_angle
from tests.support.retrieval_fakes import REST_JOINTS, pairs, tiny_encoder, tiny_params

TEXTS = ["the left arm points up .", "a person keeps the right arm straight and the left arm down ."]


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    return tiny_params(tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(params=["reward", "judge"])
def model(request, params) -> TextPoseModel:
    torch.manual_seed(0)
    if request.param == "reward":
        return frozen(RewardModel(params.reward))
    return frozen(JudgeModel(params.judge, Vocabulary.of(TEXTS * 2), REST_JOINTS))


def random_rotations(count: int, seed: int = 0) -> torch.Tensor:
    return axis_angle_to_matrix(torch.randn(count, 24, 3, generator=torch.Generator().manual_seed(seed)))


def test_embeddings_have_length_one_and_carry_no_gradient(model):
    for embedded in (model.embed_text(TEXTS), model.embed_pose(random_rotations(4))):
        assert torch.allclose(embedded.norm(dim=1), torch.ones(len(embedded)), atol=1e-5)
        assert not embedded.requires_grad


def test_an_embedding_depends_on_its_own_item_only(model):
    poses = random_rotations(5)
    assert torch.allclose(model.embed_pose(poses[3:4])[0], model.embed_pose(poses)[3], atol=1e-5)
    assert torch.allclose(model.embed_text(TEXTS[:1])[0], model.embed_text(TEXTS)[0], atol=1e-5)


def test_hands_do_not_count(model):
    poses = random_rotations(3)
    other = torch.cat((poses[:, :22], random_rotations(3, seed=1)[:, 22:]), dim=1)
    assert torch.allclose(model.embed_pose(poses), model.embed_pose(other), atol=1e-6)


def test_a_saved_model_is_the_same_model(model, tmp_path):
    model.save(tmp_path / "saved")
    again = load_retrieval(tmp_path / "saved")
    assert type(again) is type(model) and not again.training
    assert torch.equal(again.embed_pose(random_rotations(3)), model.embed_pose(random_rotations(3)))
    assert torch.equal(again.embed_text(TEXTS), model.embed_text(TEXTS))


def test_weights_that_do_not_fit_are_listed(model, tmp_path):
    model.save(tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    weights["stranger"] = weights.pop("scale")
    save_file(weights, tmp_path / "saved" / "model.safetensors")
    with pytest.raises(PoseRftError, match=r"missing \['scale'\]; unexpected \['stranger'\]"):
        load_retrieval(tmp_path / "saved")


def test_a_missing_or_damaged_model_is_one_sentence(model, tmp_path):
    with pytest.raises(PoseRftError, match="does not exist"):
        load_retrieval(tmp_path / "nowhere")
    model.save(tmp_path / "saved")
    (tmp_path / "saved" / "model.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(PoseRftError, match="damaged"):
        load_retrieval(tmp_path / "saved")


def test_the_judge_shares_no_module_with_the_reward_model(params):
    reward, judge = RewardModel(params.reward), JudgeModel(params.judge, Vocabulary.of(TEXTS * 2), REST_JOINTS)

    def own_classes(model: torch.nn.Module) -> set[type]:
        return {
            type(m) for m in (model.text, model.pose) for m in m.modules() if type(m).__module__.startswith("pose_rft")
        }

    assert not own_classes(reward) & own_classes(judge)
    pointers = {weights.data_ptr() for weights in reward.parameters()}
    assert not pointers & {weights.data_ptr() for weights in judge.parameters()}
    assert not hasattr(judge, "sentences")


def test_poses_become_the_156_numbers_of_smplh():
    vectors = torch.randn(3, 24, 3) * 0.4
    numbers = smplh_axis_angle(axis_angle_to_matrix(vectors))
    assert numbers.shape == (3, 156)
    assert torch.allclose(numbers[:, :66], vectors[:, :22].flatten(1), atol=1e-5)
    assert not numbers[:, 66:].any()


def test_joint_positions_at_rest_are_the_resting_joints():
    identity = torch.eye(3).expand(2, 24, 3, 3)
    assert torch.allclose(joint_positions(identity, REST_JOINTS)[0], REST_JOINTS - REST_JOINTS[0], atol=1e-6)


def test_a_vocabulary_keeps_repeated_words_and_reads_others_as_unknown():
    vocabulary = Vocabulary.of(["Left arm up.", "left arm down."])
    assert vocabulary.words == (".", "arm", "left")
    assert vocabulary.numbers("LEFT knee.").tolist() == [4, 1, 2]
    assert vocabulary.numbers("").tolist() == [1]
    assert split_words("Don't bend, 90 degrees!") == ["don't", "bend", ",", "90", "degrees"]


def test_the_loss_is_least_when_each_text_has_its_own_pose():
    texts = torch.eye(6)
    scale = torch.tensor(10.0)
    right, wrong = symmetric_bbc(texts, texts, scale), symmetric_bbc(texts, texts.roll(1, 0), scale)
    assert right < 0.01 < wrong
    poses = torch.nn.functional.normalize(torch.randn(6, 6), dim=1)
    assert torch.isclose(symmetric_bbc(texts, poses, scale), symmetric_bbc(poses, texts, scale))


def test_pairs_of_the_fake_are_what_they_say():
    own = pairs(50)
    assert len(own.with_human()) == sum(i % 3 > 0 for i in range(50))
