"""Bodies that clients send; unknown fields and wrong types are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genre_lightning.config.decision import Policy
from genre_lightning.inference.tagger import Text

Value = str | float | bool | None | list[str] | list[float]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Film(_Body):
    """A film: its overview as `text`, or the run's columns by name as `fields`, or both."""

    text: str | None = Field(None, description="The film's overview.")
    fields: dict[_Name, Value] | None = Field(
        None, max_length=100, description="Columns that the run reads, such as title and keywords."
    )

    @model_validator(mode="after")
    def _one_overview(self) -> Self:
        if self.text is not None and "overview" in (self.fields or {}):
            raise ValueError("give the overview as text or among the fields, not as both")
        return self

    @property
    def columns(self) -> dict[str, Any]:
        """The film's columns, its text among them as the overview."""
        return {**({} if self.text is None else {"overview": self.text}), **(self.fields or {})}


class Options(_Body):
    """How genres are decided."""

    policy: Policy | None = Field(None, description="Thresholds; the default is the service's.")
    top_k: int | None = Field(
        None, ge=1, description="Decide on the K most probable genres, whatever their thresholds."
    )
    threshold: Probability | dict[_Name, Probability] | None = Field(
        None, description="In place of the policy's: one number, or one for each genre that is named."
    )

    def as_arguments(self, policy: Policy) -> dict[str, Any]:
        """Return the arguments of `Tagger.decide`."""
        return {"policy": self.policy or policy, "top_k": self.top_k, "threshold": self.threshold}


class TagBody(Film, Options):
    """One film, or a list of them as `films`."""

    films: list[Film] | None = Field(None, min_length=1)
    explain: bool = Field(False, description="Explain what each word adds to the genres; of one film.")

    @model_validator(mode="after")
    def _one_kind(self) -> TagBody:
        if (self.films is None) == (self.text is None and self.fields is None):
            raise ValueError("give a film as text or fields, or several as films")
        return self


class FilmBody(Film):
    """One film."""

    count: int = Field(5, ge=1, le=20)


class FeedbackBody(Film):
    """A person's opinion of a film: the genres that it has."""

    genres: list[_Name] = Field(max_length=1000)
    user: _Name | None = Field(None, description="Your name; a token with a name has it already.")
    film: _Name | None = Field(None, description="Id of the film, if it has one.")
    title: Annotated[str, Field(max_length=1000)] | None = Field(None, description="Of the film, for people.")


def film_text(film: Film, columns: Mapping[str, Any] | None = None) -> Text:
    """Return what `Tagger` takes: a plain text if only the overview is given."""
    given = film.columns if columns is None else columns
    return given["overview"] if set(given) == {"overview"} and isinstance(given["overview"], str) else dict(given)
