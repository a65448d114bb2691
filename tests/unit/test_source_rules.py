"""Rules for the source that neither ruff nor mypy checks."""

import ast
import io
import pkgutil
import re
import tokenize
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple, get_args, get_origin

import coverage

from bot.commands.runs import resume
from trainer import contracts
from trainer.client.client import Client
from trainer.contracts.installation import recipes
from trainer.contracts.operations import COMMANDS, RESUMABLE_STATES
from trainer.lab.runs import resume_run

ROOT = Path(__file__).parents[2]
PRODUCT = ("bot", "trainer")
EVERYTHING = (*PRODUCT, "local_discord", "scripts", "tests", "benchmarks")

KEYS_MODULE = "trainer/store/keys.py"
GPU_MODULES = {"trainer/training/device.py"}
PYTHON_MODULES = {
    "trainer/system/python.py",  # `python_command`
    "trainer/native/build.py",  # needs only the library
}
TERMINAL_MODULES = {"trainer/commands/terminal.py", "trainer/commands/main.py"}
"""The second one writes texts of the program only, before other modules are loaded."""
ASKING_MODULES = {
    "bot/commands/score.py",  # pictures and unknown signs of a text that the caller has typed
    "trainer/http/completions.py",  # after `allowed_inference`
    "trainer/worker/steps.py",  # steps of a job that was allowed
}
"""Modules besides those of the lab that send requests to models by themselves."""
READS_OF_RESULTS = {"get", "get_chat", "last_chat", "wait", "close"}
MAX_GPU_LINES = 60
REDIS_KEY = re.compile(r"(runs|tokenizers:status|discord:watching):(\S|$)|trainer:events")
SUPPRESSES_ALL = re.compile(r"suppress\([^)]*\b(?:Base)?Exception\b")
TYPE_ESCAPE = re.compile(r"#\s*(type:\s*ignore|mypy:)")
COVERAGE_ESCAPE = re.compile(r"#\s*pragma:?\s*no\s*(cover|branch)", re.IGNORECASE)
GPU_MARKER = re.compile(r"#\s*gpu\b")
TYPED_TABLE = re.compile(r"@type \{Record<\w+, string>\} \*/\n(export )?const \w+ = \{")
"""Its words are those of a type: `tsc` checks it, and `test_page.py` compares the types with the contracts."""
WORDS_IN_JAVASCRIPT = re.compile(r"\[((?:\s*\"[\w-]+\",?)+)\s*\]|= \{((?:\s*\"?[\w-]+\"?: \"[^\"\n]*\",?)+)\s*\}")
"""A list of words, or words with a text for each."""


class Source(NamedTuple):
    path: str
    """From the project's root, with forward slashes."""
    text: str
    tree: ast.Module


def test_source__keeps_every_rule() -> None:
    broken = [
        f"{source.path}:{fault}"
        for source in sources(*EVERYTHING)
        for rule, folders in RULES.items()
        if source.path.startswith(folders)
        for fault in rule(source)
    ]
    assert broken == []


def test_lists_of_the_contracts__are_not_written_again_in_the_bot_and_the_page() -> None:
    known = [*lists_of_the_contracts()]
    repeated = [(path, words) for path, words in words_in_the_bot() if words in known]
    repeated += [
        (path, words)
        for path, words in words_in_the_page()
        if words in known or (len(words) > 2 and any(words < one for one in known))
    ]
    assert repeated == []


def lists_of_the_contracts() -> Iterator[set[str]]:
    """Yield the words of each named type of the contracts, and the names of the recipes."""
    yield {*recipes()}
    for module in pkgutil.iter_modules(contracts.__path__, "trainer.contracts."):
        values: dict[str, object] = vars(import_module(module.name))
        for value in values.values():
            kind: object = get_origin(value)
            words: tuple[object, ...] = get_args(value)
            if kind is Literal and len(words) > 1:
                yield {word for word in words if isinstance(word, str)}


def words_in_the_bot() -> Iterator[tuple[str, set[str]]]:
    for source in sources("bot"):
        for node in ast.walk(source.tree):
            match node:
                case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
                    words = [one.value for one in elements if isinstance(one, ast.Constant)]
                    if len(words) == len(elements):
                        yield f"{source.path}:{node.lineno}", {word for word in words if isinstance(word, str)}
                case _:
                    pass


def words_in_the_page() -> Iterator[tuple[str, set[str]]]:
    for file in sorted((ROOT / "trainer" / "http" / "page").glob("*.js")):
        for found in WORDS_IN_JAVASCRIPT.finditer(TYPED_TABLE.sub("", file.read_text(encoding="utf-8"))):
            listed: str | None = found[1]
            words: list[str] = re.findall(r"([\w-]+)\"" if listed else r"([\w-]+)\"?: ", found[0])
            yield file.name, {*words}


def test_resume__is_described_with_every_state_of_the_runs_that_it_takes() -> None:
    texts = [Client.resume.__doc__, resume_run.__doc__, resume.description, COMMANDS["resume"].about]
    assert [text for text in texts if not all(state in (text or "") for state in RESUMABLE_STATES)] == []


def test_gpu_lines__are_few() -> None:
    assert sum(gpu_lines(ROOT / path) for path in GPU_MODULES) <= MAX_GPU_LINES


def sources(*folders: str) -> Iterator[Source]:
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            yield Source(file.relative_to(ROOT).as_posix(), text, ast.parse(text))


def type_escapes(source: Source) -> list[str]:
    return [f"{line}: {text}" for line, text in comments(source, TYPE_ESCAPE)]


def dataclasses(source: Source) -> list[str]:
    imports = [node for node in ast.walk(source.tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [
        f"{node.lineno}: imports dataclasses"
        for node in imports
        for name in (f"{node.module}" if isinstance(node, ast.ImportFrom) else "", *(one.name for one in node.names))
        if name.split(".")[0] == "dataclasses"
    ]


def coverage_escapes(source: Source) -> list[str]:
    faults = [f"{line}: {text}" for line, text in comments(source, COVERAGE_ESCAPE)]
    if source.path not in GPU_MODULES:
        faults += [f"{line}: {text}" for line, text in comments(source, GPU_MARKER)]
    return faults


def comments(source: Source, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Yield line and text of the comments that a pattern matches."""
    if not pattern.search(source.text):
        return
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and pattern.match(token.string):
            yield token.start[0], token.string


def suppressed_errors(source: Source) -> list[str]:
    """`suppress` of every error, which ruff's BLE001 refuses in a handler only."""
    found: list[str] = SUPPRESSES_ALL.findall(source.text)
    return found


def redis_key_literals(source: Source) -> list[str]:
    """Strings, parts of f-strings too, that begin like a key; a docstring may speak of keys."""
    if source.path == KEYS_MODULE:
        return []
    nodes = list(ast.walk(source.tree))
    told = [node.value for node in nodes if isinstance(node, ast.Expr)]
    return [
        f"{node.lineno}: {node.value!r}"
        for node in nodes
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node not in told
        and REDIS_KEY.match(node.value)
    ]


def gpu_lines(file: Path) -> int:
    """Count the statements that the marker takes out of the coverage report."""
    measured = coverage.Coverage(data_file=None, config_file=False)
    measured.clear_exclude()
    measured.exclude(GPU_MARKER.pattern)
    _, _, excluded, _, _ = measured.analysis2(str(file))
    measured.get_data().close(force=True)  # a database in memory, of which Python 3.13 warns
    return len(excluded)


def unsafe_children(source: Source) -> list[str]:
    """Commands of Python that are not from `python_command`, and lack `-P`: they run code of the working folder."""
    found = [node.lineno for node in ast.walk(source.tree) if isinstance(node, ast.Attribute) and is_python(node)]
    has_flag = source.path in PYTHON_MODULES and len(found) == source.text.count('[sys.executable, "-P", ')
    return [] if has_flag else [f"{line}: use python_command()" for line in found]


def unsafe_writes(source: Source) -> list[str]:
    """Writes to a terminal past the one place that shows control characters of texts as signs."""
    if source.path in TERMINAL_MODULES:
        return []
    nodes = list(ast.walk(source.tree))
    printing = [node.lineno for node in nodes if isinstance(node, ast.Name) and node.id in ("print", "Console")]
    streams = [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("sys.std")]
    writing = [node.lineno for node in streams if node.attr in ("write", "writelines", "stdout", "buffer")]
    return [f"{line}: write by Terminal" for line in printing + writing]


def is_python(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and (node.value.id, node.attr) == ("sys", "executable")


def unchecked_requests(source: Source) -> list[str]:
    """Uses of the client of models for more than results: `Lab.ask` and `Lab.submit` ask for the caller's rights."""
    if source.path.startswith("trainer/lab/") or source.path in ASKING_MODULES:
        return []
    found = [node for node in ast.walk(source.tree) if isinstance(node, ast.Attribute)]
    read = [node.value for node in found if node.attr in READS_OF_RESULTS]
    return [
        f"{node.lineno}: asks a model without `Lab.ask` or `Lab.submit`"
        for node in found
        if node.attr == "inference" and ast.unparse(node) not in ("keys.inference", "self.inference")
        if node not in read
    ]


RULES: dict[Callable[[Source], list[str]], tuple[str, ...]] = {
    type_escapes: EVERYTHING,
    dataclasses: PRODUCT,
    coverage_escapes: PRODUCT,
    suppressed_errors: PRODUCT,
    redis_key_literals: PRODUCT,
    unsafe_children: (*PRODUCT, "local_discord"),
    unsafe_writes: ("trainer/commands/",),
    unchecked_requests: PRODUCT,
}
