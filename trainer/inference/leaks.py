"""Searches a scored text in what its model has read: the one way in which all that scores a text finds leaks."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trainer.artifacts.runs import RunStore
from trainer.contracts.base import changed
from trainer.contracts.runs import EffectiveRequest, Leak
from trainer.data.corpora import CorpusStore
from trainer.data.leaks import measure_leak, measure_running_leak
from trainer.data.run_corpora import ReadText, read_text


class LeakSearch(NamedTuple):
    """The training and validation texts of a run and of its ancestors, which are read anew by each search.

    A text that is deleted or has changed is not searched; the leak names its run. 100 MB take about 5 seconds.
    """

    run_id: str
    effective: EffectiveRequest
    runs: RunStore
    corpora: CorpusStore

    def __call__(self, text: Iterable[str]) -> Leak:
        """Return how much of a text, in blocks of normalized lines, the run and its ancestors have read."""
        return measure_leak(text, self.read(), self.effective.documents, self.effective.split_seed)

    def of_running(self, texts: Sequence[str]) -> Leak:
        """Return how much of running texts, each a line, they have read, and how much are complete lines of it."""
        return measure_running_leak(texts, self.read(), self.effective.documents, self.effective.split_seed)

    def read(self) -> ReadText:
        """Return what the run and its ancestors have read."""
        return read_text(self.corpora, self.runs.ancestors(self.effective), (self.run_id, self.effective))


def leak_of_lines(search: "LeakSearch | None", lines: Sequence[str]) -> Leak | None:
    """Return the leak of lines with their number; None without a training text to search, or one to search for."""
    if search is None or not any(line.strip() for line in lines):
        return None
    return changed(search(["\n".join(lines)]), n_lines=len(lines))
