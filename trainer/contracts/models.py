"""Configs of models, one per architecture, and the presets of their sizes."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args, get_type_hints

from pydantic import Field, PositiveInt, model_validator

from trainer.contracts.base import Frozen, Probability, describe_fields
from trainer.contracts.tokenizers import TokenizerMethod

RnnArchitecture = Literal["lstm", "gru", "rnn"]
Architecture = Literal["gpt2", "bert", RnnArchitecture, "llama", "qwen", "ngram"]
ModelFamily = Literal["char_lstm", Architecture]
"""Model families; `char_lstm` is lstm with a char tokenizer and a tied output layer."""

Objective = Literal["causal_lm", "masked_lm"]
Initialization = Literal["torch", "keyboard"]
"""Initial weights of a recurrent model: those of torch, or Xavier and orthogonal ones (keyboard)."""

DropoutPlaces = Literal["all", "between_layers"]
"""`all`: after the embedding, between layers, and before the output layer."""

Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh"]
Width = Annotated[int, Field(gt=0, le=1_000_000)]
InnerWidth = Annotated[int, Field(gt=0, le=4_000_000)]
"""Width of a feed-forward layer."""
Few = Annotated[int, Field(gt=0, le=1024)]
"""Number of layers, heads or types."""
Order = Annotated[int, Field(ge=1, le=7)]
"""Length of an n-gram in tokens."""
_GATES: dict[RnnArchitecture, int] = {"lstm": 4, "gru": 3, "rnn": 1}


class ArchitectureConfig(Frozen):
    """Base of all architecture configs, with their defaults."""

    objectives: ClassVar[tuple[Objective, ...]] = ("causal_lm",)
    """Possible training objectives; the first is the default."""
    tokenizer_method: ClassVar[TokenizerMethod] = "word"
    """Default tokenizer method."""
    dropouts: ClassVar[tuple[str, ...]] = ("dropout",)
    """Fields with a share of numbers that a training step drops."""

    @abstractmethod
    def parameter_count(self, vocab_size: int) -> int:
        """Return the exact number of trained weights, without building the model."""


class RnnConfig(ArchitectureConfig):
    """A recurrent model in one direction or two: embedding, layers, output layer."""

    objectives: ClassVar[tuple[Objective, ...]] = ("causal_lm", "masked_lm")

    architecture: RnnArchitecture
    embedding_size: PositiveInt
    hidden_size: PositiveInt
    """Width of each direction."""
    num_layers: PositiveInt
    bidirectional: bool = False
    dropout: Probability = 0.0
    tie_word_embeddings: bool = False
    """True: project the hidden state to the embedding size and use the embedding as the output layer."""
    dropout_places: DropoutPlaces = "all"
    initialization: Initialization = "torch"

    def sizes(self) -> str:
        return f"{self.embedding_size}/{self.hidden_size}/{self.num_layers}"

    def parameter_count(self, vocab_size: int) -> int:
        width, gates = (1 + self.bidirectional) * self.hidden_size, _GATES[self.architecture]
        inputs = self.embedding_size + (self.num_layers - 1) * width  # of all layers together
        layers = gates * width * (inputs + self.num_layers * (self.hidden_size + 2))
        head = (width + 1) * (self.embedding_size if self.tie_word_embeddings else vocab_size)
        return vocab_size * (self.embedding_size + self.tie_word_embeddings) + layers + head

    def activation_count(self, length: int) -> int:
        """Return the numbers per token that the layers hold for the backward pass, about, in rows of `length`."""
        per_unit = 10 if self.architecture == "rnn" else 26  # as torch allocates them, measured
        return per_unit * (1 + self.bidirectional) * self.hidden_size * self.num_layers


class TransformerConfig(ArchitectureConfig):
    """Attention layers between an embedding and an output layer."""

    tokenizer_method: ClassVar[TokenizerMethod] = "bpe"
    dropouts: ClassVar[tuple[str, ...]] = ("dropout", "attention_dropout")

    num_layers: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_attention_heads: PositiveInt
    dropout: Probability = 0.0
    attention_dropout: Probability = 0.0
    max_position_embeddings: PositiveInt
    """Longest input in tokens."""

    @classmethod
    def usual_intermediate_size(cls, hidden_size: int) -> int:
        """Return the default width of the feed-forward layer: 4 x `hidden_size`."""
        return 4 * hidden_size

    def sizes(self) -> str:
        return f"{self.hidden_size}/{self.intermediate_size}/{self.num_layers}, {self.num_attention_heads} heads"

    def activation_count(self, length: int) -> int:
        """Return the numbers per token that the layers hold for the backward pass, about, in rows of `length`."""
        layer = 10 * self.hidden_size + 4 * self.intermediate_size  # as torch allocates them, measured
        attention = 3 * self.num_attention_heads * length if self.attention_dropout else 0
        return self.num_layers * (layer + attention)

    @model_validator(mode="after")
    def _sizes_fit(self) -> "TransformerConfig":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be divisible by `num_attention_heads`; {self.hidden_size} is not by"
                f" {self.num_attention_heads}"
            )
        return self


class Gpt2Config(TransformerConfig):
    """GPT-2 (Radford et al. 2019): learned positions, tied output layer."""

    architecture: Literal["gpt2"] = "gpt2"
    activation_function: Activation = "gelu"
    tie_word_embeddings: Literal[True] = True

    def parameter_count(self, vocab_size: int) -> int:
        hidden, inner = self.hidden_size, self.intermediate_size
        layer = 4 * hidden**2 + 2 * hidden * inner + 9 * hidden + inner
        return self.num_layers * layer + (vocab_size + self.max_position_embeddings + 2) * hidden


class BertConfig(TransformerConfig):
    """BERT (Devlin et al. 2019): reads both sides of every token, tied output layer."""

    objectives: ClassVar[tuple[Objective, ...]] = ("masked_lm",)
    tokenizer_method: ClassVar[TokenizerMethod] = "wordpiece"

    architecture: Literal["bert"] = "bert"
    activation_function: Activation = "gelu"
    type_vocab_size: PositiveInt = 2
    tie_word_embeddings: Literal[True] = True

    def parameter_count(self, vocab_size: int) -> int:
        hidden, inner = self.hidden_size, self.intermediate_size
        layer = 4 * hidden**2 + 2 * hidden * inner + 9 * hidden + inner
        embeddings = (vocab_size + self.max_position_embeddings + self.type_vocab_size + 2) * hidden
        return embeddings + self.num_layers * layer + hidden**2 + 3 * hidden + vocab_size


class _RotaryConfig(TransformerConfig):
    """Rotary positions, gated feed-forward layers, and optionally shared keys and values."""

    activation_function: Activation = "silu"
    num_key_value_heads: PositiveInt

    @classmethod
    def usual_intermediate_size(cls, hidden_size: int) -> int:
        """Return 8/3 x `hidden_size`, rounded up to 64: its three matrices have the weights of two of 4 x."""
        return -(-8 * hidden_size // (3 * 64)) * 64

    def _rotary_parameter_count(self, vocab_size: int, *, is_tied: bool, has_biases: bool) -> int:
        hidden, inner = self.hidden_size, self.intermediate_size
        shared = hidden // self.num_attention_heads * self.num_key_value_heads
        layer = 2 * hidden * (hidden + shared) + 3 * hidden * inner + 2 * hidden
        biases = hidden + 2 * shared if has_biases else 0
        return self.num_layers * (layer + biases) + hidden + (1 if is_tied else 2) * vocab_size * hidden

    @model_validator(mode="after")
    def _heads_fit(self) -> "_RotaryConfig":
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                "`num_attention_heads` must be divisible by `num_key_value_heads`;"
                f" {self.num_attention_heads} is not by {self.num_key_value_heads}"
            )
        if self.hidden_size // self.num_attention_heads % 2:
            raise ValueError(
                "`hidden_size` / `num_attention_heads` must be even, as positions turn pairs of numbers; it is"
                f" {self.hidden_size // self.num_attention_heads}"
            )
        return self


class LlamaConfig(_RotaryConfig):
    """LLaMA (Touvron et al. 2023)."""

    architecture: Literal["llama"] = "llama"
    tie_word_embeddings: bool = False

    def parameter_count(self, vocab_size: int) -> int:
        return self._rotary_parameter_count(vocab_size, is_tied=self.tie_word_embeddings, has_biases=False)


class QwenConfig(_RotaryConfig):
    """Qwen2 (Yang et al. 2024): as LLaMA, with biases in the attention, and a tied output layer in its small sizes."""

    architecture: Literal["qwen"] = "qwen"
    tie_word_embeddings: bool = True

    def parameter_count(self, vocab_size: int) -> int:
        return self._rotary_parameter_count(vocab_size, is_tied=self.tie_word_embeddings, has_biases=True)


class NgramConfig(ArchitectureConfig):
    """Counts of n-grams, smoothed by interpolated modified Kneser-Ney (Chen and Goodman 1998).

    The fields after `max_order` are results of the counting; before it, they have their defaults.
    """

    tokenizer_method: ClassVar[TokenizerMethod] = "char"
    num_layers: ClassVar[int] = 0
    hidden_size: ClassVar[int] = 0
    dropout: ClassVar[float] = 0.0
    tie_word_embeddings: ClassVar[bool] = False

    architecture: Literal["ngram"] = "ngram"
    max_order: Order
    """Longest n-gram that is counted."""
    order: Order | None = None
    """Longest n-gram that is used: the one with the lowest validation loss."""
    ngrams: tuple[int, ...] = ()
    """Number of stored n-grams of each order, from 1 on."""
    discounts: tuple[tuple[float, float, float], ...] = ()
    """Discounts of n-grams counted once, twice, and more often, of each order."""

    def sizes(self) -> str:
        return f"orders up to {self.max_order}" if self.order is None else f"order {self.order} of {self.max_order}"

    def parameter_count(self, vocab_size: int) -> int:
        """Return the number of stored n-grams; before the counting, of tokens."""
        return sum(self.ngrams) or vocab_size


ModelConfig = Annotated[
    RnnConfig | Gpt2Config | BertConfig | LlamaConfig | QwenConfig | NgramConfig, Field(discriminator="architecture")
]
"""The union of all architectures' configs."""


def _configs() -> dict[Architecture, type[ArchitectureConfig]]:
    described: tuple[object, ...] = get_args(ModelConfig)
    of_union: tuple[type[ArchitectureConfig], ...] = get_args(described[0])
    found: dict[Architecture, type[ArchitectureConfig]] = {}
    for config in of_union:
        hints: dict[str, object] = get_type_hints(config)
        names: tuple[Architecture, ...] = get_args(hints["architecture"])
        found |= dict.fromkeys(names, config)
    return found


CONFIGS: Mapping[Architecture, type[ArchitectureConfig]] = _configs()
"""Config class of each architecture."""


def default_tokenizer_method(family: ModelFamily) -> TokenizerMethod:
    """Return the method of the tokenizer that a run of this family trains by default."""
    return "char" if family == "char_lstm" else CONFIGS[family].tokenizer_method


class ModelBlock(Frozen, json_schema_extra=describe_fields):
    """Sizes of a model in a request; absent sizes come from the preset of the family."""

    architecture: Architecture | None = None
    """Architecture; default: that of the model family."""
    embedding_size: Width | None = None
    """Width of the token embedding; recurrent models only."""
    hidden_size: Width | None = None
    """Width of the hidden layers; of each direction in a bidirectional model."""
    num_layers: Few | None = None
    """Number of layers."""
    dropout: Probability | None = None
    """Dropout of hidden states. By rule: by the weights per token of the text."""
    dropout_places: DropoutPlaces | None = None
    """Dropout after the embedding, between layers and before the output (all), or between layers only."""
    tie_word_embeddings: bool | None = None
    """Use the token embedding as the output layer too."""
    bidirectional: bool | None = None
    """Read lines in both directions; masked_lm only."""
    initialization: Initialization | None = None
    """Initial weights of a recurrent model: those of torch, or those of the keyboard model."""
    intermediate_size: InnerWidth | None = None
    """Width of the feed-forward layer; default: 4 x hidden_size, for llama and qwen 8/3 x, rounded up to 64."""
    num_attention_heads: Few | None = None
    """Attention heads; must divide hidden_size."""
    num_key_value_heads: Few | None = None
    """Heads with keys and values of their own, llama and qwen only; must divide num_attention_heads."""
    activation_function: Activation | None = None
    """Activation of the feed-forward layer; default: gelu, for llama and qwen silu."""
    attention_dropout: Probability | None = None
    """Dropout of the attention weights. By rule: as `dropout`."""
    max_position_embeddings: Width | None = None
    """Longest input of a transformer in tokens; default: max_seq_len."""
    type_vocab_size: Few | None = None
    """Segment types of bert; default: 2."""
    max_order: Order | None = None
    """Longest n-gram that ngram counts; the order that it uses is chosen on the validation split. Default: 7."""


_SMALL: dict[str, int | float | str] = {"embedding_size": 128, "hidden_size": 256, "num_layers": 2}
_RECURRENT: Mapping[str, Mapping[str, int | float | str]] = {
    "tiny": {"embedding_size": 32, "hidden_size": 64, "num_layers": 1},
    "small": _SMALL,
    "base": {"embedding_size": 256, "hidden_size": 512, "num_layers": 2},
    "paper": _SMALL | {"dropout": 0.1, "dropout_places": "between_layers", "tie_word_embeddings": False},
}


def _transformer(layers: int, hidden: int, inner: int, heads: int, **more: int) -> dict[str, int | float]:
    sizes = {"num_layers": layers, "hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads}
    return {**sizes, **more}


_ATTENTION: Mapping[str, Mapping[str, int | float]] = {
    "tiny": _transformer(2, 64, 256, 2),
    "small": _transformer(4, 256, 1024, 4),
    "base": _transformer(6, 512, 2048, 8),
    "paper": {**_transformer(12, 768, 3072, 12), "dropout": 0.1, "attention_dropout": 0.1},
}
_WITHOUT_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}
PRESETS: Mapping[Architecture, Mapping[str, Mapping[str, int | float | str]]] = {
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "rnn": _RECURRENT,
    "gpt2": _ATTENTION,
    "bert": _ATTENTION,
    "llama": {
        "tiny": _transformer(2, 64, 192, 2, num_key_value_heads=2),
        "small": _transformer(4, 256, 704, 4, num_key_value_heads=4),
        "base": _transformer(6, 512, 1408, 8, num_key_value_heads=8),
        "paper": {**_transformer(32, 4096, 11008, 32, num_key_value_heads=32), **_WITHOUT_DROPOUT},
    },
    "qwen": {
        "tiny": _transformer(2, 64, 192, 2, num_key_value_heads=1),
        "small": _transformer(4, 256, 704, 4, num_key_value_heads=2),
        "base": _transformer(6, 512, 1408, 8, num_key_value_heads=2),
        "paper": {**_transformer(24, 896, 4864, 14, num_key_value_heads=2), **_WITHOUT_DROPOUT},
    },
    "ngram": {
        name: {"max_order": order}
        for name, order in {"tiny": 3, "small": 5, "base": 7, "unigram": 1, "bigram": 2, "trigram": 3}.items()
    },
}
"""Sizes by name; a rule chooses dropout, except in `paper`. `paper` is what a transformer was first published with, of
Qwen the smallest; of recurrent networks what the paper on Turkic languages has, whose measurements this program
repeats."""
