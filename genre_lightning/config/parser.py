"""The one parser of a command line: built from the dataclasses in `config`, and without torch.

Only if the arguments or files name an object of Lightning's, or a model of a trusted package, the types that they are
of are imported to read their arguments.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field, make_dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from typing_extensions import override

from genre_lightning.compat import importing_only
from genre_lightning.config.allowed import ALLOWED, import_paths
from genre_lightning.config.complaints import explain
from genre_lightning.config.continuation import ContinueOptions, SelfTrainingOptions
from genre_lightning.config.data import DataOptions
from genre_lightning.config.decision import DecisionOptions
from genre_lightning.config.guard import check_arguments
from genre_lightning.config.model import OPTIONS
from genre_lightning.config.run import CheckpointOptions, EarlyStoppingOptions, PretrainOptions, WandbOptions
from genre_lightning.config.stand_ins import PUBLIC, STAND_INS, StandIn, class_path
from genre_lightning.config.trainer import OBJECTS, TrainerOptions
from genre_lightning.config.trust import KINDS, imported, is_trusted
from genre_lightning.config.words import WANTS_HELP, for_parser, nearest, option_values
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.yaml_files import read_yaml

T = TypeVar("T")

_DEFAULT = next(iter(OPTIONS))
_MODELS = ", ".join(path.rpartition(".")[2] for path in OPTIONS)
_RUN = (
    f"The model is one of {_MODELS}: --model names another than the first, and the options shown are then its own. "
    "Classes and functions of a package of your own may be named with --trust PACKAGE. What one of Lightning's classes "
    "takes is shown by --trainer.callbacks.help CLASS."
)
ABOUT = {
    "data inspect": "Prints the audit, the genres, the lengths in tokens and the splits of a movies file, named first.",
    "fit": "Trains a model, evaluates the best checkpoint on validation and test, and leaves a run directory.",
    "pretrain": "Trains an encoder to predict hidden words of the training films' texts and of films without genres, "
    "never of validation or test films, and leaves RUN/backbone for --model.backbone of a fit with the same data. "
    "After an interruption, the same command resumes. Options of decision, evaluation and the genres' loss have no "
    "effect.",
    "validate": "Evaluates the best checkpoint of a run on its validation split.",
    "test": "Evaluates the best checkpoint of a run on its test split.",
    "predict": "Tags every film of the file --data.csv with the best checkpoint of a run: predict RUN --data.csv FILE "
    "--out FILE. Each row is in the table once and in order; a row that cannot be tagged has a reason. After an "
    "interruption, the same command resumes.",
}


def parse(command: str, arguments: Sequence[str]) -> tuple[Namespace, ArgumentParser]:
    """Read the configuration of a command that trains a model or opens one that was trained.

    Args:
        command: One of `ABOUT`.
        arguments: What follows it on the command line.

    Returns:
        The configuration, and the parser that can dump and instantiate it.

    Raises:
        ConfigError: An unknown key, a wrong type, an impossible value, or a class that may not be named.
    """
    words = for_parser(arguments)
    named = check_arguments(words)
    for file in option_values(words, "--config", "-c"):
        if baseline := read_yaml(Path(file)).get("baseline"):
            raise ConfigError(f"{file} is for 'genre-lightning baseline {baseline}', not for {command}")
    models = named.get("model", [])
    base = _model_base(models)
    if asked := _asked(words):  # shows the options of the one model that is meant
        base, words = OPTIONS.get(class_path(models[-1]) if models else "", OPTIONS[_DEFAULT]), [asked]
    else:  # no default of the parser's: its options would stay when a file or a word names another model
        words = [f"--model={models[-1] if models else _DEFAULT}", *words]
    trainer = _trainer(objects=not asked and _names_object(words, named))

    def read() -> tuple[Namespace, ArgumentParser]:
        parser = _parser(command, base, trainer)
        return parser.parse_args(words), parser

    config, parser = in_one_line(command, read)
    # one name for each class, or a run would seem to be of another model
    config.model.class_path = class_path(config.model.class_path)
    return config, parser


def _asked(words: Sequence[str]) -> str | None:
    """Return the option that asks for the help of the whole command, or of a group of the model's options."""
    for word, after in pairwise([*words, "--"]):
        if word in WANTS_HELP or (word == "--model.help" and after.startswith("-")):
            return "--help"
        if word.startswith("--model.") and word.endswith(".help") and word != "--model.help":
            return word
    return None  # also for the help of a class, such as --model.help LlamaQLoraClassifier, which the parser gives


def parse_model(settings: Any) -> tuple[Namespace, ArgumentParser]:
    """Read the model section of a run's configuration alone; see `parse`.

    Args:
        settings: The content of the section.
    """
    path = settings.get("class_path") if isinstance(settings, Mapping) else None

    def read() -> tuple[Namespace, ArgumentParser]:
        parser = _Parser(exit_on_error=False)
        parser.add_subclass_arguments(_model_base([str(path)]), "model", required=True, fail_untyped=False)
        return parser.parse_object({"model": settings}), parser

    return in_one_line("fit", read)


def parse_baseline(name: str, kind: type, arguments: Sequence[str]) -> tuple[Namespace, ArgumentParser]:
    """Read the configuration of a baseline; see `parse`.

    Args:
        name: Of the baseline.
        kind: Its class.
        arguments: What follows it on the command line.
    """
    words = for_parser(arguments)
    if models := check_arguments(words).get("model"):
        model = models[-1].rpartition(".")[2]
        raise ConfigError(f"model is {model}, and a baseline has a model of its own: leave the section model out")
    summary = (kind.__doc__ or "").splitlines()[0]
    about = f"{summary} Options of data that are about tokens and steps have no effect here."
    parser = _empty(f"baseline {name}", about)
    parser.add_argument("--baseline", choices=[name], default=name, help="Records in config.yaml what the run is.")
    parser.add_class_arguments(DataOptions, "data")
    parser.add_class_arguments(kind, "model")
    return in_one_line(f"baseline {name}", lambda: parser.parse_args(words)), parser


def make_options(command: str, config: Namespace, parser: ArgumentParser) -> Namespace:
    """Make the options of the data, and those of a model that is the package's own: what torch is not needed for.

    Args:
        command: For messages.
        config: As parsed.
        parser: That parsed it.
    """
    parts = config.clone()
    parts.pop("trainer", None)
    if not {*STAND_INS, None} & {parts.model.get("class_path")}:
        del parts["model"]
    return in_one_line(command, lambda: parser.instantiate(parts))


def _model_base(named: Sequence[str]) -> Any:
    """Return the type of the model section: what stands in for the package's own models, or one of another package too.

    Args:
        named: Class paths of models that are named.
    """
    return (StandIn, imported(KINDS["model"])) if any(map(is_trusted, named)) else StandIn


class _Parser(ArgumentParser):
    """Imports the allowed classes alone, and none that a class stands in for."""

    @override
    def dump(self, cfg: Namespace, *arguments: Any, **options: Any) -> str:
        with _importing_allowed():
            return str(super().dump(_without_enums(cfg), *arguments, **options))

    @override
    def instantiate(self, *arguments: Any, **options: Any) -> Any:
        with _importing_allowed():
            return super().instantiate(*arguments, **options)


def _without_enums(value: Any) -> Any:
    """Return a configuration with plain values in place of enum defaults, which YAML cannot hold."""
    if isinstance(value, Namespace):
        return Namespace(**{name: _without_enums(inner) for name, inner in vars(value).items()})
    if isinstance(value, dict):
        return {name: _without_enums(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_without_enums, value))
    return value.value if isinstance(value, Enum) else value


def _importing_allowed() -> AbstractContextManager[None]:
    return importing_only(import_paths(), STAND_INS | PUBLIC)


def in_one_line(command: str, parse: Callable[[], T]) -> T:
    """Return what `parse` returns, its complaints as one line; it can import the allowed classes only.

    Raises:
        ConfigError: An unknown key, a wrong type, an impossible value.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _importing_allowed():
            return parse()
    except ArgumentError as error:
        message = explain(one_line(error))[:600]
        if ": give " in message:
            raise ConfigError(message) from None
        raise ConfigError(
            f"{message}: {nearest(message)}'genre-lightning {command} --help' lists the options"
        ) from None
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise ConfigError(one_line(errors.getvalue())[:600]) from None


def _parser(command: str, model: Any, trainer: type) -> ArgumentParser:
    parser = _empty(command, f"{ABOUT[command]} {_RUN}")
    parser.add_class_arguments(trainer, "trainer", instantiate=False, sub_configs=True, fail_untyped=False)
    if model in OPTIONS.values():  # for the help, which lists the options of one
        parser.add_class_arguments(model, "model")
    else:
        parser.add_subclass_arguments(model, "model", required=True, fail_untyped=False)
    parser.add_class_arguments(DataOptions, "data", sub_configs=True)
    parser.add_class_arguments(CheckpointOptions, "checkpoint")
    parser.add_class_arguments(EarlyStoppingOptions, "early_stopping")
    parser.add_argument(
        "--continue_from", type=Path | None, default=None,
        help="A finished run whose weights, tokenizer, fitted inputs and splits this one starts from; with "
        "--data.csv NEW, and perhaps a second --data.csv OLD.",
    )  # fmt: skip
    parser.add_class_arguments(ContinueOptions, "continue")
    parser.add_argument(
        "--feedback", type=Path | None, default=None,
        help="A feedback database that a continued run learns from: its opinions become training films, and never "
        "those of validation or test. Their predictions are kept in the run directory when it starts.",
    )  # fmt: skip
    parser.add_argument(
        "--labels", type=Path | None, default=None,
        help="A queue that people have filled in, or another table of labels that a continued run learns from, as "
        "from --feedback; what each person changed and where people differ is reported.",
    )  # fmt: skip
    parser.add_class_arguments(SelfTrainingOptions, "self_training")
    parser.add_argument(
        "--require_no_worse", type=bool, default=False,
        help="Exit with status 1 if a continued run is significantly worse than its parent on the parent's test films.",
    )  # fmt: skip
    parser.add_argument(
        "--wandb", type=WandbOptions | None, default=None,
        help="Keep curves and evaluation in Weights & Biases too, as configs/logger/wandb.yaml does.",
    )  # fmt: skip
    parser.add_argument(
        "--tensorboard", type=bool, default=False,
        help="Write curves and evaluation for TensorBoard too, into the run directory's folder tensorboard.",
    )  # fmt: skip
    if command == "pretrain":
        parser.add_class_arguments(PretrainOptions, "pretrain")
    if command == "predict":
        parser.add_argument(
            "--out", type=Path | None, default=None,
            help="The table to write: .parquet, .csv or .csv.gz; null is predictions.parquet in the run directory.",
        )  # fmt: skip
        parser.add_argument(
            "--raw_cells", type=bool, default=False,
            help="Leave texts in a CSV as they are. By default one that begins with =, +, -, @, a tab or a line break "
            "gets an apostrophe before it, as a spreadsheet program would compute it.",
        )  # fmt: skip
    return parser


def _empty(command: str, about: str) -> ArgumentParser:
    """Make a parser of the options of every command that makes or opens a run."""
    parser = _Parser(prog=f"genre-lightning {command}", description=about, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="A YAML file of these options; later ones overlay.")
    parser.add_argument("--run_dir", type=Path | None, default=None, help="Directory of the run, made if needed.")
    parser.add_argument("--seed", type=int, default=0, help="Of new weights, dropout and the order of the films.")
    parser.add_argument(
        "--override", type=bool, default=False,
        help="Resume a run although settings that change its training differ.",
    )  # fmt: skip
    parser.add_class_arguments(DecisionOptions, "decision")
    parser.add_argument("--json", type=bool, default=False, help="Print the results as JSON.")
    return parser


def _trainer(*, objects: bool) -> type:
    """Return the trainer's options; those that may be objects have Lightning's types if one is named."""
    if not objects:
        return TrainerOptions
    from lightning.pytorch import Trainer

    hints = get_type_hints(Trainer.__init__)
    typed = [(name, hints[name], field(default=getattr(TrainerOptions, name))) for name in OBJECTS]
    return make_dataclass("TrainerOptions", typed, bases=(TrainerOptions,))


def _names_object(words: Sequence[str], named: Mapping[str, Sequence[str]]) -> bool:
    """Return whether words or files name an object of Lightning's, rather than a text such as ddp or nothing."""
    inner = tuple(f"--trainer.{name}{sign}" for name in OBJECTS for sign in (".", "+"))
    return any(word.startswith(inner) for word in words) or any(
        "." in text or text in ALLOWED[option] or option in ("trainer.callbacks", "trainer.plugins")
        for option in ALLOWED
        if option != "model"
        for text in named.get(option, ())
    )
