"""Tables of items in the forms in which their authors publish them."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.refusals import refused
from tests.support.suites import SUITE
from trainer.batteries import reading
from trainer.batteries.reading import Battery, read_battery
from trainer.contracts.batteries import BatteryItem, BatteryOptions
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.sequences import SequenceParts
from trainer.reports.report_text import ENGLISH

OPTIONS = BatteryOptions()
SUITE_PARTS = (
    *("the sun", "|was", "|shining", "the sun", "|were", "|shining"),
    *("", "on", "|the sea", "", "on ", "|the sea"),
)
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
GOOD, BAD, OTHER = "Kış geldi.", "Kış geldik.", "Kış geldin."
EWOK = "Domain,Context1,Context2,Target1,Target2\nspatial,It is on top.,It is below.,Look up.,Look down.\n"
CHOICES: dict[str, object] = {"context": "Dün", "choices": [BAD, GOOD, OTHER], "answer": 1, "group": None}


def item(
    name: str, paradigm: str, *texts: str, context: str = "", phenomenon: str = "", field: str = ""
) -> BatteryItem:
    space = " " if context else ""
    return BatteryItem(
        battery=name.split(":")[0],
        name=name,
        paradigm=paradigm,
        phenomenon=phenomenon,
        field=field,
        sequences=tuple(SequenceParts(context=context, parts=(f"{space}{text}",)) for text in texts),
    )


FORMS: dict[str, tuple[str, list[BatteryItem]]] = {
    "blimp.jsonl": (
        json.dumps(BLIMP) + "\n",
        [item("blimp:1", "passive_1", CONFUSED, COMMUNICATED, phenomenon="argument_structure", field="syntax")],
    ),
    "multiblimp.tsv": (
        f'\tsen\twrong_sen\tprefix\tphenomenon\tlang\n0\t"{GOOD} ""Evet"""\t{BAD}\tKış\tSV-P\ttur\n',
        [item("multiblimp:2", "tur:SV-P", f'{GOOD} "Evet"', BAD)],
    ),
    "turblimp.csv": (
        f"good_sentence;bad_sentence;good_cue;bad_cue;phenomenon\n\n{GOOD};{BAD};geldi;geldik;passives\n",
        [item("turblimp:3", "passives", GOOD, BAD)],
    ),
    "own.csv": (f'bad,good,context\n"{BAD}","{GOOD}",Dün\n', [item("own:2", "own", GOOD, BAD, context="Dün")]),
    "several.csv": (
        f"good,bad,bad_2,bad 3\n{GOOD},{BAD},{OTHER},\n{GOOD},{BAD},,x\n",
        [item("several:2", "several", GOOD, BAD, OTHER), item("several:3", "several", GOOD, BAD, "x")],
    ),
    "own.tsv": (f"\ufeffgood\tbad\tgroup\r\n{GOOD}\t{BAD}\t order\r\n", [item("own:2", "order", GOOD, BAD)]),
    "two.tsv": (f"\n{GOOD}\t {BAD}\r\n", [item("two:2", "two", GOOD, BAD)]),
    "header.tsv": (f"doğru\tyanlış\n{GOOD}\t{BAD}\n", [item("header:2", "header", GOOD, BAD)]),
    "turned.tsv": (f"ungrammatical\tgrammatical\n{BAD}\t{GOOD}\n", [item("turned:2", "turned", GOOD, BAD)]),
    "words.tsv": ("Sentence_A\tSentence_B\tGroup\nev\teb\tn\n", [item("words:2", "n", "ev", "eb")]),
    "pair.tsv": ("ev\teb\nat\tad\n", [item("pair:1", "pair", "ev", "eb"), item("pair:2", "pair", "at", "ad")]),
    "three.tsv": (f'"{GOOD}\t{BAD}\tgroup one\n \n', [item("three:1", "group one", f'"{GOOD}', BAD)]),
    "ewok.csv": (
        EWOK,
        [
            item("ewok:2.1", "spatial", "Look up.", "Look down.", context="It is on top."),
            item("ewok:2.2", "spatial", "Look down.", "Look up.", context="It is below."),
        ],
    ),
    "answers.jsonl": (
        f"{json.dumps(CHOICES)}\n\n",
        [item("answers:1", "answers", GOOD, BAD, OTHER, context="Dün")],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_form__is_read_as_it_is_published(name: str, tmp_path: Path) -> None:
    content, items = FORMS[name]
    file = tmp_path / name
    file.write_text(content, encoding="utf-8", newline="")
    assert [*read_battery(file, OPTIONS).items] == items


def test_contexts__are_the_choices_of_one_target(tmp_path: Path) -> None:
    file = tmp_path / "contexts.csv"
    file.write_text("good_context,bad_context,target\nHe said,He sad,so.\n", encoding="utf-8")
    [read] = read_battery(file, OPTIONS).items
    assert [(one.context, one.parts) for one in read.sequences] == [("He said", (" so.",)), ("He sad", (" so.",))]


@pytest.mark.parametrize("separator", ["", " ", "\u3000"])
@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        (
            "a.csv",
            "context,good,bad\n\u4ed6,\u6211,\u4e86\n,\u6211,\u4e86\n",
            ["|\u6211", "|\u4e86", "\u6211", "\u4e86"],
        ),
        ("a.csv", "good_context,bad_context,target\n\u4ed6,\u6211,\u4e86\n", ["|\u4e86", "|\u4e86"]),
        ("a.jsonl", '{"context": "a", "choices": ["b", "c d"], "answer": 1}\n', ["|c d", "|b"]),
        ("a.csv", "item,condition,region,text\n1,x,r,\n1,x,s,a b\n1,x,t,\n1,x,u,c\n", ["", "a b", "", "|c"]),
        ("a.json", json.dumps(SUITE), [*SUITE_PARTS]),
    ],
)
def test_separator__stands_between_contexts_or_regions_and_the_text_after_them(
    separator: str, name: str, content: str, parts: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    read = read_battery(tmp_path / name, BatteryOptions(separator=separator)).items
    found = [part for one in read for sequence in one.sequences for part in sequence.parts]
    assert found == [part.replace("|", separator) for part in parts]


def test_columns__have_the_names_of_the_option(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("ok,star,kind\na b,a c,x\n", encoding="utf-8")
    options = BatteryOptions(columns={"good": "ok", "bad": "star", "paradigm": "kind"})
    assert read_battery(file, options).items == (item("mine:2", "x", "a b", "a c"),)
    with pytest.raises(AppError, match=r"`columns` names 'odd', but the table has: ok, star, kind\.$"):
        read_battery(file, BatteryOptions(columns={"good": "odd"}))
    with pytest.raises(AppError, match=r"`columns` has an unknown name 'goood'; did you mean `good`\?$"):
        read_battery(file, BatteryOptions(columns={"goood": "ok"}))
    with pytest.raises(AppError, match=r"`columns` has an unknown name 'zz': known are good, bad, context"):
        read_battery(file, BatteryOptions(columns={"zz": "ok"}))


def notes_of(battery: Battery) -> list[str]:
    """The notes of a battery in English."""
    return [ENGLISH.note(one) for one in battery.info.notes]


def read(folder: Path, name: str, content: str, **options: object) -> Battery:
    file = folder / name
    file.write_text(content, encoding="utf-8", newline="")
    return read_battery(file, BatteryOptions.model_validate(options))


@pytest.mark.parametrize(
    ("name", "content", "columns", "choices", "note"),
    [
        (
            "a.csv",
            ",0,1,good,bad\n7,x,y,a,b\n",
            {},
            ("a", "b"),
            "`bad` (wrong); not read: one without a name, `0`, `1`.",
        ),
        (
            "a.jsonl",
            '{"0": "x", "good": "a", "bad": "b"}',
            {},
            ("a", "b"),
            "`good` (right), `bad` (wrong); not read: `0`.",
        ),
        ("a.csv", "good,bad,bad2,bad_num\na,b,c,4\n", {}, ("a", "b", "c"), "`bad2` (wrong); not read: `bad_num`."),
        (
            "a.csv",
            "sentence_good,sentence_bad,sentence_bad_2\na,b,c\n",
            {},
            ("a", "b", "c"),
            "`sentence_bad_2` (wrong).",
        ),
        (
            "a.csv",
            "yes,no,no_2\na,b,c\n",
            {"good": "yes", "bad": "no"},
            ("a", "b", "c"),
            "`no` (wrong), `no_2` (wrong).",
        ),
        (
            "a.csv",
            "yes,no,odd\na,b,c\n",
            {"good": "yes", "bad": "no", "bad_2": "odd"},
            ("a", "b", "c"),
            "`odd` (wrong).",
        ),
        ("a.tsv", "yes\tno\na\tb\n", {"good": "yes", "bad": "no"}, ("a", "b"), "Columns: `yes` (right), `no` (wrong)."),
        (
            "a.csv",
            "sentence_good,sentence_bad,mine,theirs,good\na,b,c,d,e\n",
            {"good": "mine", "bad": "theirs"},
            ("c", "d"),
            "`mine` (right), `theirs` (wrong); not read: `sentence_good`, `sentence_bad`.",
        ),
        (
            "a.jsonl",
            '{"good": "a", "bad": "b"}\n{"good": "a", "bad": "b", "bad_2": "c"}',
            {},
            ("a", "b"),
            "`bad_2` (wrong).",
        ),
    ],
)
def test_columns__are_named_by_the_table_and_reported(
    tmp_path: Path, name: str, content: str, columns: dict[str, str], choices: tuple[str, ...], note: str
) -> None:
    battery = read(tmp_path, name, content, columns=columns)
    assert tuple(one.parts[0] for one in battery.items[0].sequences) == choices
    [shown] = notes_of(battery)
    assert shown.endswith(note)
    assert len(battery.items[-1].sequences) == len(choices) + (name == "a.jsonl" and "bad_2" in content)


@pytest.mark.parametrize(
    ("first", "content", "n_items", "note"),
    [
        ("UID", "q{n}", 0, "`UID` has another value for each item: it is not read as the paradigm."),
        ("paradigm", "p{n}", 4, "Each of the 4 items has a paradigm of its own in `paradigm`."),
        ("UID", "p", 1, None),
    ],
)
def test_paradigm__that_numbers_the_items_is_reported(
    tmp_path: Path, first: str, content: str, n_items: int, note: str | None
) -> None:
    rows = [f"{content.format(n=n)},{'xy'[n % 2]},a{n},b{n}" for n in range(4)]
    table = "\n".join([f"{first},cond,good,bad", *rows])
    battery = read(tmp_path, "a.csv", table)
    assert len({one.paradigm for one in battery.items} - {"a"}) == n_items
    assert notes_of(battery)[1:] == ([] if note is None else [note])
    chosen = read(tmp_path, "a.csv", table, columns={"paradigm": "cond"})
    assert [one.paradigm for one in chosen.items] == ["x", "y", "x", "y"] and len(chosen.info.notes) == 1


def test_paradigm__of_regions_is_one_for_items_and_not_for_rows(tmp_path: Path) -> None:
    numbered = "UID,item,condition,region,text\n" + "".join(
        f"{uid},{item},{condition},r,x\n" for item, uid in ((1, "u"), (2, "v")) for condition in "ab"
    )
    assert [one.paradigm for one in read(tmp_path, "a.csv", numbered).items] == ["a", "a"]
    assert [one.paradigm for one in read(tmp_path, "a.csv", numbered.replace("v,", "u,")).items] == ["u", "u"]


NOTHING = "Read as empty: 2 cells with NA, NaN or null. The option `keep_na` (`--keep-na`) reads them as words."


@pytest.mark.parametrize("absent", ["NA", "NaN", "null", "<NA>", " NA "])
def test_absent_values__are_empty_cells_unless_they_are_kept(tmp_path: Path, absent: str) -> None:
    table = f"context,good,bad,bad_2\n{absent},a,b,{absent}\nc,d,e,f\n"
    battery = read(tmp_path, "a.csv", table)
    assert battery.items == read(tmp_path, "a.csv", table.replace(absent, "")).items
    assert notes_of(battery)[1:] == [NOTHING]
    kept = read(tmp_path, "a.csv", table, keep_na=True)
    assert [one.text for one in kept.items[0].sequences] == [
        f"{absent.strip()} {text}" for text in ("a", "b", absent.strip())
    ]
    assert len(kept.info.notes) == 1


def test_absent_values__of_regions_and_json_are_empty(tmp_path: Path) -> None:
    table = "item,condition,region,text\n1,a,x,NA\n1,a,y,b\n1,b,x,c\n1,b,y,NaN\n"
    battery = read(tmp_path, "a.csv", table)
    assert battery.items == read(tmp_path, "a.csv", table.replace("NA", "").replace("NaN", "")).items
    assert notes_of(battery)[1:] == [NOTHING]
    lines = '{"context": null, "good": "a", "bad": "b", "bad_2": NaN}\n{"good": "NA", "bad": "b"}'
    with pytest.raises(AppError, match=r"line 2 is no pair: one of its sentences is missing\.$"):
        read(tmp_path, "a.jsonl", lines)
    [one] = read(tmp_path, "a.jsonl", lines.split("\n")[0]).items
    assert [sequence.text for sequence in one.sequences] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (
            "ok\tstar\nthe a\tthe b\n",
            "The first line is read as names of columns, and `ok` as that of the right sentences",
        ),
        (
            "Doğru.\tYanlış.\nthe a\tthe b\n",
            "The first line is read as a pair, right sentence first; if it names columns",
        ),
    ],
)
def test_first_line__of_a_table_without_known_names_is_reported(tmp_path: Path, content: str, note: str) -> None:
    assert notes_of(read(tmp_path, "a.tsv", content))[1].startswith(note)


@pytest.mark.parametrize(
    ("content", "n_items"),
    [
        ("context,good,bad\n\u4ed6,\u6211,\u4e86\n\u4ed6,a,b\n", "1 item"),
        ("context,good,bad\nThe man,'s dog,'s dogs\nIt,\", he\",was\n", "2 items"),
        ("context,good,bad\n\u0e40\u0e02\u0e32,\u0e01\u0e34\u0e19,\u0e44\u0e1b\n", "1 item"),
        ("item,condition,region,text\n1,a,x,the door\n1,a,y,.\n1,b,x,the\n1,b,y,door\n", "1 item"),
        ("context,good,bad\na .,b,c\na,'tis'.,(b)\n\uac00,\uac01,b\n", None),
    ],
)
def test_space__that_is_usually_not_written_is_left_out_or_reported(
    tmp_path: Path, content: str, n_items: str | None
) -> None:
    for separator, begins in [(None, "Joined without a space"), (" ", "Joined with a space")]:
        notes = notes_of(read(tmp_path, "a.csv", content, separator=separator))[1:]
        found = [note for note in notes if note.startswith(f"{begins} where usually none") and f": {n_items}." in note]
        assert len(found) == len(notes) == (n_items is not None)
    assert len(read(tmp_path, "a.csv", content, separator="").info.notes) == 1


def test_separator__is_none_where_usually_no_space_is_written(tmp_path: Path) -> None:
    content = "item,condition,region,text\n1,a,x,did\n1,a,y,n't\n1,a,z,go\n1,a,end,.\n"
    [item] = read(tmp_path, "a.csv", content).items
    assert [one.parts for one in item.sequences] == [("did", "n't", " go", ".")]
    suites = read(tmp_path, "a.json", json.dumps(SUITE)).items
    parts = [part for item in suites for sequence in item.sequences for part in sequence.parts]
    assert parts == [part.replace("|", " ") for part in SUITE_PARTS], "suites are joined by spaces"


def test_notes__of_a_folder_name_the_files_that_they_are_about(tmp_path: Path) -> None:
    for name in "abcde":
        more = "\n,\n" if name != "e" else ""
        (tmp_path / f"{name}.csv").write_text(f"good,bad\nx,y{more}", encoding="utf-8")
    assert notes_of(read_battery(tmp_path, OPTIONS)) == [
        "Columns: `good` (right), `bad` (wrong).",
        "a.csv, b.csv, c.csv and 1 more: 1 row read, 1 empty row left out.",
    ]


REGIONS = """item,condition,region,text,paradigm
1,match,subject,the dogs,agr
1,match,verb,run,agr
1,clash,subject,the dogs,agr
1,clash,verb,runs,agr
2,match,verb,runs,agr
2,match,subject, the dog,agr
2,clash,verb,run,agr
2,clash,subject,the dog,agr
"""


def test_regions__make_items_in_conditions_and_suites_with_formulas(tmp_path: Path) -> None:
    file = tmp_path / "regions.csv"
    file.write_text(REGIONS, encoding="utf-8")
    formula = "(2;%match%) < (2;%clash%)"
    battery = read_battery(file, BatteryOptions(formulas=(formula,)))
    assert [one.name for one in battery.items] == ["regions:1", "regions:2"]
    assert battery.items[0].conditions == ("match", "clash")
    assert battery.items[0].regions == ((1, 2), (1, 2)) and battery.items[1].regions == ((2, 1), (2, 1))
    assert battery.items[1].sequences[0].parts == ("runs", " the dog")
    suite = battery.info.suites["agr"]
    assert (suite.regions, suite.formulas) == ({1: "subject", 2: "verb"}, (formula,))
    file.write_text(REGIONS.replace("2,match,subject, the dog,agr", "1,match,verb,x,other"), encoding="utf-8")
    several = read_battery(file, OPTIONS)
    assert [one.name for one in several.items] == ["regions:agr:1", "regions:agr:2", "regions:other:1"]
    with pytest.raises(AppError, match=r"it has no condition 'odd' in item regions:agr:1, which a formula names\.$"):
        read_battery(file, BatteryOptions(formulas=("(1;%odd%) > 0",)))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.tsv", "\n \n", "it has no items."),
        ("a.tsv", "a\tb\na b\n", "line 2 has 1 column, and the first line names 2."),
        ("a.tsv", "a\tb\na\tb\tc\td\n", "line 2 has 4 columns, and the first line names 2."),
        ("a.tsv", "a\tb\tc\td\n", "it has no items."),
        ("a.tsv", "a\tb\tc\td\n1\t2\t3\t4\n", "it has no columns of two sentences, but `a`, `b`, `c`, `d`: known are"),
        ("a.tsv", "item\tsentence\n1\tthe sun\n", "it has no columns of two sentences, but `item`, `sentence`: known"),
        ("a.csv", "good,worse\na,b\n", "it has no columns of two sentences, but `good`, `worse`"),
        ("a.csv", "good,bad,bad\na,b,c\n", "line 1 names the column 'bad' more than once."),
        ("a.csv", "good,bad\na\n", "line 2 has 1 column, and the first line names 2."),
        ("a.csv", "good,bad\na,\n", "line 2 is no pair: one of its sentences is missing."),
        ("a.csv", 'good,bad\na,"b\nc"\n', "line 2 is no pair: a sentence is one line."),
        ("a.csv", '\ngood,bad\n\na,"b"c\n"a",b\n', "line 4 has text behind the closing quotation mark of a cell"),
        ("a.csv", f"good,bad\na,{'b' * 200_000}\n", "line 2 has a sentence of more than 10,000 characters"),
        ("a.jsonl", "{\n", "line 1 is not JSON."),
        ("a.jsonl", "[" * 100_000, "line 1 is not JSON."),
        ("a.jsonl", '["a", "b"]\n', "line 1 is not a JSON object."),
        ("a.jsonl", '\n{"good": "a", "bad": 1.5}\n', "line 2 must have a text in `bad`."),
        ("a.jsonl", '{"good": "a", "bad": "' + "b" * 10_000_000 + '"}', "line 1 has a sentence of more than 10,000"),
        ("a.jsonl", '{"choices": ["a"], "answer": 0}', "line 1 must have a list of 2 to 100 texts in `choices`."),
        ("a.jsonl", '{"choices": "ab", "answer": 0}', "line 1 must have a list of 2 to 100 texts in `choices`."),
        ("a.jsonl", '{"choices": ["a", null], "answer": 0}', "line 1 must have a list of 2 to 100 texts in `choices`."),
        ("a.jsonl", '{"choices": ["a", "b"], "answer": 0}\n{"answer": 0}', "line 2 must have a list of 2 to 100 texts"),
        ("a.jsonl", '{"good": "a\\ud800", "bad": "b"}', "line 1 has half of a surrogate pair"),
        ("a.jsonl", '{"choices": ["a", "\\ud800"], "answer": 0}', "line 1 has half of a surrogate pair"),
        ("a.jsonl", '{"choices": ["a", "b"], "answer": 2}', "line 1 must have in `answer` the place"),
        ("a.jsonl", '{"choices": ["a", "b"], "answer": true}', "line 1 must have in `answer` the place"),
        ("a.csv", "item,condition,region,text\n1,a,,b\n", "line 2 needs an `item`, a `condition` and a `region`."),
        ("a.tsv", b"good\tbad\na\t\xff\n", "'a.tsv' is not UTF-8: byte 11"),
        ("a.tsv", "good\tbad\n".encode("utf-16"), "'a.tsv' is UTF-16 text. Save it as UTF-8."),
    ],
)
def test_wrong_file__is_refused_in_one_sentence(name: str, content: str | bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(AppError, match=f"^('{name}': )?{re.escape(sentence)}") as caught:
        read_battery(file, OPTIONS)
    assert len(caught.value.message) < 400


def test_files_of_one_phenomenon__are_paradigms_of_their_own(tmp_path: Path) -> None:
    table = "good_sentence;bad_sentence;phenomenon\n{};{};scrambling\n"
    for order in ("SOV", "OVS"):
        (tmp_path / f"scrambling_{order}.csv").write_text(table.format(order, "SVO"), encoding="utf-8")
    (tmp_path / "binding.csv").write_text(table.replace("scrambling", "binding"), encoding="utf-8")
    (tmp_path / "mixed.csv").write_text("good,bad,paradigm\na,b,scrambling\nc,d,other\n", encoding="utf-8")
    other: dict[str, object] = {"predictions": [{"type": "formula", "formula": "(1;%good%) < (1;%bad%)"}]}
    for number, suite in enumerate((SUITE, SUITE | other), 1):
        (tmp_path / f"suite_{number}.json").write_text(json.dumps(suite), encoding="utf-8")
    battery = read_battery(tmp_path, OPTIONS)
    found = {(item.name.partition(":")[0], item.paradigm, item.phenomenon) for item in battery.items}
    assert found == {
        ("binding", "binding", ""),
        ("mixed", "scrambling", ""),
        ("mixed", "other", ""),
        ("scrambling_SOV", "scrambling_SOV", "scrambling"),
        ("scrambling_OVS", "scrambling_OVS", "scrambling"),
        ("suite_1", "suite_1", "agreement"),
        ("suite_2", "suite_2", "agreement"),
    }
    assert {name: len(one.formulas) for name, one in battery.info.suites.items()} == {"suite_1": 2, "suite_2": 1}
    assert (
        "scrambling_OVS.csv, scrambling_SOV.csv: Several files have the paradigm `scrambling` only: each file is a"
        " paradigm, by its name."
    ) in notes_of(battery)


def test_folder_without_items_or_large_file__is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with refused(ErrorCode.DATA_NOT_FOUND, "The folder 'empty' has no file of items: .jsonl, .tsv, .csv, .json."):
        read_battery(tmp_path / "empty", OPTIONS)
    (tmp_path / "large.csv").touch()
    os.truncate(tmp_path / "large.csv", (1 << 28) + 1)
    with refused(ErrorCode.PAYLOAD_TOO_LARGE, "'large.csv' is larger than 256 MiB."):
        read_battery(tmp_path / "large.csv", OPTIONS)
    monkeypatch.setattr(reading, "_MAX_ITEMS", 1)
    (tmp_path / "many.csv").write_text("good,bad\na,b\nc,d\n", encoding="utf-8")
    with refused(ErrorCode.PAYLOAD_TOO_LARGE, "'many' has more than 1 items."):
        read_battery(tmp_path / "many.csv", OPTIONS)


def test_formulas__are_only_for_tables_of_regions(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("good,bad\na,b\n", encoding="utf-8")
    with pytest.raises(AppError, match="`formulas` are for tables of regions"):
        read_battery(file, BatteryOptions(formulas=("(1;%a%) > 0",)))


# Test suites of SyntaxGym

MANY_REGIONS = ', {"region_number": 4, "content": "x"}' * 1000


def test_regions__are_joined_as_by_syntax_gym(tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    file.write_text(json.dumps(SUITE), encoding="utf-8")
    battery = read_battery(file, OPTIONS)
    suite = battery.info.suites["agreement"]
    assert (suite.regions, len(suite.formulas)) == ({1: "start", 2: "verb", 3: "end"}, 2)
    assert [(one.name, one.conditions) for one in battery.items] == [
        ("suite:1", ("good", "bad")),
        ("suite:2", ("good", "bad")),
    ]
    assert battery.items[0].sequences[0].parts == ("the sun", " was", " shining")
    assert battery.items[1].sequences[1].parts == ("", "on ", " the sea")
    assert battery.items[0].regions[0] == (1, 2, 3)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"metric": "sum"', '"metric": "median"', "it is no test suite of SyntaxGym: `meta.metric`"),
        ('"items"', '"other"', "it is no test suite of SyntaxGym: `items`"),
        ("{", "[", "it is no test suite of SyntaxGym"),
        (
            '"content": "was"',
            '"content": "was\\nis"',
            "Item suite:1, condition 'good': a sentence is one line of at most 10,000 characters in at most 1,000",
        ),
        ('"content": "was"}', f'"content": "was"}}{MANY_REGIONS}', "Item suite:1, condition 'good': a sentence is one"),
        ('"condition_name": "bad"', '"condition_name": "good"', "it has two conditions 'good' in item suite:1."),
        ('"item_number": 2', '"item_number": 1', "it has two items suite:1"),
        ('"region_number": 2', '"region_number": 1', "two regions with the same number in condition 'good' of item"),
        ("(2;%bad%)", "(2;%worse%)", "it has no condition 'worse' in item suite:1, which a formula names"),
        ("(2;%bad%)", "(4;%bad%)", "it has no region 4 of condition 'bad' in item suite:1, which a formula names"),
        ("(2;%bad%)", "(2;%bad%", "cannot be read"),
        ('"conditions": [', '"conditions": [], "others": [', "Item suite:1 must have 1 to 100 conditions."),
    ],
)
def test_wrong_suite__is_refused_in_one_sentence(old: str, new: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    file.write_text(json.dumps(SUITE).replace(old, new), encoding="utf-8")
    with pytest.raises(AppError, match=re.escape(problem)):
        read_battery(file, OPTIONS)


@pytest.mark.parametrize("field", ["items", "predictions"])
def test_suite_without_items_or_predictions__is_refused(field: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    without: dict[str, object] = {**SUITE, field: ()}
    file.write_text(json.dumps(without), encoding="utf-8")
    with pytest.raises(AppError, match=r"^'suite\.json': it has no items, or no predictions\.$"):
        read_battery(file, OPTIONS)
