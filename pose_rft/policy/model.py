"""`PoseLlava`: the policy π(a, p | q) as one transformers model.

It holds a LLaVA (CLIP tower, its projector W_a, Llama), a pose-aware encoder beside CLIP, their fusion (W_b), and a
pose head on the hidden state that predicts `<POSE>`. The sample's tiny model and the 7B model are this class with
different configurations. LLaVA stays a complete `LlavaForConditionalGeneration`, so hub checkpoints load through their
own class and names (`hub.py`). There is no `generate`: sampling and scoring must share one distribution (see
`inference/sampling.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from pose_rft.errors import PoseRftError
from pose_rft.io.model_folder import look_at, one_sentence
from pose_rft.policy import lora, shared_attention
from pose_rft.policy.calibration import Asked, check_sigma_scale
from pose_rft.policy.config import POSE_NUMBERS, PoseLlavaConfig
from pose_rft.policy.encoder_kinds import pose_encoder_from_config
from pose_rft.policy.fusion import Fusion, ImageTokens
from pose_rft.policy.pose_encoder import PoseEncoder
from pose_rft.policy.pose_head import IDENTITY_6D, PoseDistribution, PoseHead
from pose_rft.policy.shared_attention import GroupColumns

NEVER = -1e4
"""Logit of a suppressed token: its probability is 0 in float32, and p · log p stays 0 rather than NaN."""


@dataclass
class PoseLlavaOutput(ModelOutput):
    """Loss (), logits (see `PoseLlava.forward`), last hidden states (B, T, d), initial poses (B, 144), KV cache."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: Tensor | None = None
    pose_start: Tensor | None = None
    cache: Cache | None = None


class PoseLlava(PreTrainedModel):
    """The policy.

    Args:
        config: everything that the class depends on.
        llava, pose_encoder: existing modules to use instead of fresh ones; they must match `config`.
    """

    config_class = PoseLlavaConfig
    config: PoseLlavaConfig
    base_model_prefix = ""
    input_modalities = ["image", "text"]  # noqa: RUF012 (transformers reads a class attribute)
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = {"pose_head"}  # noqa: RUF012

    def __init__(
        self,
        config: PoseLlavaConfig,
        llava: LlavaForConditionalGeneration | None = None,
        pose_encoder: PoseEncoder | None = None,
    ) -> None:
        super().__init__(config)
        self.llava = llava if llava is not None else LlavaForConditionalGeneration(config.llava)
        language = self.llava.model.language_model.config
        if language._attn_implementation == "sdpa":
            language._attn_implementation = shared_attention.NAME
        if pose_encoder is None and config.pose_encoder is not None:
            pose_encoder = pose_encoder_from_config(config.pose_encoder)
        self.pose_encoder = pose_encoder
        vision = config.llava.vision_config
        layers = config.llava.vision_feature_layer
        side = vision.image_size // vision.patch_size
        self.fusion = Fusion(
            config.fusion,
            vision.hidden_size * (1 if isinstance(layers, int) else len(layers)),
            (side, side),
            pose_encoder.width if pose_encoder is not None else None,
            pose_encoder.grid if pose_encoder is not None else None,
            config.get_text_config().hidden_size,
            config.inner_width,
            config.shortcuts,
        )
        self.pose_head = PoseHead(config)
        self.pose_row: Any = None  # the trained row of <POSE> under LoRA, see lora.py
        self.adapters: list[dict[str, Any]] = []  # settings of the language model's adapters, oldest first
        self.post_init()

    @property
    def num_image_tokens(self) -> int:
        """Number of `<image>` placeholders per image."""
        return self.fusion.num_tokens

    def towers(self) -> list[nn.Module]:
        """The encoders that stay frozen and in eval mode."""
        return [self.llava.model.vision_tower] + ([self.pose_encoder] if self.pose_encoder is not None else [])

    def train(self, mode: bool = True) -> "PoseLlava":
        """Switches the trained parts to training mode; frozen encoders stay in evaluation mode."""
        super().train(mode)
        for tower in self.towers():
            tower.eval()  # batch statistics and dropout were for their own training
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embeddings."""
        return self.llava.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The language model's output layer."""
        return self.llava.lm_head

    @torch.no_grad()
    def encode_images(self, pixel_values: Tensor, pose_pixel_values: Tensor | None) -> ImageTokens:
        """Runs the frozen part of the image path.

        Args:
            pixel_values: (B, 3, S, S), CLIP's normalisation. pose_pixel_values: (B, 3, P, P), ImageNet's.
        """
        for tower in self.towers():
            tower.eval()
        clip = self.clip_tokens(pixel_values)
        if self.pose_encoder is None:
            return ImageTokens(clip, None)
        if pose_pixel_values is None:
            raise ValueError("this policy has a pose encoder: pose_pixel_values are needed beside pixel_values")
        return ImageTokens(clip, self.pose_encoder(pose_pixel_values.to(self.pose_encoder.dtype)))

    @torch.no_grad()
    def clip_tokens(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, S, S) normalised pixels → (B, Lc, dc) CLIP tokens."""
        config = self.config.llava
        tower = self.llava.model.vision_tower
        states = tower(pixel_values.to(tower.dtype), output_hidden_states=True).hidden_states
        layers = config.vision_feature_layer
        picked = [states[i] for i in ([layers] if isinstance(layers, int) else layers)]
        if config.vision_feature_select_strategy == "default":
            picked = [state[:, 1:] for state in picked]  # without the class token
        return torch.cat(picked, -1)

    def no_tokens(self, device: torch.device) -> ImageTokens:
        """Returns the tokens of zero images, with the shapes that the encoders would produce.

        Sizes come from the configuration: under ZeRO-3 even reading a weight is a collective operation.
        """
        config = self.config.llava
        layers, width = config.vision_feature_layer, config.vision_config.hidden_size
        rows, columns = self.fusion.clip_grid
        clip = torch.zeros(0, rows * columns, width * (1 if isinstance(layers, int) else len(layers)), device=device)
        if self.pose_encoder is None:
            return ImageTokens(clip, None)
        rows, columns = self.pose_encoder.grid
        return ImageTokens(clip, torch.zeros(0, rows * columns, self.pose_encoder.width, device=device))

    def fuse(self, tokens: ImageTokens) -> Tensor:
        """Runs the trained part of the image path: → (B, num_image_tokens, d)."""
        projector = self.llava.model.multi_modal_projector
        return self.fusion(tokens.to(dtype=projector.linear_1.weight.dtype), projector)  # caches may be float16

    def embed(self, input_ids: Tensor, image_tokens: ImageTokens | None) -> Tensor:
        """(B, T) ids → (B, T, d) embeddings, with the `<image>` placeholders filled from the images in order.

        Raises:
            ValueError: the number of placeholders is not num_image_tokens per image.
        """
        embeds = self.get_input_embeddings()(input_ids)
        if self.pose_row is not None:
            embeds = self.pose_row.embed(embeds, input_ids)
        places = input_ids == self.config.llava.image_token_index
        expected = 0 if image_tokens is None else len(image_tokens) * self.num_image_tokens
        if int(places.sum()) != expected:
            raise ValueError(f"{int(places.sum())} <image> placeholders for {expected} image tokens")
        if image_tokens is None:
            return embeds
        return embeds.masked_scatter(places[..., None], self.fuse(image_tokens).to(embeds.dtype))

    def token_logits(self, hidden: Tensor) -> Tensor:
        """(..., d) states → (..., vocabulary) next-token logits; suppressed tokens get probability 0."""
        logits = self.llava.lm_head(hidden)
        if self.pose_row is not None:
            logits = self.pose_row.unembed(logits, hidden)
        if self.config.suppressed_token_ids:
            logits[..., self.config.suppressed_token_ids] = NEVER
        return logits

    def pose_start(self, input_ids: Tensor, image_tokens: ImageTokens | None) -> Tensor:
        """Initial pose per row, (B, 144), no gradient: the mean pose, or the encoder's with `pose_prior: encoder`."""
        start = self.pose_head.mean_pose.float().expand(len(input_ids), -1)
        if self.config.pose_prior == "mean" or image_tokens is None or not len(image_tokens):
            return start
        assert self.pose_encoder is not None and image_tokens.pose is not None
        pictures = (input_ids == self.config.llava.image_token_index).sum(1) // self.num_image_tokens
        rows = torch.arange(len(input_ids), device=input_ids.device).repeat_interleave(pictures)
        with torch.no_grad():
            return start.index_copy(0, rows, self.pose_encoder.pose(image_tokens.pose).float())

    def pose_distribution(self, hidden: Tensor, start: Tensor | None = None) -> PoseDistribution:
        """(N, d) states that predict `<POSE>`, (N, 144) initial poses (or the mean pose) → N float32 distributions."""
        return self.pose_head(hidden, start)

    def calibrated(self, poses: PoseDistribution, asked: Asked) -> PoseDistribution:
        """Returns `poses` with calibrated σ, for inference, never for training; unchanged without calibration."""
        scale = (self.config.sigma_scale or {}).get(asked)
        return poses if scale is None else poses.scaled(torch.tensor(scale, device=poses.mean.device))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        image_tokens: ImageTokens | None = None,
        pixel_values: Tensor | None = None,
        pose_pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        group: GroupColumns | None = None,
    ) -> PoseLlavaOutput:
        """One pass through the language model.

        Args:
            input_ids: (B, T). Rows without `<image>` take no image; image i belongs to the i-th placeholder block.
            attention_mask: (B, T), or (B, 1, T, T') bool with True = may attend (then pass position_ids too).
            image_tokens: from `encode_images`; alternatively pass pixel_values and pose_pixel_values.
            labels: (B, T), -100 = ignored. The loss is the mean cross-entropy over the other tokens, and `logits` are
                (N, V) for the N states that predict them, unless `logits_to_keep` is given.
            logits_to_keep: 0 = all (B, T, V), n = the last n, index tensor = those positions of every row, bool tensor
                (B, T) = those states, (N, V).
            group: for packed rows (see `shared_attention.py`); attention_mask then covers the prompts, (B, 1, 1, P).
        """
        if image_tokens is None and pixel_values is not None:
            image_tokens = self.encode_images(pixel_values, pose_pixel_values)
        embeds = self.embed(input_ids, image_tokens)
        outputs = self.llava.model.language_model(
            inputs_embeds=embeds,
            attention_mask=self._mask(attention_mask, embeds, group),
            position_ids=position_ids,
            cache=past_key_values,
            use_cache=use_cache,
            group=group,
        )
        hidden = outputs.last_hidden_state
        loss = None
        if labels is not None:
            scored = labels[:, 1:] != -100
            logits = self.token_logits(hidden[:, :-1][scored])
            loss = F.cross_entropy(logits.float(), labels[:, 1:][scored])
        if labels is None or not isinstance(logits_to_keep, int) or logits_to_keep:
            logits = self.token_logits(_keep(hidden, logits_to_keep))
        return PoseLlavaOutput(loss, logits, hidden, self.pose_start(input_ids, image_tokens), outputs.cache)

    def _mask(self, mask: Tensor | None, embeds: Tensor, group: GroupColumns | None) -> Tensor | None:
        """Converts the mask for the attention implementation in use.

        Only ours supports groups; eager attention adds the mask to the scores, where a bool would be silently wrong.
        """
        implementation = self.llava.model.language_model.config._attn_implementation
        if mask is None or mask.dim() != 4 or implementation == shared_attention.NAME:
            return mask
        if group is not None:
            mask = shared_attention.dense_mask(mask, group, embeds.shape[1])
        if implementation != "eager":
            return mask
        return torch.zeros_like(mask, dtype=embeds.dtype).masked_fill(~mask, torch.finfo(embeds.dtype).min)

    @torch.no_grad()
    def set_mean_pose(self, mean: Tensor) -> None:
        """Sets the pose that an untrained head predicts: mean (24, 6) of the training set's raw 6D numbers."""
        self.pose_head.mean_pose.copy_(mean.reshape(POSE_NUMBERS))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PoseHead):
            # Here and not in its constructor: transformers initialises after construction, and from_pretrained
            # builds on the meta device, so values set neither here nor by a checkpoint would be uninitialised.
            init.copy_(module.mean_pose, torch.tensor(IDENTITY_6D).repeat(POSE_NUMBERS // len(IDENTITY_6D)))
            for part in (module.mean, module.log_std, module.factor):
                if part is not None:
                    init.kaiming_normal_(part.inner.weight, nonlinearity="relu")
                    init.zeros_(part.outer.weight)
                    if part.shortcut is not None:
                        init.zeros_(part.shortcut.weight)
            if module.factor is not None:  # the gradient vanishes at U = 0
                init.normal_(module.factor.outer.bias, std=module.factor_init)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Saves the weights and, beside them, the adapters; the reloaded policy is bit-identical."""
        self.config.adapters = self.adapters or None
        with lora.without_adapters(self) as plain:
            super(PoseLlava, plain).save_pretrained(save_directory, **kwargs)
        if self.adapters:
            lora.save_adapters(self, Path(save_directory))

    @classmethod
    def from_pretrained(cls, source: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:  # type: ignore[override]
        """Loads a saved policy.

        Raises:
            PoseRftError: there is no policy, files are damaged, or weights are missing, unexpected or of another shape
                (all are listed).
        """
        folder, config = look_at(source, "policy")
        if config.get("model_type") != cls.config_class.model_type:
            raise PoseRftError(
                f"{source} holds a model of type {config.get('model_type')!r}, expected a policy "
                f"({cls.config_class.model_type!r}) that `sft` or `rft` saved."
            )
        with one_sentence(source, "policy"):
            loaded: Any = super().from_pretrained(
                source,
                *args,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **(kwargs | {"trust_remote_code": False}),
            )
            model, info = loaded
            check_loaded(info, str(source))
            model.config.check()
            check_sigma_scale(model.config.sigma_scale, str(source))
            if model.config.adapters:
                lora.load_adapters(model, folder)
        return loaded if output_loading_info else model


AutoModelForImageTextToText.register(PoseLlavaConfig, PoseLlava)

OBSOLETE = re.compile(r"(^|\.)(position_ids|inv_freq)$")
"""Buffers that older checkpoints contain and current classes compute."""


def check_loaded(info: Mapping[str, Any], source: str) -> None:
    """Rejects a checkpoint that transformers loaded only partly (it just prints a report and keeps random weights).

    Raises:
        PoseRftError: weights are missing, unexpected or mismatched (all are listed).
    """
    unexpected = [key for key in info["unexpected_keys"] if not OBSOLETE.search(key)]
    problems = {"missing": info["missing_keys"], "unexpected": unexpected, "of another shape": info["mismatched_keys"]}
    texts = [f"{what}: {_listed(keys)}" for what, keys in problems.items() if keys]
    if texts:
        raise PoseRftError(
            f"The weights in {source} are damaged or of another version of this project ({'; '.join(texts)}); get or "
            "train them again."
        )


def _listed(keys: Any, most: int = 12) -> str:
    names = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _keep(hidden: Tensor, which: int | Tensor) -> Tensor:
    if isinstance(which, int):
        return hidden[:, -which:]  # 0 keeps all
    return hidden[which] if which.dtype == torch.bool else hidden[:, which]
