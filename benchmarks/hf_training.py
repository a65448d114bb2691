"""The rival of training: Hugging Face Trainer as a user starts it, on the library's GPT-2 or on a module of `nn.LSTM`.

    python -m benchmarks.hf_training SHAPE PRECISION STEPS TEXT_FILE

Prints the tokens per second of the median step.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
from transformers.trainer import Trainer
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from benchmarks.shapes import LEARNING_RATE, SHAPES, Shape, character_ids
from benchmarks.step_times import StepTimes


class CharLstm(nn.Module):
    """Embedding, LSTM, projection, tied head."""

    def __init__(self, shape: Shape, vocabulary: int) -> None:
        super().__init__()
        sizes = shape.embedding_size, shape.hidden_size, shape.layers
        self.embedding = nn.Embedding(vocabulary, shape.embedding_size)
        self.layers = nn.LSTM(*sizes, batch_first=True, dropout=shape.dropout)
        self.projection = nn.Linear(shape.hidden_size, shape.embedding_size)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        embedded: Tensor = self.embedding(input_ids)
        outputs: tuple[Tensor, object] = self.layers(embedded)
        projected: Tensor = self.projection(outputs[0])
        logits = functional.linear(projected, self.embedding.weight, self.bias)
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return {"loss": loss, "logits": logits}


class Rows(Dataset[dict[str, Tensor]]):
    """Rows of ids, one after another."""

    def __init__(self, ids: Tensor, length: int) -> None:
        self._ids, self._length = ids, length

    def __len__(self) -> int:
        return len(self._ids) // self._length

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        ids = self._ids[row * self._length : (row + 1) * self._length]
        return {"input_ids": ids, "labels": ids}


class Clock(TrainerCallback):
    """Takes the time of every step."""

    def __init__(self) -> None:
        self.times = StepTimes()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.times.add()


def main(name: str, precision: str, steps: int, text_file: str) -> None:
    shape = SHAPES[name]
    ids, vocabulary = character_ids(Path(text_file))
    torch.manual_seed(1)
    model = CharLstm(shape, vocabulary) if shape.is_lstm else gpt2(shape, vocabulary)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            per_device_train_batch_size=shape.rows,
            max_steps=steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            bf16=precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(model, options, train_dataset=Rows(ids, shape.length), callbacks=[clock])
        trainer.train()
    print(clock.times.tokens_per_second(shape.rows * shape.length))


def gpt2(shape: Shape, vocabulary: int) -> GPT2LMHeadModel:
    """Return the library's GPT-2 without dropout, which no contestant uses."""
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=shape.length,
        n_embd=shape.hidden_size,
        n_layer=shape.layers,
        n_head=shape.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return GPT2LMHeadModel(config)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
