"""Build a model from its config."""

from trainer.contracts.models import ModelConfig
from trainer.models.base import LanguageModel
from trainer.models.recurrent import RecurrentModel


def build(config: ModelConfig, vocab_size: int) -> LanguageModel:
    """Make a model with fresh weights; every draw comes from torch's default generator."""
    return RecurrentModel(config, vocab_size)
