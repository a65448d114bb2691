"""Plans of experiments: YAML files with the fields of an experiment request."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.config.experiment_file import read_yaml
from trainer.config.validation import block, did_you_mean, merged, parse, safe_name
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import ExperimentRequest

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_PREFIX = "experiment_"


def recipes() -> list[str]:
    """Return the names of the plans that the program ships."""
    return sorted(path.stem.removeprefix(_PREFIX) for path in _CONFIGS.glob(f"{_PREFIX}*.yaml"))


def plan_path(plan: str) -> Path:
    """Return the file of a plan, given by its path or as the name of a recipe; raises CONFIG_INVALID."""
    if plan in recipes():
        return _CONFIGS / f"{_PREFIX}{plan}.yaml"
    if Path(plan).is_file():
        return Path(plan)
    known = recipes()
    near = did_you_mean(plan, known) or f"; the recipes are {', '.join(known)}."
    raise AppError(ErrorCode.CONFIG_INVALID, f"There is no plan '{safe_name(plan)}'{near}")


def read_plan(path: Path, options: Mapping[str, object], languages: Sequence[str] = ()) -> ExperimentRequest:
    """Read a plan, of which options replace values, and `languages` all languages.

    Raises CONFIG_INVALID naming every wrong field.
    """
    plan = merged(read_yaml(path), options)
    if languages:
        planned = block(plan, "languages")
        plan["languages"] = {code: planned.get(code, {}) for code in languages}
    return parse(ExperimentRequest, plan, ErrorCode.CONFIG_INVALID)
