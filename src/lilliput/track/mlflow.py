"""MLflow: the run, and below it a run for each candidate, so that its tables and plots compare."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from lilliput.errors import LilliputError
from lilliput.track.base import TRACKERS, Setting

EXPERIMENT = "lilliput"
"""Where runs go unless MLFLOW_EXPERIMENT_NAME says otherwise."""

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A server that is gone is given up in a minute, where its client would try for a quarter hour."""

MOST_CHARACTERS = 500
"""Of a parameter, in the stores of MLflow that take least."""

PARENT, CANDIDATE, NAME = "mlflow.parentRunId", "lilliput.candidate", "mlflow.runName"


@TRACKERS.register("mlflow")
class MLflow:
    """See `lilliput.track.base.Tracker`. The server is MLFLOW_TRACKING_URI's, as ever."""

    package: ClassVar[str] = "mlflow-skinny"
    extra: ClassVar[str] = "mlflow"

    def __init__(
        self, run: Path, settings: Mapping[str, Setting], stored: Mapping[str, str]
    ) -> None:
        for name, value in {"MLFLOW_DISABLE_TELEMETRY": "true", **PATIENCE}.items():
            os.environ.setdefault(name, value)
        import mlflow

        uri = mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(uri)
        try:
            self.stored = self._found(uri, stored) or self._begun(uri, run, settings)
            self._children = self._existing_children()
        except Exception as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise LilliputError(
                f"MLflow at {uri} takes no run: {why}",
                hint="set MLFLOW_TRACKING_URI=http://SERVER:PORT, or `pip install mlflow` for a "
                f"database here; then: lilliput resume {run} --track mlflow",
            ) from error

    def _found(self, uri: str, stored: Mapping[str, str]) -> dict[str, str] | None:
        """The run of an earlier session, under way again; None if this server has none."""
        if stored.get("uri") != uri:
            return None
        if self._client.get_run(stored["run"]).info.lifecycle_stage == "deleted":
            return None
        self._client.update_run(stored["run"], status="RUNNING")
        return dict(stored)

    def _begun(self, uri: str, run: Path, settings: Mapping[str, Setting]) -> dict[str, str]:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        title = run.resolve().name
        tags = {
            NAME: title,
            "mlflow.source.name": "lilliput",
            "lilliput.folder": str(run.resolve()),
        }
        begun = self._client.create_run(experiment, tags=tags).info
        self._log(begun.run_id, settings=settings)
        return {"uri": uri, "experiment": begun.experiment_id, "run": begun.run_id}

    def _existing_children(self) -> dict[str, str]:
        """{candidate: run} of what earlier sessions showed."""
        found = self._client.search_runs(
            [self.stored["experiment"]],
            filter_string=f"tags.`{PARENT}` = '{self.stored['run']}'",
            max_results=1000,
        )
        return {child.data.tags[CANDIDATE]: child.info.run_id for child in found}

    def curve(self, name: str, value: float, step: int, when: datetime) -> None:
        self._log(self.stored["run"], {name: value}, step=step, when=when)

    def candidate(
        self,
        name: str,
        settings: Mapping[str, Setting],
        figures: Mapping[str, float],
        when: datetime,
    ) -> None:
        if name not in self._children:
            tags = {NAME: name, CANDIDATE: name, PARENT: self.stored["run"]}
            child = self._client.create_run(self.stored["experiment"], tags=tags).info.run_id
            self._log(child, settings=settings)
            self._client.set_terminated(child)
            self._children[name] = child
        self._log(self._children[name], figures, when=when)

    def remark(self, name: str, text: str) -> None:
        self._client.set_tag(self.stored["run"], f"lilliput.{name}", text)

    def document(self, path: Path) -> None:
        self._client.log_artifact(self.stored["run"], str(path))

    def end(self, *, finished: bool) -> None:
        self._client.set_terminated(self.stored["run"], "FINISHED" if finished else "KILLED")

    def _log(
        self,
        run: str,
        figures: Mapping[str, float] | None = None,
        *,
        settings: Mapping[str, Setting] | None = None,
        step: int = 0,
        when: datetime | None = None,
    ) -> None:
        """Figures and settings in one request."""
        from mlflow.entities import Metric, Param

        time_ms = int(when.timestamp() * 1000) if when else 0
        metrics = [
            Metric(_plain(name), value, time_ms, step)
            for name, value in (figures or {}).items()
            if math.isfinite(value)
        ]
        params: list[Any] = [
            Param(_plain(name), str(value)[:MOST_CHARACTERS])
            for name, value in (settings or {}).items()
        ]
        self._client.log_batch(run, metrics=metrics, params=params)


def _plain(name: str) -> str:
    """The name in the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)
