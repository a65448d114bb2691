"""Build a model from its config."""

from typing import assert_never

from trainer.contracts.models import BertConfig, Gpt2Config, LlamaConfig, ModelConfig, Objective, QwenConfig, RnnConfig
from trainer.models.base import LanguageModel
from trainer.models.recurrent import RecurrentModel
from trainer.models.threads import one_thread
from trainer.models.vector_math import choose_code
from trainer.tokenizers.base import Vocabulary


def build(config: ModelConfig, vocabulary: Vocabulary, objective: Objective = "causal_lm") -> LanguageModel:
    """Build a model with random weights, drawn from torch's default generator.

    The transformers library takes seconds to import, so only the transformer branches import it.
    """
    choose_code()
    with one_thread():  # orthogonal weights depend on the number of threads
        return _build(config, vocabulary, objective)


def _build(config: ModelConfig, vocabulary: Vocabulary, objective: Objective) -> LanguageModel:
    match config:
        case RnnConfig():
            return RecurrentModel(config, vocabulary, objective)
        case Gpt2Config():
            from trainer.models.gpt2 import Gpt2Model

            return Gpt2Model(config, vocabulary, objective)
        case LlamaConfig() | QwenConfig():
            from trainer.models.rotary import RotaryModel

            return RotaryModel(config, vocabulary, objective)
        case BertConfig():
            from trainer.models.bert import BertModel

            return BertModel(config, vocabulary, objective)
        case _:
            assert_never(config)
