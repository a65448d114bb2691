"""The modules of the page that need no browser, run by node."""

import asyncio
import csv
import io
import json
import math
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import TypeAdapter

from tests.support import ROOT

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node on the PATH")


@pytest.fixture(name="modules", scope="module")
def modules_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the modules that node takes for ES modules."""
    folder = tmp_path_factory.mktemp("modules")
    for path in (ROOT / "trainer" / "http" / "page").glob("*.js"):
        shutil.copy(path, folder)
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    return folder


def value_of(modules: Path, names: str, module: str, expression: str) -> object:
    """The value of an expression with names of a module."""
    program = f'import {{ {names} }} from "./{module}"; console.log(JSON.stringify({expression}));'
    return TypeAdapter(object).validate_json(output_of(modules, program))


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ("[]", "–"),
        ("[null]", "–"),
        ("[1.5]", "1.500"),
        ("[1, 2, null, 4]", "2.333 ± 1.528"),
        ("[2, 2]", "2.000 ± 0.000"),
    ],
)
def test_mean__has_the_deviation_of_the_known_numbers(modules: Path, values: str, shown: str) -> None:
    assert value_of(modules, "meanOf", "numbers.js", f"meanOf({values})") == shown


def token_lines(modules: Path, expression: str) -> list[list[dict[str, object]]]:
    found = value_of(modules, "tokenLines", "scored_text.js", expression)
    return TypeAdapter(list[list[dict[str, object]]]).validate_python(found)


def output_of(modules: Path, program: str) -> str:
    """The output of a program beside the modules."""
    assert NODE is not None
    words = [NODE, "--input-type=module", "--eval", program]
    return subprocess.run(words, cwd=modules, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_ticks__are_round_numbers_inside_the_range(modules: Path) -> None:
    found = value_of(modules, "ticks", "scale.js", "[ticks(0, 100, 5), ticks(2.13, 3.42, 5), ticks(-0.3, 0.3, 3)]")
    assert found == [[0, 20, 40, 60, 80, 100], [2.5, 3], [-0.2, 0, 0.2]]


def test_scales__of_no_point_and_of_one(modules: Path) -> None:
    extents = "[extent([]), extent([3]), extent([4, 1, 2])]"
    thinned = "[thinned([1, 2, 3], 5), thinned([...Array(10).keys()], 4)]"
    expression = f"[{extents}, {thinned}, apart([50, 10, 12], 14)]"
    assert value_of(modules, "extent, thinned, apart", "scale.js", expression) == [
        [[0, 1], [2.5, 3.5], [1, 4]],
        [[1, 2, 3], [0, 3, 6, 9]],
        [50, 10, 24],
    ]


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
    expression = f"tokenLines('ab\\tcd\\n\\ne\\u0301', {json.dumps(score)})"
    first, second = token_lines(modules, expression)
    assert [(token["text"], token["before"], token["isKnown"], token["nats"]) for token in first + second] == [
        ("ab", "", True, 1.5),
        ("cd", "→\u200b", False, None),
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
    [tokens] = token_lines(modules, f"tokenLines('Жaé', {json.dumps(score)})")
    assert [(token["text"], token["name"], token["nats"], token["rank"]) for token in tokens] == [
        ("Ж", "<0xD0><0x96>", None, None),
        ("a", "a", 1.0, 2),
        ("é", "<0xC3><0xA9>", 2.25, None),
    ]
    assert tokens[2]["expected"] == [["<0xC3>", 0.5]]


def test_signs__show_white_space_and_lone_marks(modules: Path) -> None:
    names = "visible, spoken, heat"
    expression = r"[visible(' a\u00a0'), visible('\u0301'), spoken(' '), spoken('\t'), spoken('\u0301'), spoken('é')]"
    signs = ["·\u200ba⍽", "◌\u0301", "space", "tab", "◌\u0301 (U+0301)", "é"]
    assert value_of(modules, names, "scored_text.js", expression) == signs
    nats = [bits * math.log(2) for bits in (0, 0.99, 1.01, 6.5, 7.5, 90)]
    assert value_of(modules, names, "scored_text.js", f"{nats}.map(heat)") == [0, 0, 1, 6, 7, 7]


def test_numbers__are_written_alike_everywhere(modules: Path) -> None:
    written = {
        "decimal(null)": "–",
        "decimal(1234.5, 1)": "1,234.5",
        "percent(0.345)": "34.5 %",
        "size(999)": "999 bytes",
        "size(1.25e6)": "1.3 MB",
        "duration(null)": "–",
        "duration(3725)": "1 h 2 min 5 s",
    }
    names, expression = "decimal, percent, size, duration", f"[{', '.join(written)}]"
    assert value_of(modules, names, "numbers.js", expression) == [*written.values()]


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


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (1, 1000, 12, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]),
        (0.5, 2000, 5, [1, 10, 100, 1000]),
        (1e-6, 1e-3, 4, [1e-6, 1e-5, 1e-4, 1e-3]),
        (2, 6, 5, [2, 3, 4, 5, 6]),
        (1, 1e12, 5, [1, 1e3, 1e6, 1e9, 1e12]),
    ],
)
def test_logarithmic_ticks__are_round(
    modules: Path, low: float, high: float, count: int, expected: list[float]
) -> None:
    assert value_of(modules, "logTicks", "scale.js", f"logTicks({low}, {high}, {count})") == expected


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (0.02, "0.02"), (3e-5, "3e-5"), (1500, "1,500"), (250_000, "250K"), (1.5e6, "1.5M")]
)
def test_tick__is_short(modules: Path, value: float, shown: str) -> None:
    assert value_of(modules, "tickText", "scale.js", f"tickText({value})") == shown


def test_labels__keep_their_distance_and_stay_above_the_bottom(modules: Path) -> None:
    assert value_of(modules, "apart", "scale.js", "apart([10, 12, 50], 14)") == [10, 24, 50]
    assert value_of(modules, "apart", "scale.js", "apart([95, 90, 100], 14, 100)") == [86, 72, 100]


def test_csv__has_full_numbers_and_empty_fields(modules: Path) -> None:
    lines = """[{name: 'a, "b"', points: [[1, 0.1], [3, 1 / 3]], raw: [[1, 2], [3, 4]]},
        {name: "c", points: [[2, 1e-9]], band: {mean: [], low: [[2, 0]], high: [[2, 5]]}}]"""
    text = value_of(modules, "csvOf", "chart_files.js", f"csvOf('step', {lines})")
    assert list(csv.reader(io.StringIO(str(text), newline=""))) == [
        ["step", 'a, "b"', 'a, "b", not smoothed', "c", "c, lowest", "c, highest"],
        ["1", "0.1", "2", "", "", ""],
        ["2", "", "", "1e-9", "0", "5"],
        ["3", "0.3333333333333333", "4", "", "", ""],
    ]


@pytest.mark.parametrize(
    ("wanted", "column", "expected"), [(5, 0, 50), (0, 0, 10), (99, 0, 90), (50, 1, 5), (30, 1, 3), (0, 1, 1)]
)
def test_axes__are_read_between_two_points(modules: Path, wanted: float, column: int, expected: float) -> None:
    call = f"between([[1, 10], [3, 30], [9, 90]], {wanted}, {column})"
    assert value_of(modules, "between", "curve_lines.js", call) == expected
