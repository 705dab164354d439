"""Checks a model folder before anything is built or loaded from it.

transformers builds the model that config.json describes before it compares it with the weights: a wrong folder costs
the memory of a 7B model, a hostile one any amount. It also follows a LoRA adapter's config to whatever base that names,
and passes on safetensors' own errors about truncated files. So every loader of a model calls `look_at` first.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.io.json_files import parse_json, read_json

CONFIG, ADAPTER = "config.json", "adapter_config.json"
LFS_POINTER = b"version https://git-lfs"
LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit

# Matched against the end of a key; each limit is well above the largest published model.
LIMITS = {
    "num_hidden_layers": 1_000,
    "num_layers": 1_000,
    "layers": 1_000,
    "hidden_size": 32_768,
    "width": 32_768,
    "intermediate_size": 262_144,
    "attention_heads": 1_024,
    "key_value_heads": 1_024,
    "heads": 1_024,
    "head_dim": 32_768,
    "vocab_size": 4_000_000,
    "image_size": 8_192,
    "num_experts": 4_096,
    "max_position_embeddings": 100_000_000,
    "covariance_rank": 144,
}


def look_at(source: str | Path, wanted: str) -> tuple[Path, dict[str, Any]]:
    """Returns a model's folder and its parsed config.json, after checking the sizes in it and any weight files.

    Args:
        source: a folder, or a hub id, whose config.json comes from the hub's cache (or is downloaded, if the
            environment allows it).
        wanted: what the model should be, for error messages, e.g. `LLaVA checkpoint`.
    Raises:
        PoseRftError: no model, a LoRA adapter, implausible sizes, or files that are truncated or git-LFS pointers.
    """
    folder = Path(source) if Path(source).is_dir() else _cached(str(source), wanted)
    if (folder / ADAPTER).is_file():
        raise PoseRftError(
            f"{source} is a LoRA adapter ({ADAPTER}), expected the whole weights of a {wanted}; merge the adapter into "
            "its base with peft's `merge_and_unload` and name the result."
        )
    if not (folder / CONFIG).is_file():
        raise PoseRftError(f"{source} holds no {wanted}, expected {CONFIG} and weights.")
    config = read_config(folder / CONFIG)
    check_sizes(config, str(source))
    for path in sorted(folder.glob("*.safetensors")):
        check_safetensors(path)
    for path in sorted(folder.glob("*.bin")):
        _refuse_pointer(path)
    check_promise(config, folder)
    return folder, config


def read_config(path: Path) -> dict[str, Any]:
    """Reads a config.json.

    Raises:
        PoseRftError: damaged, or a git-LFS pointer.
    """
    _refuse_pointer(path)
    return read_json(path, dict)


def check_sizes(config: Any, source: str) -> None:
    """Rejects a configuration with sizes that no model has.

    Raises:
        PoseRftError: a number of layers, a width or the like is out of range.
    """
    for key, value in _numbers(config):
        limit = next((limit for name, limit in LIMITS.items() if key == name or key.endswith(f"_{name}")), None)
        if limit is not None and not 0 <= value <= limit:
            raise PoseRftError(
                f"The configuration of {source} has `{key}` {value:g}, expected at most {limit}: no model has such a "
                "size; download it again."
            )


def check_promise(config: dict[str, Any], folder: Path) -> None:
    """Compares a configuration with the weights beside it, if any, because a model is built before it is loaded.

    Raises:
        PoseRftError: the configuration describes more weights than the files can hold.
    """
    held = sum(path.stat().st_size for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    least = _least_parameters(config)
    if held and least > held:  # no format takes less than one byte per parameter
        raise PoseRftError(
            f"{folder / CONFIG} describes a model of more than {least:.3g} parameters, but the weights beside it have "
            f"{held} bytes; the two do not belong together."
        )


def _least_parameters(config: dict[str, Any]) -> float:
    """Lower bound on the parameter count: one square matrix per layer, and one embedding row per token."""
    total = sum(_least_parameters(part) for part in config.values() if isinstance(part, dict))
    width, layers, rows = (config.get(key) or 0 for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    if all(isinstance(number, int) for number in (width, layers, rows)):
        total += layers * width * width + rows * width
    return total


def check_safetensors(path: Path) -> None:
    """Compares the size that a file's header declares with its length.

    Raises:
        PoseRftError: a git-LFS pointer, truncated, or not a safetensors file.
    """
    _refuse_pointer(path)
    size = door.check_file(path)
    with door.open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 0 < length <= min(size - 8, LONGEST_HEADER) else b""
    try:
        content = parse_json(header, path, dict)
        ends = [int(entry["data_offsets"][1]) for name, entry in content.items() if name != "__metadata__"]
    except (PoseRftError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        raise PoseRftError(f"{path} is no safetensors file, or its beginning is damaged; download it again.") from None
    if size != 8 + length + max(ends, default=0):
        raise PoseRftError(
            f"{path} has {size} bytes, but its header promises {8 + length + max(ends, default=0)}: it is cut or "
            "damaged; download it again."
        )


def try_words(tokenizer: Any) -> None:
    """Uses a tokenizer as later code will: some bad settings raise only on first use, and raise any exception."""
    tokenizer("a word", truncation=True)
    tokenizer.encode("a word")
    tokenizer.convert_tokens_to_ids("a word that no vocabulary has")
    for name in ("bos", "eos", "pad", "unk"):
        getattr(tokenizer, f"{name}_token_id")


def check_words(tokenizer: Any, rows: int, source: str | Path) -> None:
    """Tries a tokenizer, and compares its ids with the number of embedding rows of the model beside it.

    Raises:
        PoseRftError: the tokenizer fails on a word (some bad settings raise only then), or has ids beyond `rows`.
    """
    with one_sentence(source, "tokenizer"):
        try_words(tokenizer)
        highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= rows:
        raise PoseRftError(
            f"{source} has a tokenizer with ids up to {highest}, but a model of {rows} words; the two do not belong "
            "together."
        )


@contextmanager
def one_sentence(source: str | Path, wanted: str) -> Iterator[None]:
    """Turns any exception of a loader into a one-sentence PoseRftError; a PoseRftError passes unchanged.

    transformers' own log of mismatched weights is silenced: `check_loaded` reports these where it matters.
    """
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except PoseRftError:
        raise
    except Exception as error:  # safetensors, huggingface_hub and transformers raise exception classes of their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PoseRftError(
            f"{source} holds a {wanted} that cannot be loaded ({reason}); it is damaged, or "
            "of another form; download or make it again."
        ) from error
    finally:
        log.setLevel(level)


def _cached(source: str, wanted: str) -> Path:
    from transformers.utils import cached_file

    try:
        cached_file(source, ADAPTER, _raise_exceptions_for_missing_entries=False)
        return Path(str(cached_file(source, CONFIG))).parent
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PoseRftError(
            f"{source} holds no {wanted}: it is no folder, and no model of the hub that can be read ({reason}); set "
            "HF_HUB_OFFLINE=0 to download one."
        ) from None


def _refuse_pointer(path: Path) -> None:
    with door.open_file(path) as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise PoseRftError(
                f"{path} is a git-LFS pointer, not the file itself; run `git lfs pull` in its folder, or download it."
            )


def _numbers(content: Any, depth: int = 0) -> Iterator[tuple[str, float]]:
    """Yields every number of a configuration with its key; numbers in a list have the list's key."""
    if depth > 8 or not isinstance(content, dict):
        return
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _numbers(value, depth + 1)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int | float) and not isinstance(one, bool):
                yield str(key), one
