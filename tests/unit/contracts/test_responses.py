"""The answers to questions, as programs read them: flat, with a status, and a list entry per sequence or token."""

import json

from trainer.contracts.inference import GenerateResponse, PredictResponse, ScoreResponse, Suggestion

QUEUED_GENERATION = {
    "request_id": "f",
    "run_id": "r",
    "status": "queued",
    "outputs": None,
    "steps": None,
    "eos_terminated": None,
    "stop_reason": None,
    "prompt_tokens": None,
    "unk_count": None,
    "seed_used": None,
    "logprobs": None,
    "precision": None,
    "error": None,
}


def test_generation__is_flat_with_its_status_and_null_until_it_is_completed() -> None:
    waiting: object = json.loads(GenerateResponse(request_id="f", run_id="r", status="queued").model_dump_json())
    done = GenerateResponse(
        request_id="f",
        run_id="r",
        status="completed",
        outputs=("a", "b"),
        steps=(1, 2),
        eos_terminated=(True, False),
        stop_reason=("eos", "max_new_tokens"),
        prompt_tokens=0,
        unk_count=0,
        seed_used=7,
    )
    written: dict[str, object] = json.loads(done.model_dump_json())

    assert waiting == QUEUED_GENERATION
    assert written["outputs"] == ["a", "b"] and written["steps"] == [1, 2]
    assert written["eos_terminated"] == [True, False] and written["stop_reason"] == ["eos", "max_new_tokens"]


def test_prediction__holds_the_suggestions_and_the_run() -> None:
    given: dict[str, object] = {"token": "go", "prob": 0.5, "logp": -0.6931471805599453}
    suggestion = Suggestion.model_validate(given)
    response = PredictResponse(request_id="q", run_id="r", status="completed", suggestions=(suggestion,))
    written: dict[str, object] = json.loads(response.model_dump_json())
    assert {name: written[name] for name in ("suggestions", "run_id")} == {
        "suggestions": [{"token": "go", "prob": 0.5, "logp": -0.6931471805599453}],
        "run_id": "r",
    }


def test_score__has_its_status_and_unit_and_null_numbers_until_it_is_completed() -> None:
    waiting: dict[str, object] = json.loads(
        ScoreResponse(request_id="f", run_id="r", status="queued").model_dump_json()
    )
    assert (waiting["status"], waiting["unit"], waiting["method"]) == ("queued", "nats", "causal")
    assert {name for name, value in waiting.items() if value is not None} == {
        "request_id",
        "run_id",
        "status",
        "unit",
        "method",
    }
    assert {"n_scored", "unk_count", "surprisal", "rank", "entropy", "tokens", "char_spans", "topk"} <= set(waiting)
