"""Comparison of runs: their figures, the settings that differ, and their curves."""

import math
from collections.abc import Sequence
from typing import Any

from citeflow.errors import CorruptError, NotFoundError
from citeflow.paths import RunPaths
from citeflow.platform.beneath import check_plain
from citeflow.platform.records import Records
from citeflow.platform.schema import ComparedRow, ComparedSetting, Series
from citeflow.platform.store import TableRow
from citeflow.reporting.formatting import METRICS
from citeflow.tasks import get_task, load_settings

HELP = {
    "mrr": "Mean of one over the rank of the citation that was left out; 1 is the best.",
    "hits@1": "Share of citations that were ranked first.",
    "hits@3": "Share of citations among the first three.",
    "hits@10": "Share of citations among the first ten.",
    "accuracy": "Share that was told right.",
    "auc": "Chance that a citation scores higher than a pair that is none.",
    "loss": "Mean loss on the test.",
}
LOWER_IS_BETTER = ("loss",)


def figures(row: TableRow, run: RunPaths) -> dict[str, float]:
    """Return the figures of a run that has succeeded, from its report; none where it is gone."""
    try:
        check_plain(run.data_root, run.report)
        found = get_task(row.task).results(run.report).test()
    except (NotFoundError, CorruptError):
        return {}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, float) and math.isfinite(value)
    }


def table(figures_of_runs: Sequence[dict[str, float]]) -> list[ComparedRow]:
    """Return a row for each figure that a run has."""
    names = dict.fromkeys(name for each in figures_of_runs for name in each)
    return [
        ComparedRow(
            metric=METRICS.get(name, name),
            help=HELP.get(name, ""),
            values=[each.get(name) for each in figures_of_runs],
            better="lower" if name in LOWER_IS_BETTER else "higher",
        )
        for name in names
    ]


def differences(rows: Sequence[TableRow]) -> list[ComparedSetting]:
    """Return the settings that differ between runs, those that are no settings of the task too."""
    flat = []
    for row in rows:
        sections = load_settings(row.task, text=row.yaml).to_dict()
        values: dict[str, Any] = {"dataset": row.dataset, "workers": row.workers}
        for section, settings in sections.items():
            values |= {f"{section}.{key}": value for key, value in settings.items()}
        flat.append(values)
    names = dict.fromkeys(name for values in flat for name in values)
    columns = {name: [values.get(name) for values in flat] for name in names}
    return [
        ComparedSetting(name=name, values=values)
        for name, values in columns.items()
        if any(value != values[0] for value in values)
    ]


def series(run_id: str, records: Records) -> list[Series]:
    """Return the loss and the validation scores of a run by step."""
    current = records.current()
    names = dict.fromkeys(name for event in current for name in event.values)
    return [
        Series(
            run=run_id,
            metric=name,
            points=[(event.step, event.values[name]) for event in current if name in event.values],
        )
        for name in names
        if name == "loss" or name.startswith("validation ")
    ]
