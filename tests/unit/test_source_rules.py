"""What the source may not hold, where neither ruff nor mypy can say it; every rule is tried on a planted case."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import coverage
import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("bot", "trainer")
EVERYTHING = (*PRODUCT, "local_discord", "scripts", "tests", "benchmarks")

KEYS_MODULE = "trainer/store/keys.py"
GPU_MODULES = {"trainer/training/device.py", "trainer/distributed.py"}
MAX_GPU_LINES = 60
BROAD_EXCEPT_BOUNDARIES = {
    "bot/commands/responses.py",  # command tree
    "bot/http/app.py",  # HTTP middleware
    "trainer/worker/train_run.py",  # job
}
CHART_MODULE = "bot/chart_process.py"
BOT_MAY_IMPORT = (
    "trainer.contracts",
    "trainer.data.corpora",
    "trainer.jobs.cost",
    "trainer.system.files",
    "trainer.system.logs",
    "trainer.jobs.queue",
    "trainer.jobs.resolve",
    "trainer.artifacts.run_status",
    "trainer.artifacts.runs",
    "trainer.reports.score_table",
    "trainer.jobs.services",
)

REDIS_KEY = re.compile(r"(runs|tokenizers:status|discord:watching):(\S|$)|trainer:events")
TYPE_ESCAPE = re.compile(r"#\s*(type:\s*ignore|mypy:)")
COVERAGE_ESCAPE = re.compile(r"#\s*pragma:?\s*no\s*(cover|branch)", re.IGNORECASE)
GPU_MARKER = re.compile(r"#\s*gpu\b")


class Source(NamedTuple):
    path: str
    """From the project's root, with forward slashes."""
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


class Planted(NamedTuple):
    rule: Callable[[Source], list[str]]
    path: str
    bad: str
    good: str


def test_source__keeps_every_rule() -> None:
    broken = [
        f"{source.path}:{fault}"
        for rule, folders in RULES.items()
        for source in sources(*folders)
        for fault in rule(source)
    ]

    assert broken == []


def test_gpu_lines__are_few() -> None:
    marked = [ROOT / path for path in GPU_MODULES if (ROOT / path).exists()]

    assert sum(map(gpu_lines, marked)) <= MAX_GPU_LINES


def test_gpu_lines__count_the_block_under_a_marked_header(tmp_path: Path) -> None:
    file = tmp_path / "device.py"
    file.write_text("def f():  # gpu\n    a = 1\n    return a\n\n\nb = 2  # gpu\nc = 3\n", encoding="utf-8")

    assert gpu_lines(file) == 4


def test_bot__starts_without_torch_transformers_and_matplotlib() -> None:
    program = "import bot.app, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    loaded: list[str] = json.loads(done.stdout)
    assert {"torch", "transformers", "matplotlib"} & set(loaded) == set()


def sources(*folders: str) -> Iterator[Source]:
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield Source(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))


def imports_in_wrong_direction(source: Source) -> list[str]:
    return [f"{line}: imports {module}" for line, module in imported(source) if not may_import(source.path, module)]


def may_import(path: str, module: str) -> bool:
    top = module.split(".")[0]
    if path.startswith("trainer/"):
        heavy = {"torch", "transformers", "matplotlib"} if path.startswith("trainer/contracts/") else set[str]()
        return top not in {"discord", "aiohttp", "bot", *heavy}
    if path.startswith("bot/"):
        if path == CHART_MODULE and (
            within(module, "trainer.reports.charts") or within(module, "trainer.reports.heatmap_html")
        ):
            return True
        return top not in {"torch", "transformers"} and (
            top != "trainer" or any(within(module, package) for package in BOT_MAY_IMPORT)
        )
    return True


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def imported(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full name of each import; a relative one begins with the package's name."""
    package = PurePosixPath(source.path).parent.parts
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def type_escapes(source: Source) -> list[str]:
    faults = [f"{line}: {text}" for line, text in comments(source) if TYPE_ESCAPE.match(text)]
    for line, module in imported(source):
        if module in {f"{home}.{name}" for home in ("typing", "typing_extensions") for name in ("Any", "cast")}:
            faults.append(f"{line}: imports {module}")
    for node in ast.walk(source.tree):
        match node:
            case ast.Attribute(value=ast.Name(id="typing"), attr="Any" | "cast" as name):
                faults.append(f"{node.lineno}: typing.{name}")
            case _:
                pass
    return faults


def dataclasses(source: Source) -> list[str]:
    return [f"{line}: imports {module}" for line, module in imported(source) if within(module, "dataclasses")]


def coverage_escapes(source: Source) -> list[str]:
    faults = [f"{line}: {text}" for line, text in comments(source) if COVERAGE_ESCAPE.match(text)]
    if source.path not in GPU_MODULES:
        faults += [f"{line}: {text}" for line, text in comments(source) if GPU_MARKER.match(text)]
    return faults


def comments(source: Source) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def swallowed_errors(source: Source) -> list[str]:
    """Broad handlers that do not log, or do not re-raise outside the four boundaries."""
    faults: list[str] = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type):
            inside = [child for statement in node.body for child in ast.walk(statement)]
            logs = any(is_log_call(child) for child in inside)
            raises = any(isinstance(child, ast.Raise) for child in inside)
            if not (logs and (raises or source.path in BROAD_EXCEPT_BOUNDARIES)):
                faults.append(f"{node.lineno}: a broad except must log and re-raise")
        elif isinstance(node, ast.Call) and called(node) == "suppress" and any(map(is_broad, node.args)):
            faults.append(f"{node.lineno}: suppresses every error")
    return faults


def is_broad(caught: ast.expr | None) -> bool:
    match caught:
        case None | ast.Name(id="Exception" | "BaseException"):
            return True
        case ast.Tuple(elts=elements):
            return any(is_broad(element) for element in elements)
        case _:
            return False


def is_log_call(node: ast.AST) -> bool:
    levels = {"warning", "error", "critical", "exception", "awarning", "aerror", "acritical", "aexception"}
    return isinstance(node, ast.Call) and called(node) in levels


def called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


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
    """How many statements the marker takes out of the coverage report, as coverage itself counts them."""
    measured = coverage.Coverage(data_file=None, config_file=False)
    measured.clear_exclude()
    measured.exclude(GPU_MARKER.pattern)
    _, _, excluded, _, _ = measured.analysis2(str(file))
    return len(excluded)


RULES: dict[Callable[[Source], list[str]], tuple[str, ...]] = {
    imports_in_wrong_direction: PRODUCT,
    type_escapes: EVERYTHING,
    dataclasses: PRODUCT,
    coverage_escapes: PRODUCT,
    swallowed_errors: PRODUCT,
    redis_key_literals: PRODUCT,
}

SWALLOW = "try:\n    f()\nexcept {0}:\n    {1}\n"
PLANTED = [
    Planted(imports_in_wrong_direction, "trainer/contracts/a.py", "import torch.nn", "import pydantic"),
    Planted(imports_in_wrong_direction, "trainer/contracts/a.py", "from matplotlib import figure", "import torchless"),
    Planted(imports_in_wrong_direction, "trainer/contracts/a.py", "def f():\n    import transformers", "import json"),
    Planted(imports_in_wrong_direction, "trainer/jobs/queue.py", "import discord", "import arq"),
    Planted(imports_in_wrong_direction, "trainer/worker/jobs.py", "import aiohttp", "import torch"),
    Planted(imports_in_wrong_direction, "trainer/worker/jobs.py", "from bot import embeds", "from . import events"),
    Planted(imports_in_wrong_direction, "trainer/worker/jobs.py", "from ...bot import app", "from .. import queue"),
    Planted(imports_in_wrong_direction, "bot/app.py", "from torch import Tensor", "import discord"),
    Planted(imports_in_wrong_direction, "bot/app.py", "from trainer import training", "from trainer import queue"),
    Planted(imports_in_wrong_direction, "bot/app.py", "import trainer", "import trainer.contracts.runs"),
    Planted(
        imports_in_wrong_direction, "bot/app.py", "import trainer.queues", "from trainer.artifacts.runs import Runs"
    ),
    Planted(imports_in_wrong_direction, "bot/http/app.py", "from ...trainer import models", "from ..app import Bot"),
    Planted(imports_in_wrong_direction, "bot/embeds.py", "from trainer import charts", "import trainer.jobs.services"),
    Planted(
        imports_in_wrong_direction, CHART_MODULE, "import trainer.export", "from trainer.reports.charts import draw"
    ),
    Planted(type_escapes, "bot/a.py", "x = 1  # type: ignore[misc]", "x = 1  # a type: int"),
    Planted(type_escapes, "bot/a.py", "# mypy: disable-error-code=misc", "x = '# type: ignore'"),
    Planted(type_escapes, "bot/a.py", "from typing import Any", "from typing import Literal"),
    Planted(type_escapes, "bot/a.py", "from typing_extensions import cast as to", "def cast() -> None: ..."),
    Planted(type_escapes, "bot/a.py", "import typing\nx: typing.Any = 1", "import typing\nx: typing.Literal[1] = 1"),
    Planted(dataclasses, "bot/a.py", "from dataclasses import dataclass", "from pydantic import BaseModel"),
    Planted(dataclasses, "trainer/a.py", "import dataclasses", "class A: ..."),
    Planted(coverage_escapes, "trainer/a.py", "f()  # pragma: no cover", "f()  # no cover for the bed"),
    Planted(coverage_escapes, "trainer/training/loop.py", "f()  # gpu", "f()  # the gpu"),
    Planted(swallowed_errors, "bot/a.py", SWALLOW.format("", "pass"), SWALLOW.format("KeyError", "pass")),
    Planted(
        swallowed_errors,
        "bot/a.py",
        SWALLOW.format("Exception", "log.error('f')"),
        SWALLOW.format("Exception", "log.error('f'); raise"),
    ),
    Planted(
        swallowed_errors,
        "bot/a.py",
        SWALLOW.format("(OSError, BaseException)", "raise"),
        SWALLOW.format("(OSError, ValueError)", "raise"),
    ),
    Planted(
        swallowed_errors,
        "bot/commands/responses.py",
        SWALLOW.format("Exception as error", "reply(error)"),
        SWALLOW.format("Exception as error", "log.exception('command failed')"),
    ),
    Planted(swallowed_errors, "bot/a.py", "with suppress(Exception): f()", "with suppress(KeyError): f()"),
    Planted(redis_key_literals, "bot/a.py", "f'runs:{run}:events'", "f'runs: {n}'"),
    Planted(redis_key_literals, "bot/a.py", "f('runs:index')", "'''runs:index holds all'''"),
    Planted(redis_key_literals, "trainer/a.py", "x = 'trainer:events'", "x = 'trainer'"),
    Planted(redis_key_literals, "trainer/a.py", "x = f'discord:watching:{u}'", "x = 'discord'"),
]


@pytest.mark.parametrize("planted", PLANTED, ids=[f"{case.rule.__name__}-{i}" for i, case in enumerate(PLANTED)])
def test_rule__finds_the_planted_case_and_nothing_else(planted: Planted) -> None:
    assert len(planted.rule(Source(planted.path, planted.bad))) == 1
    assert planted.rule(Source(planted.path, planted.good)) == []


def test_redis_keys__may_stand_in_their_module() -> None:
    assert redis_key_literals(Source(KEYS_MODULE, "INDEX = 'runs:index'")) == []
