"""Files of minimal pairs in the forms in which their authors publish them."""

import json
import re
from pathlib import Path

import pytest

from trainer.contracts.errors import AppError
from trainer.data.pair_files import read_pairs
from trainer.reports.minimal_pairs import Pair

CONFUSED, COMMUNICATED = "Lucille's sisters are confused by Amy.", "Lucille's sisters are communicated by Amy."
BLIMP: dict[str, object] = {
    "sentence_good": CONFUSED,
    "sentence_bad": COMMUNICATED,
    "field": "syntax",
    "linguistics_term": "argument_structure",
    "UID": "passive_1",
    "simple_LM_method": True,
    "pairID": "0",
}
GOOD, BAD = "Kış geldi.", "Kış geldik."
FORMS = {
    "blimp.jsonl": (json.dumps(BLIMP) + "\n", Pair(1, CONFUSED, COMMUNICATED, "passive_1")),
    "multiblimp.tsv": (
        f'\tsen\twrong_sen\tprefix\tphenomenon\tlang\n0\t"{GOOD} ""Evet"""\t{BAD}\tKış\tSV-P\ttur\n',
        Pair(2, f'{GOOD} "Evet"', BAD, "SV-P"),
    ),
    "turblimp.csv": (
        f"good_sentence;bad_sentence;good_cue;bad_cue;phenomenon\n\n{GOOD};{BAD};geldi;geldik;passives\n",
        Pair(3, GOOD, BAD, "passives"),
    ),
    "own.csv": (f'bad,good,context\n"{BAD}","{GOOD}",Dün\n', Pair(2, GOOD, BAD, None, "Dün")),
    "own.tsv": (f"\ufeffgood\tbad\tgroup\r\n{GOOD}\t{BAD}\t order\r\n", Pair(2, GOOD, BAD, "order")),
    "two.tsv": (f"\n{GOOD}\t {BAD}\r\n", Pair(2, GOOD, BAD, None)),
    "three.tsv": (f'"{GOOD}\t{BAD}\tgroup one\n \n', Pair(1, f'"{GOOD}', BAD, "group one")),
}


@pytest.mark.parametrize("name", FORMS)
def test_form__is_read_as_it_is_published(name: str, tmp_path: Path) -> None:
    content, pair = FORMS[name]
    file = tmp_path / name
    file.write_text(content, encoding="utf-8", newline="")
    assert read_pairs(file) == [pair]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.tsv", "\n \n", "'a.tsv' has no pairs."),
        ("a.tsv", "a\tb\na b\n", "Line 2 is no pair: one of its sentences is missing."),
        ("a.tsv", "a\tb\na\tb\tc\td\n", "Line 2 is no pair: write two sentences"),
        ("a.tsv", "a\tb\tc\td\n", "Line 1 does not name the columns of two sentences: known are `sentence_good`"),
        ("a.csv", "good,worse\na,b\n", "Line 1 does not name the columns of two sentences"),
        ("a.csv", "good,bad\na\n", "Line 2 has 1 columns, and the first line names 2."),
        ("a.csv", "good,bad\na,\n", "Line 2 is no pair: one of its sentences is missing."),
        ("a.csv", 'good,bad\na,"b\nc"\n', "Line 3 is no pair: a sentence is one line."),
        ("a.csv", '\ngood,bad\n\na,"b"c\n', "Line 4 is no row of a table: "),
        ("a.csv", f"good,bad\na,{'b' * 200_000}\n", "Line 2 is no row of a table: field larger than field limit"),
        ("a.jsonl", "{\n", "Line 1 is not JSON."),
        ("a.jsonl", "[" * 100_000, "Line 1 is not JSON."),
        ("a.jsonl", '["a", "b"]\n', "Line 1 is not a JSON object."),
        ("a.jsonl", '\n{"sentence_good": "a", "sentence_bad": 1}\n', "Line 2 does not name the columns"),
        ("a.tsv", b"good\tbad\na\t\xff\n", "Line 2: It is not UTF-8"),
        ("a.tsv", "good\tbad\n" + "a" * 10_000_000 + "\tb\n", "Line 2: It is too long"),
    ],
)
def test_wrong_file__is_refused_in_one_sentence(name: str, content: str | bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(AppError, match=f"^{re.escape(sentence)}"):
        read_pairs(file)
