"""Each mistake on the command line gets one sentence of its own and exit code 2, and changes nothing."""

import re
import shlex
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import ROOT, add_corpus, environment_in, processes, some_text
from trainer.commands.main import main
from trainer.contracts.errors import ErrorBody, ErrorCode

RUN = "char_lstm-20261122-74f34df5"
"""A completed run of an earlier release."""

NOTHING: Mapping[str, str] = {}
TINY_LIMIT = {"LIMITS__CORPUS_BYTES": "1000"}

TEXTS: dict[str, bytes] = {
    "latin.txt": "caf\xe9 au lait".encode("latin-1"),
    "cut.txt": "ab\u017e".encode()[:-1],
    "wide.txt": some_text().encode("utf-16"),
    "nul.txt": b"a\nb\0\n",
    "empty.txt": b"",
    "blank.txt": b"\n \n\t\n",
    "bom.txt": b"\xef\xbb\xbf",
    "two.txt": b"a\nb\n",
    "big.txt": b"a b\n" * 300,
    "long.txt": b"a" * 2_000_001,
    "fine.txt": some_text().encode(),
}
"""Beside the command; one of them, `spoiled`, is in the corpus folder."""

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
FILES: dict[str, bytes] = {
    "list.yaml": b"- a\n",
    "blank.yaml": b"# nothing\n",
    "twice.yaml": b"a: 1\nb: 2\na: 3\n",
    "tab.yaml": b"a:\n\tb: 1\n",
    "open.yaml": b"a: [1, 2\n",
    "bomb.yaml": BOMB.encode(),
    "huge.yaml": b"#" * 300_000,
    "latin.yaml": "a: \xe9\n".encode("latin-1"),
    "old.yaml": b"%YAML 1.1\n---\na: yes\n",
    "code.yaml": b"a: !!python/object/apply:os.system [ls]\n",
}
RNN = "  rnn:\n    embedding_size: 128\n    hidden_size: 256\n    num_layers: 2\n    dropout: 0.1\n    tied: true\n"
BPE = "tokenizer_type: bpe\n  special_tokens: "
EDITS: dict[str, tuple[str, str]] = {
    "no-architecture": ("  architecture: lstm\n", ""),
    "t5": ("architecture: lstm", "architecture: t5"),
    "flat": ("  rnn:\n", "  hidden_size: 8\n  rnn:\n"),
    "no-rnn": (RNN, ""),
    "other-rnn": ("tied: true", "rnn_type: gru"),
    "two-ways": ("tied: true", "bidirectional: true"),
    "masked": ("training:\n", "training:\n  mlm_probability: 2\n"),
    "morse": ("tokenizer_type: character", "tokenizer_type: morse"),
    "specials": ("tokenizer:\n", "tokenizer:\n  special_tokens: {pad_token: <p>}\n"),
    "special-name": ("tokenizer_type: character", f"{BPE}{{pad_token: P}}"),
    "special-key": ("tokenizer_type: character", f"{BPE}{{pad: <p>}}"),
    "special-twice": ("tokenizer_type: character", f"{BPE}{{bos_token: <a>, eos_token: <a>}}"),
    "special-pair": ("tokenizer_type: character", f"{BPE}{{eos_token: <a>, sep_token: <b>}}"),
    "special-kept": ("tokenizer_type: character", f"{BPE}{{pad_token: </s>}}"),
    "vocabulary": ("vocab_size: 1000", "vocab_size: 0"),
    "betas": ("adam_beta1: 0.9\n", "adam_beta1: 1.5\n"),
    "epsilon": ("adam_epsilon: 1.0e-8", "adam_epsilon: 0"),
    "warmup": ("warmup_ratio: 0.0", "warmup_ratio: 1.1"),
    "norm": ("max_grad_norm: 1.0", "max_grad_norm: -1"),
    "seed": ("random_seed: 42", "random_seed: -3"),
    "dropout": ("dropout: 0.1", "dropout: 1.0"),
    "no-epochs": ("  epochs: 5\n", ""),
    "batch": ("batch_size: 64", "batch_size: many"),
    "wandb": ("logging: {}", "logging: {use_wandb: true}"),
    "level": ("logging: {}", "logging: {level: LOUD}"),
    "no-logging": ("logging: {}\n", ""),
    "manipulation": ("random_seed: 42", "random_seed: 42\ndataset_manipulation: [{shuffle: 1}]"),
    "resume": ("training:\n", "training:\n  resume_from_checkpoint: latest\n"),
    "schedule": ("training:\n", "training:\n  checkpoint_schedule: [2, 1]\n"),
    "two-schedules": ("training:\n", "training:\n  checkpoint_schedule: [1]\n  auto_generate_checkpoints: true\n"),
    "gradient-checkpointing": ("training:\n", "training:\n  use_gradient_checkpointing: true\n"),
    "yes": ("training:\n", "training:\n  use_amp: yes\n"),
    "name": ("experiment_name: char-lstm-ipa", "experiment_name: my run"),
    "typo": ("epochs: 5", "epochs: 5\n  epoch: 6"),
    "fast": ("learning_rate: 0.002", "learning_rate: 5"),
    "word-rate": ("learning_rate: 0.002", "learning_rate: 1e-3x"),
    "length": ("max_sequence_length: 256", "max_sequence_length: 5000"),
    "absolute": ("training_corpus: demo", "training_corpus: /etc/passwd"),
    "climbing": ("training_corpus: demo", "training_corpus: ../fine.txt"),
    "output": ("output_dir: models/char-lstm-ipa", "output_dir: /models"),
    "no-text": ("training_corpus: demo", "training_corpus: none-of-mine"),
    "no-validation": ("training_corpus: demo", "training_corpus: demo\n  validation_corpus: not-there"),
    "latin-test": ("training_corpus: demo", "training_corpus: demo\n  test_corpus: latin.txt"),
    "run-typo": ("run:\n", "run:\n  sed: 1\n"),
    "run-value": ("run:\n", "run:\n  early_stopping: {patience: 0}\n"),
    "run-corpus": ("run:\n", "run:\n  corpus: /etc/hosts\n"),
    "run-precision": ("run:\n", "run:\n  precision: fp16\n"),
    "run-size": ("run:\n", "run:\n  model_size: huge\n"),
    "run-conflict": ("run:\n", "run:\n  model_size: tiny\n"),
    "run-parent": ("run:\n", "run:\n  init_from_run_id: nobody\n"),
    "run-tokenizer": ("run:\n", "run:\n  tokenizer_id: nobodys\n"),
}
"""Changes to a shipped config, each of which spoils it."""


class Mistake(NamedTuple):
    command: str
    code: ErrorCode
    sentence: str
    """The telling part of what is said; no two mistakes are told alike."""
    environment: Mapping[str, str] = NOTHING
    toml: str = ""


E = ErrorCode
INVALID, CONFIG = ErrorCode.INVALID_INPUT, ErrorCode.CONFIG_INVALID
MISSING, UNSUPPORTED, INCOMPATIBLE = (
    ErrorCode.DATA_NOT_FOUND,
    ErrorCode.UNSUPPORTED_BACKEND,
    ErrorCode.MODEL_INCOMPATIBLE,
)


def of_train(options: str, code: ErrorCode, sentence: str) -> Mistake:
    return Mistake(f"train --corpus text {options}", code, sentence)


MISTAKES = [
    # the command line itself
    Mistake("fly", INVALID, "Unknown command 'fly'; see `mt --help`."),
    Mistake("runs --lines 3", INVALID, "Unknown option `--lines`; see `mt runs --help`."),
    # fields of a training
    Mistake("train", INVALID, "`corpus` is required."),
    of_train("--set num_epoch=1", INVALID, "unknown field `num_epoch`; did you mean `num_epochs`?"),
    of_train("--set hidden_size=9", INVALID, "did you mean `model.hidden_size`?"),
    of_train("--set learning_rate=.nan", INVALID, "`learning_rate` must be a finite number, you gave nan."),
    of_train("--set learning_rate=5", INVALID, "`learning_rate` must be less than or equal to 1, you gave 5."),
    of_train("--set learning_rate=fast", INVALID, "`learning_rate` must be a valid number, you gave 'fast'."),
    of_train("--set model.hidden_size=0", INVALID, "`model.hidden_size` must be greater than 0, you gave 0."),
    of_train("--set model=lstm", INVALID, "`model` must be a block of fields, you gave 'lstm'."),
    of_train(
        "--set model_family=lstm --set model.architecture=gru",
        INVALID,
        "`model.architecture` must be 'lstm' for model_family",
    ),
    of_train("--set model_family=gpt3", UNSUPPORTED, "`model_family` 'gpt3' is not available; it must be one of"),
    of_train("--set model_family=3", INVALID, "`model_family` must be 'char_lstm', 'gpt2', 'bert', 'lstm', 'gru',"),
    of_train("--set tokenizer.method=morse", UNSUPPORTED, "`tokenizer.method` 'morse' is not available; it must be"),
    of_train("--set tokenizer.vocab_size=big", INVALID, "`tokenizer.vocab_size` must be a valid integer"),
    of_train("--set tokenizer_id=none", E.TOKENIZER_NOT_FOUND, "`tokenizer_id`: There is no tokenizer 'none'"),
    of_train("--set tokenizer_id=../x", INVALID, "`tokenizer_id` must match pattern"),
    of_train(
        "--set tokenizer_id=a --set tokenizer.method=char", INVALID, "give `tokenizer` or `tokenizer_id`, not both"
    ),
    of_train("--set model_size=huge", E.INVALID_MODEL_SIZE, "`model_size` must be one of tiny, small, base"),
    of_train(
        "--set model_size=tiny --set model.dropout=.5", INVALID, "`model.dropout` is 0.5 but model_size 'tiny' says"
    ),
    of_train("--set init_from_run_id=nobody", E.RUN_NOT_FOUND, "`init_from_run_id` names no completed run."),
    of_train(f"--set init_from_run_id={RUN} --set model.hidden_size=9", INCOMPATIBLE, "`model.hidden_size` would be 9"),
    of_train(f"--set init_from_run_id={RUN} --set tokenizer_id=a", INCOMPATIBLE, f"its parent run '{RUN}' has"),
    of_train("--set optimizer.name=sgd --set optimizer.eps=.1", INVALID, "`optimizer.eps` is not an option of sgd"),
    of_train("--set optimizer.name=lion", INVALID, "`optimizer.name` must be 'adamw', 'adam' or 'sgd'"),
    of_train("--set optimizer.betas=[.9,1]", INVALID, "`optimizer.betas.1` must be less than 1, you gave 1."),
    of_train("--set lr_schedule=step", INVALID, "`lr_schedule` must be 'constant', 'linear' or 'cosine'"),
    of_train("--set warmup_steps=1 --set warmup_ratio=.1", INVALID, "give `warmup_steps` or `warmup_ratio`, not both"),
    of_train("--set gradient_clipping=0", INVALID, "`gradient_clipping` must be greater than 0, you gave 0."),
    of_train("--set batch_size=0", INVALID, "`batch_size` must be greater than or equal to 1 or 'auto', you gave 0."),
    of_train("--set max_seq_len=7", INVALID, "`max_seq_len` must be greater than or equal to 8, you gave 7."),
    of_train("--set num_epochs=1001", INVALID, "`num_epochs` must be less than or equal to 1000, you gave 1001."),
    of_train("--set num_epochs=2.5", INVALID, "`num_epochs` must be a valid integer, you gave 2.5."),
    of_train("--set max_steps=0", INVALID, "`max_steps` must be greater than 0, you gave 0."),
    of_train("--set holdout_fraction=.5", INVALID, "`holdout_fraction` must be less than 0.5, you gave 0.5."),
    of_train("--set split_by=word", INVALID, "`split_by` must be 'line', 'file' or 'position', you gave 'word'."),
    of_train("--set seed=-1", INVALID, "`seed` must be greater than or equal to 0, you gave -1."),
    of_train(
        "--set early_stopping.patience=0", INVALID, "`early_stopping.patience` must be greater than or equal to 1"
    ),
    of_train("--set freeze_embeddings=yes", INVALID, "`freeze_embeddings` must be true or false, you gave 'yes'"),
    of_train("--set device=tpu", INVALID, "`device` must be 'auto', 'cpu', 'cuda' or 'cuda:N', you gave 'tpu'."),
    of_train("--set precision=int8", INVALID, "`precision` must be 'auto', 'fp32', 'fp16' or 'bf16', you gave 'int8'."),
    of_train("--set precision=fp16", INVALID, "`precision` 'fp16' needs CUDA: on the CPU take 'fp32' or"),
    of_train("--set checkpoint_schedule=[1,1]", INVALID, "`checkpoint_schedule` must be in ascending order, each step"),
    of_train("--set checkpoint_schedule.log_base=1", INVALID, "`checkpoint_schedule.log_base` must be greater than"),
    of_train("--set logging.level=3", INVALID, "`logging.level` must be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or "),
    of_train("--set objective=span", INVALID, "`objective` must be 'causal_lm' or 'masked_lm', you gave 'span'."),
    of_train("--set model.bidirectional=true", INCOMPATIBLE, "`model.bidirectional` must be false for char_lstm"),
    of_train(
        "--set model_family=llama --set tokenizer.method=char --set objective=masked_lm",
        INCOMPATIBLE,
        "`objective` must be 'causal_lm' for llama: it cannot see what comes after a masked token",
    ),
    of_train("--set label=", INVALID, "`label` must have at least 1 character, you gave ''."),
    of_train("--set tags=a", INVALID, "`tags` must be a list, you gave 'a'."),
    of_train("--set provenance={}", INVALID, "`provenance.source_corpus` is required."),
    of_train("--set seed", INVALID, "`--set seed` must have the form KEY=VALUE."),
    of_train(
        "--set split_by=file", ErrorCode.CORPUS_EMPTY, "`split_by` is 'file', which needs a folder of at least 3 texts"
    ),
    of_train("--set =5", INVALID, "`--set =5` must have the form KEY=VALUE."),
    of_train("--set tags=[1", CONFIG, "'--set tags' is not YAML: line 1,"),
    of_train("--set max_steps=" + "9" * 5000, CONFIG, "'--set max_steps' holds a value that cannot be read."),
    of_train(
        "--set model.tie_word_embeddings=no",
        INVALID,
        "`model.tie_word_embeddings` must be true or false, you gave 'no' (yes, no, on and off are",
    ),
    # texts
    Mistake("train --corpus nix", MISSING, "There is no corpus 'nix'; known are "),
    Mistake("train --corpus ../up.txt", MISSING, "There is no file '../up.txt'."),
    Mistake("train --corpus /up", MISSING, "There is no file '/up'."),
    Mistake("train ../mine.txt", MISSING, "There is no file '../mine.txt'."),
    Mistake("train mine.txt --corpus text", INVALID, "Give one corpus to train on: 'mine.txt' or `--corpus`."),
    of_train("--set validation_corpus=leak", INVALID, "`validation_corpus` must be a name inside the corpus folder"),
    of_train("--set test_corpus=broken", INVALID, "`test_corpus` must be a name inside the corpus folder"),
    of_train("--set test_corpus=nix", MISSING, "`test_corpus`: There is no corpus 'nix'"),
    of_train("--set corpus=", INVALID, "`corpus` must have at least 1 character, you gave ''."),
    Mistake("train --corpus latin.txt", INVALID, "'latin.txt' is not UTF-8: byte 3 cannot be decoded."),
    Mistake("train --corpus cut.txt", INVALID, "'cut.txt' is not UTF-8: byte 2 cannot be decoded."),
    Mistake("train --corpus spoiled", INVALID, "'spoiled.txt' is not UTF-8: byte 4 cannot be decoded."),
    Mistake("train --corpus wide.txt", INVALID, "'wide.txt' is UTF-16 text. Save it as UTF-8."),
    Mistake("train --corpus nul.txt", INVALID, "'nul.txt' is not a text file: byte 3 is NUL."),
    Mistake("train --corpus empty.txt", E.CORPUS_EMPTY, "'empty.txt' is empty"),
    Mistake("train --corpus blank.txt", E.CORPUS_EMPTY, "'blank.txt' is empty"),
    Mistake("train --corpus bom.txt", E.CORPUS_EMPTY, "'bom.txt' is empty"),
    Mistake("train --corpus two.txt", E.CORPUS_EMPTY, "has 2 lines with text; it needs at least 3"),
    Mistake("train --corpus folder", MISSING, "The corpus folder 'folder' has no .txt or .text file."),
    Mistake("train --corpus big.txt", E.PAYLOAD_TOO_LARGE, "'big.txt' has 1,200 bytes; at most 1,000", TINY_LIMIT),
    # files
    Mistake("train no.yaml", CONFIG, "There is no file 'no.yaml'."),
    Mistake("train configs/no.yaml", CONFIG, "There is no file 'configs/no.yaml'."),
    Mistake("validate a-folder.yaml", CONFIG, "'a-folder.yaml' is a folder: give a file."),
    Mistake("validate loop.yaml", CONFIG, "The file 'loop.yaml' cannot be read."),
    Mistake("validate data", MISSING, "The corpus folder 'data' has no .txt or .text file."),
    Mistake("train list.yaml", CONFIG, "'list.yaml' must hold lines of `name: value`; it is a list."),
    Mistake("validate blank.yaml", CONFIG, "'blank.yaml' must hold lines of `name: value`; it is empty."),
    Mistake("validate twice.yaml", CONFIG, "'twice.yaml' is not YAML: line 3, found duplicate key"),
    Mistake("train tab.yaml", CONFIG, "'tab.yaml' is not YAML: line 2, found character '\\t'"),
    Mistake("validate open.yaml", CONFIG, "'open.yaml' is not YAML: line "),
    Mistake("validate bomb.yaml", CONFIG, "'bomb.yaml', line 1: anchors, aliases and tags are not taken."),
    Mistake("validate huge.yaml", CONFIG, "'huge.yaml' is too long: at most 256 KiB are allowed."),
    Mistake("validate latin.yaml", CONFIG, "'latin.yaml' is not UTF-8: byte 3 cannot be decoded."),
    Mistake("validate old.yaml", CONFIG, "'old.yaml', line 1: directives that begin with % are not taken"),
    Mistake("validate code.yaml", CONFIG, "'code.yaml', line 1: anchors, aliases and tags are not taken."),
    Mistake(
        "train no-architecture.yaml", CONFIG, "Missing required field 'architecture' in model config. Must be one "
    ),
    Mistake("validate t5.yaml", UNSUPPORTED, "`model.architecture` 't5' is not available; it must be one of 'gpt2'"),
    Mistake(
        "validate flat.yaml", CONFIG, "`model.hidden_size` must be in the block `model.rnn`: model: {architecture: "
    ),
    Mistake("validate no-rnn.yaml", CONFIG, "`model.rnn` is missing: model: {architecture: "),
    Mistake(
        "validate other-rnn.yaml",
        CONFIG,
        "`model.rnn.rnn_type` must equal `model.architecture`, 'lstm', you gave 'gru'",
    ),
    Mistake(
        "validate two-ways.yaml",
        INCOMPATIBLE,
        "`model.rnn.bidirectional` must be false: with causal_lm the model",
    ),
    Mistake("train masked.yaml", CONFIG, "`training.mlm_probability` must be less than or equal to 1, you gave 2"),
    Mistake("validate morse.yaml", CONFIG, "`tokenizer.tokenizer_type` must be 'sentencepiece', 'wordpiece', 'bpe', "),
    Mistake("validate specials.yaml", CONFIG, "`tokenizer.special_tokens` must be null: this method keeps its own"),
    Mistake("validate special-name.yaml", CONFIG, "`tokenizer.special_tokens.pad_token` must be letters (a-z, A-Z)"),
    Mistake("validate special-key.yaml", CONFIG, "unknown field `tokenizer.special_tokens.pad`; did you mean `pad_tok"),
    Mistake("validate special-twice.yaml", CONFIG, "`tokenizer.special_tokens` must have different names: one is"),
    Mistake("validate special-pair.yaml", CONFIG, "must name `eos_token` or `sep_token`, not both: they are the same"),
    Mistake("validate special-kept.yaml", CONFIG, "must have different names: </s> is already the `eos_token`"),
    Mistake("validate vocabulary.yaml", CONFIG, "`tokenizer.vocab_size` must be greater than 0, you gave 0."),
    Mistake("validate betas.yaml", CONFIG, "`training.adam_beta1` must be less than 1, you gave 1.5."),
    Mistake("validate epsilon.yaml", CONFIG, "`training.adam_epsilon` must be greater than 0, you gave 0."),
    Mistake("validate warmup.yaml", CONFIG, "`training.warmup_ratio` must be less than or equal to 1, you gave 1.1."),
    Mistake("validate norm.yaml", CONFIG, "`training.max_grad_norm` must be greater than 0, you gave -1."),
    Mistake("validate seed.yaml", CONFIG, "`random_seed` must be greater than or equal to 0, you gave -3."),
    Mistake("validate dropout.yaml", CONFIG, "`model.rnn.dropout` must be less than 1, you gave 1.0."),
    Mistake("validate no-epochs.yaml", CONFIG, "`training.epochs` is required"),
    Mistake("validate batch.yaml", CONFIG, "`data.batch_size` must be a valid integer, you gave 'many'."),
    Mistake("validate wandb.yaml", CONFIG, "`logging.use_wandb` must be false: the tracker wandb is not installed"),
    Mistake("validate level.yaml", CONFIG, "`logging.level` must be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
    Mistake("validate no-logging.yaml", CONFIG, "`logging` is required"),
    Mistake("validate manipulation.yaml", CONFIG, "`dataset_manipulation` is not supported: it must be []"),
    Mistake(
        "validate resume.yaml", CONFIG, "`training.resume_from_checkpoint` must be true or false, you gave 'latest'."
    ),
    Mistake("validate schedule.yaml", CONFIG, "`training.checkpoint_schedule` must be in ascending order, each step"),
    Mistake(
        "train two-schedules.yaml", CONFIG, "`training.auto_generate_checkpoints` contradicts `training.checkpoint"
    ),
    Mistake(
        "validate gradient-checkpointing.yaml",
        INCOMPATIBLE,
        "`training.use_gradient_checkpointing` is for transformers",
    ),
    Mistake("validate yes.yaml", CONFIG, "`training.use_amp` must be true or false, you gave 'yes'"),
    Mistake("validate name.yaml", CONFIG, "`experiment_name` must be 1 to 64 letters"),
    Mistake("validate typo.yaml", CONFIG, "unknown field `training.epoch`; did you mean `epochs`?"),
    Mistake("train fast.yaml", CONFIG, "`training.learning_rate` must be less than or equal to 1, you gave 5."),
    Mistake("train word-rate.yaml", CONFIG, "`training.learning_rate` must be a valid number, you gave '1e-3x'."),
    Mistake("validate length.yaml", CONFIG, "`data.max_sequence_length` must be less than or equal to 4096"),
    Mistake(
        "train absolute.yaml", CONFIG, "`data.training_corpus` must be a relative path without `..`, you gave '/etc/"
    ),
    Mistake(
        "train climbing.yaml", CONFIG, "`data.training_corpus` must be a relative path without `..`, you gave '../f"
    ),
    Mistake("validate output.yaml", CONFIG, "`training.output_dir` must be a relative path without `..`"),
    Mistake("train no-text.yaml", MISSING, "`data.training_corpus`: There is no corpus 'none-of-mine'"),
    Mistake("validate no-validation.yaml", MISSING, "`data.validation_corpus`: There is no corpus 'not-there'"),
    Mistake(
        "validate latin-test.yaml", INVALID, "`data.test_corpus`: 'latin.txt' is not UTF-8: byte 3 cannot be decoded"
    ),
    Mistake("validate run-typo.yaml", CONFIG, "unknown field `run.sed`; did you mean `seed`?"),
    Mistake("train run-value.yaml", CONFIG, "`run.early_stopping.patience` must be greater than or equal to 1"),
    Mistake("train run-corpus.yaml", CONFIG, "`run.corpus` must be a relative path without `..`"),
    Mistake("validate run-precision.yaml", INVALID, "`run.precision` 'fp16' needs CUDA: on the CPU take"),
    Mistake("validate run-size.yaml", E.INVALID_MODEL_SIZE, "`run.model_size` must be one of tiny, small, base"),
    Mistake("validate run-conflict.yaml", INVALID, "`model.rnn.embedding_size` is 128 but model_size 'tiny' says 32"),
    Mistake("train run-parent.yaml", E.RUN_NOT_FOUND, "`run.init_from_run_id` names no completed run."),
    Mistake(
        "validate run-tokenizer.yaml", E.TOKENIZER_NOT_FOUND, "`run.tokenizer_id`: There is no tokenizer 'nobodys'"
    ),
    Mistake("validate fine.yaml --set seed=x", INVALID, "`seed` must be a valid integer, you gave 'x'."),
    Mistake("selftest fine.yaml --set batch_size=big", INVALID, "`batch_size` must be a valid integer or 'auto', you "),
    # tokenizers
    Mistake("tokenizer train", INVALID, "`method` is required; `corpora` is required."),
    Mistake("tokenizer train --method char", INVALID, "`corpora` is required."),
    Mistake("tokenizer train --method poetry --corpus text", UNSUPPORTED, "'poetry'"),
    Mistake("tokenizer train --method char --corpus text --set threads=-1", INVALID, "`threads` must be greater "),
    Mistake("tokenizer train --method char --corpus text --set vocab_size=0", INVALID, "`vocab_size` must be greater "),
    Mistake("tokenizer train --method char --corpus text --set voab_size=9", INVALID, "did you mean `vocab_size`?"),
    Mistake("tokenizer train --method char --corpus one", E.CORPUS_EMPTY, "it needs at least 3"),
    Mistake("tokenizer show no-id", E.TOKENIZER_NOT_FOUND, "There is no tokenizer 'no-id'"),
    Mistake("tokenizer show ../x", E.TOKENIZER_NOT_FOUND, "There is no tokenizer '../x'"),
    # runs and questions
    Mistake("status no-run", E.RUN_NOT_FOUND, "There is no run 'no-run'"),
    Mistake("status ../up", E.RUN_NOT_FOUND, "There is no run '../up'"),
    Mistake("logs UPPER", E.RUN_NOT_FOUND, "There is no run 'UPPER'"),
    Mistake("cancel .", E.RUN_NOT_FOUND, "There is no run '.'"),
    Mistake(f"cancel {RUN}", E.RUN_FINISHED, f"The run '{RUN}' has already ended."),
    Mistake("verify not-mine", E.RUN_NOT_FOUND, "There is no run 'not-mine'"),
    Mistake("config nothing", E.RUN_NOT_FOUND, "There is no run 'nothing'"),
    Mistake(f"config {'a' * 65}", E.RUN_NOT_FOUND, f"There is no run '{'a' * 64}': check its id"),
    Mistake(f"logs {RUN} --tail -1", INVALID, "`--tail` must be at least 0, you gave -1."),
    Mistake("runs --limit 0", INVALID, "`--limit` must be at least 1, you gave 0."),
    Mistake("runs --status done", INVALID, "--status: invalid choice: 'done'"),
    Mistake("score no-such-run x", E.RUN_NOT_FOUND, "There is no run 'no-such-run'"),
    Mistake(f"score {RUN}", INVALID, "Give one of: a TEXT, a file with `--path`, or pairs with `--pairs`."),
    Mistake(f"score {RUN} ''", INVALID, "`text`"),
    Mistake(f"score {RUN} --path no.txt", MISSING, "There is no file 'no.txt'."),
    Mistake(f"score {RUN} --path empty.txt --format jsonl", INVALID, "The file has nothing to score: it is empty."),
    Mistake(f"score {RUN} --path long.txt", E.PAYLOAD_TOO_LARGE, "at most 2,000,000 characters"),
    Mistake(f"score {RUN} x --detail-level all", INVALID, "--detail-level: invalid choice: 'all'"),
    Mistake(f"score {RUN} x --top-k 99", INVALID, "`top_k` must be less than or equal to 50, you gave 99."),
    Mistake(f"score {RUN} x --max-window 3", INVALID, "`window_tokens` must be greater than or equal to 64"),
    Mistake("generate no-model", E.RUN_NOT_FOUND, "There is no run 'no-model'"),
    Mistake(f"generate {RUN} --temperature=-1", INVALID, "`temperature` must be greater than or equal to 0, you gave"),
    Mistake(f"generate {RUN} --temperature nan", INVALID, "`temperature` must be a finite number, you gave nan."),
    Mistake(f"generate {RUN} --top-p 0", INVALID, "`top_p` must be greater than 0, you gave 0.0."),
    Mistake(f"generate {RUN} --max-new-tokens 513", INVALID, "`max_new_tokens` must be less than or equal to 512"),
    Mistake(f"generate {RUN} --samples 11", INVALID, "`num_return_sequences` must be less than or equal to 10"),
    Mistake(f"generate {RUN} --samples x", INVALID, "invalid int value: 'x'"),
    Mistake(
        f"generate {RUN} a --prompt-path two.txt", INVALID, "Give a PROMPT or a file with `--prompt-path`, not both."
    ),
    Mistake(f"eval {RUN} --split train", INVALID, "`split` must be 'validation' or 'test', you gave 'train'."),
    Mistake(f"eval {RUN} --path nowhere", MISSING, "There is no corpus 'nowhere'"),
    # settings
    Mistake("runs", CONFIG, "`LOGGING__LEVEL` must be 'DEBUG', 'INFO'", {"LOGGING__LEVEL": "LOUD"}),
    Mistake("runs", CONFIG, "`APP__ENV` must be 'dev' or 'prod', you gave 'test'.", {"APP_ENV": "test"}),
    Mistake("runs", CONFIG, "did you mean `QUEUE__TRAINING_SLOTS`?", {"QUEUE__TRAINING_SLOT": "1"}),
    Mistake("runs", CONFIG, "`QUEUE__TRAINING_SLOTS` must be greater than", {"QUEUE__TRAINING_SLOTS": "0"}),
    Mistake("runs", CONFIG, "`DISCORD__OWNER_ID` must be a valid integer", {"DISCORD__OWNER_ID": "me"}),
    Mistake("runs", CONFIG, "The settings file 'no.toml' cannot be read.", {"APP__CONFIG_FILE": "no.toml"}),
    Mistake("runs", CONFIG, "'mt.toml' is not a TOML file", toml="[app\n"),
    Mistake("runs", CONFIG, "`QUEUE__RESULT_TTL_SECONDS` must", toml="[queue]\nresult_ttl_seconds = 0\n"),
    Mistake("runs", CONFIG, "`DISCORD__TOKEN` must be text.", toml="[discord]\ntoken = 314159265\n"),
    Mistake("runs", CONFIG, "unknown field `QUEUES`; did you mean `queue`?", toml="[queues]\nname = 'q'\n"),
]


@pytest.fixture(name="workplace", scope="module")
def workplace_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, good and bad texts, and good and bad files."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(ROOT / "tests" / "fixtures" / "finished_run" / "artifacts", folder / "artifacts")
    add_corpus(folder, some_text())
    add_corpus(folder, "a\n", "one")
    corpora = folder / "data" / "corpus"
    (corpora / "spoiled.txt").write_bytes(b"abc\n\xe9t\xe9\n")
    (corpora / "folder").mkdir()
    (corpora / "folder" / "notes.md").write_text("no text", encoding="utf-8")
    (corpora / "broken.txt").symlink_to(folder / "gone.txt")
    (corpora / "leak.txt").symlink_to(folder / "fine.txt")
    (folder / "a-folder.yaml").mkdir()
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    for name, content in (TEXTS | FILES).items():
        (folder / name).write_bytes(content)
    config = (ROOT / "tests" / "fixtures" / "blocks.yaml").read_text(encoding="utf-8")
    (folder / "fine.yaml").write_text(config, encoding="utf-8")
    for name, (old, new) in EDITS.items():
        assert config.count(old) == 1, name
        (folder / f"{name}.yaml").write_text(config.replace(old, new), encoding="utf-8")
    return folder


@pytest.fixture(name="told", scope="module")
def told_fixture() -> list[str]:
    """The messages of the mistakes so far."""
    return []


class Shell:
    """The folder to type `mt` in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def make(self, mistake: Mistake, *words: str) -> tuple[int, str, str]:
        """Type it in this process; return exit code, standard output, standard error."""
        with self._monkeypatch.context() as patch:
            for name, value in environment_in(self._folder, **mistake.environment).items():
                patch.setenv(name, value)
            patch.chdir(self._folder)
            toml = self._folder / "mt.toml"
            if mistake.toml:
                toml.write_text(mistake.toml, encoding="utf-8")
            code = main([*shlex.split(mistake.command), *words])
            toml.unlink(missing_ok=True)
        out, err = self._capsys.readouterr()
        return code, out, err

    def everything(self) -> dict[str, tuple[int, int, str]]:
        """All that is under the roots of data and artifacts: names, sizes, times and contents."""
        paths = [path for root in ("data", "artifacts") for path in sorted((self._folder / root).rglob("*"))]
        return {
            str(path.relative_to(self._folder)): (
                path.lstat().st_size,
                path.lstat().st_mtime_ns,
                sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            )
            for path in paths
        }


@pytest.fixture(name="shell")
def shell_fixture(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.delenv("LOGGING__LEVEL", raising=False)
    return Shell(workplace, monkeypatch, capsys)


@pytest.mark.parametrize("mistake", MISTAKES, ids=[f"{m.command[:60]} {m.sentence[:20]}" for m in MISTAKES])
def test_mistake__is_one_sentence_of_its_own_and_exit_2_and_nothing_changed(
    mistake: Mistake, shell: Shell, workplace: Path, told: list[str]
) -> None:
    before = shell.everything()
    code, out, err = shell.make(mistake)
    json_code, json_out, json_err = shell.make(mistake, "--json")
    assert (code, out) == (2, "")
    assert err.startswith("mt: ") and err.endswith("\n") and err.count("\n") == 1
    assert mistake.sentence in err
    assert str(workplace) not in err + json_out and str(ROOT) not in err + json_out
    assert (json_code, json_err, json_out.count("\n")) == (2, "", 1)
    body = ErrorBody.model_validate_json(json_out)
    assert (body.code, f"mt: {body.message}\n") == (mistake.code, err)
    assert shell.everything() == before
    assert processes(workplace) == []
    assert err not in told
    told.append(err)


def test_validate__tells_of_each_broken_file_where_it_is_broken_and_queues_nothing(
    shell: Shell, workplace: Path
) -> None:
    files = {f"{name}.yaml" for name in EDITS} | set(FILES)
    broken = [mistake for mistake in MISTAKES if set(mistake.command.split()[1:]) & files]
    # the field by its path, or the file and the line in it; one sentence is given by the requirements
    place = re.compile(r"`[a-z]+(_[a-z]+)*(\.[a-z0-9_]+)*`|'[a-z]+\.yaml'|'architecture' in model config")
    before, sentences = shell.everything(), set[str]()
    for mistake in broken:
        code, out, err = shell.make(mistake._replace(command=mistake.command.replace("train ", "validate ")))
        assert (code, out, mistake.sentence in err) == (2, "", True), mistake
        assert place.search(err), err
        sentences.add(err)
    assert len(sentences) == len(broken) >= 60
    assert (shell.everything(), processes(workplace)) == (before, [])


def test_mistake__in_an_empty_folder_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    for words in (["train", "--corpus", "nix"], ["score", "no-run", "x"], ["tokenizer", "train"], ["status", "x"]):
        assert main(words) == 2
    assert list(tmp_path.iterdir()) == []
