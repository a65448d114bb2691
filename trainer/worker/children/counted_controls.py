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
from trainer.contracts.sequences import SequencesResponse
from trainer.inference.sequences import score_parts
from trainer.models.ngram import NgramModel
from trainer.tokenizers.base import Tokenizer
from trainer.worker.children.counted_text import count_text, text_key

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class CountedControls:
    """The counts of the runs of a job; runs with equal texts and tokenizers are counted once."""

    def __init__(self, record: BatteryRecord, items: Sequence[BatteryItem], settings: Settings) -> None:
        self._settings, self._options = settings, record.options
        self._items = Items(record.batteries, items)
        self._known: dict[object, dict[Part, Counts]] = {}

    def of(self, run: RunDirectory) -> Mapping[Part, Counts]:
        """Return the accuracies by parts of batteries; none if a text or the tokenizer of the run is gone."""
        try:
            key = text_key(run)
            if key not in self._known:
                counted = count_text(run, self._settings)
                outcomes = [
                    self._items.outcomes({one.item: one.scores for one in self._scores(model, counted.tokenizer)})
                    for model in (counted.unigram, counted.ngram)
                ]
                self._known[key] = counts_of(counted.order, self._items.all, self._options.measure, *outcomes)
        except AppError as error:
            log.warning("counts_not_possible", run_id=run.run_id, error_code=error.code)
            return {}
        return self._known[key]

    def _scores(self, model: NgramModel, tokenizer: Tokenizer) -> list[ItemScores]:
        """Score the items that the untrained model scores."""
        nothing = SequencesResponse(request_id="counts", run_id="counts", status="queued")
        return [
            scores
            for portion, request in portions("untrained", self._items.all, self._options, 0)
            for scores in scores_of(portion, score_parts(model, tokenizer, request, nothing))
        ]
