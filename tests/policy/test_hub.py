"""Weights from elsewhere load wholly, or not at all, with their names listed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionModel,
    LlavaForConditionalGeneration,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
)

from pose_rft.errors import PoseRftError
from pose_rft.policy.architectures import clip_vision_config
from pose_rft.policy.config import Hmr2VitConfig
from pose_rft.policy.hub import (
    Base,
    create_base,
    create_policy,
    import_pose_encoder,
    load_base,
    load_hmr2,
    load_pose_encoder,
    load_vitpose,
    save_policy,
)
from pose_rft.policy.params import BaseModelParams, PolicyParams, PoseEncoderParams
from pose_rft.policy.pose_encoder import Hmr2Vit
from pose_rft.policy.processor import ImageParams, PoseProcessor
from tests.support.tiny_policies import (
    BASE,
    IMAGE,
    image_tokens_of,
    random_crops,
    tiny_encoder,
    tiny_policy,
    word_tokenizer,
)


def save_hub_llava(base: Base, folder: Path) -> dict[str, torch.Tensor]:
    """A checkpoint as llava-hf/llava-1.5-7b-hf has it: its key names, no `<POSE>`, padded vocabulary rows."""
    base.llava.save_pretrained(folder)
    renames = (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    )
    weights = {}
    for name, weight in base.llava.state_dict().items():
        old, new = next(pair for pair in renames if name.startswith(pair[0]))
        weights[new + name.removeprefix(old)] = weight.clone()
    weights["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    word_tokenizer().save_pretrained(folder)
    return weights


def test_llava_loads_from_the_hubs_old_key_names(base: Base, tmp_path: Path) -> None:
    """Trap: renames are looked up by class; a subclass would silently get a random lm_head."""
    weights = save_hub_llava(base, tmp_path)
    assert "language_model.lm_head.weight" in weights and "language_model.model.norm.weight" in weights
    loaded = load_base(tmp_path).llava
    pose = word_tokenizer()
    for name, weight in base.llava.state_dict().items():
        if "embed_tokens" in name or "lm_head" in name:
            assert torch.equal(loaded.state_dict()[name][: len(pose)], weight[: len(pose)]), name
        else:
            assert torch.equal(loaded.state_dict()[name], weight), name


def test_pose_takes_a_free_row_and_the_matrix_never_shrinks(base: Base, tmp_path: Path) -> None:
    """Trap: llava-hf pads its vocabulary; resizing to the tokenizer's length would cut rows off."""
    save_hub_llava(base, tmp_path)
    rows = base.llava.get_input_embeddings().weight.shape[0]
    loaded = load_base(tmp_path)
    known = len(word_tokenizer())
    assert len(loaded.tokenizer) == known + 1 < rows
    assert loaded.llava.get_input_embeddings().weight.shape[0] == rows
    for matrix in (loaded.llava.get_input_embeddings().weight, loaded.llava.get_output_embeddings().weight):
        assert torch.allclose(matrix[known], matrix[:known].mean(0), atol=1e-6)


def test_a_full_vocabulary_grows_to_hold_pose(base: Base, tmp_path: Path) -> None:
    known = len(word_tokenizer())
    base.llava.resize_token_embeddings(known, mean_resizing=False)
    save_hub_llava(base, tmp_path)
    loaded = load_base(tmp_path)
    assert loaded.llava.get_input_embeddings().weight.shape[0] == 128 > known
    model, processor = create_policy(
        loaded, tiny_encoder(), PolicyParams.model_validate(policy_params()), IMAGE, "gaussian"
    )
    assert model(processor.encode("he", processor.ANSWER, False).input_ids[None]).logits.shape[-1] == 128


def policy_params() -> dict[str, object]:
    from tests.support.tiny_policies import POLICY

    return POLICY


def test_a_saved_base_loads_as_it_was(base: Base, tmp_path: Path) -> None:
    base.save(tmp_path)
    loaded = load_base(tmp_path)
    assert all(torch.equal(weight, loaded.llava.state_dict()[name]) for name, weight in base.llava.state_dict().items())
    assert loaded.tokenizer.get_vocab() == base.tokenizer.get_vocab()


def test_building_a_policy_around_loaded_weights_changes_none_of_them(base: Base, tmp_path: Path) -> None:
    base.save(tmp_path / "base")
    encoder = tiny_encoder()
    encoder.save_pretrained(tmp_path / "encoder")
    params = PolicyParams.model_validate(policy_params())
    model, processor = create_policy(
        load_base(tmp_path / "base"), load_pose_encoder(tmp_path / "encoder"), params, IMAGE, "gaussian"
    )
    assert all(torch.equal(w, model.llava.state_dict()[name]) for name, w in base.llava.state_dict().items())
    assert all(torch.equal(w, model.pose_encoder.state_dict()[name]) for name, w in encoder.state_dict().items())
    save_policy(tmp_path / "policy", model, processor)
    assert (tmp_path / "policy" / "processor_config.json").is_file()


def test_llava_with_missing_weights_is_refused_and_they_are_listed(base: Base, tmp_path: Path) -> None:
    weights = save_hub_llava(base, tmp_path)
    weights["language_model.lm_heed.weight"] = weights.pop("language_model.lm_head.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PoseRftError, match=r"missing: lm_head.weight; unexpected: .*lm_heed"):
        load_base(tmp_path)


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(PoseRftError, match=r"nowhere.* holds no LLaVA"):
        load_base(tmp_path / "nowhere")


def test_a_trained_clip_tower_enters_the_base(tokenizer_folder: Path) -> None:
    params = BaseModelParams.model_validate(BASE)
    assert params.tiny is not None
    torch.manual_seed(3)
    tower = CLIPVisionModel(clip_vision_config(params.tiny.vision, IMAGE.size))
    base = create_base(params, IMAGE, tokenizer_folder, clip_vision=tower)
    pixels = torch.randn(2, 3, 32, 32)
    ours = base.llava.model.vision_tower(pixels).last_hidden_state
    assert torch.equal(ours, tower(pixels).last_hidden_state)


def test_bases_of_one_seed_are_equal_and_of_two_seeds_differ(tokenizer_folder: Path) -> None:
    params = BaseModelParams.model_validate(BASE)
    first, again, other = (
        create_base(params, IMAGE, tokenizer_folder, seed).llava.lm_head.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_sizes_that_do_not_fit_are_named(base: Base) -> None:
    params = PolicyParams.model_validate(policy_params())
    with pytest.raises(PoseRftError, match=r"image\.size is 48"):
        create_policy(base, tiny_encoder(), params, ImageParams(size=48, pose_size=32, box_scale=1), "point")
    with pytest.raises(PoseRftError, match=r"image\.pose_size is 64"):
        create_policy(base, tiny_encoder(), params, ImageParams(size=32, pose_size=64, box_scale=1), "point")
    with pytest.raises(PoseRftError, match="needs a pose encoder"):
        create_policy(base, None, params, IMAGE, "point")


# --- ViTPose


def tiny_vitpose() -> VitPoseForPoseEstimation:
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        out_indices=[2],
    )
    torch.manual_seed(4)
    return VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17)).eval()


def test_vitpose_loads_from_the_hubs_format_with_every_weight(tmp_path: Path) -> None:
    """Trap: VitPoseBackbone.from_pretrained on such a checkpoint gives a random backbone."""
    vitpose = tiny_vitpose()
    vitpose.save_pretrained(tmp_path)
    encoder = import_pose_encoder(PoseEncoderParams(kind="vitpose", checkpoint=str(tmp_path)))
    assert (encoder.image_size, encoder.width, encoder.grid) == (64, 32, (4, 3))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = vitpose.backbone(pixels[..., 8:56]).feature_maps[-1]
        assert torch.equal(encoder.tokens(pixels), expected)
    assert encoder.tokens(pixels).shape == (2, 12, 32)


def test_vitpose_with_other_weights_is_refused(tmp_path: Path) -> None:
    tiny_vitpose().backbone.save_pretrained(tmp_path)
    tiny_vitpose().config.save_pretrained(tmp_path)
    with pytest.raises(PoseRftError, match=r"missing: backbone\.embeddings.*unexpected: embeddings"):
        load_vitpose(tmp_path)


# --- HMR2.0 and TokenHMR


class Settings(dict):
    """Stands for yacs.config.CfgNode, which such checkpoints carry."""


def lightning_checkpoint(path: Path, prefix: str = "backbone.") -> Hmr2Vit:
    torch.manual_seed(5)
    config = Hmr2VitConfig(image_size=(64, 48), hidden_size=32, num_hidden_layers=2, num_attention_heads=16)
    vit = Hmr2Vit(config).eval()
    state = {prefix + name: weight for name, weight in vit.state_dict().items()}
    state["smpl_head.decpose.weight"] = torch.zeros(2, 2)
    settings = Settings(lr=1e-5, nested=Settings(a=[1, "x"]))
    content = {"state_dict": state, "epoch": 35, "hyper_parameters": settings, "callbacks": {"x": tmp_object()}}
    torch.save(content, path)
    return vit


def tmp_object() -> object:
    return Path("/somewhere")


def test_hmr2_loads_from_a_lightning_checkpoint_without_running_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = lightning_checkpoint(tmp_path / "hmr2.ckpt")
    monkeypatch.setattr(Settings, "__init__", lambda *_: pytest.fail("a class of the checkpoint was run"))
    encoder = load_hmr2(tmp_path / "hmr2.ckpt")
    assert (encoder.image_size, encoder.width, encoder.grid) == (64, 32, (4, 3))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder.tokens(pixels), vit.tokens(pixels))
        outside = pixels.clone()
        outside[..., :8] = outside[..., 56:] = 9.0
        assert torch.equal(encoder.tokens(outside), encoder.tokens(pixels))  # it reads the middle columns


def test_vit_h_has_the_published_shape() -> None:
    with torch.device("meta"):
        vit = Hmr2Vit(Hmr2VitConfig())
    assert vit.grid == (16, 12) and vit.pos_embed.shape == (1, 193, 1280) and len(vit.blocks) == 32
    assert 630e6 < sum(parameter.numel() for parameter in vit.parameters()) < 633e6


def test_hmr2_with_missing_or_unexpected_weights_is_refused(tmp_path: Path) -> None:
    lightning_checkpoint(tmp_path / "hmr2.ckpt")
    content = torch.load(tmp_path / "hmr2.ckpt", weights_only=False)
    content["state_dict"]["backbone.blocks.1.mlp.fc9.weight"] = content["state_dict"].pop(
        "backbone.blocks.1.mlp.fc2.weight"
    )
    torch.save(content, tmp_path / "hmr2.ckpt")
    with pytest.raises(PoseRftError, match=r"missing: blocks.1.mlp.fc2.weight; unexpected: blocks.1.mlp.fc9.weight"):
        load_hmr2(tmp_path / "hmr2.ckpt")


def test_files_that_are_no_hmr2_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(PoseRftError, match="does not exist"):
        load_hmr2(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(PoseRftError, match="cannot be read as a HMR2"):
        load_hmr2(tmp_path / "text.ckpt")
    lightning_checkpoint(tmp_path / "other.ckpt", prefix="encoder.")
    with pytest.raises(PoseRftError, match=r"expected a HMR2\.0 or TokenHMR checkpoint"):
        load_hmr2(tmp_path / "other.ckpt")


@pytest.mark.parametrize("kind", ["vitpose", "hmr2"])
@pytest.mark.parametrize("fusion", ["add", "concat", "channel"])
def test_released_encoders_work_inside_a_policy_and_its_folder(
    base: Base, tmp_path: Path, kind: str, fusion: str
) -> None:
    if kind == "vitpose":
        tiny_vitpose().save_pretrained(tmp_path / "source")
    else:
        (tmp_path / "source").parent.mkdir(exist_ok=True)
        lightning_checkpoint(tmp_path / "source")
    encoder = import_pose_encoder(PoseEncoderParams(kind=kind, checkpoint=str(tmp_path / "source")))  # type: ignore[arg-type]
    encoder.save_pretrained(tmp_path / "encoder")
    encoder = load_pose_encoder(tmp_path / "encoder")
    params = PolicyParams.model_validate(policy_params() | {"fusion": fusion})
    image = ImageParams(size=32, pose_size=64, box_scale=1.2)
    model, processor = create_policy(base, encoder, params, image, "gaussian")
    save_policy(tmp_path / "policy", model, processor)
    loaded = type(model).from_pretrained(tmp_path / "policy").eval()
    loaded_processor = PoseProcessor.from_pretrained(tmp_path / "policy")
    pixels = random_crops(loaded_processor, 1)
    assert pixels[0].shape == (1, 3, 32, 32) and pixels[1].shape == (1, 3, 64, 64)
    encoded = loaded_processor.encode(processor.image_questions[0], processor.ANSWER, True)
    with torch.no_grad():
        expected, found = (
            m.eval()(encoded.input_ids[None], pixel_values=pixels[0], pose_pixel_values=pixels[1]).logits
            for m in (model, loaded)
        )
    assert torch.equal(expected, found)


def test_several_clip_layers_may_be_read(base: Base) -> None:
    base.llava.config.vision_feature_layer = [-2, -1]
    llava = LlavaForConditionalGeneration(base.llava.config)
    model, processor = tiny_policy(Base(llava, base.tokenizer))
    tokens = image_tokens_of(model, processor, 1)
    assert tokens is not None and tokens.clip.shape == (1, 4, 32)
    encoded = processor.encode(processor.image_questions[0], None, True)
    assert model(encoded.input_ids[None], image_tokens=tokens).logits.isfinite().all()


def test_an_unused_weight_file_is_not_mistaken_for_an_encoder(policy: tuple, tmp_path: Path) -> None:
    save_policy(tmp_path, *policy)
    with pytest.raises(PoseRftError, match="holds no pose encoder"):
        load_pose_encoder(tmp_path)
    assert load_file(tmp_path / "model.safetensors")
