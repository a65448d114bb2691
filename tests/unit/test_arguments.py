"""Options may stand before, between and after the other words of a command."""

import pytest

from trainer.commands import inference, regimen, scores, tokenizers
from trainer.commands.arguments import Arguments, Commands, Parser
from trainer.contracts.errors import AppError


def parsed(line: str) -> Arguments | None:
    commands = Commands(Parser(prog="mt"))
    for module in (scores, inference, regimen, tokenizers):
        module.add_to(commands)
    return commands.parse(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "score RUN TEXT --context none",
        "score RUN --context none TEXT",
        "score --context none RUN TEXT",
        "score --context none -- RUN TEXT",
    ],
)
def test_text__may_come_before_or_after_an_option(line: str) -> None:
    arguments = parsed(line)

    assert arguments is not None
    assert (arguments.run, arguments.text, arguments.context) == ("RUN", "TEXT", "none")


@pytest.mark.parametrize("line", ["score RUN -- -a", "score -- RUN -a", "score RUN --json -- -a"])
def test_text__that_begins_with_a_dash_comes_after_two(line: str) -> None:
    arguments = parsed(line)

    assert arguments is not None
    assert (arguments.run, arguments.text) == ("RUN", "-a")


def test_every_command__takes_its_words_around_an_option() -> None:
    generate, others = parsed("generate RUN --top-k 3 PROMPT"), parsed("regimen FIRST --set a=1 SECOND --set b=2 THIRD")
    shown = parsed("tokenizer show --json ID")

    assert generate is not None and (generate.run, generate.prompt, generate.top_k) == ("RUN", "PROMPT", 3)
    assert others is not None and (others.corpus, others.corpora) == ("FIRST", ["SECOND", "THIRD"])
    assert others.set == ["a=1", "b=2"]
    assert shown is not None and (shown.tokenizer, shown.json) == ("ID", True)


@pytest.mark.parametrize("line", ["", "nothing", "tokenizer", "--help"])
def test_line__that_names_no_command_is_left_to_the_whole_parser(line: str) -> None:
    assert parsed(line) is None


def test_word__too_many_is_named_with_the_help_of_its_command() -> None:
    with pytest.raises(AppError, match="Unrecognized arguments: c; see `mt score --help`"):
        parsed("score a --json b c")
