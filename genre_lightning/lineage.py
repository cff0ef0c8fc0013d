"""lineage.json: which finished run a run continues from, and what it has taken from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genre_lightning.files import read_record, write_json
from genre_lightning.runs import RunDirectory
from genre_lightning.shapes import Shape, boolean, count, require_shape, text
from genre_lightning.types import FittedInput

_SHAPE: Shape = {
    "run": text,
    "checkpoint_sha256": text,
    "generation": count,
    "genres": [text],
    "files": [text],
    "subset": boolean,
    "inputs?": [{"*": None}],
}


@dataclass(frozen=True)
class Lineage:
    """The parent of a continued run.

    Attributes:
        run: Directory of the parent.
        checkpoint_sha256: Of the parent's best checkpoint, whose weights the run started from.
        generation: 1 for a run whose parent continues from none.
        genres: That the parent knows.
        files: Names of the parent's movies files.
        subset: Whether the parent took a random subset of them.
        inputs: Of the head, as the parent has fitted them.
    """

    run: str
    checkpoint_sha256: str
    generation: int
    genres: tuple[str, ...]
    files: tuple[str, ...] = ()
    subset: bool = False
    inputs: tuple[FittedInput, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Lineage:
        """Read the values of a file.

        Raises:
            ValueError: Naming the first value that is not what it should be.
        """
        require_shape(values, _SHAPE)
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        known |= {name: tuple(known[name]) for name in ("genres", "files")}
        known["inputs"] = tuple(map(FittedInput.from_dict, values.get("inputs") or ()))
        return cls(**known)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, asdict(self))

    @property
    def summary(self) -> dict[str, Any]:
        """The parent as the metadata of a checkpoint or of a logger name it."""
        return {"run": self.run, "checkpoint_sha256": self.checkpoint_sha256, "generation": self.generation}


def read_lineage(path: Path) -> Lineage | None:
    """Read lineage.json; None for a run that continues from none.

    Raises:
        CheckpointError: It is damaged.
    """
    fix = "copy it from where the run was trained, or train in another --run_dir"
    return read_record(path, Lineage.from_json, fix) if path.is_file() else None


def ancestors(run: RunDirectory) -> list[Lineage]:
    """List the lineages of a run and of the runs that it comes from, the nearest first, as far as they are there.

    Raises:
        CheckpointError: A lineage.json is damaged.
    """
    found: list[Lineage] = []
    seen = {run.path.resolve()}
    while (lineage := read_lineage(run.lineage)) is not None:
        found.append(lineage)
        run = RunDirectory(Path(lineage.run))
        if run.path.resolve() in seen:
            break
        seen.add(run.path.resolve())
    return found
