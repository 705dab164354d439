"""The sample's tokenizer: one token per word, so that a tiny language model can read and write whole sentences.

Lower case; words keep inner hyphens and apostrophes, any other symbol is its own token. `<POSE>` is an ordinary added
token (decoding keeps it); `<image>`, `<pad>`, `<eos>` and `<unk>` are special. Ids depend only on the texts.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

UNKNOWN, PAD, END, IMAGE, POSE = "<unk>", "<pad>", "<eos>", "<image>", "<POSE>"
WORD = r"\w+(?:[-'’]\w+)*|[^\w\s]"
LONGEST = 2048


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Builds a tokenizer from the `vocabulary` most frequent words of `texts` (ties in alphabetical order).

    Raises:
        ValueError: `texts` contains no words.
    """
    counts = Counter(word for text in texts for word in re.findall(WORD, text.replace(POSE, " ").lower()))
    if not counts:
        raise ValueError("no texts to take words from")
    reserved = [PAD, UNKNOWN, END, IMAGE]
    words = sorted(counts, key=lambda word: (-counts[word], word))[:vocabulary]
    tokenizer = Tokenizer(
        WordLevel({word: number for number, word in enumerate([*reserved, *sorted(words)])}, unk_token=UNKNOWN)
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(WORD), "isolated")]
    )
    # Joins words with spaces and removes the space before punctuation.
    tokenizer.decoder = decoders.WordPiece(prefix="\x00", cleanup=True)
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True, lstrip=False, rstrip=False) for token in reserved]
    )
    tokenizer.add_tokens([AddedToken(POSE, normalized=False, special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=LONGEST,
        padding_side="right",
    )


def write_tokenizer(folder: Path, texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Builds the sample's tokenizer from `texts` and saves it to `folder`."""
    tokenizer = build_tokenizer(texts, vocabulary)
    tokenizer.save_pretrained(folder)
    return tokenizer
