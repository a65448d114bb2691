"""Counting beside several models."""

from tests.support.experiment_results import finished_experiment
from trainer.contracts.base import changed
from trainer.contracts.baselines import Baseline, CharacterCounts
from trainer.contracts.experiments import CellBaseline
from trainer.contracts.reports import Estimate, Note, Table
from trainer.reports.experiment_report import experiment_report
from trainer.reports.report_text import Reader, rows_of
from trainer.reports.run_notes import counted_rows, counting_of_several

BITS = Reader("bits")
BETTER = Baseline(
    order=5,
    counted_tokens=10,
    train_tokens=10,
    unigram_loss=3.0,
    unigram_bits_per_char=4.0,
    ngram_loss=1.5,
    ngram_bits_per_char=2.5,
    bits_per_char=2.25,
)
COUNTED = CharacterCounts(order=3, bits_per_char=2.0, counted_characters=30, train_characters=30)
WORSE = changed(BETTER, bits_per_char=3.0, shortfall="time")


def test_models_of_one_text__share_the_line_of_its_ngram() -> None:
    other = changed(BETTER, order=1, ngram_bits_per_char=4.0)
    subwords = changed(BETTER, characters=COUNTED)
    assert [*map(BITS.note, counting_of_several({"a": BETTER, "b": WORSE, "c": other, "d": subwords}))] == [
        "5-gram: 2.500 bits per character; a 2.250 (-0.250), b 3.000 (+0.500)",
        "unigram: 4.000 bits per character; c 2.250 (-1.750)",
        "3-gram of characters: 2.000 bits per character, 5-gram of tokens 2.500; d 2.250 (+0.250)",
        "b: This model is worse than counting: give it more time first, then a larger size or more text.",
        "d: This model is worse than counting: a study tries other learning rates and dropouts; or train on more text,"
        " or the model `ngram`, which counts.",
    ]


def test_ngrams__are_rows_beside_a_model() -> None:
    one = changed(BETTER, characters=COUNTED)
    found = [[(BITS.note(name), loss, bits) for name, loss, bits in counted_rows(each)] for each in (BETTER, one)]
    assert found == [[("5-gram", 1.5, 2.5)], [("5-gram of tokens", 1.5, 2.5), ("3-gram of characters", None, 2.0)]]
    [(_, *marked)] = counted_rows(changed(BETTER, unknown_char_share=0.365))
    assert marked == [Estimate(value=1.5, is_marked=True), Estimate(value=2.5, is_marked=True)]


def test_models_of_an_experiment__stand_beside_counting_in_their_texts() -> None:
    cells = (("lstm", "tr", BETTER), ("lstm", "az", WORSE), ("gru", "tr", changed(WORSE, unknown_char_share=0.2)))
    found = tuple(CellBaseline(model=model, language=language, baseline=one) for model, language, one in cells)
    report = experiment_report(changed(finished_experiment(), baselines=found))
    [shown] = [one for one in report.sections if BITS.note(one.title) == "Counting"]
    [table] = [one for one in shown.parts if isinstance(one, Table)]
    assert rows_of(table, BITS)[1:] == [
        ["lstm", "tr", "5-gram", "2.250", "2.500", "-0.250"],
        ["lstm", "az", "5-gram", "3.000", "2.500", "+0.500"],
        ["gru", "tr", "5-gram", "3.000 (!)", "2.500 (!)", "+0.500 (!)"],
    ]
    assert [BITS.note(one) for one in shown.parts if isinstance(one, Note)] == [
        "Warning: 2 of 3: This model is worse than counting: give it more time first, then a larger size or more text."
    ]
