"""Tables of reading times in the forms in which data sets are published, and what is said of guesses and mistakes."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from html import unescape
from math import isnan
from typing import NamedTuple

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all, for_all_pairs
from tests.support.refusals import refused
from trainer.contracts.cells import CodePage
from trainer.contracts.errors import ErrorCode
from trainer.contracts.readings import Measure, ReadingOptions, TableOptions
from trainer.data.rows import TextFile
from trainer.reading.request import check_sent, reading_request, reduced
from trainer.reading.tables import WRITTEN, Text, Times, Unit, check_measures, read_times, unit_parts, written_times
from trainer.reports.report_text import ENGLISH

Rows = Mapping[str, Mapping[Measure, float]]
"""The times of rows, by text, position, word and person between slashes."""
OPTIONS = TableOptions()
OWN = "text,position,word,person,rt\na,1,The,p,300\na,2,dog,p,420\na,1,The,q,250.5\na,2,dog,q,\n"


def read(name: str, content: str | bytes, options: TableOptions = OPTIONS, separator: str | None = None) -> Times:
    return read_times(TextFile(name, content if isinstance(content, bytes) else content.encode()), options, separator)


def rows_of(times: Times) -> Rows:
    """Return the times of all rows; those without a time are left out."""
    found: dict[str, dict[Measure, float]] = {}
    for row, (number, person) in enumerate(zip(times.unit, times.person, strict=True)):
        unit = times.units[number]
        name = f"{times.texts[unit.text].name}/{unit.position}/{unit.word}"
        key = f"{name}/{times.persons[person]}" if times.persons else name
        found[key] = {measure: of[row] for measure, of in times.values.items() if not isnan(of[row])}
    return found


def notes_of(times: Times) -> list[str]:
    """Return the notes but for the one on the columns."""
    return [ENGLISH.note(one) for one in times.data.notes[1:]]


def spellings_note(rows: str, line: int) -> str:
    words = f"Words that differ in case or punctuation from earlier rows: {rows}, first in line {line}."
    return f"{words} The first spelling is scored."


def eyes(first_fixation: float, gaze: float, go_past: float, total: float, skipping: float = 0) -> dict[Measure, float]:
    return {
        "first_fixation": first_fixation,
        "gaze": gaze,
        "go_past": go_past,
        "total": total,
        "skipping": skipping,
    }


class Form(NamedTuple):
    """A small table in the form of a data set, and what stands in it."""

    name: str
    content: str | bytes
    rows: Rows
    items: Sequence[str] = ()
    """Items of the texts, where these are not the texts."""


FORMS = {
    "provo": Form(
        "Provo_Corpus-Eyetracking_Data.csv",
        (
            "RECORDING_SESSION_LABEL,Participant_ID,Text_ID,Word_Number,Word,IA_ID,IA_LABEL,TRIAL_INDEX,"
            "IA_FIRST_FIXATION_DURATION,IA_FIRST_RUN_DWELL_TIME,IA_REGRESSION_PATH_DURATION,IA_DWELL_TIME,IA_SKIP\n"
            "Sub01,Sub01,3,NA,NA,1,It\u2019s ,9,.,.,.,0,1\n"
            "Sub01,Sub01,3,2,TRUE,2,true ,9,176,301,301,477,0\n"
        ).encode("cp1252"),
        {"3/1/It\u2019s/Sub01": {"skipping": 1}, "3/2/true/Sub01": eyes(176, 301, 301, 477)},
    ),
    "onestop": Form(
        "ia_Paragraph.csv",
        "participant_id,article_batch,article_id,difficulty_level,paragraph_id,paragraph,IA_ID,IA_LABEL,"
        "IA_FIRST_FIXATION_DURATION,IA_FIRST_RUN_DWELL_TIME,IA_REGRESSION_PATH_DURATION,IA_DWELL_TIME,IA_SKIP\n"
        "l1_1,1,4,Adv,2,Bees hum,1,Bees,200,200,200,200,0\nl1_1,1,4,Adv,2,Bees hum,2,hum,210,220,230,240,0\n"
        "l2_2,1,4,Ele,2,Bees buzz,1,Bees,.,.,.,0,1\nl2_2,1,4,Ele,2,Bees buzz,2,buzz,150,150,400,500,0\n",
        {
            "1:4:2:Adv/1/Bees/l1_1": eyes(200, 200, 200, 200),
            "1:4:2:Adv/2/hum/l1_1": eyes(210, 220, 230, 240),
            "1:4:2:Ele/1/Bees/l2_2": {"skipping": 1},
            "1:4:2:Ele/2/buzz/l2_2": eyes(150, 150, 400, 500),
        },
        ["1:4:2", "1:4:2"],
    ),
    "celer": Form(
        "sent_ia.tsv",
        "RECORDING_SESSION_LABEL\ttrial\tsentenceid\tsentence\tIA_ID\tIA_LABEL\tIA_FIRST_FIXATION_DURATION\tIA_SKIP\n"
        'l1\t7\tWSJ_1\tHe said "no".\t3\t"no".\t180\t0\nl1\t7\tWSJ_1\tHe said "no".\t2\tsaid\t.\t1\n',
        {'WSJ_1/3/"no"./l1': {"first_fixation": 180, "skipping": 0}, "WSJ_1/2/said/l1": {"skipping": 1}},
    ),
    "geco": Form(
        "MonolingualReadingData.csv",
        "PP_NR,PART,TRIAL,WORD_ID_WITHIN_TRIAL,WORD_ID,WORD,WORD_FIRST_FIXATION_DURATION,WORD_GAZE_DURATION,"
        "WORD_GO_PAST_TIME,WORD_TOTAL_READING_TIME,WORD_SKIP\n"
        "pp21,1,5,1,1-5-1,  There\u00a0,187,330,330,330,0\npp21,2,5,1,2-5-1,A,.,.,.,.,1\n",
        {"1:5/1/There/pp21": eyes(187, 330, 330, 330), "2:5/1/A/pp21": {"skipping": 1}},
    ),
    "meco": Form(
        "joint_data_trimmed.csv",
        '"","uniform_id","lang","trialid","itemid","ianum","ia","dur","firstrun.dur","firstrun.gopast","firstfix.dur",'
        '"skip","firstrun.skip"\n'
        '"1","en_3","en",1,1,1,"In",520,210,0,210,0,1\n"2","en_3","en",1,1,2,"Rome",NA,NA,NA,NA,1,NA\n'
        '"3","tr_1","tr",1,1,1,"Roma",250,250,250,250,0,0\n',
        {
            "1:en/1/In/en_3": {"total": 520, "skipping": 1},
            "1:en/2/Rome/en_3": {"skipping": 1},
            "1:tr/1/Roma/tr_1": eyes(250, 250, 250, 250),
        },
        ["1", "1"],
    ),
    "ucl eye-tracking": Form(
        "eyetracking.RT.txt",
        "subj_nr\tsent_nr\tsent_pos\tword_pos\tword\tRTfirstfix\tRTfirstpass\tRTrightbound\tRTgopast\tcorrect\n"
        "1\t2\t40\t1\tShe\t0\t0\t0\t0\tc\n1\t2\t40\t2\tran.\t151\t300\t300\t411\tc\n",
        {
            "2/1/She/1": {"skipping": 1},
            "2/2/ran./1": {"first_fixation": 151, "gaze": 300, "go_past": 411, "skipping": 0},
        },
    ),
    "ucl self-paced": Form(
        "selfpacedreading.RT.txt",
        "subj_nr\tsent_nr\tsent_pos\tcorrect\tanswer_time\tword_pos\tword\tRT\n3\t2\t8\t-\tNaN\t1\tShe\t322.5\n",
        {"2/1/She/3": {"self_paced": 322.5}},
    ),
    "potec": Form(
        "reader0_b0_merged.tsv",
        "reader_id\ttext_id\tword_index_in_text\tword\tFFD\tSFD\tFD\tFPRT\tTFT\tRPD_inc\tFix\n"
        "0\tb0\t1\tDie\t0\t0\t99\t0\t99\t0\t1\n0\tb0\t2\tZelle,\t205\t205\t205\t205\t205\t205\t1\n",
        {"b0/1/Die/0": {"total": 99, "skipping": 1}, "b0/2/Zelle,/0": eyes(205, 205, 205, 205)},
    ),
    "emtec": Form(
        "reading_measures.csv",
        "subject_id\titem_id\tmodel\tdecoding_strategy\tTRIAL_ID\tword_index\tword\tFFD\tFPRT\tRPD_inc\tTFT\n"
        "ET_01\titem07\tphi2\ttopk\t4\t0\tOnce\t110\t120\t130\t140\n"
        "ET_02\titem07\tmistral\ttopk\t9\t0\tTwo\t0\t0\t0\t240\n",
        {
            "item07:phi2/0/Once/ET_01": eyes(110, 120, 130, 140),
            "item07:mistral/0/Two/ET_02": {"total": 240, "skipping": 1},
        },
        ["item07", "item07"],
    ),
    "copco": Form(
        "P02.csv",
        "part,trialId,speechId,paragraphId,sentenceId,wordId,word,char_IA_ids,word_first_fix_dur,word_first_pass_dur,"
        "word_go_past_time,word_total_fix_dur,number_of_fixations\n"
        '1,11,7905,0,612,0,I,[1],,,,,0\n1,11,7905,0,612,1,af,"[2, 3]",117.0,272.0,272.0,696.0,4\n',
        {
            "7905:0/0/I": {},
            "7905:0/1/af": {"first_fixation": 117, "gaze": 272, "go_past": 272, "total": 696},
        },
    ),
    "natural stories": Form(
        "processed_RTs.tsv",
        "WorkerId\tWorkTimeInSeconds\tcorrect\titem\tzone\tRT\tword\tnItem\tmeanItemRT\n"
        'A1\t900\t6\t9\t310\t408\t"Admiral,\t76\t420.1\nA1\t900\t6\t9\t311\t333\tsir"\t76\t400.4\n',
        {'9/310/"Admiral,/A1': {"self_paced": 408}, '9/311/sir"/A1': {"self_paced": 333}},
    ),
    "brown": Form(
        "brown_spr.csv",
        ",word,code,subject,text_id,text_pos,word_in_exp,time\n1,N. Y.,17000,s1,0,0,10,350.98\n",
        {"0/0/N. Y./s1": {"self_paced": 350.98}},
    ),
    "pymovements": Form(
        "measures.csv",
        "subject_id,text_id,word_index,word,FFD,SFD,FD,FPRT,TFT,RPD_inc,Fix,skipped\n1,x,0,The,0,0,90,0,90,0,1,0\n"
        "1,x,1,cat,0,0,0,0,0,0,0,1\n",
        {"x/0/The/1": {"total": 90, "skipping": 0}, "x/1/cat/1": {"skipping": 1}},
    ),
    "regions": Form(
        "items.csv",
        "item;condition;region;text;person;RT\n1;a;1;The cat;p;500\n1;a;2;sat.;p;400\n1;b;1;The cats;q;510\n",
        {
            "1:a/1/The cat/p": {"self_paced": 500},
            "1:a/2/sat./p": {"self_paced": 400},
            "1:b/1/The cats/q": {"self_paced": 510},
        },
        ["1", "1"],
    ),
    "own": Form(
        "own.csv",
        OWN,
        {
            "a/1/The/p": {"self_paced": 300},
            "a/2/dog/p": {"self_paced": 420},
            "a/1/The/q": {"self_paced": 250.5},
            "a/2/dog/q": {},
        },
    ),
    "own in JSON Lines": Form(
        "own.jsonl",
        '{"text": 1, "position": 1.0, "word": "The", "maze": 700, "skipping": true}\n'
        '{"text": 1, "position": 2, "word": "dog", "maze": null, "skipping": false, "tags": ["x"]}\n',
        {"1/1/The": {"maze": 700, "skipping": 1}, "1/2/dog": {"skipping": 0}},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_form__is_read_as_it_is_published(name: str) -> None:
    form = FORMS[name]
    times = read(form.name, form.content)
    assert rows_of(times) == form.rows
    items = [text.item for text in times.texts]
    assert items == [*form.items] if form.items else items == [text.name for text in times.texts]
    assert times.data.n_texts == len(times.texts) and times.data.n_units == len(times.units)
    assert [unit for text in times.texts for unit in text.units] == times.units
    assert times.data.n_persons == len(times.persons) and times.data.measures == tuple(times.values)


@pytest.mark.parametrize("name", FORMS)
def test_reduced__is_the_same_table_without_options(name: str) -> None:
    form = FORMS[name]
    whole = TextFile(form.name, form.content if isinstance(form.content, bytes) else form.content.encode())
    times, small = read_times(whole, OPTIONS), reduced(whole, OPTIONS)
    again = read(small.file.name, small.file.content, WRITTEN)
    assert (again.texts, again.units, again.persons) == (times.texts, times.units, times.persons)
    assert rows_of(again) == rows_of(times) and again.is_running == times.is_running
    assert small.notes == times.data.notes


def test_reduced__has_the_known_columns_of_some_measures() -> None:
    form = FORMS["onestop"]
    assert isinstance(form.content, str)
    file = TextFile(form.name, form.content.encode())
    assert reduced(file, OPTIONS, ["gaze", "skipping"]).file.content == (
        "text,item,position,word,person,gaze,skipping,running_text\n"
        "1:4:2:Adv,1:4:2,1,Bees,l1_1,200,0,Bees hum\n1:4:2:Adv,1:4:2,2,hum,l1_1,220,0,\n"
        "1:4:2:Ele,1:4:2,1,Bees,l2_2,,1,Bees buzz\n1:4:2:Ele,1:4:2,2,buzz,l2_2,150,0,\n"
    )
    with refused(
        ErrorCode.INVALID_INPUT, "has no times of maze, but of first_fixation, gaze, go_past, total, skipping."
    ):
        reduced(file, OPTIONS, ["maze"])
    long = f"a,1,The,{'p' * 10_000_000},300\n".encode()
    request = reading_request(ReadingOptions(), ["lstm-1"], TextFile("own.csv", OWN[:29].encode() + long))
    with refused(ErrorCode.PAYLOAD_TOO_LARGE, "has 10,000,050 characters in the columns that are read") as error:
        check_sent(request)
    assert "run `mt reading` on the machine of the server" in str(error.value)


def test_request__has_the_notes_on_a_report_of_eyelink_with_many_long_names() -> None:
    others = [f"IA_FIRST_FIXATION_VISITED_IA_COUNT_{number:060}" for number in range(100)]
    header = "participant_id,text_id,IA_ID,IA_LABEL,IA_FIRST_RUN_DWELL_TIME"
    content = f"{header},{','.join(others)}\np,1,1,The,300{',.' * 100}\n"
    table = TextFile("report.csv", content.encode())
    note = reading_request(ReadingOptions(), ["lstm-1"], table).file.notes[0]
    assert note.endswith("` and 80 more.") and len(note) > 1500


def test_columns__have_the_names_of_the_option_before_others() -> None:
    content = "rt,RT_ms,A,B,pos,word,Who\n1,300,x,1,1,The,p\n2,400,x,2,1,A,q\n"
    columns = {"self_paced": "RT_ms", "text": "A+B", "position": "pos", "person": "Who"}
    times = read("t.csv", content, TableOptions(columns=columns))
    assert rows_of(times) == {"x:1/1/The/p": {"self_paced": 300}, "x:2/1/A/q": {"self_paced": 400}}
    assert ENGLISH.note(times.data.notes[0]) == (
        "Columns: `A` (text), `B` (text), `pos` (position), `word` (word), `Who` (person), `RT_ms` (self_paced);"
        " not read: `rt`."
    )


@pytest.mark.parametrize(
    ("header", "columns", "said"),
    [
        (
            "text,word,spot,rt",
            {},
            "'t.csv': no column is known as that of the position in it: it has `text`, `word`, `spot`, `rt`. Name it in"
            " `columns` (`--column position=NAME`).",
        ),
        (
            "a,b",
            {},
            "the text and the position in it and the word and the reading time: it has `a`, `b`. Name it in `columns`"
            " (`--column text=NAME --column position=NAME --column word=NAME --column self_paced=NAME`).",
        ),
        ("text,position,word,RT,Rt", {}, "`RT`, `Rt` could each be the column of self_paced: name one in `columns`"),
        ("text,position,word,rt", {"words": "word"}, "has an unknown name 'words'; did you mean `word`?"),
        ("text,position,word,rt", {"zz": "word"}, "has an unknown name 'zz': known are text, item, position, word,"),
        ("text,position,word,rt", {"word": "w"}, "`columns` names 'w', but the table has: `text`, `position`, `word`,"),
        ("text,position,word,rt", {"text": "text+w"}, "`columns` names 'w', but the table has"),
        ("text,position,word,rt,rt", {}, "line 1 names the column 'rt' more than once."),
    ],
)
def test_column__that_is_absent_or_ambiguous_is_refused_with_those_of_the_table(
    header: str, columns: Mapping[str, str], said: str
) -> None:
    row = ",".join("1" for _ in header.split(","))
    with refused(ErrorCode.INVALID_INPUT, said):
        read("t.csv", f"{header}\n{row}\n", TableOptions(columns=columns))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,1,The,p,x", "line 2 must have a time in milliseconds such as 350.5 in `rt`, or nothing, not 'x'."),
        ("a,1,The,p,-1", "line 2 must have a time in milliseconds such as 350.5 in `rt`, or nothing, not '-1'."),
        ("a,1,The,p,inf", "line 2 must have a time in milliseconds"),
        ("a,1,The,p,TRUE", "line 2 must have a time in milliseconds"),
        ("a,one,The,p,1", "line 2 must have a whole number in `position`, not 'one'."),
        ("a,1,The,p,1\na,1,A,q,1", "line 3 has the word 'A' where line 2 has 'The': position 1 of text 'a'. Name all"),
        ("a,1,NA,p,1", "it has no row with a text, a position, a word and a person."),
        ("a,1,The,p,0\na,2,dog,p,NA", "it has no times: their cells are empty or 0."),
        ("", "it has no row with a text, a position, a word and a person."),
    ],
)
def test_row__that_is_wrong_is_refused_with_its_line(rows: str, said: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, said):
        read("t.csv", f"text,position,word,person,rt\n{rows}\n")


def test_row__of_json_with_a_list_is_refused_where_it_is_read() -> None:
    with refused(ErrorCode.INVALID_INPUT, "line 1 has a list or an object in `word`, and no text or number."):
        read("t.jsonl", '{"text": "a", "position": 1, "word": ["The"], "rt": 3}')


def test_skipping__is_1_or_0_of_persons_and_a_share_of_means() -> None:
    for share, wanted in (
        ("2", "1 for a skipped unit, 0 for another, or the share of readings that skip it"),
        ("0.5", "1 for a unit that the person skips or 0"),
    ):
        with refused(ErrorCode.INVALID_INPUT, f"line 2 must have {wanted} in `skip`, or nothing, not '{share}'."):
            read("t.csv", f"text,position,word,person,skip\na,1,The,p,{share}\n")
    assert rows_of(read("t.csv", "text,position,word,skip\na,1,The,0.25\n")) == {"a/1/The": {"skipping": 0.25}}


def test_skipping__that_does_not_differ_is_no_measure() -> None:
    for skip in ("", ",skip"):
        zero = skip and ",0"
        times = read("t.csv", f"text,position,word,person,gaze{skip}\na,1,The,p,200{zero}\na,2,dog,p,210{zero}\n")
        assert times.data.measures == ("gaze",)
        assert notes_of(times) == ["Left out: skipping, as all units are skipped or none."]


def test_times__of_a_table_between_semicolons_may_have_decimal_commas() -> None:
    header, rows = "text;position;word;person;rt\n", "a;1;The;p;300,25\na;2;dog;p;1.5\n"
    times = read("t.csv", header + rows)
    assert rows_of(times) == {"a/1/The/p": {"self_paced": 300.25}, "a/2/dog/p": {"self_paced": 1.5}}
    assert notes_of(times) == ["Read as decimal marks: the commas in `rt`."]
    with refused(
        ErrorCode.INVALID_INPUT,
        "`rt` has cells such as '1,300': write 1300 for a thousand and more, or 1.300 for a decimal mark.",
    ):
        read("t.csv", header + "a;1;The;p;1,300\na;2;dog;p;310\n")
    by_points = "a;1;The;p;300\na;2;old;p;310\na;3;dog;p;1.300\n"
    with refused(
        ErrorCode.INVALID_INPUT,
        "`rt` has cells such as '1.300': write 1300 for a thousand and more, or 1,300 for a decimal mark.",
    ):
        read("t.csv", header + by_points)
    assert read("t.csv", header + by_points.replace("310", "310.125")).values["self_paced"][1] == 310.125
    assert read("t.csv", (header + by_points).replace(";", ",")).values["self_paced"][2] == 1.3
    with refused(ErrorCode.INVALID_INPUT, "line 2 must have a time in milliseconds such as 350.5 in `rt`, or nothing"):
        read("t.csv", f'{header.replace(";", ",")}a,1,The,p,"300,25"\n')


@pytest.mark.parametrize("time", ["0.35", "5.86", "350000"])
def test_times__in_seconds_logarithms_or_microseconds_are_refused(time: str) -> None:
    times = read("t.csv", f"text,position,word,rt\na,1,The,{time}\na,2,dog,{time}\n")
    said = f"'t.csv' has a median of {time} for self_paced: times must be milliseconds, such as 350."
    with refused(ErrorCode.INVALID_INPUT, said):
        check_measures(times, ())


def test_means__are_times_without_persons_and_each_unit_comes_once() -> None:
    times = read("t.csv", "text,position,word,gaze\na,1,The,0\na,2,dog,210.5\n")
    assert times.persons == () and times.data.n_persons == 0 and [*times.person] == [0, 0]
    assert times.data.measures == ("gaze",)
    assert notes_of(times) == [
        "No column is known as that of the person: the times are read as means of units.",
        "Read as without a time: 1 cell of 0.",
    ]
    with refused(
        ErrorCode.INVALID_INPUT, "line 4 has the unit 'The' of line 2 again, and no column is known as that of"
    ):
        read("t.csv", "text,position,word,who,rt\na,1,The,p,300\na,2,dog,p,310\na,1,The,q,320\n")


def test_notes__tell_each_guess() -> None:
    content = (
        "text,position,word,person,gaze,total,maze,skip\n"
        "a,1,Dogs,p,0,300,,1\na,1,dogs.,q,200,300,,0\na,1,dogs,q,201,300,,0\na,4,bark,p,200,200,,1\n,1,The,p,200,200,,0\n"
        "a,5,now,p,200,200,,0\n"
    )
    times = read("t.csv", content)
    assert times.units == [Unit(0, 1, "Dogs", 0, 4), Unit(0, 4, "bark", 5, 9), Unit(0, 5, "now", 10, 13)]
    assert times.texts == [Text("a", "a", "Dogs bark now", 0, times.units)]
    assert rows_of(times) == {
        "a/1/Dogs/p": {"total": 300, "skipping": 1},
        "a/1/Dogs/q": {"gaze": 200, "total": 300, "skipping": 0},
        "a/4/bark/p": {"total": 200, "skipping": 1},
        "a/5/now/p": {"gaze": 200, "total": 200, "skipping": 0},
    }
    assert notes_of(times) == [
        "Left out: 1 row without a text, position, word or person, first in line 6.",
        spellings_note("2 rows", 3),
        "Left out: 1 row of a person and a unit that an earlier row has, first in line 4.",
        "No times in `maze`.",
        "Read as without a time: 1 cell of 0.",
        "Read as without a time in `gaze`, as the first pass skips the unit: 1 row with that of a later visit.",
        "Words of 1 text have no rows, first before position 4 of text a: surprisal is computed without them, and the"
        " next units have no unit before. A column `running_text` with the whole text of a row gives them.",
    ]


def test_conditions__are_named_where_texts_need_them() -> None:
    header = "item,condition,list,position,word,person,rt\n"
    same = read("t.csv", header + "1,a,x,1,The,p,300\n1,b,y,1,The,q,310\n")
    assert [text.name for text in same.texts] == ["1"] and notes_of(same) == []
    other = read("t.csv", header + "1,a,x,1,The,p,300\n1,b,y,1,A,q,310\n")
    assert [text.name for text in other.texts] == ["1:a", "1:b"]
    assert notes_of(other) == ["Part of the names of texts, as words differ between conditions: `condition`."]
    both = read("t.csv", header + "1,a,x,1,The,p,300\n1,a,y,1,A,q,310\n1,b,y,1,An,q,310\n1,b,x,1,No,q,310\n")
    assert [text.name for text in both.texts] == ["1:a:x", "1:a:y", "1:b:y", "1:b:x"]
    lists = read("t.csv", header + "1,a,x,1,The,p,300\n1,a,y,1,A,q,310\n")
    assert [text.name for text in lists.texts] == ["1:x", "1:y"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u0936\u093e", "\u0936\u0940"),  # two vowel signs of Devanagari
        ("\u0e1b\u0e48\u0e32", "\u0e1b\u0e49\u0e32"),  # two tone marks of Thai
        ("caf\u00e9", "cafe"),
        ("t\u02b0", "t"),
        ("\U0001f600", "\U0001f622"),
        ("5\u20ac", "5$"),
    ],
)
def test_words__that_differ_in_marks_or_symbols_are_different_words(one: str, other: str) -> None:
    header = "item,condition,position,word,person,rt\n"
    rows = f"1,a,1,{one},p,300\n1,a,2,and,p,300\n1,b,1,{other},q,300\n1,b,2,and,q,300\n"
    assert [unit.word for unit in read("t.csv", header + rows).units] == [one, "and", other, "and"]
    with refused(ErrorCode.INVALID_INPUT, f"line 4 has the word '{other}' where line 2 has '{one}'"):
        read("t.csv", header.replace("condition", "other") + rows)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u0130stanbul", "istanbul"),
        ("don\u2019t", "don\ufffdt"),
        ("don`t", "don't"),
        ("\u2764\ufe0f", "\u2764"),
    ],
)
def test_words__that_differ_in_encoding_case_or_punctuation_are_the_same_word(one: str, other: str) -> None:
    times = read("t.csv", f"text,position,word,person,rt\na,1,{one},p,300\na,1,{other},q,300\n")
    assert [unit.word for unit in times.units] == [one] and notes_of(times) == [spellings_note("1 row", 3)]


def test_spellings__that_conditions_tell_apart_are_each_scored() -> None:
    rows = "1,a,1,its,p,300\n1,a,1,its,r,300\n1,b,1,it's,q,300\n"
    content = f"item,condition,position,word,person,rt\n{rows}"
    times = read("t.csv", content)
    assert [(text.name, text.item, text.running) for text in times.texts] == [("1:a", "1", "its"), ("1:b", "1", "it's")]
    assert notes_of(times) == ["Part of the names of texts, as words differ between conditions: `condition`."]
    first = [spellings_note("1 row", 4)]
    by_option = read("t.csv", content, TableOptions(columns={"text": "item"}))
    assert ([text.name for text in by_option.texts], notes_of(by_option)) == (["1"], first)
    mixed = read("t.csv", f"{content}1,b,1,its,s,300\n")
    assert ([text.name for text in mixed.texts], notes_of(mixed)) == (["1"], first)


def test_item__that_differs_within_a_text_is_none() -> None:
    header = "text_id,item,position,word,person,rt\n"
    content = f"{header}a,1,1,The,p,300\na,2,2,dog,p,300\nb,,1,A,p,300\nb,3,2,cat,p,300\n"
    times = read("t.csv", content)
    assert [text.item for text in times.texts] == ["a", "b"]
    assert "`item`" in ENGLISH.note(times.data.notes[0]).partition("not read: ")[2]
    assert notes_of(times) == ["Not read as items, as it differs within texts: `item`."]
    with refused(ErrorCode.INVALID_INPUT, "the column `item` has several items in the text 'a': name one"):
        read("t.csv", content, TableOptions(columns={"item": "item"}))
    assert [text.item for text in read("t.csv", content.replace("a,2", "a,1")).texts] == ["1", "3"]


def test_positions__by_tens_are_those_of_neighbours() -> None:
    rows = [f"{text},{position},w{position},p,300\n" for text in "ab" for position in (10, 20, 30)]
    times = read("t.csv", f"text,position,word,person,rt\n{''.join(rows)}")
    assert "Read as neighbours: units whose positions differ by 10." in notes_of(times)
    assert not any("have no rows" in said for said in notes_of(times))
    without = read("t.csv", f"text,position,word,person,rt\n{''.join([*rows[:1], *rows[2:]])}")
    assert any("Words of 1 text have no rows, first before position 30 of text a" in said for said in notes_of(without))


@pytest.mark.parametrize("first", [0, 1])
def test_positions__start_at_0_or_1_without_a_gap(first: int) -> None:
    rows = "".join(f"a,{position},w{position},p,300\n" for position in (first + 1, first, first + 2))
    times = read("t.csv", f"text,position,word,person,rt\n{rows}")
    assert [unit.position for unit in times.units] == [first, first + 1, first + 2]
    assert notes_of(times) == []


def test_running_text__has_the_exact_characters_of_units_and_what_stands_between_them() -> None:
    running = "Landscape\u3000\u2013 ape a nap,  man!"
    content = "text_id\ttext\tposition\tword\tperson\trt\n" + "".join(
        f"1\t{running}\t{position}\t{word}\tp\t300\n"
        for position, word in [(2, "ape"), (4, "a"), (5, "nap"), (6, "man")]
    )
    times = read("t.tsv", content)
    one_line = "Landscape \u2013 ape a nap, man!"
    assert times.is_running and times.texts == [Text("1", "1", one_line, 0, times.units)]
    assert unit_parts(times.texts[0]) == (
        ["Landscape \u2013", " ape", " a", " nap", ",", " man", "!"],
        [1, 2, 3, 5],
    )
    assert notes_of(times) == [
        "Words of 1 text have no rows, first `Landscape` in text 1: they are context of the others.",
    ]


def test_running_text__is_read_only_if_each_text_has_one_with_all_units() -> None:
    rows = "1,1,The,p,300,The dog.\n1,2,dog,p,300,{}\n"
    header = "text,position,word,person,rt,sentence\n"
    assert read("t.csv", header + rows.format("The dog.")).is_running
    assert read("t.csv", header + "1,1,do,p,300,I don't.\n1,2,n't,p,300,\n").is_running
    for other in ("The cat.", "A dog."):
        assert not read("t.csv", header + rows.format(other)).is_running
    option = TableOptions(columns={"running_text": "sentence"})
    with refused(
        ErrorCode.INVALID_INPUT, "the column `sentence` has not one running text of '1' with its units in their"
    ):
        read("t.csv", header + rows.format("The cat."), option)


def table_of(words: Sequence[str], sentence: str | None = None) -> str:
    """Return a table of one text, as JSON Lines."""
    of_text: dict[str, str] = {} if sentence is None else {"sentence": sentence}
    return "".join(
        _json_line(text="a", position=place, word=word, person="p", rt=300 + place, **of_text)
        for place, word in enumerate(words)
    )


def written(times: Times) -> list[str]:
    """Return the characters of the units in the running text."""
    return [times.texts[unit.text].running[unit.start : unit.end] for unit in times.units]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("T\u006f\u0302i u\u006f\u0302\u0301ng", "T\u00f4i u\u1ed1ng."),  # decomposed and composed
        ("T\u00f4i u\u1ed1ng", "To\u0302i uo\u0302\u0301ng."),
        ("I don't", "I don\u2019t."),
        ("I don\u2019t", "I don't."),
        ("don`t", "don\u02bct"),
        ('say "no"', "say \u201cno\u201d!"),
        ("say '' no ''", "say \u201eno\u201c!"),
        ("the well\u2011known man", "the well-known man"),
        ("the well-known man", "the well\u2010known man"),
        ("a -- b", "a \u2013 b"),
        ("well ...", "well\u2026"),
        ("the \u0130stanbul", "The istanbul"),
        ("stra\u00dfe", "Strasse"),
        ("Donau\u00addampf", "Donaudampf"),
        ("\ufeffthe dog\u200b", "the do\u200bg"),
        ("a&amp;b", "a&b"),
        ("a&b", "a&amp;b"),
    ],
)
def test_running_text__has_words_in_another_spelling(words: str, sentence: str) -> None:
    units = words.split()
    times = read("t.jsonl", table_of(units, sentence))
    assert times.is_running and len(times.units) == len(units)
    assert [unit.word for unit in times.units] == written(times)
    plain = unescape(unicodedata.normalize("NFC", sentence)).replace("\ufeff", "").rstrip(".!")
    assert "".join(written(times)).replace(" ", "") == plain.replace(" ", ""), "as it is written in the text"
    again = read("t.csv", written_times(times), WRITTEN)
    assert (again.texts, again.units, notes_of(again)) == (times.texts, times.units, [])


def test_running_text__is_told_where_words_are_spelled_otherwise_or_absent() -> None:
    times = read("t.jsonl", table_of(["i", "don't", "know"], "I don\u2019t know."))
    assert "Spelled otherwise in `sentence`: 2 words, first `i` as `I`. The spelling there is scored." in notes_of(
        times
    )
    rest = table_of(["i", "don't", "go"], "I don\u2019t know.")
    said = "Not read as running texts, as `go` of text a is not in its place there: `sentence`."
    assert said in notes_of(read("t.jsonl", rest))
    overlapping = table_of(["oh", ".", ".."], "oh\u2026")
    assert not read("t.jsonl", overlapping).is_running, "a sign is not cut"
    with refused(ErrorCode.INVALID_INPUT, "the column `sentence` has in the text 'a' no 'go' in its place."):
        read("t.jsonl", rest, TableOptions(columns={"running_text": "sentence"}))
    number = notes_of(read("t.jsonl", table_of(["i", "know"], "7")))
    assert not any("running texts" in note for note in number), "the number of a sentence is none"


def test_units__are_in_nfc() -> None:
    times = read("t.jsonl", table_of(["To\u0302i", "\u0928\u093f"]))
    assert [len(unit.word) for unit in times.units] == [3, 2], "marks that have no composed letter remain"


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        ("he did n't see the old man , but he knew .", "he didn't see the old man, but he knew."),
        ("the boy 's dog ca n\u2019t we \u2019ll IT 'S", "the boy's dog can\u2019t we\u2019ll IT'S"),
        ('" come here " , she said .', '"come here", she said.'),
        ('she said " no ! " twice', 'she said "no!" twice'),
        ('"Admiral, sir" he said', '"Admiral, sir" he said'),
        (
            "\u201c oh \u201d \u201e ja \u201c \u00bb hej \u00ab \u00ab oui \u00bb",
            "\u201coh\u201d \u201eja\u201c \u00bbhej\u00ab \u00aboui\u00bb",
        ),
        ("`` a '' b", "``a'' b"),
        ("this ( or that ) [ sic ] \u00bf no ?", "this (or that) [sic] \u00bfno?"),
        ("the dogs' house 'tis rock 'n' roll", "the dogs' house 'tis rock 'n' roll"),
        ("l' homme qu' il dell' arte", "l'homme qu'il dell'arte"),
        ("about .5 or 5 % ...", "about .5 or 5%..."),
        ("\u6211 \u65e9\u4e0a \u559d \u3002", "\u6211\u65e9\u4e0a\u559d\u3002"),
        ("\u0e40\u0e02\u0e32 \u0e01\u0e34\u0e19", "\u0e40\u0e02\u0e32\u0e01\u0e34\u0e19"),
        ("\ub098\ub294 \uac04\ub2e4 a \u2013 b", "\ub098\ub294 \uac04\ub2e4 a \u2013 b"),
    ],
)
def test_units__are_joined_as_a_text_is_usually_written(words: str, whole: str) -> None:
    times = read("t.jsonl", table_of(words.split()))
    assert times.texts[0].running == whole
    assert written(times) == words.split()
    joints = [said for said in notes_of(times) if said.startswith("Joined without a space")]
    assert len(joints) == (words != whole)
    spaced = read("t.jsonl", table_of(words.split()), separator=" ")
    assert spaced.texts[0].running == words and not any("Joined" in said for said in notes_of(spaced))


def test_units__that_are_joined_without_a_space_are_told_with_an_example() -> None:
    assert notes_of(read("t.jsonl", table_of(["he", "did", "n't", "go", "."])))[-1] == (
        "Joined without a space, as is usual before punctuation, in clitics and in scripts without spaces: 2 units,"
        " first `didn't`. `separator` (`--set separator=' '`) gives another; a column `running_text` has the texts as"
        " they are written."
    )


def test_separator__stands_between_the_units() -> None:
    content = "text,position,word,rt\na,1,\u4ed6,300\na,2,\u6765\u4e86,310\n"
    for separator, whole in [("", "\u4ed6\u6765\u4e86"), (" ", "\u4ed6 \u6765\u4e86"), ("-", "\u4ed6-\u6765\u4e86")]:
        times = read("t.csv", content, separator=separator)
        assert times.texts[0].running == whole
        assert written(times) == ["\u4ed6", "\u6765\u4e86"]


@pytest.mark.parametrize(
    ("cells", "read_as", "said"),
    [
        (
            ["hope%2C", "out,", "50%25", "5%"],
            ["hope,", "out,", "50%", "5%"],
            "2 spellings of `word`, first `hope%2C` as `hope,`",
        ),
        (["R%26D", "100%25"], ["R%26D", "100%25"], None),  # no table of Ibex
        (
            ["Q&amp;A", "&quot;no&#39;", "a&b"],
            ["Q&A", "\"no'", "a&b"],
            "2 spellings of `word`, first `Q&amp;A` as `Q&A`",
        ),
        (
            ["Donau\u00addampf", "\ufeffthe", "a\u00a0b\u200b"],
            ["Donaudampf", "the", "a b"],
            "2 spellings of `word`, first",
        ),
    ],
)
def test_cells__are_read_as_the_signs_that_they_stand_for(
    cells: Sequence[str], read_as: Sequence[str], said: str | None
) -> None:
    times = read("t.jsonl", table_of(cells), separator=" ")
    assert [unit.word for unit in times.units] == read_as
    found = [note for note in notes_of(times) if note.startswith("Read as the signs that they stand for")]
    assert len(found) == (said is not None) and all(f"{said}" in note for note in found)
    again = read("t.csv", written_times(times), WRITTEN, " ")
    assert (again.units, notes_of(again)) == (times.units, [])


def test_cells__of_ibex_that_decode_to_the_same_text_are_equal() -> None:
    header = "text,position,word,person,rt\n"
    times = read("t.csv", header + 'a,1,no%2c,p,300\na,1,"no,",q,300\na,1,no%2C,r,300\nb,1,x%20,p,300\nb,1,x,NA,1\n')
    assert [unit.word for unit in times.units] == ["no,", "x"] and len(times.unit) == 4


@pytest.mark.parametrize("measure", ["first_fixation", "gaze", "go_past"])
def test_first_pass__has_no_time_of_a_unit_that_it_skips(measure: Measure) -> None:
    rows = "a,1,The,p,1,250,300\na,2,dog,p,0,260,310\na,3,ran,p,1,,\na,1,The,q,TRUE,1,0\n"
    times = read("t.csv", f"text,position,word,person,IA_SKIP,{measure},total\n{rows}")
    assert rows_of(times) == {
        "a/1/The/p": {"total": 300, "skipping": 1},
        "a/2/dog/p": {measure: 260, "total": 310, "skipping": 0},
        "a/3/ran/p": {"skipping": 1},
        "a/1/The/q": {"skipping": 1},
    }
    said = (
        f"Read as without a time in `{measure}`, as the first pass skips the unit: 2 rows with that of a later visit."
    )
    assert said in notes_of(times)
    assert not any("later visit" in note for note in notes_of(read("t.csv", written_times(times), WRITTEN)))


def test_total__keeps_the_times_of_later_visits() -> None:
    times = read("t.csv", "text,position,word,person,skip,total\na,1,The,p,1,300\na,2,dog,p,0,310\n")
    assert rows_of(times)["a/1/The/p"] == {"total": 300, "skipping": 1}
    assert notes_of(times)[:1] == ["Skipped units have a time of a later visit in `total`: 1 row."]


RESTART = "list,item,position,word,subject,rt\nA,1,1,The,s0,300\nA,1,1,The,s1,310\nB,2,1,An,s0,320\nB,2,1,An,s1,330\n"


@pytest.mark.parametrize("name", ["list", "Session", "file"])
def test_readers__who_may_be_numbered_anew_are_told_with_the_option(name: str) -> None:
    times = read("t.csv", RESTART.replace("list", name, 1))
    assert len(times.persons) == 2
    said = (
        f"Read as one person each: 2 persons with rows of several values of `{name}`, first s0. If readers are numbered"
        f" anew there, name both: `columns` (`--column person={name}+subject`)."
    )
    assert notes_of(times) == [said]


def test_readers__of_several_columns_are_those_with_names_of_their_own() -> None:
    option = TableOptions(columns={"person": "list+subject"})
    times = read("t.csv", RESTART, option)
    assert times.persons == ["A:s0", "A:s1", "B:s0", "B:s1"] and notes_of(times) == []
    unique = RESTART.replace("A,1,1,The,s", "A,1,1,The,A:s").replace("B,2,1,An,s", "B,2,1,An,B:s")
    plain = read("t.csv", unique)
    assert rows_of(plain) == rows_of(times) and notes_of(plain) == []
    other = read("t.csv", RESTART.replace("B,2", "B,1"), option)
    assert [text.name for text in other.texts] == ["1:A", "1:B"], "a list can tell texts apart too"
    with refused(ErrorCode.INVALID_INPUT, "`columns` names 'lab', but the table has"):
        read("t.csv", RESTART, TableOptions(columns={"person": "lab+subject"}))


def test_encoding__is_utf8_or_one_that_all_code_pages_read_alike() -> None:
    content = OWN.replace("dog", "it\u2019s")
    times = read("t.csv", content.encode("cp1250"))
    assert times.units[1].word == "it\u2019s"
    assert notes_of(times) == ["The file is not UTF-8: it is read as windows-1252, such as `it\u2019s`."]
    assert notes_of(read("t.csv", content)) == notes_of(read("t.csv", content.encode("utf-8-sig"))) == []
    for bad, said in [
        (b"\x81", "is not UTF-8"),
        (b"\xe9\0", "is NUL"),
        (content.encode("utf-16"), "is UTF-16 text"),
        (OWN.replace("dog", "\u043f\u0438\u0440").encode("koi8-r"), "is not UTF-8"),
    ]:
        with refused(ErrorCode.INVALID_INPUT, said):
            read("t.csv", bad)


@pytest.mark.parametrize(
    ("word", "page", "shown"),
    [
        ("czyta\u0107", "windows-1250", "'czyta\u0107' (windows-1250)"),  # Polish
        ("\u0151szi", "windows-1250", "'\u0151szi' (windows-1250)"),  # Hungarian
        ("\u0163ar\u0103", "windows-1250", "'\u0163ar\u0103' (windows-1250)"),  # Romanian
        ("\u010ce\u0161tina", "windows-1250", "'\u010ce\u0161tina' (windows-1250)"),
        ("\u043c\u0438\u0440", "windows-1251", "'\u043c\u0438\u0440' (windows-1251)"),  # Russian
        ("caf\u00e9", "windows-1252", "'caf\u00e9' (windows-1252), 'caf\u0439' (windows-1251)"),
        ("\u03bb\u03cc\u03b3\u03bf\u03c2", "windows-1253", "(windows-1253)"),  # Greek
        ("\u0131\u015f\u0131k", "windows-1254", "'\u0131\u015f\u0131k' (windows-1254)"),  # Turkish
        ("\u0113dam", "windows-1257", "'\u0113dam' (windows-1257)"),  # Latvian
        ("5\u20ac", "windows-1252", "'5\u20ac' (windows-1252)"),
    ],
)
def test_encoding__that_depends_on_the_language_is_read_by_option_only(word: str, page: CodePage, shown: str) -> None:
    content = OWN.replace("dog", word)
    with refused(ErrorCode.INVALID_INPUT, "'t.csv' is not UTF-8, and its letters depend on the code page: ") as error:
        read("t.csv", content.encode(page))
    assert shown in str(error.value)
    option = TableOptions(encoding=page)
    times = read("t.csv", content.encode(page), option)
    assert times.units[1].word == word
    assert notes_of(times) == [f"The file is not UTF-8: it is read as {page}, such as `{word}`."]
    assert read("t.csv", content, option).units == times.units, "UTF-8 is UTF-8 whatever the option says"


def test_encoding__without_the_bytes_of_the_file_is_refused() -> None:
    with refused(ErrorCode.INVALID_INPUT, "'t.csv' is neither UTF-8 nor windows-1252: save it as UTF-8."):
        read("t.csv", OWN.replace("dog", "\u0403").encode("cp1251"), TableOptions(encoding="windows-1252"))


def test_texts__of_the_same_words_belong_to_one_item() -> None:
    header = "item,text,position,word,person,rt\n"
    texts = [("1", "a", "The dog"), ("2", "b", "A cat"), ("3", "c", "the dog."), ("3", "d", "a cat"), ("4", "e", "!")]
    rows = [
        f"{item},{text},{position},{word},p,300\n"
        for item, text, words in texts
        for position, word in enumerate(words.split())
    ]
    times = read("t.csv", header + "".join(rows))
    assert len({text.item for text in times.texts if text.name != "e"}) == 1
    assert [text.item for text in times.texts if text.name == "e"] == ["4"]
    said = "In one fold, as their words are the same: 2 texts and earlier ones, first c and a."
    assert notes_of(times) == [said]
    again = read("t.csv", written_times(times), WRITTEN)
    assert again.texts == times.texts and notes_of(again) == []


def test_na__is_a_word_by_option_only() -> None:
    content = "text,position,word,person,rt\na,1,NA,p,300\na,2,dog,p,310\n"
    times = read("t.csv", content)
    assert [unit.word for unit in times.units] == ["dog"]
    assert notes_of(times)[:2] == [
        "Left out: 1 row without a text, position, word or person, first in line 2.",
        "Read as no word: `NA`. `keep_na` (`--set keep_na=true`) reads them as words.",
    ]
    assert [unit.word for unit in read("t.csv", content, TableOptions(keep_na=True)).units] == ["NA", "dog"]


def test_file__of_another_kind_is_refused() -> None:
    for content in ("", "word text rt\nThe 1 300\n"):
        with refused(
            ErrorCode.INVALID_INPUT, "its first line must name columns with tabs, commas or semicolons between"
        ):
            read("t.csv", content)
    with refused(ErrorCode.INVALID_INPUT, "'t.xlsx' cannot be read as a table"):
        read("t.xlsx", "")


def _has_sign(text: str) -> bool:
    return bool(text.strip())


_words = st.text(st.sampled_from("abB,'\"\u0436 \n;-"), min_size=1, max_size=5).filter(_has_sign)
_names = st.sampled_from(["a", "b", "c:d", "1", '\u0436,"'])
_tables = st.lists(st.lists(_words, min_size=1, max_size=5), min_size=1, max_size=4)
_times = st.one_of(st.none(), st.integers(1, 9999), st.floats(0.001, 5000.0))


def _cells(texts: Sequence[Sequence[str]], first: int) -> list[tuple[str, int, str]]:
    return [(f"t,{number}", place, word) for number, text in enumerate(texts) for place, word in enumerate(text, first)]


def _json_line(**cells: str | float | None) -> str:
    return json.dumps(cells) + "\n"


@for_all_pairs(_tables, st.tuples(st.integers(0, 1), st.lists(_times, min_size=6, max_size=6), st.booleans()))
def test_table__comes_back_as_it_was_written(
    texts: Sequence[Sequence[str]], drawn: tuple[int, Sequence[float | None], bool]
) -> None:
    first, values, has_persons = drawn
    persons: list[dict[str, str]] = [{"person": "p"}, {"person": "q\t\u0436"}] if has_persons else [{}]
    cells = [(*cell, person) for cell in _cells(texts, first) for person in persons]
    lines = [
        _json_line(text=text, position=place, word=word, rt=values[(row + place) % 6], gaze=1 + row, **person)
        for row, (text, place, word, person) in enumerate(cells)
    ]
    times = read("t.jsonl", "".join(lines))
    names = ["/".join([text, f"{place}", word, *person.values()]) for text, place, word, person in cells]
    expected = {" ".join(name.split()).replace("/ ", "/").replace(" /", "/"): row for row, name in enumerate(names)}
    found = rows_of(times)
    assert [*found] == [*expected]
    for name, row in expected.items():
        assert found[name].get("self_paced") == values[(row + cells[row][1]) % 6]
        assert found[name]["gaze"] == 1 + row
    again = read("t.csv", written_times(times), WRITTEN)
    assert (again.texts, again.units, again.persons) == (times.texts, times.units, times.persons)
    assert rows_of(again) == found and [*rows_of(again)] == [*found]


@for_all_pairs(_tables, st.permutations(range(20)))
def test_rows__may_stand_in_any_order(texts: Sequence[Sequence[str]], order: Sequence[int]) -> None:
    cells = _cells(texts, 1)
    lines = [
        _json_line(text=text, position=place, word=word, rt=100 + row) for row, (text, place, word) in enumerate(cells)
    ]
    times = read("t.jsonl", "".join(lines[row] for row in order if row < len(lines)), separator=" ")
    for text in times.texts:
        words = [word for name, _, word in cells if name == text.name]
        assert text.running == " ".join(" ".join(word.split()) for word in words)
        positions = [unit.position for unit in text.units]
        assert positions == list(range(1, len(words) + 1))
    assert rows_of(times) == rows_of(read("t.jsonl", "".join(lines)))


@for_all(st.lists(st.sampled_from(["a", "b", "ab", "a,b", ",", " ", "  ", "\u4e86"]), min_size=1, max_size=12))
def test_parts__of_a_running_text_are_its_characters(pieces: Sequence[str]) -> None:
    running = "".join(pieces)
    starts = [len("".join(pieces[:number])) for number in range(len(pieces))]
    spans = [(start, start + len(piece)) for start, piece in zip(starts, pieces, strict=True) if piece.strip(" ,")]
    units = [Unit(0, number, running[start:end], start, end) for number, (start, end) in enumerate(spans)]
    parts, numbers = unit_parts(Text("t", "t", running, 0, units))
    assert "".join(parts) == running
    assert [parts[number].lstrip() for number in numbers] == [unit.word for unit in units]
