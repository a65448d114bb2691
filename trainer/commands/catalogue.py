"""The commands of `mt` by section; without further imports, so that `mt --help` is quick."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

Section = Literal["Start", "Train", "Runs", "Use a model", "Batteries", "Experiments", "Data and tokenizers", "Check"]
"""The sections of `mt --help`, in their order."""


class CommandInfo(NamedTuple):
    """A command in the overview, and the module of this folder that adds it to the parser."""

    module: str
    section: Section
    about: str
    example: str


COMMANDS: Mapping[str, CommandInfo] = {
    "demo": CommandInfo("start", "Start", "show the complete program on this machine, checked step by step", "mt demo"),
    "up": CommandInfo("start", "Start", "start the Discord bot and its services", "mt up"),
    "worker": CommandInfo(
        "start", "Start", "start a worker, which trains queued runs and answers requests", "mt worker"
    ),
    "workers": CommandInfo(
        "workers",
        "Start",
        "list the workers of all machines; pause the queue, drain a worker",
        "mt workers drain gpu-box",
    ),
    "completion": CommandInfo(
        "start", "Start", "print the script for shell completion", 'eval "$(mt completion bash)"'
    ),
    "train": CommandInfo(
        "training",
        "Train",
        "train a model and show its progress",
        "mt train --corpus demo --model lstm --size tiny --epochs 3",
    ),
    "bench architectures": CommandInfo(
        "benchmarks",
        "Train",
        "train every architecture on one corpus at equal tokens",
        "mt bench architectures demo --tokens 100000",
    ),
    "runs": CommandInfo("listing", "Runs", "list runs, newest first", "mt runs --status completed"),
    "queue": CommandInfo("listing", "Runs", "list the running, waiting and paused runs", "mt queue"),
    "status": CommandInfo("runs", "Runs", "show the state, losses and progress of a run", "mt status RUN"),
    "logs": CommandInfo("runs", "Runs", "show the log of a run", "mt logs RUN --follow"),
    "cancel": CommandInfo("runs", "Runs", "cancel a run that has not ended; its checkpoints stay", "mt cancel RUN"),
    "delete": CommandInfo("runs", "Runs", "delete runs that have ended, with all their files", "mt delete RUN"),
    "resume": CommandInfo(
        "runs",
        "Runs",
        "resume a paused, failed or cancelled run from its last checkpoint, or follow an unfinished one",
        "mt resume RUN",
    ),
    "config": CommandInfo(
        "runs", "Runs", "print the settings of a run as an experiment file", "mt config RUN > again.yaml"
    ),
    "files": CommandInfo(
        "runs", "Runs", "list the files and checkpoints of a run, with sizes and hashes", "mt files RUN"
    ),
    "gc": CommandInfo(
        "doctor", "Runs", "remove files that no run, experiment or request needs any more", "mt gc --dry-run"
    ),
    "compare": CommandInfo(
        "comparison", "Runs", "compare metrics and settings of a run with those of others", "mt compare RUN OTHER"
    ),
    "score": CommandInfo(
        "scores",
        "Use a model",
        "measure how surprising a text is to a model",
        'mt score RUN "a text" --detail-level per_word',
    ),
    "generate": CommandInfo(
        "inference", "Use a model", "continue a prompt", 'mt generate RUN "once upon" --max-new-tokens 100'
    ),
    "predict": CommandInfo(
        "inference",
        "Use a model",
        "list the likeliest next tokens of a text",
        'mt predict RUN "once upon" --k 10',
    ),
    "chat": CommandInfo(
        "inference", "Use a model", "chat with a model: one line of input, one line of answer", "mt chat RUN"
    ),
    "eval": CommandInfo(
        "inference",
        "Use a model",
        "measure the loss of a model on one of its splits, or on another corpus",
        "mt eval RUN --split test",
    ),
    "export": CommandInfo(
        "export",
        "Use a model",
        "export a run for other programs, or as one file for another machine",
        "mt export RUN --format hf --out my-model",
    ),
    "import": CommandInfo("export", "Use a model", "restore a run from an archive", "mt import run.tar"),
    "push": CommandInfo(
        "hub",
        "Use a model",
        "send a run to the Hugging Face hub, with a revision for each checkpoint",
        "mt push RUN ana/kazakh-gru --license mit",
    ),
    "pull": CommandInfo(
        "hub",
        "Use a model",
        "bring a run to this machine: from the server of MT_URL, or from a repository that `mt push` has sent",
        "mt pull RUN",
    ),
    "battery run": CommandInfo(
        "batteries",
        "Batteries",
        "test what runs know by minimal pairs, test suites or items of your own",
        "mt battery run RUN pairs.tsv",
    ),
    "develop": CommandInfo(
        "batteries",
        "Batteries",
        "measure the checkpoints that a run has kept: batteries, a loss, the ages of words",
        "mt develop RUN --battery pairs.tsv --eval test --words",
    ),
    "battery show": CommandInfo(
        "batteries", "Batteries", "show the state of a battery, or its results", "mt battery show ID"
    ),
    "battery list": CommandInfo("batteries", "Batteries", "list batteries, newest first", "mt battery list"),
    "battery cancel": CommandInfo(
        "batteries", "Batteries", "cancel a battery; the same command continues it", "mt battery cancel ID"
    ),
    "battery export": CommandInfo(
        "batteries", "Batteries", "copy items, scores, tables and the page of a battery", "mt battery export ID FOLDER"
    ),
    "battery recompute": CommandInfo(
        "batteries",
        "Batteries",
        "compute the results of a battery again from the scores of its items",
        "mt battery recompute FOLDER",
    ),
    "experiment run": CommandInfo(
        "experiments",
        "Experiments",
        "train a model per language and let each score every language: one job, which continues when given again",
        "mt experiment run smoke",
    ),
    "experiment show": CommandInfo(
        "experiments", "Experiments", "show the state of an experiment, or its results", "mt experiment show ID"
    ),
    "experiment list": CommandInfo(
        "experiments", "Experiments", "list experiments, newest first", "mt experiment list"
    ),
    "experiment cancel": CommandInfo(
        "experiments", "Experiments", "cancel an experiment; its finished runs stay", "mt experiment cancel ID"
    ),
    "experiment export": CommandInfo(
        "experiments",
        "Experiments",
        "copy the report of an experiment: tables, figures and one page",
        "mt experiment export ID FOLDER",
    ),
    "experiment recompute": CommandInfo(
        "experiments",
        "Experiments",
        "compute the tables of an experiment again from its section scores",
        "mt experiment recompute sections.json",
    ),
    "corpus add": CommandInfo(
        "corpora",
        "Data and tokenizers",
        "store a text as a corpus that everybody here, or on the server of MT_URL, can train on",
        "mt corpus add kazakh.txt --language kk",
    ),
    "corpus list": CommandInfo("corpora", "Data and tokenizers", "list the corpora", "mt corpus list"),
    "corpus check": CommandInfo(
        "corpora",
        "Data and tokenizers",
        "split and encode a corpus as a training would, and show the results",
        "mt corpus check demo --tokenizer word",
    ),
    "corpus build": CommandInfo(
        "corpora",
        "Data and tokenizers",
        "build IPA corpora of equal size, one per language, or download WikiText-2",
        "mt corpus build --source culturax --langs kk,ky --threshold 0.9",
    ),
    "tokenizer train": CommandInfo(
        "tokenizers",
        "Data and tokenizers",
        "train a tokenizer that several runs can share",
        "mt tokenizer train --method bpe --corpus demo --set vocab_size=1000",
    ),
    "tokenizer show": CommandInfo(
        "tokenizers",
        "Data and tokenizers",
        "show the state of a tokenizer and its figures on held-out text",
        "mt tokenizer show ID",
    ),
    "tokenizer list": CommandInfo(
        "tokenizers", "Data and tokenizers", "list tokenizers, newest first", "mt tokenizer list"
    ),
    "doctor": CommandInfo("doctor", "Check", "check this installation and suggest fixes", "mt doctor"),
    "selftest": CommandInfo(
        "doctor",
        "Check",
        "overfit one small batch (a quick check that training works)",
        "mt selftest --model gpt2 --tokenizer bpe",
    ),
    "validate": CommandInfo(
        "training",
        "Check",
        "check an experiment file and estimate its cost, without starting anything",
        "mt validate char_lstm_ipa",
    ),
    "verify": CommandInfo("runs", "Check", "check every file of a run against its recorded hash", "mt verify RUN"),
}

_HEAD = """\
usage: mt COMMAND [options]

Train small language models and use them. `mt COMMAND --help` lists the options of a command.
`mt --version` prints the version.
"""


def overview() -> str:
    """Return the help of `mt`: all commands by section, with an example of each section's first one."""
    width = max(map(len, COMMANDS))
    sections: tuple[Section, ...] = get_args(Section)
    lines = [_HEAD]
    for section in sections:
        commands = {name: info for name, info in COMMANDS.items() if info.section == section}
        lines.append(section)
        lines += [f"  {name:<{width}}  {info.about}" for name, info in commands.items()]
        lines.append(f"  {'':<{width}}  Example: {next(iter(commands.values())).example}\n")
    return "\n".join(lines)
