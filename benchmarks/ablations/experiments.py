"""Suites of experiments: which runs an ablation consists of, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "suites"
_KEYS = {"title", "from", "command", "config", "options", "inputs", "members", "before", "seeds", "against"}


@dataclass(frozen=True)
class Experiment:
    """A row of an ablation: a command of the framework, run once for each seed."""

    name: str
    title: str
    """What the table calls it."""
    command: tuple[str, ...]
    """Such as ("baseline", "tfidf_logreg")."""
    options: Mapping[str, Any]
    """Options by their dotted names, without files, backbone and seed."""
    data: Mapping[str, Any]
    """The `data` section of its configuration: text, joined files and features."""
    members: tuple[str, ...] = ()
    """Of an ensemble: the experiments whose runs are averaged, seed by seed."""
    before: tuple[str, ...] = ()
    """Experiments whose runs this one reads: `{NAME}` in its options is that run's directory, of the same seed."""
    seeds: int = 1
    against: str | None = None
    """The experiment that it is compared with."""

    @property
    def evaluated(self) -> bool:
        """Whether it leaves metrics; if not, it is there for another one."""
        return self.command[0] not in ("pretrain", "folds")

    def description(self) -> dict[str, Any]:
        """Return what a result must have been measured with to stand for this experiment."""
        described = {"command": " ".join(self.command), "options": dict(self.options), "data": dict(self.data)}
        return described | ({"members": list(self.members)} if self.members else {})


@dataclass(frozen=True)
class Suite:
    """Experiments that are shown in one table."""

    name: str
    title: str
    about: str
    columns: tuple[str, ...]
    """Metrics that the table shows beside those that it compares."""
    experiments: tuple[Experiment, ...]

    def __getitem__(self, name: str) -> Experiment:
        return next(experiment for experiment in self.experiments if experiment.name == name)


def names() -> list[str]:
    """Return the names of the suites that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_suite(name: str) -> Suite:
    """Read a suite.

    Raises:
        SystemExit: The file has a key, an input or an experiment that does not exist.
    """
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    entries: dict[str, dict[str, Any]] = {}
    for key, entry in content["experiments"].items():
        if unknown := sorted(entry.keys() - _KEYS):
            raise SystemExit(f"suite {name}, experiment {key}: {unknown[0]!r} is not one of {', '.join(sorted(_KEYS))}")
        parent = entries[entry["from"]] if "from" in entry else {}
        entries[key] = parent | entry | {"options": parent.get("options", {}) | entry.get("options", {})}
    inputs = content.get("inputs", {})
    experiments = tuple(_experiment(key, entry, inputs) for key, entry in entries.items())
    known = {experiment.name for experiment in experiments}
    for experiment in experiments:
        for other in (*experiment.members, *experiment.before, experiment.against):
            if other is not None and other not in known:
                raise SystemExit(f"suite {name}, experiment {experiment.name}: there is no experiment {other!r}")
    columns = tuple(content.get("columns", ["macro-F1"]))
    return Suite(name, content["title"], content["about"].strip(), columns, experiments)


def _experiment(name: str, entry: dict[str, Any], inputs: dict[str, dict[str, Any]]) -> Experiment:
    data: dict[str, Any] = {}
    joined = []
    for each in entry.get("inputs", []):
        if each not in inputs:
            raise SystemExit(f"experiment {name}: there is no input {each!r}; there are {', '.join(inputs)}")
        declared = inputs[each]
        data |= {"text": declared["text"]} if "text" in declared else {}
        data.setdefault("features", []).extend(declared.get("features", []))
        joined += [declared["file"]] if "file" in declared else []
    if joined:
        data["join"] = [{"file": file, "key": "id"} for file in joined]
    if not data.get("features", True):
        del data["features"]
    options = {"config": entry["config"]} if "config" in entry else {}
    return Experiment(
        name=name,
        title=entry.get("title", name),
        command=tuple(entry.get("command", "fit").split()),
        options=options | entry["options"],
        data=data,
        members=tuple(entry.get("members", [])),
        before=tuple(entry.get("before", [])),
        seeds=entry.get("seeds", 1),
        against=entry.get("against"),
    )
