"""A tokenizer in the format of Transformers: `tokenizer.json` and the names of the special tokens."""

import tokenizers
from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from trainer.artifacts.tokenizer_files import RESERVED
from trainer.contracts.models import Objective
from trainer.contracts.tokenizers import BYTE_NAMES, SentencePieceTokenizerConfig, TokenizerManifest
from trainer.tokenizers.library import content_of, normalizer_of
from trainer.tokenizers.sentencepiece import SPACE

_SPELLED_BYTE = pre_tokenizers.Split(Regex("<(?=0x[0-9A-F]{2}>)"), "isolated")
"""Keeps a text that is spelled like the token of a byte from becoming that token."""


def library_tokenizer(content: bytes, manifest: TokenizerManifest, objective: Objective) -> bytes:
    """Return `tokenizer.json` with the same ids as the tokenizer whose file has this content.

    For a masked model, it adds the special tokens at the start and end of a text. For a causal model, the caller adds
    the start, as with GPT-2: `tokenizer.bos_token + text`, or a newline before a stream.
    """
    if isinstance(manifest.config, SentencePieceTokenizerConfig):
        library = _from_sentencepiece(content, manifest, manifest.config)
    else:
        library = tokenizers.Tokenizer.from_str(content.decode())
    first, last = (_name(manifest, i) for i in (manifest.special_ids.start, manifest.special_ids.eos))
    if objective == "masked_lm":
        ids = [(name, manifest.special_tokens[name]) for name in sorted({first, last})]
        pair = f"{first} $A {last} $B:1 {last}:1"
        library.post_processor = processors.TemplateProcessing(f"{first} $A {last}", pair, ids)
    else:
        library.post_processor = None
    return library.to_str(pretty=False).encode()


def special_tokens_of(manifest: TokenizerManifest, objective: Objective) -> dict[str, str]:
    """Return the special tokens by the library's names for them.

    A tokenizer without [BOS] or [PAD] uses [EOS] for them, one without [MASK] the unknown token. A stream has neither
    [BOS] nor [EOS].
    """
    ids = manifest.special_ids
    named = {"bos_token": ids.start, "eos_token": ids.eos} if manifest.documents == "line" else {}
    named |= {"unk_token": ids.unk, "pad_token": ids.filler}
    if objective == "masked_lm":
        named |= {"cls_token": ids.start, "sep_token": ids.eos, "mask_token": ids.unk if ids.mask is None else ids.mask}
    return {role: _name(manifest, i) for role, i in named.items()}


def _name(manifest: TokenizerManifest, token_id: int) -> str:
    return next(name for name, i in manifest.special_tokens.items() if i == token_id)


def _from_sentencepiece(
    content: bytes, manifest: TokenizerManifest, config: SentencePieceTokenizerConfig
) -> tokenizers.Tokenizer:
    """Return a tokenizer with the same pieces, scores and merges; reserved characters are unknown.

    It puts a space before every text that begins without one, so that a word has the same tokens alone and in a line.
    Tools that score word by word, such as minicons, rely on it.
    """
    processor = SentencePieceProcessor(model_proto=content)
    pieces = [(processor.id_to_piece(i), float(processor.get_score(i))) for i in range(processor.get_piece_size())]
    unknown, has_bytes = _name(manifest, manifest.special_ids.unk), config.byte_fallback
    if config.model_type == "unigram":
        library = tokenizers.Tokenizer(models.Unigram(pieces, manifest.special_ids.unk, has_bytes))
    else:
        vocabulary = {piece: i for i, (piece, _) in enumerate(pieces)}
        merges = _merges(vocabulary, len(manifest.special_tokens) + (len(BYTE_NAMES) if has_bytes else 0))
        library = tokenizers.Tokenizer(
            models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=has_bytes)
        )
    library.normalizer = normalizer_of(
        config.normalization,
        normalizers.Replace(Regex(f"[{SPACE if has_bytes else RESERVED}]"), "\0"),
    )
    spaces = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
    cuts: list[pre_tokenizers.PreTokenizer] = [spaces, _SPELLED_BYTE] if has_bytes else [spaces]
    library.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    joins: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if has_bytes:
        joins.insert(1, decoders.ByteFallback())
    library.decoder = decoders.Sequence(joins)
    return tokenizers.Tokenizer.from_str(content_of(library, list(manifest.special_tokens)).decode())


def _merges(vocabulary: dict[str, int], specials: int) -> list[tuple[str, str]]:
    """Return every pair of pieces that forms a piece, in the order in which the pieces were learned."""
    merges: list[tuple[str, str]] = []
    for piece, i in vocabulary.items():
        if i >= specials:
            cuts = ((piece[:place], piece[place:]) for place in range(1, len(piece)))
            found = [cut for cut in cuts if cut[0] in vocabulary and cut[1] in vocabulary]
            merges += [cut for _, cut in sorted(((vocabulary[cut[0]], vocabulary[cut[1]]), cut) for cut in found)]
    return merges
