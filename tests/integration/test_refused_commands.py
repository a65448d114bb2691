"""Commands that start or store something and are given what is wrong: one sentence, and nothing is left."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from local_discord import Upload
from tests.support import ROOT, add_corpus
from tests.support.batteries import PAIRS
from tests.support.bot import AMBER, TEXT, place
from tests.support.finished_runs import finished_run
from tests.support.stories import Story, run_record
from tests.support.waiting import until

Options: TypeAlias = Mapping[str, str | int | float | Upload]
YAML = (ROOT / "tests" / "fixtures" / "blocks.yaml").read_bytes()
WRONG = YAML.replace(b"epochs: 5", b"epochs: 0").replace(b"batch_size: 64", b"batch_size: 0")
SMOKE = (ROOT / "configs" / "experiment_smoke.yaml").read_bytes()
CATS: Options = {"file": Upload("cats.txt", TEXT)}
ITEMS = Upload("pairs.csv", PAIRS.encode())
VERSES = Upload("verses.txt", b"a\n")
ENDINGS = "whose name ends in .txt or .jsonl or .tsv or .csv or .cha."
TRAIN: Sequence[tuple[Options, str]] = [
    ({**CATS, "config": Upload("kk.txt", YAML)}, "`config` must be a YAML file whose name ends in .yaml or .yml"),
    ({**CATS, "config": Upload("kk.yaml", b"x" * 5001)}, "`config` is too large: at most 5,000 bytes"),
    ({**CATS, "config": Upload("kk.yaml", b"a: [1")}, "'kk.yaml' is not YAML: line 1"),
    ({**CATS, "config": Upload("kk.yaml", YAML.replace(b"epochs: 5", b"epochs: 0"))}, "`training.epochs` must be"),
    ({**CATS, "config": Upload("kk.yaml", b"model_famly: gru\n")}, "`model_famly`; did you mean `model_family`?"),
    ({"file": Upload("cats.txt", b"caf\xe9 \xff" * 9)}, "not UTF-8"),
    ({"file": Upload("cats.txt", b"x" * 5001)}, "at most 5,000 bytes"),
    ({"file": Upload("cats.txt", b" \n\n")}, "empty"),
    ({"file": Upload("cats.txt", b"one\ntwo\n")}, "needs at least 3"),
    ({"file": Upload("cats.zip", b"x")}, f"`file` is an archive. Unpack it and attach a file {ENDINGS}"),
    ({"file": Upload("cats.docx", b"x")}, f"a plain text or a table {ENDINGS} Save the text of a document as plain"),
    ({"file": Upload("cats.jsonl", b"x")}, "'cats.jsonl': line 1 is not JSON."),
    ({"corpus": "no_such_corpus"}, "no corpus"),
    ({"corpus": "../secret"}, "corpus"),
    ({"corpus": "cats", **CATS}, "exactly one"),
    ({**CATS, "seeds": "two"}, "`seeds` must be a number of seeds"),
    ({**CATS, "seeds": "3,3"}, "each seed once"),
    ({}, "exactly one"),
    ({"config": Upload("kk.yaml", WRONG)}, "• `data.batch_size`"),
    ({"config": Upload("kk.yaml", WRONG)}, "• `training.epochs`"),
]
SCORE: Sequence[tuple[Options, str]] = [
    ({"file": Upload("verse.pdf", b"x")}, "ends in .txt"),
    ({"file": Upload("verse.txt", b"x" * 5001)}, "at most 5,000 bytes"),
    ({"file": Upload("verse.txt", b"caf\xe9")}, "'verse.txt' is not UTF-8: byte 3 cannot be decoded"),
    ({"file": Upload("verse.txt", b"x"), "text": "x"}, "Give either `text` or `file`"),
    ({"text": "x", "run": "no-run"}, "There is no run"),
    ({"run": "no-run"}, "There is no run"),
    ({"run": "unfinished-1"}, "not finished training"),
]
EXPERIMENT: Sequence[tuple[Options, str]] = [
    ({"recipe": "smoke", "config": Upload("plan.yaml", SMOKE)}, "Give `recipe` or `config`, not both."),
    ({"config": Upload("plan.yaml", b"name: x\n")}, "`languages` is required"),
    ({"config": Upload("plan.txt", SMOKE)}, "`config` must be a YAML file"),
    ({"recipe": "smoke", "languages": "KK!, tr"}, "`languages"),
    ({"recipe": "smoke", "languages": "kk"}, "`languages` must name at least two languages"),
    (
        {"recipe": "turkic", "languages": "kk,tr"},
        "Several corpora are of 'kk': a_kk_ipa, b_kk_ipa. Name one in a `config`.",
    ),
    ({"recipe": "turkic", "languages": "ug,tr"}, "There is no corpus 'ug'"),
]
BATTERY: Sequence[tuple[Options, str]] = [
    ({}, "Give either `battery` or `items`."),
    ({"battery": "blimp", "items": ITEMS}, "Give either `battery` or `items`."),
    ({"items": Upload("pairs.txt", b"x")}, "`items` must be a file of items whose name ends in .jsonl"),
    ({"items": Upload("pairs.csv", b"good,bad\na\n")}, "'pairs.csv': line 2 has 1 column,"),
    ({"battery": "nothing"}, "There is no battery 'nothing'"),
    ({"battery": "nothing", "run": "nope"}, "There is no run 'nope'"),
]
CORPUS: Sequence[tuple[Options, str]] = [
    ({"file": VERSES, "name": "../..", "language": "kk"}, "`name` must have a letter or a digit."),
    ({"file": VERSES, "name": "x", "language": "Kazakh!"}, "`language` must match"),
    ({"file": Upload("verses.txt", b"\n \n"), "name": "x", "language": "kk"}, "'verses.txt' is empty"),
    ({"file": Upload("verses.txt", b"\xff\n"), "name": "x", "language": "kk"}, "'verses.txt' is not UTF-8"),
    ({"file": Upload("x.txt", b"a" * 5001), "name": "x", "language": "kk"}, "`file` is too large: at most 5,000 bytes"),
]
MISTAKES = {
    "train": TRAIN,
    "score": SCORE,
    "mt-experiment start": EXPERIMENT,
    "mt-battery start": BATTERY,
    "corpus add": CORPUS,
    "mt-battery show": [({"battery": "x" * 101}, "`battery_id` must have at most 100 characters")],
    "mt-experiment export": [({"experiment": "x" * 101}, "`item_id` must have at most 100 characters")],
}


def stored(root: Path) -> set[Path]:
    """Each run, corpus, experiment, battery and deferred command."""
    return {*(root / "artifacts").glob("*/*")}


@pytest.mark.parametrize("command", MISTAKES)
async def test_mistake__is_reported_in_one_sentence_and_leaves_nothing(tmp_path: Path, command: str) -> None:
    for name in ("a_kk_ipa", "b_kk_ipa"):
        add_corpus(tmp_path, "ɑb\n" * 20, name)
    finished_run(tmp_path, "lstm")
    Story(tmp_path / "artifacts", run_record("unfinished-1"))
    async with place(tmp_path) as here:
        there = stored(tmp_path)
        for options, sentence in MISTAKES[command]:
            answer = await here.ask(here.ana if command == "mt-experiment start" else here.bob, command, options)
            assert sentence in answer.text and str(tmp_path) not in answer.text
            assert answer.colour == AMBER and answer.is_ephemeral
            await until(lambda: stored(tmp_path) == there)
