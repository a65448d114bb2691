"""The models whose generation `python -m benchmarks decode` measures: random weights, written as a run and exported."""

import string
from pathlib import Path
from typing import NamedTuple

import torch

from trainer.contracts.models import Gpt2Config, LlamaConfig, QwenConfig, RnnConfig
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizers import CharTokenizerConfig, WordTokenizerConfig
from trainer.data.corpus import SplitRule
from trainer.export.graphs import write_onnx
from trainer.export.library_folder import LibraryModel, write_model
from trainer.inference.model_files import TOKENIZER_FOLDER, save_model
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.models.transformer import CausalTransformer
from trainer.tokenizers import train_tokenizer
from trainer.tokenizers.base import Text, Tokenizer, vocabulary_of

SYMBOLS = 64
"""Vocabulary of the recurrent models, special tokens included."""
_SIZES = {"small": (6, 256, 4, 512, 4000), "large": (12, 768, 12, 1024, 50_257)}
"""Layers, width, heads, context and vocabulary; `large` has those of GPT-2 with 124 million weights."""
_CONFIGS: tuple[tuple[type[Gpt2Config | LlamaConfig | QwenConfig], int], ...] = (
    (Gpt2Config, 0),
    (LlamaConfig, 0),
    (QwenConfig, 2),
)
"""With the heads that have keys and values of their own; 0: all."""


class Size(NamedTuple):
    """A model's config and the size of its vocabulary."""

    config: LibraryModel
    vocab_size: int


def recurrent_sizes(widths: tuple[int, ...]) -> dict[str, Size]:
    return {
        f"{architecture}-{width}": Size(
            RnnConfig(architecture=architecture, embedding_size=width // 2, hidden_size=width, num_layers=2), SYMBOLS
        )
        for architecture in ("lstm", "gru", "rnn")
        for width in widths
    }


def transformer_sizes() -> dict[str, Size]:
    found: dict[str, Size] = {}
    for name, (layers, width, heads, context, vocabulary) in _SIZES.items():
        for config, shared in _CONFIGS:
            fields = {"num_layers": layers, "hidden_size": width, "num_attention_heads": heads}
            fields |= {"max_position_embeddings": context, "intermediate_size": config.usual_intermediate_size(width)}
            fields |= {} if config is Gpt2Config else {"num_key_value_heads": shared or heads}
            made = config.model_validate(fields)
            found[f"{made.architecture}-{name}"] = Size(made, vocabulary)
    return found


def write_subject(folder: Path, size: Size) -> tuple[LanguageModel, Tokenizer]:
    """Write a model as `load_model` reads it, and exported: recurrent models to ONNX, others for Transformers.

    Return the model and its tokenizer: of characters for a recurrent model, else of words.
    """
    tokenizer = _tokenizer(size)
    torch.manual_seed(1)
    model = build(size.config, vocabulary_of(tokenizer)).eval()
    folder.mkdir()
    tokenizer.save(folder / TOKENIZER_FOLDER)
    save_model(folder, model, size.config)
    exported = exported_in(folder)
    exported.mkdir()
    if isinstance(size.config, RnnConfig):
        write_onnx(exported, model)
    else:
        write_model(exported, model, size.config, tokenizer)
    return model, tokenizer


def exported_in(folder: Path) -> Path:
    return folder / "exported"


def read_weights(model: LanguageModel, config: LibraryModel) -> int:
    """Return the number of weights in the matrices that one token multiplies, the output layer included.

    Tables of which it takes a row do not count: embeddings, positions, and the product of an embedding with the first
    layer of a recurrent model.
    """
    embedding = model.input_embedding().weight
    tables = "wpe.weight", "weight_ih_l0"
    matrices = [
        weight.numel()
        for name, weight in model.named_parameters()
        if weight.dim() == 2 and weight is not embedding and not name.endswith(tables)
    ]
    return sum(matrices) + (embedding.numel() if config.tie_word_embeddings else 0)


def kept_numbers(model: LanguageModel) -> int:
    """Return the number of keys and values that attention keeps of each token."""
    shape = model.empty_program("fp32").key_values if isinstance(model, CausalTransformer) else None
    return 0 if shape is None else 2 * shape.layers * shape.groups * shape.head_size


def _tokenizer(size: Size) -> Tokenizer:
    corpus, rule = CorpusRef(name="symbols", sha256="0" * 64, bytes=1), SplitRule(0, 0, 1)
    if isinstance(size.config, RnnConfig):
        line = string.ascii_letters + string.digits
        config: CharTokenizerConfig | WordTokenizerConfig = CharTokenizerConfig(vocab_size=size.vocab_size)
    else:
        line = " ".join(f"w{number}" for number in range(size.vocab_size))
        config = WordTokenizerConfig(vocab_size=size.vocab_size)
    return train_tokenizer(config, [Text(corpus, lambda: [line])], [line], rule=rule)
