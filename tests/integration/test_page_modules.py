"""The modules of the page that need no browser, run by node."""

import asyncio
import csv
import io
import json
import math
import random
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import TypeAdapter

from tests.support.reports import REPORTS
from trainer.contracts.reports import Note
from trainer.http.routes import OPERATIONS
from trainer.http.server import FILES, page_file
from trainer.reports.report_text import Reader, rows_of

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node on the PATH")


@pytest.fixture(name="modules", scope="module")
def modules_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the modules that node takes for ES modules."""
    folder = tmp_path_factory.mktemp("modules")
    for name in FILES.values():
        (folder / name).write_bytes(page_file(name, OPERATIONS))
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    return folder


def value_of(modules: Path, names: str, module: str, expression: str) -> object:
    """The value of an expression with names of a module."""
    program = f'import {{ {names} }} from "./{module}"; console.log(JSON.stringify({expression}));'
    return TypeAdapter(object).validate_json(output_of(modules, program))


class Value(NamedTuple):
    """What a function of a module gives."""

    names: str
    """The names to import."""
    module: str
    expression: str
    wanted: object


NOTHING: list[int] = []
VALUES: dict[str, Value] = {
    "a band has the steps of all curves as far as all of them reach": Value(
        *("bandOf", "numbers.js", "bandOf([[[1, 4], [3, 2], [5, 1]], [[2, 5], [3, 4]], []])"),
        {"mean": [[2, 4], [3, 3]], "low": [[2, 3], [3, 2]], "high": [[2, 5], [3, 4]]},
    ),
    "a band of no curves is empty": Value(
        *("bandOf", "numbers.js", "bandOf([[]])"), {"mean": [], "low": [], "high": []}
    ),
    "a mean has the deviation of the known numbers": Value(
        *("meanOf", "numbers.js", "[[], [null], [1.5], [1, 2, null, 4], [2, 2]].map((known) => meanOf(known))"),
        ["–", "–", "1.500", "2.333 ± 1.528", "2.000 ± 0.000"],
    ),
    "numbers are written alike everywhere": Value(
        *("decimal, percent, size, duration", "numbers.js"),
        "[decimal(null), decimal(1234.5, 1), percent(0.345), size(999), size(1.25e6), duration(null), duration(3725)]",
        ["–", "1,234.5", "34.5 %", "999 bytes", "1.3 MB", "–", "1 h 2 min 5 s"],
    ),
    "ticks are round numbers inside the range": Value(
        *("ticks", "scale.js", "[ticks(0, 100, 5), ticks(2.13, 3.42, 5), ticks(-0.3, 0.3, 3)]"),
        [[0, 20, 40, 60, 80, 100], [2.5, 3], [-0.2, 0, 0.2]],
    ),
    "logarithmic ticks are round": Value(
        *("logTicks", "scale.js"),
        "[[1, 1000, 12], [0.5, 2000, 5], [1e-6, 1e-3, 4], [2, 6, 5], [1, 1e12, 5]].map((range) => logTicks(...range))",
        [
            *([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], [1, 10, 100, 1000], [1e-6, 1e-5, 1e-4, 1e-3]),
            *([2, 3, 4, 5, 6], [1, 1e3, 1e6, 1e9, 1e12]),
        ],
    ),
    "a tick is short": Value(
        *("tickText", "scale.js", "[0, 0.02, 3e-5, 1500, 250_000, 1.5e6, -0.2, -3e-5].map((value) => tickText(value))"),
        ["0", "0.02", "3e-5", "1,500", "250K", "1.5M", "−0.2", "−3e-5"],
    ),
    "a long label keeps its beginning and its end": Value(
        *(
            "fitted",
            "scale.js",
            "['short', 'unigram of char_lstm-20261130-ffcf58f6', '𝔸bcd'].map((text) => fitted(text, 4))",
        ),
        ["sh…t", "un…6", "𝔸bcd"],
    ),
    "the interval of one point is a line with two ends": Value(
        *("intervalOf", "curves.js", "intervalOf([[2, 10]], [[2, 30]], (x) => 10 * x, (y) => 100 - y)"),
        "M16 90h8M16 70h8M20 90V70",
    ),
    "tokens per character are those of each split, or of validation": Value(
        *("ratioOf", "curve_lines.js"),
        "((run) => [run, {...run, train_bits_per_char: null}, {...run, best_val_loss: null, train_loss: null}]"
        ".map(ratioOf))("
        "{train_loss: Math.LN2, train_bits_per_char: 0.5, val_loss: Math.LN2, val_bits_per_char: 3,"
        " best_val_loss: Math.LN2, best_val_bits_per_char: 2})",
        [{"train": 0.5, "validation": 2}, {"train": 2, "validation": 2}, {"train": 3, "validation": 3}],
    ),
    "only tokens of other lengths are unlike": Value(
        *("areUnlike", "curve_lines.js"),
        "[[], [1], [1, null, 1.05], [1, 0.25]]"
        ".map((known) => areUnlike(known.map((train) => ({train, validation: 9}))))",
        [False, False, False, True],
    ),
    "losses per character are those per token times the tokens per character": Value(
        *("linesOfCurve", "curve_lines.js"),
        "['loss', 'loss_per_char', 'validation_per_char', 'memory_bytes'].map((series) => linesOfCurve("
        "{train: [[1, 2]], validation: [[2, 3]], memory_bytes: [[1, 5e9]]}, {series, axis: 'step', smoothing: 0}, 1,"
        " {train: {name: 'a'}, validation: {name: 'b'}}, {train: 0.5, validation: null})"
        ".map(({name, points}) => [name, points]))",
        [
            [["a", [[1, 2]]], ["b", [[2, 3]]]],
            [["a", [[1, 1]]], ["b", NOTHING]],
            [["a", NOTHING]],
            [["a", [[1, 5]]]],
        ],
    ),
    "a list is that of what an address names": Value(
        *(
            "listOf",
            "tables.js",
            "['#/runs/x', '#/readings/x', '#/corpora/x', '#/text/x', ''].map((one) => listOf(one).href)",
        ),
        ["#/", "#/readings", "#/corpora", "#/", "#/"],
    ),
    "trainings of a job that run now are named": Value(
        *("runningRuns, trainingText", "job_columns.js"),
        "[{cells: [{kind: 'train', status: 'running', run_id: 'a'}, {kind: 'score', status: 'running', run_id: 'b'},"
        " {kind: 'train', status: 'running', run_id: null}]}, {trials: [{status: 'running', run_id: 'c'},"
        " {status: 'completed', run_id: 'd'}]}, {}].map(runningRuns).concat([[125, null].map((eta_seconds) =>"
        " trainingText({progress: 43.4, epoch: 2, total_epochs: 5, eta_seconds}))])",
        [["a"], ["c"], NOTHING, ["43 %, epoch 2 of 5, 2 min 5 s left", "43 %, epoch 2 of 5"]],
    ),
    "an owner is a name, or the end of the id of a Discord user": Value(
        *("shortOwner", "run_columns.js", "['lab-key', '1576918393414483968'].map(shortOwner)"), ["lab-key", "…483968"]
    ),
    "warnings come before other notes": Value(
        *("warningsFirst", "report.js"),
        "warningsFirst(['a', 'Warning: b', 'c'].map((template) => ({template}))).map(({template}) => template)",
        ["Warning: b", "a", "c"],
    ),
    "a run's report does not repeat its name": Value(
        *("withoutName", "run.js"),
        "withoutName({run: {run_id: 'a'}, sections: [{parts: [{kind: 'note', values: {run: 'a'}}, {kind: 'note',"
        " values: {run: 'label', id: 'a'}}, {kind: 'note', values: {run: 'b'}}, {kind: 'table'}]}]}).sections[0]"
        ".parts.length",
        2,
    ),
    "a model that does not know a text is not compared on it": Value(
        *("unknownNotice", "surprisal_maps.js"),
        "[[0, 0], [35, 35 / 42], [null, null]].map(([unknown_chars, unknown_char_share]) =>"
        " unknownNotice('B', {unknown_chars, unknown_char_share, n_chars: 42}))",
        [
            None,
            "B does not know 35 of the 42 characters: its surprisals, and the differences from it, are too low to"
            " compare.",
            None,
        ],
    ),
    "a scale has room around one point": Value(
        *("extent", "scale.js", "[extent([]), extent([3]), extent([4, 1, 2])]", [[0, 1], [2.5, 3.5], [1, 4]]),
    ),
    "points are thinned evenly": Value(
        *("thinned", "scale.js", "[thinned([1, 2, 3], 5), thinned([...Array(10).keys()], 4)]"),
        [[1, 2, 3], [0, 3, 6, 9]],
    ),
    "labels keep their distance and stay above the bottom": Value(
        *("apart", "scale.js", "[apart([50, 10, 12], 14), apart([95, 90, 100], 14, 100)]"),
        [[50, 10, 24], [86, 72, 100]],
    ),
    "axes are read between two points": Value(
        *("between", "scale.js"),
        "[[5, 0], [0, 0], [99, 0], [50, 1], [30, 1], [0, 1]].map((at) => between([[1, 10], [3, 30], [9, 90]], ...at))",
        [50, 10, 90, 5, 3, 1],
    ),
    "characters share what their tokens have": Value(
        *("characterNats", "alignment.js"),
        "((tokens) => [[...characterNats(5, [tokens])], [...characterNats(1, [tokens.slice(0, 1)])]])("
        "[[1, 0, 0], [3, 0, 2], [5, 1, 2], [0.5, 2, 3], [0.25, 3, 3], [null, 3, 4]]"
        ".map(([nats, ...span]) => ({ nats, span })))",
        [[2, 7, 0.75, None, None], [None]],
    ),
    "ranges have the sum of their characters if all are scored": Value(
        *("rangeNats", "alignment.js"),
        "[[...rangeNats([1, 2, 3], [1, 1, 3])], [...rangeNats([1, 3, 4], [0.5, 2, 0.25, NaN])]]",
        [[1, 1, 3], [0.5, 2.25, None]],
    ),
    "characters of two tokenizers are aligned": Value(
        *("aligned", "alignment.js"),
        r"[['', ''], ['a\nب𝔸', 'a\nب𝔸'], ['Aİb', 'ai\u0307b'], ['e\u0323\u0302x', '\u1ec7x'],"
        r" ['\u1ec7x', 'e\u0323\u0302x']]"
        ".map(([one, two]) => aligned([...one], [...two])).map(({ first, second }) => [first, second])",
        [[[], []], [[1, 2, 3, 4]] * 2, [[1, 2, 3], [1, 3, 4]], [[3, 4], [1, 2]], [[1, 2], [3, 4]]],
    ),
    "other characters are not aligned": Value(
        *("aligned", "alignment.js", "['ab ac', 'ab a', 'a ab'].map((texts) => aligned(...texts.split(' ')))"),
        [None] * 3,
    ),
    "quantiles give equal values one class": Value(
        *("quantileLimits, levelOf", "color_scale.js"),
        "[[1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 1, 1, 1, 1, 1, 9], [2, 2, 2], [1, 2], []].map((values) =>"
        " [quantileLimits(values), values.map((value) => levelOf(value, quantileLimits(values)))])",
        [
            [list(range(2, 9)), list(range(8))],
            [[9], [0] * 7 + [1]],
            [NOTHING, [0, 0, 0]],
            [[2], [0, 1]],
            [NOTHING, NOTHING],
        ],
    ),
    "quantiles of differences begin above the lowest": Value(
        *("quantileLimits", "color_scale.js"),
        "[[0, 0, 1, 2], [3, 3], [0, 0]].map((values) => quantileLimits(values, 4, 0))",
        [[1, 2], [3], []],
    ),
    "classes have colours from the first to the last": Value(
        *("colourOf", "color_scale.js"),
        "[1, 2, 3, 8].map((size) => Array.from({length: size}, (_, level) => colourOf(level, size)))",
        [[0], [0, 7], [0, 4, 7], list(range(8))],
    ),
    "fixed classes are of bits": Value(
        *("levelOf, FIXED_LIMITS", "color_scale.js"),
        "[0, 0.99, 1, 6.5, 7.5, 90].map((bits) => levelOf(bits, FIXED_LIMITS))",
        [0, 0, 1, 6, 7, 7],
    ),
    "blocks have every unit once and no long line": Value(
        *("blocksOf", "heat_map.js"),
        "blocksOf([250, 300, 100, 1300, 1].map((length) => Array(length).fill(0)))"
        ".map((block) => block.map(({number, first, units}) => [number, first, units.length]))",
        [
            *([[1, 0, 250], [2, 250, 300]], [[3, 550, 100]], [[4, 650, 600]], [[4, 1250, 600]]),
            [[4, 1850, 100], [5, 1950, 1]],
        ],
    ),
    "a table is saved as CSV": Value(
        *("csv", "unit_table.js"),
        "csv([{title: 'i', value: ({i}) => i}, {title: 'a \"b\"', value: ({n}) => n === 2 ? 'x,\\n' : n}],"
        " [null, 2, 10].map((n, i) => ({n, i})))",
        'i,"a ""b"""\r\n0,\r\n1,"x,\n"\r\n2,10\r\n',
    ),
    "signs show white space and lone marks": Value(
        *("visible, spoken", "scored_text.js"),
        r"[...[' a\u00a0', '\u0301', '\n'].map(visible), ...[' ', '\t', '\u0301', 'é'].map(spoken)]",
        ["·\u200ba⍽", "◌\u0301", "↵\n", "space", "tab", "◌\u0301 (U+0301)", "é"],
    ),
    "a text in the lower case of its language counts as the server counts": Value(
        *("normalized", "scored_text.js"),
        "normalized('IŞIK I\u0307ZMİR', [{text: 'ışık', span: [0, 4]}, {text: 'izmir', span: [5, 10]}])",
        list("ışık izmir"),
    ),
}


@pytest.mark.parametrize("promise", VALUES)
def test_value__equals_its_formula(modules: Path, promise: str) -> None:
    value = VALUES[promise]
    assert value_of(modules, value.names, value.module, value.expression) == value.wanted


def token_lines(modules: Path, expression: str) -> list[list[dict[str, object]]]:
    found = value_of(modules, "tokenLines", "scored_text.js", expression)
    return TypeAdapter(list[list[dict[str, object]]]).validate_python(found)


def output_of(modules: Path, program: str) -> str:
    """The output of a program beside the modules."""
    assert NODE is not None
    words = [NODE, "--input-type=module", "--eval", program]
    return subprocess.run(words, cwd=modules, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_events__however_the_stream_is_cut(modules: Path, line_end: str) -> None:
    lines = ["id: 7", "event: a.v1", 'data: {"x":', 'data: "é"}', "", ": ping", "", "data:b", "", "id: 9"]
    stream = line_end.join(lines)
    expression = f"Array.from({{length: 12}}, (_, n) => {{ const p = new EventParser(); const s = {json.dumps(stream)};"
    expression += " return (s.match(new RegExp(`[^]{1,${n + 1}}`, 'g')) ?? []).flatMap((piece) => p.push(piece)); })"
    wanted = [{"id": "7", "event": "a.v1", "data": '{"x":\n"é"}'}, {"id": "", "event": "message", "data": "b"}]
    assert value_of(modules, "EventParser", "event_stream.js", expression) == [wanted] * 12


async def test_events__continue_behind_the_last_one_after_a_lost_connection(modules: Path) -> None:
    asked: list[tuple[str | None, str | None]] = []
    answers = ["id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\nda", "id: 3\ndata: c\n\n"]

    async def events(request: web.Request) -> web.Response:
        asked.append((request.headers.get("Last-Event-ID"), request.headers.get("X-Api-Key")))
        return web.Response(text=answers[len(asked) - 1], content_type="text/event-stream")

    app = web.Application()
    app.add_routes([web.get("/events", events)])
    async with TestServer(app) as server:
        program = f"""
            import {{ follow }} from "./event_stream.js";
            globalThis.sessionStorage = {{ getItem: () => "a-key" }};
            const found = [];
            const isOver = async () => found.length === 3;
            const {{ signal }} = new AbortController();
            await follow("{server.make_url("/events")}", ({{ data }}) => found.push(data), isOver, signal);
            console.log(found.join());
        """
        printed = await asyncio.to_thread(output_of, modules, program)
    assert printed == "a,b,c\n"
    assert asked == [(None, "a-key"), ("2", "a-key")]


async def test_answer_of_a_job__is_read_again_until_the_job_has_ended(modules: Path) -> None:
    """The time to wait of the first answer is over after its status 200 was sent."""
    answers: list[dict[str, object]] = [
        {"status": "running", "nats": None},
        {"status": "queued", "nats": None},
        {"status": "completed", "nats": 2},
    ]
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        status = 202 if len(asked) == 2 else 200
        return web.json_response(answers[len(asked) - 1] | {"error": None}, status=status, headers={"Location": "/it"})

    app = web.Application()
    app.add_routes([web.get("/{name}", answer)])
    async with TestServer(app) as server:
        program = f"""
            import {{ endOf }} from "./api.js";
            globalThis.sessionStorage = {{ getItem: () => "a-key" }};
            const {{ signal }} = new AbortController();
            console.log((await endOf(await fetch("{server.make_url("/score")}"), signal)).nats);
        """
        printed = await asyncio.to_thread(output_of, modules, program)
    assert printed == "2\n"
    assert asked == ["/score", "/it?wait=10", "/it?wait=10"]


@pytest.mark.parametrize(
    ("text", "lowercase"),
    [("Kɑ́n ʃɪp", False), ("e\u0301t\u0131 ΣΑΣ", True), ("𝔸 😀 a", False), ("ئۇيغۇر تىلى", False), ("İI", True)],
)
def test_text__counts_as_the_server_counts(modules: Path, text: str, lowercase: bool) -> None:
    wanted = unicodedata.normalize("NFC", text)
    if lowercase:
        wanted = unicodedata.normalize("NFC", "".join(char.lower() for char in wanted))
    words = [{"text": word[0], "span": word.span()} for word in re.finditer(r"[^ ]+", wanted)]
    expression = f"normalized({json.dumps(text)}, {json.dumps(words)})"
    assert value_of(modules, "normalized", "scored_text.js", expression) == list(wanted)


def test_tokens__cover_their_lines_and_unknown_ones_are_marked(modules: Path) -> None:
    score = {
        "lines": [{"span": [0, 5], "n_tokens": 2}, {"span": [7, 8], "n_tokens": 1}],
        "words": [{"text": "ab", "span": [0, 2]}, {"text": "cd", "span": [3, 5]}, {"text": "é", "span": [7, 8]}],
        "char_spans": [[0, 2], [3, 5], [7, 8]],
        "tokens": ["ab", "[UNK]", "é"],
        "unknown_token": "[UNK]",
        "surprisal": [1.5, None, 0.25],
        "rank": [3, None, 1],
        "topk": [[["x", 0.5]], [], []],
    }
    first, second = token_lines(modules, f"tokenLines([...'ab\\tcd\\n\\né'], {json.dumps(score)})")
    assert [(token["text"], token["before"], token["isKnown"], token["nats"]) for token in first + second] == [
        ("ab", "", True, 1.5),
        ("cd", "\t", False, None),
        ("é", "", True, 0.25),
    ]
    assert first[0]["expected"] == [["x", 0.5]] and first[0]["rank"] == 3


def test_bytes_of_a_character__are_one_token_with_the_sum_of_surprisals(modules: Path) -> None:
    score = {
        "lines": [{"span": [0, 3], "n_tokens": 5}],
        "char_spans": [[0, 0], [0, 1], [1, 2], [2, 2], [2, 3]],
        "tokens": ["<0xD0>", "<0x96>", "a", "<0xC3>", "<0xA9>"],
        "unknown_token": "[UNK]",
        "surprisal": [None, 0.5, 1.0, 2.0, 0.25],
        "rank": [None, 1, 2, 3, 4],
        "topk": [[], [], [], [["<0xC3>", 0.5]], []],
    }
    [tokens] = token_lines(modules, f"tokenLines([...'Жaé'], {json.dumps(score)})")
    assert [(token["text"], token["name"], token["nats"], token["rank"]) for token in tokens] == [
        ("Ж", "<0xD0><0x96>", None, None),
        ("a", "a", 1.0, 2),
        ("é", "<0xC3><0xA9>", 2.25, None),
    ]
    assert tokens[2]["expected"] == [["<0xC3>", 0.5]]


def test_words_and_characters__have_the_surprisals_of_the_text(modules: Path) -> None:
    """Three texts in one: with an unknown token, without a score, and with a token that has no characters."""
    score = {
        "lines": [{"span": [0, 6], "n_tokens": 4}, {"span": [7, 9], "n_tokens": 2}],
        "words": [
            {"text": "abc", "span": [0, 3], "surprisal": 2.5},
            {"text": "𝔸x", "span": [4, 6], "surprisal": None},
            {"text": "قل", "span": [7, 9], "surprisal": 4.0},
        ],
        "char_spans": [[0, 1], [1, 3], [4, 5], [5, 6], [7, 7], [7, 9]],
        "tokens": ["a", "[UNK]", "𝔸", "x", "▁", "قل"],
        "unknown_token": "[UNK]",
        "surprisal": [1.5, 2.0, None, 0.5, 1.0, 3.0],
        "rank": [1] * 6,
        "topk": None,
    }

    def segments(kind: str) -> object:
        program = (
            "((chars, score) => segmentLines(chars, score, '%s', tokenLines(chars, score)))([...'abc 𝔸x\\nقل'], %s)"
        )
        lines = program % (kind, json.dumps(score))
        expression = f"{lines}.map((line) => line.map((one) => [one.text, one.before, one.isKnown, one.nats]))"
        return value_of(modules, "segmentLines, tokenLines", "scored_text.js", expression)

    assert segments("words") == [
        [["abc", "", False, 2.5], ["𝔸x", " ", True, None]],
        [["قل", "", True, 4.0]],
    ]
    assert segments("characters") == [
        [
            *[["a", "", True, 1.5], ["b", "", False, 1.0], ["c", "", False, 1.0], [" ", "", True, None]],
            *[["𝔸", "", True, None], ["x", "", True, 0.5]],
        ],
        [["ق", "", True, 2.0], ["ل", "", True, 2.0]],
    ]


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize("ascending", [[-1.5, 0, 2, 2.5, 10], ["", "B", "a", "ab", "é"], []])
def test_table__is_sorted_with_unknown_values_last_and_equal_ones_in_order(
    modules: Path, ascending: list[float | str], is_descending: bool
) -> None:
    chosen = random.Random(5)
    ranks = [None if not ascending or chosen.random() < 0.2 else chosen.randrange(len(ascending)) for _ in range(60)]
    sign = -1 if is_descending else 1
    known = sorted((sign * rank, row) for row, rank in enumerate(ranks) if rank is not None)
    expected = [row for _, row in known] + [row for row, rank in enumerate(ranks) if rank is None]
    rows = [(None if rank is None else ascending[rank], row) for row, rank in enumerate(ranks)]
    places = [(0, 60), (0, 7), (13, 31), (59, 60), (60, 60)]
    order = f"inOrder({json.dumps(rows)}, ([value]) => value, {json.dumps(is_descending)})"
    expression = f"((rowsAt) => {json.dumps(places)}.map((place) => rowsAt(...place).map(([, row]) => row)))({order})"
    found = value_of(modules, "inOrder", "unit_table.js", expression)
    assert found == [expected[start:end] for start, end in places]


def test_generated_tokens__are_cut_by_code_points(modules: Path) -> None:
    answer = {
        "outputs": ["𝔸é\n"],
        "tokens": [["𝔸", "<0xC3>", "<0xA9>", "[EOS]"]],
        "text_offsets": [[0, 1, 1, 2]],
        "logprobs": [[-0.5, -1, -2, -3]],
        "top_logprobs": [[[["𝔸", 0.0]], [], [], []]],
    }
    found = value_of(modules, "stepsOf", "generation.js", f"stepsOf({json.dumps(answer)})")
    steps = TypeAdapter(list[dict[str, object]]).validate_python(found)
    assert [(step["text"], step["name"], step["logprob"]) for step in steps] == [
        ("𝔸", "𝔸", -0.5),
        ("", "<0xC3>", -1),
        ("é", "<0xA9>", -2),
        ("\n", "[EOS]", -3),
    ]
    assert steps[0]["expected"] == [["𝔸", 1]]


@pytest.mark.parametrize("letters", ["कि|न्दी", "t͡s|ʰ", "и́|қ", "ที่|น้ำ", "👍🏽|🇰🇿", "a|b", "\u0301|\n|x"])
def test_letter__keeps_its_marks_and_the_values_of_its_characters(modules: Path, letters: str) -> None:
    units = [{"text": char, "before": "", "nats": 1} for char in letters.replace("|", "")]
    join = "(parts) => ({text: parts.map((one) => one.text).join(''), nats: parts.length})"
    found = value_of(modules, "joinedLetters", "heat_map.js", f"joinedLetters({json.dumps(units)}, {join})")
    expected = [(letter, len(letter)) for letter in letters.split("|")]
    assert [
        (one["text"], one["nats"]) for one in TypeAdapter(list[dict[str, object]]).validate_python(found)
    ] == expected
    apart = [{"text": "a", "before": ""}, {"text": "\u0301", "before": " "}, {"text": "", "before": ""}]
    grouped = f"letterGroups({json.dumps(apart)}).length"
    assert value_of(modules, "letterGroups", "scored_text.js", grouped) == 3


FIGURES = {
    "loss(1)": ("1.443", "1.000"),
    "loss(null)": ("–", "–"),
    "perChar(1.5)": ("1.500", "1.040"),
    "perChar(0, 0.01)": ("0.000 ⚠ unknown characters", "0.000 ⚠ unknown characters"),
    "surprisal(2)": ("2.89", "2.00"),
    "signed(-0.5, loss)": ("−0.721", "−0.500"),
    "signed(-0.00001, loss)": ("+0.000", "+0.000"),
    "signed(0.25, perChar)": ("+0.250", "+0.173"),
    "signed(0.1234, percent)": ("+12.3 %", "+12.3 %"),
    "loss(-0.5)": ("−0.721", "−0.500"),
    "meanOf([1, 2, null, 4], loss)": ("3.366 ± 2.204", "2.333 ± 1.528"),
    "perplexity(2.71828)": ("2.72", "2.72"),
    "perplexity(2.71828, 0.01)": ("2.72 ⚠ unknown characters", "2.72 ⚠ unknown characters"),
    "withChosenUnit('at step 5 it is 12 nats per token, not 6.91 nats per token')": (
        "at step 5 it is 17 bits per token, not 9.97 bits per token",
        "at step 5 it is 12 nats per token, not 6.91 nats per token",
    ),
    "withChosenUnit('`8 bits`: its bits per character are too low, 1.2e+03 nats per character')": (
        "`8 bits`: its bits per character are too low, 1,731.2 bits per character",
        "`8 bits`: its nats per character are too low, 1,200.0 nats per character",
    ),
}


@pytest.mark.parametrize("index", [0, 1])
def test_figures__are_in_the_chosen_unit_with_the_digits_of_their_kind(modules: Path, index: int) -> None:
    wanted = {call: lines[index] for call, lines in FIGURES.items()}
    program = (
        'import { loss, meanOf, perChar, percent, perplexity, signed, surprisal, withChosenUnit } from "./numbers.js";'
        f'import {{ setUnit }} from "./units.js"; setUnit("{("bits", "nats")[index]}");'
        f" console.log(JSON.stringify([{', '.join(wanted)}]));"
    )
    assert TypeAdapter(list[str]).validate_json(output_of(modules, program)) == [*wanted.values()]


@pytest.mark.parametrize(("unit", "name", "title"), [("bits", "char", "character"), ("nats", "token", "token")])
def test_losses_of_records__have_the_chosen_unit_in_title_and_number(
    modules: Path, unit: str, name: str, title: str
) -> None:
    field, size = {"char": ("val_bits_per_char", 1.0), "token": ("test_loss", 1.0)}[name]
    program = (
        'import { titleOf, valueOf } from "./record_table.js"; import { setUnit } from "./units.js";'
        f' setUnit("{unit}"); console.log(JSON.stringify(["train_seconds", "{field}"].map(titleOf)'
        f'.concat([valueOf("{field}", {size})(), valueOf("{field}", null)])));'
    )
    named = field.removesuffix("_bits_per_char").replace("_", " ")
    assert TypeAdapter(list[str]).validate_json(output_of(modules, program)) == [
        "train",
        f"{named}, {unit} per {title}",
        "1.000",
        "–",
    ]


@pytest.mark.parametrize("weight", [0, 0.5, 0.9, 0.99])
def test_smoothing__is_the_average_of_the_values_so_far_with_falling_weights(modules: Path, weight: float) -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    points = ", ".join(f"[{at}, {value}]" for at, value in enumerate(values))
    found = value_of(modules, "smoothed", "smoothing.js", f"smoothed([{points}], {weight})")
    expected: list[float] = []
    for at in range(len(values)):
        weights = [math.pow(weight, at - index) for index in range(at + 1)]
        expected.append(sum(one * value for one, value in zip(weights, values, strict=False)) / sum(weights))
    numbers = TypeAdapter(list[tuple[int, float]]).validate_python(found)
    assert [value for _, value in numbers] == pytest.approx(expected)
    assert [place for place, _ in numbers] == list(range(len(values)))


def test_csv__has_full_numbers_and_empty_fields(modules: Path) -> None:
    lines = """[{name: 'a, "b"', points: [[1, 0.1], [3, 1 / 3]], raw: [[1, 2], [3, 4]]},
        {name: "c", points: [[2, 1e-9]], band: {mean: [], low: [[2, 0]], high: [[2, 5]]}}]"""
    text = value_of(modules, "csvOf", "chart_files.js", f"csvOf('step', {lines}, 'nats')")
    assert list(csv.reader(io.StringIO(str(text), newline=""))) == [
        ["step", *(f"{name} (nats)" for name in ('a, "b"', 'a, "b", not smoothed', "c", "c, lowest", "c, highest"))],
        ["1", "0.1", "2", "", "", ""],
        ["2", "", "", "1e-9", "0", "5"],
        ["3", "0.3333333333333333", "4", "", "", ""],
    ]


SAYING = """
import { readFileSync } from "node:fs";
import { noteText, textOf } from "./report.js";
const parts = JSON.parse(readFileSync("a_report.json", "utf-8")).sections.flatMap(({ parts }) => parts);
const tables = parts.flatMap((part) => (part.kind === "choice" ? part.tables : part.kind === "table" ? [part] : []));
console.log(JSON.stringify([
  ...parts.filter(({ kind }) => kind === "note").map(noteText),
  ...tables.flatMap(({ rows, columns }) => rows.flatMap((row) => row.map((cell, at) => textOf(cell, columns[at])))),
]));
"""


@pytest.mark.parametrize("name", REPORTS)
def test_report__has_the_texts_and_numbers_of_the_terminal(modules: Path, name: str) -> None:
    report, reader = REPORTS[name], Reader("bits")
    (modules / "a_report.json").write_text(report.model_dump_json(), encoding="utf-8")
    found = TypeAdapter(list[str]).validate_json(output_of(modules, SAYING))
    expected = [reader.note(part) for part in report.parts() if isinstance(part, Note)]
    expected += [cell for table in report.tables() for row in rows_of(table, reader)[1:] for cell in row]
    assert len(found) > 8 and [line.replace(" %", "%").replace("\u2212", "-") for line in found] == [
        line.replace(" %", "%") for line in expected
    ]
