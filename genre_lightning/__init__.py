"""Fine-tunes language models to tag films with genres."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genre_lightning.tagger import Tagger

__all__ = ["Tagger", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports what needs torch only when it is asked for: the package itself, and plain --help, need none of it."""
    if name == "Tagger":
        from genre_lightning.tagger import Tagger

        return Tagger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
