"""Accuracies of counts on batteries: unigrams and the best n-gram of a run's training text score the items."""

from collections.abc import Mapping, Sequence

import structlog

from trainer.artifacts.runs import RunDirectory
from trainer.batteries.controls import Part, counts_of
from trainer.batteries.scoring import portions, scores_of
from trainer.batteries.summary import Items
from trainer.config.settings import Settings
from trainer.contracts.batteries import BatteryItem, BatteryRecord, Counts, ItemScores
from trainer.contracts.errors import AppError
from trainer.contracts.models import NgramConfig
from trainer.contracts.sequences import SequencesResponse
from trainer.data.run_corpora import references_of, split_rule
from trainer.inference.sequences import score_parts
from trainer.models.ngram import NgramModel
from trainer.ngrams.kneser_ney import KneserNey
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.baseline import unigrams_and_ngram
from trainer.training.counting import filled
from trainer.training.dataset import prepare
from trainer.worker.children.evaluate_run import data_paths

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class CountedControls:
    """The counts of the runs of a job; runs with equal texts and tokenizers are counted once."""

    def __init__(self, record: BatteryRecord, items: Sequence[BatteryItem], settings: Settings) -> None:
        self._settings, self._options = settings, record.options
        self._items = Items(record.batteries, items)
        self._known: dict[object, dict[Part, Counts]] = {}

    def of(self, run: RunDirectory) -> Mapping[Part, Counts]:
        """Return the accuracies by parts of batteries; none if a text or the tokenizer of the run is gone."""
        effective = run.record().effective
        try:
            tokenizer = load_tokenizer(run.tokenizer)
            texts = tuple(reference and reference.sha256 for reference in references_of(effective))
            vocabulary = tuple(file.sha256 for file in tokenizer.manifest.files)
            key = texts, split_rule(effective), effective.documents, vocabulary
            if key not in self._known:
                _, corpus = prepare(effective, *data_paths(self._settings, effective), tokenizer)
                unigram, ngram, _ = unigrams_and_ngram(corpus, tokenizer.vocab_size)
                outcomes = [
                    self._items.outcomes({one.item: one.scores for one in self._scores(engine, tokenizer)})
                    for engine in (unigram, ngram)
                ]
                self._known[key] = counts_of(ngram.order, self._items.all, self._options.measure, *outcomes)
        except AppError as error:
            log.warning("counts_not_possible", run_id=run.run_id, error_code=error.code)
            return {}
        return self._known[key]

    def _scores(self, engine: KneserNey, tokenizer: Tokenizer) -> list[ItemScores]:
        """Score the items that the untrained model scores."""
        config = NgramConfig(max_order=engine.order)
        model = filled(NgramModel(config, vocabulary_of(tokenizer), "causal_lm"), engine)
        nothing = SequencesResponse(request_id="counts", run_id="counts", status="queued")
        return [
            scores
            for portion, request in portions("untrained", self._items.all, self._options, 0)
            for scores in scores_of(portion, score_parts(model, tokenizer, request, nothing))
        ]
