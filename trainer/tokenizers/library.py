"""What all tokenizers in the form of the `tokenizers` library have in common: their file, normalizer and vocabulary."""

from collections.abc import Sequence

import tokenizers
from pydantic import BaseModel, ConfigDict
from tokenizers import normalizers

from trainer.contracts.tokenizers import Normalization, TokenizerManifest
from trainer.tokenizers.base import broken


class _Model(BaseModel):
    model_config = ConfigDict(strict=True)
    vocab: dict[str, int]


class _File(BaseModel):
    """The part of the library's file that is read back."""

    model: _Model


def vocabulary_of(content: bytes, manifest: TokenizerManifest) -> list[str]:
    """Return the tokens by their ids; raises TOKENIZER_LOAD_FAILED where they are not those of the manifest."""
    try:
        vocabulary = _File.model_validate_json(content).model.vocab
    except ValueError:
        raise broken(manifest, "cannot be read") from None
    if list(vocabulary.values()) != list(range(manifest.vocab_size)):
        raise broken(manifest, "does not hold the vocabulary of its manifest")
    return list(vocabulary)


def normalizer_of(normalization: Normalization, *more: normalizers.Normalizer) -> normalizers.Normalizer:
    """The library's form of what is done to a text before it is encoded."""
    nfc = normalizers.NFC()
    steps: list[normalizers.Normalizer] = [nfc, normalizers.Lowercase(), nfc] if normalization.lowercase else [nfc]
    steps += more
    return normalizers.Sequence(steps)


def content_of(library: tokenizers.Tokenizer, special_tokens: Sequence[str]) -> bytes:
    """The file from which `tokenizers.Tokenizer.from_file` makes a tokenizer with equal ids.

    Text that spells a special token stays text there when `encode_special_tokens` is set, as it always does here.
    """
    specials: list[str | tokenizers.AddedToken] = list(special_tokens)
    library.add_special_tokens(specials)
    return library.to_str(pretty=False).encode()
