"""What a model is made of: one config per architecture, and the presets that fill absent sizes."""

from collections.abc import Mapping
from operator import not_
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.contracts.base import Frozen, Probability

RnnArchitecture = Literal["lstm", "gru", "rnn"]
Architecture = Literal["lstm", "gru", "rnn", "gpt2", "bert", "llama", "qwen"]
ModelFamily = Literal["char_lstm", "lstm", "gru", "rnn", "gpt2", "bert", "llama", "qwen"]
"""What a request may name; `char_lstm` is the preset lstm + char tokenizer + tied head (DEC D45)."""

Objective = Literal["causal_lm", "masked_lm"]
Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh"]


class RnnConfig(Frozen):
    """A recurrent network in one direction or two: embedding, layers, head."""

    architecture: RnnArchitecture
    embedding_size: PositiveInt
    hidden_size: PositiveInt
    """Of each direction."""
    num_layers: PositiveInt
    bidirectional: bool = Field(False, exclude_if=not_)  # absent from what older versions wrote, and from its hash
    dropout: Probability = 0.0
    tied: bool = False
    """True: hidden -> embedding projection, then the embedding itself as head (DEC D25)."""

    def sizes(self) -> str:
        return f"{self.embedding_size}/{self.hidden_size}/{self.num_layers}"


class _TransformerConfig(Frozen):
    """Attention layers between an embedding and a head."""

    layers: PositiveInt
    embedding_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_hidden_size: PositiveInt
    attention_heads: PositiveInt
    dropout: Probability = 0.0
    attention_dropout: Probability = 0.0
    positions: PositiveInt
    """How many tokens are read at once, at most."""

    def sizes(self) -> str:
        return f"{self.hidden_size}/{self.intermediate_hidden_size}/{self.layers}, {self.attention_heads} heads"

    @model_validator(mode="after")
    def _sizes_fit(self) -> "_TransformerConfig":
        if self.hidden_size % self.attention_heads:
            raise ValueError(
                f"`hidden_size` must be divisible by `attention_heads`; {self.hidden_size} is not by"
                f" {self.attention_heads}"
            )
        if self.embedding_size != self.hidden_size:
            raise ValueError(
                "`embedding_size` and `hidden_size` must be equal in this architecture, you gave"
                f" {self.embedding_size} and {self.hidden_size}"
            )
        return self


class Gpt2Config(_TransformerConfig):
    """GPT-2 (Radford et al. 2019): learned positions, the embedding as head."""

    architecture: Literal["gpt2"] = "gpt2"
    activation_function: Activation = "gelu"
    tied: Literal[True] = True


class BertConfig(_TransformerConfig):
    """BERT (Devlin et al. 2019): reads both sides of every token, the embedding as head."""

    architecture: Literal["bert"] = "bert"
    activation_function: Activation = "gelu"
    type_vocab_size: PositiveInt = 2
    tied: Literal[True] = True


class _RotaryConfig(_TransformerConfig):
    """Rotary positions, gated layers, and heads that share their keys and values, if asked."""

    activation_function: Activation = "silu"
    key_value_heads: PositiveInt

    @model_validator(mode="after")
    def _heads_fit(self) -> "_RotaryConfig":
        if self.attention_heads % self.key_value_heads:
            raise ValueError(
                f"`attention_heads` must be divisible by `key_value_heads`; {self.attention_heads} is not by"
                f" {self.key_value_heads}"
            )
        if self.hidden_size // self.attention_heads % 2:
            raise ValueError(
                "`hidden_size` / `attention_heads` must be even, as positions turn pairs of numbers; it is"
                f" {self.hidden_size // self.attention_heads}"
            )
        if self.dropout:
            raise ValueError(
                f"`dropout` must be 0, as this architecture has `attention_dropout` only; you gave {self.dropout:g}"
            )
        return self


class LlamaConfig(_RotaryConfig):
    """LLaMA (Touvron et al. 2023)."""

    architecture: Literal["llama"] = "llama"
    tied: bool = False


class QwenConfig(_RotaryConfig):
    """Qwen2 (Yang et al. 2024): as LLaMA, with biases in the attention, and a tied head in its small sizes."""

    architecture: Literal["qwen"] = "qwen"
    tied: bool = True


ModelConfig = Annotated[
    RnnConfig | Gpt2Config | BertConfig | LlamaConfig | QwenConfig, Field(discriminator="architecture")
]
"""The union of all architectures' configs."""


class ModelBlock(Frozen):
    """The sizes as a request gives them; what is absent comes from the family's preset."""

    architecture: Architecture | None = None
    embedding_size: PositiveInt | None = None
    hidden_size: PositiveInt | None = None
    num_layers: PositiveInt | None = None
    dropout: Probability | None = None
    tied: bool | None = None
    bidirectional: bool | None = None
    layers: PositiveInt | None = None
    intermediate_hidden_size: PositiveInt | None = None
    attention_heads: PositiveInt | None = None
    key_value_heads: PositiveInt | None = None
    activation_function: Activation | None = None
    attention_dropout: Probability | None = None
    positions: PositiveInt | None = None
    type_vocab_size: PositiveInt | None = None


_RECURRENT: Mapping[str, Mapping[str, int | float]] = {
    "tiny": {"embedding_size": 32, "hidden_size": 64, "num_layers": 1, "dropout": 0.0},
    "small": {"embedding_size": 128, "hidden_size": 256, "num_layers": 2, "dropout": 0.1},
    "base": {"embedding_size": 256, "hidden_size": 512, "num_layers": 2, "dropout": 0.2},
    "paper": {"embedding_size": 128, "hidden_size": 256, "num_layers": 2, "dropout": 0.1},
}


def _transformer(layers: int, hidden: int, inner: int, heads: int, dropout: float) -> dict[str, int | float]:
    return {
        "layers": layers,
        "hidden_size": hidden,
        "intermediate_hidden_size": inner,
        "attention_heads": heads,
        "dropout": dropout,
        "attention_dropout": dropout,
    }


def _rotary(layers: int, hidden: int, inner: int, heads: int, key_value_heads: int) -> dict[str, int | float]:
    return _transformer(layers, hidden, inner, heads, 0.0) | {"key_value_heads": key_value_heads}


_ATTENTION: Mapping[str, Mapping[str, int | float]] = {
    "tiny": _transformer(2, 64, 256, 2, 0.0),
    "small": _transformer(4, 256, 1024, 4, 0.1),
    "base": _transformer(6, 512, 2048, 8, 0.1),
    "paper": _transformer(12, 768, 3072, 12, 0.1),
}
PRESETS: Mapping[Architecture, Mapping[str, Mapping[str, int | float]]] = {
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "rnn": _RECURRENT,
    "gpt2": _ATTENTION,
    "bert": _ATTENTION,
    "llama": {
        "tiny": _rotary(2, 64, 192, 2, 2),
        "small": _rotary(4, 256, 704, 4, 4),
        "base": _rotary(6, 512, 1408, 8, 8),
        "paper": _rotary(32, 4096, 11008, 32, 32),
    },
    "qwen": {
        "tiny": _rotary(2, 64, 192, 2, 1),
        "small": _rotary(4, 256, 704, 4, 2),
        "base": _rotary(6, 512, 1408, 8, 2),
        "paper": _rotary(24, 896, 4864, 14, 2),
    },
}
"""Sizes by name. `paper` is what a transformer was first published with, of Qwen the smallest; of recurrent networks
what the paper on Turkic languages has, whose measurements this program repeats."""
