"""Looks of inference requests: which test texts the text of a request tells of."""

from collections.abc import Iterator

from trainer.artifacts.checkpoints import NamedModel
from trainer.artifacts.looks import LookLedger
from trainer.contracts.chats import ChatRequest
from trainer.contracts.completions import CompletionRequest
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.items import ItemsRequest
from trainer.contracts.predictions import PredictRequest
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.segmentation import SegmentRequest
from trainer.contracts.sequences import SequencesRequest
from trainer.data.corpora import CorpusStore
from trainer.data.line_keys import lines_of_corpus, lines_of_text


def count_look(
    looks: LookLedger,
    corpora: CorpusStore,
    named: NamedModel,
    request: object,
    by: int | str | None = None,
    *,
    is_of_job: bool = False,
) -> None:
    """Count the look of a request that measures a model on a test split, or on a text with lines of one.

    The texts of a job are not read: they were compared when it was accepted. Raises TEST_LOCKED.
    """
    measured = [(named.name, named.effective)]
    match request:
        case (
            EvalRequest(path_override=str(name)) | ScoreRequest(path=str(name)) | GenerateRequest(prompt_path=str(name))
        ):
            looks.read_text(measured, lines_of_corpus(corpora.find(name)), "evaluation", by)
        case EvalRequest(split="test"):
            looks.read(named.effective, named.name, "evaluation", by)
        case _ if not is_of_job and (text := "\n".join(_texts(request))):
            looks.read_text(measured, lines_of_text(text), "evaluation", by)
        case _:
            pass


def _texts(request: object) -> Iterator[str]:
    """Yield the texts of a request that a model reads."""
    match request:
        case ScoreRequest(text=str(text)) | SegmentRequest(text=text) | PredictRequest(text=text):
            yield text
        case GenerateRequest(prompt_text=str(text)) | ChatRequest(message=text):
            yield text
        case CompletionRequest():
            yield from (prompt for prompt in request.prompts if isinstance(prompt, str))
        case SequencesRequest():
            yield from (sequence.text for sequence in request.sequences)
        case ItemsRequest():
            yield from (text.text for text in request.texts())
        case _:
            pass
