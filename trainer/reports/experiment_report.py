from pathlib import Path
from trainer.contracts.experiments import ExperimentResult, SectionsFile, MatrixRow
from trainer.reports.experiment_tables import csv_text


def write_report(folder: Path, result: ExperimentResult, sections: SectionsFile) -> None:
    (folder / "sections.json").write_text(sections.model_dump_json())
    (folder / "validity.json").write_text(result.validity.model_dump_json(indent=1))
    (folder / "matrix.csv").write_text(csv_text(MatrixRow, result.models[0].tables.matrix))
    (folder / "result.json").write_text(result.model_dump_json())
