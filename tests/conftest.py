"""How the tests are run: with patience, as the machine may be busy and how long an example takes says nothing.

`make test` draws the same examples each time, and so covers the same lines; pytest by itself draws new ones.
"""

import hypothesis
import pytest

_patience: list[hypothesis.HealthCheck] = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=_patience)
hypothesis.settings.register_profile("repeatable", hypothesis.settings.get_profile("patient"), derandomize=True)
hypothesis.settings.load_profile("patient")

_MEASURED = {
    "test_worker",
    "test_bf16",
    "test_training_faults",
    "test_tokenizer_jobs",
    "test_inference_child",
    "test_redis_faults",
    "test_services",
    "test_warm_start",
    "test_discord_faults",
    "test_rights",
    "test_chart_process",
    "test_mt",
    "test_scores",
    "test_run_commands",
    "test_tokenizer_commands",
    "test_asking",
    "test_bot",
    "test_local_discord",
    "test_bot_killed",
    "test_benchmarks",
}


@pytest.fixture(autouse=True)
def _coverage_of_children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the child processes of the tests that are about them: it costs every process a fifth of its time."""
    if request.path.stem not in _MEASURED:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
