"""What a model is made of: one config per architecture, and the presets that fill absent sizes."""

from typing import Literal

from pydantic import PositiveInt

from trainer.contracts.base import Frozen, Probability

ModelFamily = Literal["char_lstm", "lstm", "gru", "rnn"]
"""What a request may name; `char_lstm` is the preset lstm + char tokenizer + tied head (DEC D45)."""

Architecture = Literal["lstm", "gru", "rnn"]
Objective = Literal["causal_lm"]


class RnnConfig(Frozen):
    """A recurrent network in one direction: embedding, layers, head."""

    architecture: Architecture
    embedding_size: PositiveInt
    hidden_size: PositiveInt
    num_layers: PositiveInt
    dropout: Probability = 0.0
    tied: bool = False
    """True: hidden -> embedding projection, then the embedding itself as head (DEC D25)."""


ModelConfig = RnnConfig
"""The union of all architectures' configs, by `architecture`; one member to begin with."""


class ModelBlock(Frozen):
    """The sizes as a request gives them; what is absent comes from the family's preset."""

    architecture: Architecture | None = None
    embedding_size: PositiveInt | None = None
    hidden_size: PositiveInt | None = None
    num_layers: PositiveInt | None = None
    dropout: Probability | None = None
    tied: bool | None = None
