"""`mt validate`, `mt config`: experiment files, checked before they are run, and written from runs."""

from pathlib import Path

from pydantic import RootModel
from rich.text import Text

from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for
from trainer.commands.terminal import Terminal, columns
from trainer.commands.training import EXIT_USER, add_fields_to, read_or_tell
from trainer.config.experiment_file import experiment_yaml
from trainer.config.presets import request_hash
from trainer.contracts.base import Frozen
from trainer.contracts.wording import counted
from trainer.jobs.resolve import TrainingPreview


class RequestFields(RootModel[dict[str, object]]):
    """The answer of `mt validate --json`: the train request, with the fields that were given and no other."""


class ConfigText(Frozen):
    """The answer of `mt config --json`."""

    yaml: str


def add_to(commands: Commands) -> None:
    validate = commands.add("validate", _validate, "check an experiment file and all that it names; start nothing")
    validate.add_argument("file", type=Path, metavar="FILE", help="a YAML experiment file")
    add_fields_to(validate)
    config = commands.add("config", _config, "write what a run does as an experiment file")
    config.add_argument("run", metavar="RUN")


def _validate(arguments: Arguments, terminal: Terminal) -> int:
    settings = settings_for()
    training = read_or_tell(arguments, settings, terminal)
    if training is None:
        return EXIT_USER
    cost = Text("\n".join(training.cost.lines()))
    request: dict[str, object] = training.request.model_dump(mode="json", exclude_unset=True)
    terminal.show(RequestFields(request), columns(_rows(training)), cost, Text("It is valid; nothing was started."))
    return 0


def _config(arguments: Arguments, terminal: Terminal) -> int:
    run = RunStore(settings_for().app.artifacts_root).get(arguments.run)
    text = experiment_yaml(run.record())
    if arguments.json:
        terminal.show(ConfigText(yaml=text))
    else:
        terminal.line(text.rstrip())
    return 0


def _rows(training: TrainingPreview) -> list[tuple[str, str]]:
    effective, model = training.effective, training.effective.model
    sizes = f"{model.sizes()}, dropout {model.dropout:g}"
    texts = (("corpus", effective.corpus), ("validation", effective.validation_corpus), ("test", effective.test_corpus))
    steps = "" if effective.max_steps is None else f", at most {counted(effective.max_steps, 'step')}"
    rows = "rows" if effective.batch_size == "auto" else counted(effective.batch_size, "row")
    return [
        ("model", f"{effective.model_family} {sizes}{', tied' if model.tie_word_embeddings else ''}"),
        ("objective", effective.objective),
        ("tokenizer", effective.tokenizer_id or effective.tokenizer.method),
        *((part, f"{text.name}, {counted(text.bytes, 'byte')}") for part, text in texts if text is not None),
        ("training", f"{counted(effective.num_epochs, 'epoch')}{steps}"),
        ("batch", f"{rows} of {effective.max_seq_len} tokens"),
        ("learning rate", f"{effective.learning_rate:g}, {effective.lr_schedule}, {effective.optimizer.name}"),
        ("request hash", request_hash(effective)),
    ]
