"""Files of the `tokenizers` library: content, normalizer and vocabulary."""

from collections.abc import Sequence

import tokenizers
from pydantic import BaseModel, ConfigDict
from tokenizers import models, normalizers

from trainer.contracts.tokenizers import Normalization, TokenizerManifest
from trainer.tokenizers.base import load_error


class _Model(BaseModel):
    model_config = ConfigDict(strict=True)
    vocab: dict[str, int]
    """In the order of ids."""
    merges: list[tuple[str, str]] = []


class _File(BaseModel):
    """The part of the library's file that is read."""

    model: _Model


def vocabulary_of(content: bytes, manifest: TokenizerManifest) -> list[str]:
    """Return the tokens by id. Raises TOKENIZER_LOAD_FAILED if they do not match the manifest."""
    try:
        vocabulary = _File.model_validate_json(content).model.vocab
    except ValueError:
        raise load_error(manifest, "cannot be read") from None
    if list(vocabulary.values()) != list(range(manifest.vocab_size)):
        raise load_error(manifest, "does not have the vocabulary of its manifest")
    return list(vocabulary)


def vocabulary_and_merges(content: str) -> _Model:
    """Return the tokens with their ids, in order, and the merges of a BPE tokenizer, as the library writes them."""
    return _File.model_validate_json(content).model


def normalizer_of(normalization: Normalization, *more: normalizers.Normalizer) -> normalizers.Normalizer:
    """Return the normalization as a normalizer of the library, followed by `more`."""
    nfc = normalizers.NFC()
    of_language = [normalizers.Replace("İ", "i"), normalizers.Replace("I", "ı")]
    steps: list[normalizers.Normalizer] = [nfc, *(of_language if isinstance(normalization.lowercase, str) else ())]
    steps += [normalizers.Lowercase(), nfc] if normalization.lowercase else ()
    steps += more
    return normalizers.Sequence(steps)


def word_level(names: Sequence[str], unknown: str) -> tokenizers.Tokenizer:
    """Return a tokenizer of the library with one token for each name, numbered in their order."""
    return tokenizers.Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=unknown))


def content_of(library: tokenizers.Tokenizer, special_tokens: Sequence[str]) -> bytes:
    """Return the file content, which `tokenizers.Tokenizer.from_file` reads as a tokenizer with equal ids.

    That tokenizer parses special tokens in a text unless its `encode_special_tokens` is set; ours never does.
    """
    specials: list[str | tokenizers.AddedToken] = list(special_tokens)
    library.add_special_tokens(specials)
    return library.to_str(pretty=False).encode()
