"""The contestants of `benchmarks/decode.py` on tiny models: they count what they generate, from the same weights."""

from pathlib import Path

import pytest

from benchmarks.decode_contestants import CONTESTANTS, SEQUENCES
from benchmarks.decode_models import (
    Size,
    exported_in,
    kept_numbers,
    read_weights,
    recurrent_sizes,
    transformer_sizes,
    write_subject,
)
from benchmarks.parity import greedy_differences
from trainer.api import Model
from trainer.config.validation import parse
from trainer.contracts.models import Gpt2Config, LlamaConfig, QwenConfig, RnnConfig
from trainer.native.library import builds

RECURRENT: dict[str, object] = {"embedding_size": 4, "hidden_size": 8, "num_layers": 2}
LSTM = parse(RnnConfig, {**RECURRENT, "architecture": "lstm"})
ROTARY: dict[str, object] = {"num_layers": 1, "hidden_size": 8, "intermediate_size": 24, "num_attention_heads": 2}
ROTARY |= {"max_position_embeddings": 32}
GPT2 = Gpt2Config(num_layers=2, hidden_size=8, intermediate_size=32, num_attention_heads=2, max_position_embeddings=32)


@pytest.mark.parametrize("architecture", ["lstm", "gru", "rnn"])
def test_recurrent_contestants__count_the_characters_of_a_request(architecture: str, tmp_path: Path) -> None:
    config = parse(RnnConfig, {**RECURRENT, "architecture": architecture})
    write_subject(tmp_path / "model", Size(config, 64))
    if builds():
        assert CONTESTANTS["ours, step"](tmp_path / "model", 20)() == 20
    names = ["ours", f"nn.{architecture.upper()} loop", "ONNX Runtime 1"]
    assert [CONTESTANTS[name](tmp_path / "model", 20)() for name in names] == [20, 20, 20]
    assert CONTESTANTS[f"ours, {SEQUENCES} at once"](tmp_path / "model", 3)() == 3 * SEQUENCES
    assert CONTESTANTS["ours, first token after 100"](tmp_path / "model", 3)() == 1


def test_transformer_contestants__generate_the_same_words(tmp_path: Path) -> None:
    model, tokenizer = write_subject(tmp_path / "model", Size(GPT2, 50))
    for name in ("ours", "generate", "generate bf16"):
        assert CONTESTANTS[name](tmp_path / "model", 8)() == 8
    ours = Model("model", model, tokenizer)
    assert greedy_differences(ours, exported_in(tmp_path / "model"), ["w1 w2"]) == 0


def test_weights_of_a_token__are_all_matrices_without_tables(tmp_path: Path) -> None:
    lstm, _ = write_subject(tmp_path / "lstm", Size(LSTM, 64))
    assert read_weights(lstm, LSTM) == 4 * 8 * 8 + 4 * 8 * (8 + 8) + 64 * 8
    gpt2, _ = write_subject(tmp_path / "gpt2", Size(GPT2, 50))
    assert read_weights(gpt2, GPT2) == 2 * 12 * 8**2 + 50 * 8
    assert (kept_numbers(lstm), kept_numbers(gpt2)) == (0, 2 * 2 * 8)
    llama = parse(LlamaConfig, {**ROTARY, "num_key_value_heads": 2})
    assert read_weights(write_subject(tmp_path / "llama", Size(llama, 50))[0], llama) == 4 * 8**2 + 3 * 8 * 24 + 50 * 8
    qwen = parse(QwenConfig, {**ROTARY, "num_key_value_heads": 1})
    assert read_weights(write_subject(tmp_path / "qwen", Size(qwen, 50))[0], qwen) == 3 * 8**2 + 3 * 8 * 24 + 50 * 8


def test_models__are_those_of_the_published_sizes() -> None:
    assert sorted(recurrent_sizes((128, 256))) == ["gru-128", "gru-256", "lstm-128", "lstm-256", "rnn-128", "rnn-256"]
    large = transformer_sizes()["gpt2-large"]
    assert large.config.tie_word_embeddings
    assert isinstance(large.config, Gpt2Config)
    assert large.config.parameter_count(large.vocab_size) == 124_439_808  # of the library's `gpt2`
