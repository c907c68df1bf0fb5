"""How names and values that were refused are told: by the spelling of whoever gave them, with the reason and what was meant."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from mfn_core.config import Config
from mfn_core.errors import ConfigError

C = TypeVar("C", bound=Config)


def unknown(what: str, names: Iterable[str], known: Iterable[str]) -> str:
    """``unknown model 'mnf', did you mean 'mfn'? Known are mfn, paper``.

    Args:
        what: they are names of.
        names: that are not known.
        known: all of them.
    """
    known = list(known)
    said: list[str] = []
    for name in names:
        close = difflib.get_close_matches(name, known, n=1)
        said.append(f"unknown {what} {name!r}" + (f", did you mean {close[0]!r}?" if close else ""))
    told = "; ".join(said)
    return f"{told}{'' if told.endswith('?') else '.'} Known are {', '.join(known)}"


def invalid(error: ValidationError, spelt: Callable[[str], str] = str) -> str:
    """``width=4: Input should be greater than or equal to 8; …``, in place of pydantic's own listing.

    Args:
        error: of a model whose fields were given by somebody.
        spelt: how they write the name of a field.
    """
    return "; ".join(f"{_place(detail['loc'], spelt)}={detail['input']!r}: {detail['msg']}" for detail in error.errors())


def config_of(model: type[C], given: Mapping[str, Any], remedy: str, spelt: Callable[[str], str] = str) -> C:
    """What somebody gave, as a config.

    Args:
        model: of the config.
        given: values by field.
        remedy: the last sentence of the error, without its full stop.
        spelt: how they write the name of a field.

    Raises:
        ConfigError: a key is unknown or a value is out of range.
    """
    if strange := sorted(given.keys() - model.model_fields.keys()):
        raise ConfigError(unknown("setting", strange, model.model_fields))
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{invalid(error, spelt)}. {remedy}") from error


def _place(location: tuple[int | str, ...], spelt: Callable[[str], str]) -> str:
    field, *inside = location
    return spelt(str(field)) + "".join(f"[{part!r}]" for part in inside)
