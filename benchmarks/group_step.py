"""One RFT step with G answers per prompt, on random data: what `benchmarks.group_cost` times.

Rollout, packing, reference and objective are the project's own. `shared` reads a prompt once for its whole group;
`repeated` is the usual way, a row with its own copy of the prompt for every answer; `dense` packs the group as `shared`
does, but with one mask over the whole row instead of attention in two parts. Rewards are random and cost nothing,
DeepSpeed is left out, and answers never end early, so every variant does the same work. Needs only torch, transformers
and peft.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlavaConfig

from pose_rft.hygrpo import objective
from pose_rft.hygrpo.advantages import group_advantages
from pose_rft.hygrpo.reference import ReferencePolicy
from pose_rft.inference import packing
from pose_rft.inference.sampling import Completions, generate
from pose_rft.policy import shared_attention
from pose_rft.policy.architectures import LLAVA, Llama, llama_config
from pose_rft.policy.config import POSE_NUMBERS, Hmr2VitConfig, PoseLlavaConfig
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.lora import add_lora, trainable_parameters
from pose_rft.policy.model import PoseLlava

Way = Literal["shared", "repeated", "dense"]
PHASES = ("encode", "rollout", "reference", "update")
EPSILON, BETA, LEARNING_RATE, CLIP = 0.2, 0.04, 1e-6, 1.0  # presets/paper.yaml
END, IMAGE, POSE = 0, 1, 2
FIRST_WORD = 3
NO_STD = 1e-4


class Adapters(NamedTuple):
    """LoRA as in presets/paper.yaml's `rft`."""

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


CPU = Llama(512, 1376, 6, 8, 4000)
SEVEN_B = LLAVA["llava-hf/llava-1.5-7b-hf"]


def policy_config(language: Llama, vision: CLIPVisionConfig, encoder: Hmr2VitConfig | None) -> PoseLlavaConfig:
    """Returns the config of a policy whose answers can neither end nor contain an image token."""
    text = llama_config(language, max_position_embeddings=4096)
    return PoseLlavaConfig(
        llava=LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE),
        pose_encoder=encoder,
        fusion="clip_only" if encoder is None else "add",
        pose_token_id=POSE,
        end_token_id=END,
        suppressed_token_ids=[END, IMAGE],
    )


def cpu_config() -> PoseLlavaConfig:
    """6 layers of width 512, and 576 image tokens of a vision tower that never runs (its tokens are given)."""
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    return policy_config(CPU, CLIPVisionConfig(**tower, image_size=336, patch_size=14), None)


def llava_7b_config() -> PoseLlavaConfig:
    """LLaVA-1.5-7B with CLIP ViT-L/14-336 and HMR2.0's ViT-H beside it."""
    return policy_config(SEVEN_B, LlavaConfig().vision_config, Hmr2VitConfig())


def tiny_config() -> PoseLlavaConfig:
    """The same parts at test sizes; a picture is 4 tokens."""
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = {"image_size": (32, 24), "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1}
    clip = CLIPVisionConfig(**tower, image_size=28, patch_size=14)
    return policy_config(Llama(32, 64, 2, 2, 64), clip, Hmr2VitConfig(**encoder, num_attention_heads=2))


class Step:
    """A policy with its reference and optimiser, and its training steps.

    Args:
        encode: run the frozen encoders in every step; otherwise their tokens are given.
        clock: returns seconds; use CPU time instead of wall time if others also use the machine.
    """

    def __init__(
        self,
        config: PoseLlavaConfig,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        lora: Adapters | None = None,
        prompt: int = 601,
        answer: int = 12,
        prompts: int = 1,
        encode: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device, self.answer, self.prompts, self.encode = torch.device(device), answer, prompts, encode
        self.clock = clock
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with self.device:
                self.model = PoseLlava(config)
                if lora is not None:
                    add_lora(self.model, lora)  # type: ignore[arg-type]
        finally:
            torch.set_default_dtype(before)
        trained = trainable_parameters(self.model, "full" if lora is None else "lora")
        self.model.train()
        self.reference = ReferencePolicy(self.model)
        self.optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE)
        self.trained = trained
        words = prompt - self.model.num_image_tokens
        rows = config.get_text_config().vocab_size
        self.ids = [
            [IMAGE] * self.model.num_image_tokens + torch.randint(FIRST_WORD, rows, (words,)).tolist()
            for _ in range(prompts)
        ]
        self.images = self._encoded() if encode else self._given()
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def _given(self) -> ImageTokens:
        width = self.model.config.llava.vision_config.hidden_size
        clip = torch.randn(self.prompts, self.model.num_image_tokens, width, device=self.device)
        return ImageTokens(clip.to(self.model.dtype), None)

    def _encoded(self) -> ImageTokens:
        side = self.model.config.llava.vision_config.image_size
        pose = self.model.pose_encoder.image_size if self.model.pose_encoder is not None else side
        pictures = (torch.rand(self.prompts, 3, n, n, device=self.device) for n in (side, pose))
        return self.model.encode_images(*pictures)

    # --- phases

    def rollout(self, group: int, way: Way) -> Completions:
        """Samples G answers to each prompt, each with one pose token."""
        uniforms = torch.rand(self.prompts, group, self.answer, device=self.device)
        if way == "repeated":
            rows = [row for row in range(self.prompts) for _ in range(group)]
            ids, images = [self.ids[row] for row in rows], self.images.select(rows)
            found = generate(self.model, ids, images, 1, self.answer, 1.0, uniforms.flatten(0, 1)[:, None])
        else:
            found = generate(self.model, self.ids, self.images, group, self.answer, 1.0, uniforms)
        tokens = found.ids.view(self.prompts, group, self.answer).clone()
        tokens[tokens == POSE] = FIRST_WORD
        tokens[..., self.answer // 2] = POSE
        return Completions.from_ids(tokens, END)

    def score(self, model: PoseLlava, answers: Completions, way: Way) -> packing.Scores:
        """Returns log-probabilities and hidden states of all answers."""
        lay_out = packing.separate_rows if way == "repeated" else packing.pack
        rows = lay_out(self.ids, answers, model.config).to(self.device)
        language = model.llava.model.language_model.config
        language._attn_implementation = "sdpa" if way == "dense" else shared_attention.NAME
        return packing.score(model, rows, self.images)

    def train(self, answers: Completions, reference: packing.Scores, way: Way) -> Tensor:
        """Runs the forward pass, HyGRPO's loss with random rewards, and the backward pass."""
        scores = self.score(self.model, answers, way)
        loss = self._loss(scores, reference)
        loss.backward()
        return loss.detach()

    def _loss(self, scores: packing.Scores, reference: packing.Scores) -> Tensor:
        shape, valid = scores.mask.shape[:2], scores.has_pose
        poses = self.model.pose_distribution(scores.hidden.flatten(0, 1), scores.start.flatten(0, 1))
        start = reference.start.flatten(0, 1)
        frozen = self.model.pose_distribution(reference.hidden.flatten(0, 1), start).detach()
        draw = poses.sample(torch.Generator(self.device).manual_seed(0))
        log_prob = poses.log_prob(draw).view(*shape, 1, 1)
        rewards = torch.rand(2, *shape, device=self.device)
        text, pose = (group_advantages(reward, torch.ones_like(valid), NO_STD).values for reward in rewards)
        own = scores.log_probs
        gain = objective.answer_surrogate(own, own.detach(), scores.mask, text, EPSILON, "token").value
        scale = torch.full(shape[:1], POSE_NUMBERS**0.5, device=self.device)
        every = torch.ones(shape[0], 1, dtype=torch.bool, device=self.device)
        anchor = log_prob.detach()
        gain = gain + objective.pose_surrogate(log_prob, anchor, valid, every, scale, pose[..., None], EPSILON).value
        kl = objective.answer_kl(own, reference.log_probs, scores.mask, "k3")
        kl = kl + objective.pose_kl(poses.kl(frozen).view(shape) / POSE_NUMBERS, valid)
        return (BETA * kl - gain).mean()

    def judged(self, answers: Completions, way: Way) -> packing.Scores:
        """Returns the reference policy's scores, without gradient."""
        with torch.no_grad(), self.reference.use(self.model) as frozen:
            return self.score(frozen, answers, way)

    def run(self, group: int, way: Way) -> float:
        """Runs a whole step; returns its seconds and adds them to `seconds` by phase."""
        before = sum(self.seconds.values())
        with self._phase("encode"):
            if self.encode:
                self.images = self._encoded()
        with self._phase("rollout"):
            answers = self.rollout(group, way)
        with self._phase("reference"):
            reference = self.judged(answers, way)
        with self._phase("update"):
            self.train(answers, reference, way)
            torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
            self.optimiser.step()
            self.optimiser.zero_grad()
        return sum(self.seconds.values()) - before

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = self.now()
        yield
        self.seconds[name] += self.now() - began

    def now(self) -> float:
        """Returns the clock's seconds once all pending GPU work is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()
