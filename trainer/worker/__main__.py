"""What a worker starts a child process for: `python -m trainer.worker`, a name of `environment`, and an id."""

import sys
from pathlib import Path

from pydantic import TypeAdapter

from trainer.config.settings import load_settings
from trainer.contracts.models import Architecture
from trainer.system.child_environment import BENCHMARK, BF16_TRIAL, TOKENIZER_CHILD, TRAIN_CHILD


def main(name: str, *job_ids: str) -> int:
    """Do it and return the exit code; each imports what it needs, torch above all, by itself."""
    settings = load_settings()
    if name == TRAIN_CHILD:
        from trainer.worker.train_child import run_child

        return run_child(settings, *job_ids)
    if name == TOKENIZER_CHILD:
        from trainer.worker.tokenizer_child import run_tokenizer_child

        return run_tokenizer_child(settings, *job_ids)
    if name == BF16_TRIAL:
        from trainer.training.bf16 import try_bf16

        adapter: TypeAdapter[Architecture] = TypeAdapter(Architecture)
        sys.stdout.write(try_bf16(adapter.validate_python(job_ids[0])).model_dump_json())
        return 0
    if name == BENCHMARK:
        from trainer.worker.benchmark_child import run_benchmark_child

        folder, part = job_ids
        return run_benchmark_child(settings, Path(folder), part)
    from trainer.worker.inference_server import answer_requests

    return answer_requests(settings)


sys.exit(main(*sys.argv[1:]))
