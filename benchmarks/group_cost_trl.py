"""TRL's GRPOTrainer with the language model, prompt length, G and answer length of `benchmarks.group_cost`.

That benchmark runs it with the Python of TRL's own environment, in a working directory of its own:

    python group_cost_trl.py '{"width": 512, ...}' result.json

A step is timed from the trainer's own step-begin to its step-end callback: rollout, reference, update.
"""

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TRL_EXPERIMENTAL_SILENCE": "1"}

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def word_tokenizer(rows: int) -> PreTrainedTokenizerFast:
    """Returns a tokenizer of `rows` words, one token each."""
    words = [*(f"w{i}" for i in range(rows - 3)), "<pad>", "<eos>", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **marks)


class Clock(TrainerCallback):
    """Records the seconds of each step; now: the name of a function in `time`."""

    def __init__(self, now: str) -> None:
        self.now = getattr(time, now)
        self.seconds: list[float] = []

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.began = self.now()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.seconds.append(self.now() - self.began)


def main(settings: dict[str, Any], result: Path) -> None:
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    rows, group, answer = settings["rows"], settings["group"], settings["answer"]
    tokenizer = word_tokenizer(rows)
    config = LlamaConfig(
        hidden_size=settings["width"],
        intermediate_size=settings["inner"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        num_key_value_heads=settings["heads"],
        vocab_size=rows,
        max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained("model")  # TRL loads its reference from the policy's folder
    tokenizer.save_pretrained("model")
    dice = random.Random(0)
    prompts = [" ".join(f"w{dice.randrange(rows - 3)}" for _ in range(settings["prompt"])) for _ in range(64)]
    clock = Clock(settings["clock"])
    trainer = GRPOTrainer(
        model=LlamaForCausalLM.from_pretrained("model"),
        reward_funcs=lambda completions, **_: [dice.random() for _ in completions],
        args=GRPOConfig(
            output_dir="out",
            per_device_train_batch_size=group,
            num_generations=group,
            max_completion_length=answer,
            max_steps=settings["steps"],
            learning_rate=1e-6,
            beta=0.04,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            top_k=0,
            generation_kwargs={"min_new_tokens": answer},
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    result.write_text(json.dumps({"version": trl.__version__, "seconds": clock.seconds, "memory": peak}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]).resolve())
