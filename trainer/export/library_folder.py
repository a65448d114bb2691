"""A model as a folder that Transformers loads: config, weights, tokenizer, and code for recurrent models."""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import tokenizers
import torch
from pydantic import TypeAdapter
from safetensors.torch import save as save_safetensors
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from trainer.artifacts.tokenizer_files import RESERVED, tokenizer_file
from trainer.contracts.models import (
    BertConfig,
    Gpt2Config,
    LlamaConfig,
    ModelConfig,
    NgramConfig,
    Objective,
    QwenConfig,
    RnnConfig,
)
from trainer.contracts.tokenizers import (
    BYTE_NAMES,
    SentencePieceTokenizerConfig,
    TokenizerManifest,
    has_byte_fallback,
)
from trainer.data.normalization import normalized
from trainer.inference.model_files import TOKENIZER_FOLDER, WEIGHTS_FILE, ModelFile, model_without_weights
from trainer.models.base import LanguageModel
from trainer.models.weights import read_weights
from trainer.system.files import read_regular
from trainer.tokenizers.base import SPACE, Tokenizer, Vocabulary, vocabulary_of
from trainer.tokenizers.library import content_of, normalizer_of

if TYPE_CHECKING:
    from transformers.configuration_utils import PreTrainedConfig

LibraryModel = RnnConfig | Gpt2Config | BertConfig | LlamaConfig | QwenConfig
"""Configs of the models that the library loads."""
_CODE = ("configuration_recurrent", "modeling_recurrent")
_Fields = dict[str, object]
_AS_LLAMA: _Fields = {"model_type": "llama", "attention_bias": True}
"""Qwen2 is written as LLaMA with biases, because `AutoTokenizer` expects Qwen's own tokenizer in a `qwen2` folder."""
_QWEN_ONLY = ("layer_types", "max_window_layers", "sliding_window", "use_sliding_window")
_fields: TypeAdapter[_Fields] = TypeAdapter(_Fields)


def write_model(folder: Path, model: LanguageModel, config: LibraryModel, tokenizer: Tokenizer) -> None:
    """Write config, weights and, for a recurrent model, its code."""
    _write_json(folder / "config.json", _config(config, vocabulary_of(tokenizer), model.objective))
    state: dict[str, Tensor] = model.state_dict()
    (folder / WEIGHTS_FILE).write_bytes(save_safetensors(library_weights(config, state), {"format": "pt"}))
    if model.objective == "causal_lm":
        not_sampled: _Fields = {"suppress_tokens": tokenizer.special_ids.never_sampled}
        _write_json(folder / "generation_config.json", _of_vocabulary(vocabulary_of(tokenizer)) | not_sampled)
    if isinstance(config, RnnConfig):
        for module in _CODE:
            code = files("trainer.export").joinpath(f"{module}.py.txt").read_bytes()
            (folder / f"{module}.py").write_bytes(code)


def write_tokenizer(folder: Path, model: LanguageModel, tokenizer: Tokenizer) -> None:
    """Write the tokenizer in our format and in the library's."""
    own, manifest = folder / TOKENIZER_FOLDER, tokenizer.manifest
    tokenizer.save(own)
    content = read_regular(own / tokenizer_file(manifest.method))
    (folder / "tokenizer.json").write_bytes(library_tokenizer(content, manifest, model.objective))
    fields: _Fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **special_tokens_of(manifest, model.objective),
    }
    if model.context_tokens is not None:
        fields["model_max_length"] = model.context_tokens
    _write_json(folder / "tokenizer_config.json", fields)


def read_model(folder: Path, file: ModelFile, vocabulary: Vocabulary) -> LanguageModel:
    """Read the weights of a folder that `write_model` wrote. Raises ValueError if they do not match the model."""
    model = model_without_weights(file, vocabulary)
    state: dict[str, Tensor] = model.state_dict()
    weights = read_weights(folder / WEIGHTS_FILE, library_weights(file.model, state))
    own: dict[str, Tensor] = {name: weights[library_name(file.model, name)] for name in state}
    model.load_state_dict(own, assign=True)
    return model.eval()


def library_weights(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by the library's names. A Qwen2 model gets the zero output biases of LLaMA's attention."""
    weights = {library_name(config, name): weight.detach().contiguous() for name, weight in state.items()}
    if isinstance(config, QwenConfig):
        outputs = [name for name in weights if name.endswith(".o_proj.weight")]
        weights |= {name.removesuffix("weight") + "bias": torch.zeros_like(weights[name][:, 0]) for name in outputs}
    return weights


def library_name(config: ModelConfig, name: str) -> str:
    """Return the library's name of a weight."""
    names = _names(config)
    own = next((own for own in names if name.startswith(own)), "")
    return names.get(own, "") + name.removeprefix(own)


def _names(config: ModelConfig) -> Mapping[str, str]:
    """Return the prefixes of our weights' names with the library's prefixes."""
    match config:
        case RnnConfig() | NgramConfig():
            return {}
        case Gpt2Config():
            return {"body.": "transformer."}
        case LlamaConfig() | QwenConfig():
            return {"body.": "model.", "head.": "lm_head."}
        case BertConfig():
            return {"body.": "bert.", "transform.": "cls.predictions.transform.", "head_bias": "cls.predictions.bias"}
        case _:
            assert_never(config)


def _config(config: LibraryModel, vocabulary: Vocabulary, objective: Objective) -> _Fields:
    said: PreTrainedConfig
    match config:
        case RnnConfig():
            return _recurrent_config(config, vocabulary, objective)
        case Gpt2Config():
            from trainer.models import gpt2

            said, architecture = gpt2.library_config(config, vocabulary), "GPT2LMHeadModel"
        case LlamaConfig() | QwenConfig():
            from trainer.models import rotary

            said, architecture = rotary.library_config(config, vocabulary), "LlamaForCausalLM"
        case BertConfig():
            from trainer.models import bert

            said, architecture = bert.library_config(config, vocabulary), "BertForMaskedLM"
        case _:
            assert_never(config)
    fields = _fields.validate_json(said.to_json_string())
    if isinstance(config, QwenConfig):
        fields = {name: value for name, value in fields.items() if name not in _QWEN_ONLY} | _AS_LLAMA
    return (
        fields | _of_vocabulary(vocabulary) | {"architectures": [architecture], "dtype": "float32", "use_cache": True}
    )


def _recurrent_config(config: RnnConfig, vocabulary: Vocabulary, objective: Objective) -> _Fields:
    configuration, modeling = _CODE
    name = "ForCausalLM" if objective == "causal_lm" else "ForMaskedLM"
    return {
        "model_type": "model_trainer_recurrent",
        "architectures": [f"Recurrent{name}"],
        "auto_map": {
            "AutoConfig": f"{configuration}.RecurrentConfig",
            f"AutoModel{name}": f"{modeling}.Recurrent{name}",
        },
        "vocab_size": vocabulary.size,
        "cell": config.architecture,
        "embedding_size": config.embedding_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "bidirectional": config.bidirectional,
        "dropout": config.dropout,
        "dropout_places": config.dropout_places,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": "float32",
        **_of_vocabulary(vocabulary),
    }


def _of_vocabulary(vocabulary: Vocabulary) -> _Fields:
    ids = vocabulary.special_ids
    eos = ids.eos if ids.newline is None else None  # a stream has no end
    return {"bos_token_id": ids.start, "eos_token_id": eos, "pad_token_id": ids.filler}


def _write_json(path: Path, fields: _Fields) -> None:
    path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_SPELLED_BYTE = pre_tokenizers.Split(Regex("<(?=0x[0-9A-F]{2}>)"), "isolated")
"""Keeps a text that is spelled like the token of a byte from becoming that token."""
_BLANK_LINES = r"[\s\x1c-\x1f]*\n"
"""Python's white space up to the last newline in it."""


def library_tokenizer(content: bytes, manifest: TokenizerManifest, objective: Objective) -> bytes:
    """Return `tokenizer.json` with the same ids as the tokenizer whose file has this content.

    For a masked model, it adds the special tokens at the start and end of a text. For a causal model, the caller adds
    the start, as with GPT-2: `tokenizer.bos_token + text`, or a newline before a stream. A newline between the lines of
    a text becomes the end of the line and the start of the next one, as in a prompt. A mask has the place of a token,
    so it takes the space of a subword token that begins with one.
    """
    if isinstance(manifest.config, SentencePieceTokenizerConfig):
        library = _from_sentencepiece(content, manifest, manifest.config)
    else:
        library = tokenizers.Tokenizer.from_str(content.decode())
    own: normalizers.Normalizer = getattr(library, "normalizer")  # noqa: B009  (untyped in tokenizers)
    steps: list[normalizers.Normalizer] = [own, *_of_lines_and_marks(manifest)]
    library.normalizer = normalizers.Sequence(steps)
    if manifest.method != "word":  # a word that is spelled like a special token is unknown
        marks: list[str | AddedToken] = [AddedToken(name, normalized=True) for name in manifest.special_tokens]
        library.add_special_tokens(marks)  # normalized, so that the normalizer sees them and can write them
    first, last = (_name(manifest, i) for i in (manifest.special_ids.start, manifest.special_ids.eos))
    if objective == "masked_lm":
        ids = [(name, manifest.special_tokens[name]) for name in sorted({first, last})]
        pair = f"{first} $A {last} $B:1 {last}:1"
        library.post_processor = processors.TemplateProcessing(f"{first} $A {last}", pair, ids)
    else:
        library.post_processor = None
    return library.to_str(pretty=False).encode()


def _of_lines_and_marks(manifest: TokenizerManifest) -> Iterator[normalizers.Normalizer]:
    """Yield the steps that write the borders of lines, and the space before words and masks, as in training.

    SentencePiece has a space before each line. A text that is a space and one word has no other: it is that word inside
    a line. Tools that score word by word, such as minicons, rely on it. Reserved characters are unknown.
    """
    ids = manifest.special_ids
    marks = {i: normalized(name, manifest.normalization) for name, i in manifest.special_tokens.items()}
    start, mark = (re.escape(marks[ids.start]), "|".join(map(re.escape, marks.values())))
    is_sentencepiece = manifest.method == "sentencepiece"
    if is_sentencepiece:
        yield normalizers.Replace(SPACE, "\0")
        yield normalizers.Replace(Regex(rf"\A (?=[^ \n]+\z)(?!{mark})"), SPACE)
    if manifest.documents == "line":
        border = f" {marks[ids.eos]} " if ids.bos is None else marks[ids.eos] + marks[ids.bos]
        yield normalizers.Replace(Regex(rf"(?:\A|(?<={start})){_BLANK_LINES}"), "")
        yield normalizers.Replace(Regex(rf"\r?\n(?:{_BLANK_LINES})?"), border)
    if ids.mask is not None and manifest.method in ("bpe", "wordpiece", "sentencepiece"):
        yield normalizers.Replace(f" {marks[ids.mask]}", marks[ids.mask])
    if is_sentencepiece:
        if not has_byte_fallback(manifest.config):
            yield normalizers.Replace(Regex(f"[{RESERVED.replace(SPACE, '')}]"), "\0")
        yield normalizers.Replace(Regex(rf"\A(?!\z|{mark}|{SPACE})"), SPACE)
        yield normalizers.Replace(Regex(rf"(?<={start})(?!\z|{mark})"), SPACE)
        yield normalizers.Replace(" ", SPACE)


def special_tokens_of(manifest: TokenizerManifest, objective: Objective) -> dict[str, str]:
    """Return the special tokens by the library's names for them.

    A tokenizer without [BOS] uses [EOS] for it, one without [MASK] the unknown token. One without [PAD] uses the
    unknown token, and [EOS] for a masked model. Programs that train a causal model ignore the targets that equal the
    padding, and it must not unlearn the ends of lines. A stream has neither [BOS] nor [EOS].
    """
    ids = manifest.special_ids
    pad = ids.pad if ids.pad is not None or objective == "masked_lm" else ids.unk
    named = {"bos_token": ids.start, "eos_token": ids.eos} if manifest.documents == "line" else {}
    named |= {"unk_token": ids.unk, "pad_token": ids.eos if pad is None else pad}
    if objective == "masked_lm":
        named |= {"cls_token": ids.start, "sep_token": ids.eos, "mask_token": ids.unk if ids.mask is None else ids.mask}
    return {role: _name(manifest, i) for role, i in named.items()}


def _name(manifest: TokenizerManifest, token_id: int) -> str:
    return next(name for name, i in manifest.special_tokens.items() if i == token_id)


def _from_sentencepiece(
    content: bytes, manifest: TokenizerManifest, config: SentencePieceTokenizerConfig
) -> tokenizers.Tokenizer:
    """Return a tokenizer with the same pieces, scores and merges, for texts whose spaces are written as U+2581."""
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
    library.normalizer = normalizer_of(config.normalization)
    if has_bytes:
        library.pre_tokenizer = _SPELLED_BYTE
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
