"""`mt validate` and `mt config`: experiment files, checked before training and written from runs."""

from pydantic import RootModel
from rich.text import Text

from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Commands, RunOptions
from trainer.commands.connection import settings_for
from trainer.commands.terminal import EXIT_USER, Terminal, columns
from trainer.commands.training import TrainOptions, read_training
from trainer.config.experiment_file import experiment_yaml
from trainer.config.presets import request_hash
from trainer.contracts.base import Frozen
from trainer.contracts.wording import counted
from trainer.jobs.resolve import TrainingPreview


class RequestFields(RootModel[dict[str, object]]):
    """Answer of `mt validate --json`: the fields of the train request that were given."""


class ConfigText(Frozen):
    """Answer of `mt config --json`."""

    yaml: str


def add_to(commands: Commands) -> None:
    about = "print the settings of a run as an experiment file"
    commands.add("config", "Runs", RunOptions, _config, about, "mt config RUN > again.yaml")
    about = "check an experiment file and estimate its cost, without starting anything"
    commands.add("validate", "Check", TrainOptions, _validate, about, "mt validate configs/char_lstm_ipa.yaml")


def _validate(options: TrainOptions, terminal: Terminal) -> int:
    training = read_training(options, settings_for(), terminal)
    if training is None:
        return EXIT_USER
    cost = Text("\n".join(training.cost.lines()))
    request: dict[str, object] = training.request.model_dump(mode="json", exclude_unset=True)
    terminal.show(RequestFields(request), columns(_rows(training)), cost, Text("Valid. Nothing was started."))
    return 0


def _config(options: RunOptions, terminal: Terminal) -> int:
    text = experiment_yaml(RunStore(settings_for().app.artifacts_root).get(options.run).record())
    if options.json:
        terminal.show(ConfigText(yaml=text))
    else:
        terminal.line(text.rstrip())
    return 0


def _rows(training: TrainingPreview) -> list[tuple[str, str]]:
    effective, model = training.effective, training.effective.model
    sizes = f"{model.sizes()}, dropout {model.dropout:g}"
    corpora = {"corpus": effective.corpus, "validation": effective.validation_corpus, "test": effective.test_corpus}
    steps = "" if effective.max_steps is None else f", at most {counted(effective.max_steps, 'step')}"
    rows = "rows" if effective.batch_size == "auto" else counted(effective.batch_size, "row")
    return [
        ("model", f"{effective.model_family} {sizes}{', tied' if model.tie_word_embeddings else ''}"),
        ("objective", effective.objective),
        ("tokenizer", effective.tokenizer_id or effective.tokenizer.method),
        *((name, f"{text.name}, {counted(text.bytes, 'byte')}") for name, text in corpora.items() if text is not None),
        ("training", f"{counted(effective.num_epochs, 'epoch')}{steps}"),
        ("batch", f"{rows} of {effective.max_seq_len} tokens"),
        ("learning rate", f"{effective.learning_rate:g}, {effective.lr_schedule}, {effective.optimizer.name}"),
        ("request hash", request_hash(effective)),
    ]
