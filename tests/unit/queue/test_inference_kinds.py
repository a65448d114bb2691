"""Inference requests that the objective of a run does not support are refused with one sentence."""

import pytest

from tests.support.inference import REQUESTS
from tests.support.refusals import refused
from trainer.config.validation import parse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.inference_fields import InferenceRequest
from trainer.contracts.items import ItemsRequest
from trainer.contracts.models import Objective
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.sequences import SequenceParts, SequencesRequest
from trainer.queue.inference_kinds import KINDS, check_scores


@pytest.mark.parametrize("kind", ["generate", "complete", "predict", "chat"])
def test_generation__is_refused_for_a_model_that_fills_gaps(kind: str) -> None:
    KINDS[kind].supports(REQUESTS[kind], "causal_lm")
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "cannot generate text"):
        KINDS[kind].supports(REQUESTS[kind], "masked_lm")


def test_line_end__is_refused_for_a_model_that_fills_gaps() -> None:
    request = SequencesRequest(sequences=(SequenceParts(parts=("a",)),), has_end=True)
    KINDS["sequences"].supports(request, "causal_lm")
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "the measure `end` of batteries"):
        KINDS["sequences"].supports(request, "masked_lm")


def test_sum_over_tokenizations__is_refused_for_a_model_that_fills_gaps() -> None:
    request: InferenceRequest = SequencesRequest(sequences=(SequenceParts(parts=("a",)),), tokenizations="marginal")
    KINDS["sequences"].supports(request, "causal_lm")
    items = ItemsRequest(table={"t": ("a",)}, text_column="t", tokenizations="marginal")
    KINDS["items"].supports(items, "causal_lm")
    for name, asked in (("sequences", request), ("items", items)):
        with refused(ErrorCode.MODEL_INCOMPATIBLE, "'marginal' is for causal models only"):
            KINDS[name].supports(asked, "masked_lm")


def test_segmentation__is_refused_for_a_model_that_fills_gaps() -> None:
    KINDS["segment"].supports(REQUESTS["segment"], "causal_lm")
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "needs a run trained with causal_lm"):
        KINDS["segment"].supports(REQUESTS["segment"], "masked_lm")


WRONG = [({"context": "none"}, "masked_lm"), ({"pll_within_word": True}, "causal_lm")]


@pytest.mark.parametrize(("values", "objective"), WRONG)
def test_scores__of_options_of_another_objective_are_refused(values: dict[str, object], objective: Objective) -> None:
    with refused(ErrorCode.MODEL_INCOMPATIBLE, f"trained with {objective}"):
        check_scores(parse(ScoreRequest, {"text": "a", **values}), objective)
