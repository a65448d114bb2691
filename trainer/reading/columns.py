"""Columns of tables of reading times: their own names, and those of published data sets.

Names are compared without case and punctuation:

| data set | text | position | word | person |
|---|---|---|---|---|
| Provo (Luke and Christianson 2018) | `Text_ID` | `IA_ID`, `Word_Number` | `IA_LABEL`, `Word` | `Participant_ID` |
| OneStop (Berzak et al. 2025) | `article_id`, `paragraph_id`, … | `IA_ID` | `IA_LABEL` | `participant_id` |
| CELER (Berzak et al. 2022) | `sentenceid` | `IA_ID` | `IA_LABEL` | `RECORDING_SESSION_LABEL` |
| GECO (Cop et al. 2017) | `PART`, `TRIAL` | `WORD_ID_WITHIN_TRIAL` | `WORD` | `PP_NR` |
| MECO (Siegelman et al. 2022) | `itemid` | `ianum`, `wordnum` | `ia`, `word` | `uniform_id` |
| UCL (Frank et al. 2013) | `sent_nr` | `word_pos` | `word` | `subj_nr` |
| PoTeC (Jakobi et al. 2024) | `text_id` | `word_index_in_text` | `word` | `reader_id` |
| EMTeC (Bolliger et al. 2024) | `item_id` | `word_index` | `word` | `subject_id` |
| CopCo (Hollenstein et al. 2022) | `speechId`, `paragraphId` | `wordId` | `word` | |
| Natural Stories (Futrell et al. 2021) | `item` | `zone` | `word` | `WorkerId` |
| Brown (Smith and Levy 2013) | `text_id` | `text_pos` | `word` | `subject` |
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from trainer.config.validation import did_you_mean, safe_name
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.readings import MEASURES, Measure
from trainer.data.rows import shown_names

ROLES = ("text", "item", "position", "word", "person", "running_text", *MEASURES)
"""The names by which columns are known; texts of one item are not separated by folds."""
_TEXTS: Sequence[Sequence[str]] = (
    ("uniqueparagraphid",),
    ("textid",),
    ("articlebatch", "articleid", "paragraphid"),
    ("speechid", "paragraphid"),
    ("part", "trial"),
    *((name,) for name in ("itemid", "sentenceid", "sentnr", "storyid", "text", "item", "story", "storynum")),
    *((name,) for name in ("passage", "trialid", "paragraphid", "sentence", "trial")),
)
"""Columns that together name a text; the first that a table has are taken, here and below."""
_CONDITIONS = (
    *("lang", "condition", "cond", "difficultylevel", "model", "decodingstrategy", "version", "book", "part", "list"),
    *("sentnum", "sentencenumber"),
)
"""Columns that tell texts of one name apart, where they must."""
_GROUPS = ("list", "group", "session", "experiment", "study", "file", "filename", "lab", "site", "lang", "country")
"""Columns of groups of persons."""
_NAMES: Mapping[str, Sequence[str]] = {
    "item": ("item",),
    "position": (
        *("iaid", "ianum", "wordidwithintrial", "wordindexintext", "wordindex", "wordidx", "wordnum", "wordnumber"),
        *("wordpos", "wordposition", "textpos", "zone", "wordid", "position", "region"),
    ),
    "word": ("ialabel", "ia", "wordwithpunct", "word", "token"),
    "person": (
        *("uniformid", "participantid", "recordingsessionlabel", "ppnr", "subjnr", "workerid", "readerid", "subjectid"),
        *("person", "participant", "subject", "reader", "subj", "subid", "worker"),
    ),
    "self_paced": ("selfpaced", "rt", "selfpacedreadingtime", "readingtime"),
    "maze": ("maze", "mazert"),
    "first_fixation": (
        *("iafirstfixationduration", "wordfirstfixationduration", "firstfixdur", "rtfirstfix", "wordfirstfixdur"),
        *("firstfixation", "firstfixationduration", "ffd"),
    ),
    "gaze": (
        *("iafirstrundwelltime", "wordgazeduration", "firstrundur", "rtfirstpass", "wordfirstpassdur", "gaze"),
        *("gazeduration", "fprt", "gd"),
    ),
    "go_past": (
        *("iaregressionpathduration", "wordgopasttime", "firstrungopast", "rtgopast", "gopast", "gopasttime"),
        *("rpdinc", "rpd", "gpt"),
    ),
    "total": (
        *("iadwelltime", "wordtotalreadingtime", "dur", "wordtotalfixdur", "total", "totalreadingtime"),
        *("tft", "trt", "tfd"),
    ),
    "skipping": ("iaskip", "wordskip", "firstrunskip", "skipping", "skipped", "skip"),
}
_TIME = "time"
"""A column of self-paced reading in a table without another column of times."""
_RUNNING = ("runningtext", "paragraph", "sentence", "passage", "text")
"""Columns that may have the running text, such as the sentence."""
_MEANINGS = {"text": "the text", "position": "the position in it", "word": "the word", "self_paced": "the reading time"}
_JOINED = ("text", "person")
"""Names that several columns may have together."""
_SIGNS = re.compile(r"[\W_]+")


class Columns(NamedTuple):
    """The columns of a table by their roles."""

    text: Sequence[str]
    """Columns whose values together name a text."""
    is_text_given: bool
    """True if the options name them."""
    item: str | None
    is_item_given: bool
    """True if the options name the column of the items."""
    position: str
    word: str
    person: Sequence[str]
    """Columns whose values together name a person; none in a table of means."""
    groups: Sequence[str]
    """Columns of groups of persons, whose readers may be numbered anew in each."""
    conditions: Sequence[str]
    """Columns that may tell texts of one name apart."""
    running: Sequence[str]
    """Columns that may have the running text."""
    is_running_given: bool
    """True if the options name the column of the running text."""
    measures: Mapping[Measure, str]

    def roles(self) -> dict[str, str]:
        """Return the roles of the columns that are certainly read."""
        own = dict.fromkeys(self.text, "text") | {self.position: "position", self.word: "word"}
        own |= dict.fromkeys(self.person, "person") | ({} if self.item is None else {self.item: "item"})
        return own | {column: measure for measure, column in self.measures.items()}


def columns_of(names: Sequence[str], given: Mapping[str, str]) -> Columns:
    """Return the columns of a table by the options, then by their names.

    Raises INVALID_INPUT with all columns of the table where one is missing or could be one of several.
    """
    several = {role: [*_given_columns(names, role, name)] for role, name in given.items()}
    return _Names(names, given, several).columns()


def column_option(*roles: str) -> str:
    """Return the option that names columns, for messages."""
    return f"`columns` (`{' '.join(f'--column {role}=NAME' for role in roles)}`)"


def _given_columns(names: Sequence[str], role: str, name: str) -> Iterator[str]:
    """Check what the options name as a column, and yield it, or the columns of a text or a person that `+` joins."""
    if role not in ROLES:
        near = did_you_mean(role, ROLES) or f": known are {', '.join(ROLES)}."
        raise field_error(ErrorCode.INVALID_INPUT, "columns", f"has an unknown name '{safe_name(role)}'{near}")
    for one in name.split("+") if role in _JOINED and name not in names else [name]:
        if one not in names:
            message = f"names '{safe_name(one)}', but the table has: {shown_names(names)}."
            raise field_error(ErrorCode.INVALID_INPUT, "columns", message)
        yield one


class _Names:
    """The names of a table's columns without case and punctuation, but for those that the options have."""

    def __init__(self, names: Sequence[str], given: Mapping[str, str], several: Mapping[str, Sequence[str]]) -> None:
        self._names, self._given, self._several = names, given, several
        # a list of readers, which is part of the names of persons, can tell texts apart too
        taken = [columns for role, columns in several.items() if role != "person" or len(columns) == 1]
        self._plain: dict[str, list[str]] = {}
        for name in names:
            if name not in chain.from_iterable(taken):
                self._plain.setdefault(_plain(name), []).append(name)

    def columns(self) -> Columns:
        """Return the columns; raises INVALID_INPUT."""
        texts, word = self._several.get("text", ()), self._find("word")
        if not texts:
            choices = [group for group in _TEXTS if {*group} <= self._plain.keys()]
            if word is None and ("text",) in choices and len(choices) > 1:
                word = self._only("word", "text")  # of a table of regions: item, region, text
                choices.remove(("text",))
            texts = [self._only("text", name) for name in choices[0]] if choices else ()
        measures = {measure: found for measure in MEASURES if (found := self._find(measure)) is not None}
        if not measures and _TIME in self._plain:
            measures = {"self_paced": self._only("self_paced", _TIME)}
        position, item = self._find("position"), self._find("item")
        persons = self._several.get("person", [*filter(None, [self._find("person")])])
        if not texts or position is None or word is None or not measures:
            is_there = (texts, position, word, measures)
            raise self._missing([role for role, known in zip(_MEANINGS, is_there, strict=True) if not known])
        running = [one for name in _RUNNING for one in self._plain.get(name, ()) if one not in (*texts, word)]
        is_running_given = "running_text" in self._given
        return Columns(
            texts,
            "text" in self._given,
            None if item in texts else item,
            "item" in self._given,
            position,
            word,
            persons,
            [name for name in self._names if _plain(name) in _GROUPS and name not in persons],
            [one for name in _CONDITIONS for one in self._plain.get(name, ()) if one not in texts],
            [self._given["running_text"]] if is_running_given else running,
            is_running_given,
            measures,
        )

    def _find(self, role: str) -> str | None:
        """Return the column of a role: that of the options, of its own name, or of another; None without one."""
        if role in self._given or role in self._plain.get(role.replace("_", ""), ()):
            return self._given.get(role, role)
        return next((self._only(role, name) for name in _NAMES[role] if name in self._plain), None)

    def _only(self, role: str, name: str) -> str:
        found = self._plain[name]
        if len(found) > 1:
            message = f"{shown_names(found)} could each be the column of {role}: name one in {column_option(role)}."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        return found[0]

    def _missing(self, roles: Sequence[str]) -> AppError:
        wanted = " and ".join(_MEANINGS[role] for role in roles)
        named = f"it has {shown_names(self._names)}. Name it in {column_option(*roles)}."
        message = f"no column is known as that of {wanted}: {named}"
        return AppError(ErrorCode.INVALID_INPUT, message)


def _plain(name: str) -> str:
    """Return the name of a column without case and punctuation."""
    return _SIGNS.sub("", name).casefold()
