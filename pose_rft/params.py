"""Reads sections of params.yaml into types that are declared by the code that uses them.

`params.yaml` is the one place for choices. Each package declares its own `Section` beside its code, so a new `rft`
key changes nothing that conversion depends on. Unknown keys and out-of-range values raise an error that says in one
sentence what is allowed.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pose_rft.errors import PoseRftError
from pose_rft.params_file import params_path, read_yaml

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
# Sizes of what is built from params. Each bound exceeds every published model, so that an extra zero is reported.
Width = Annotated[int, Field(ge=1, le=32_768)]  # of a layer
Depth = Annotated[int, Field(ge=1, le=1_000)]  # layers, or heads of one
Pixels = Annotated[int, Field(ge=1, le=8_192)]  # side of a picture


class Section(BaseModel):
    """Base class of every params section: frozen; rejects unknown keys, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Seeds(Section):
    """Section `seed`: independent seeds for data (rendering, splits, poses) and train (weights, batches, sampling)."""

    data: int
    train: int


S = TypeVar("S", bound=Section)


def load(name: str, kind: type[S], path: Path | None = None) -> S:
    """Returns section `name` of params.yaml as a `kind`; dots address nested sections (`datasets.h36m`).

    Raises:
        PoseRftError: the section is missing, or has an unknown key or a value that `kind` does not allow.
    """
    path = path or params_path()
    content: Any = read_yaml(path)
    for part in name.split("."):
        if not isinstance(content, dict) or part not in content:
            raise PoseRftError(f"{path} has no section `{name}`; presets/sample.yaml shows a complete file.")
        content = content[part]
    return parse(content, kind, f"`{name}` in {path}")


def body_model_folder(path: Path | None = None) -> Path:
    """Returns `data.body_model` without parsing all of `data`: users of the body model need not import the readers.

    Raises:
        PoseRftError: the key is missing.
    """
    path = path or params_path()
    data = read_yaml(path).get("data")
    if not isinstance(data, dict) or not isinstance(data.get("body_model"), str):
        raise PoseRftError(f"{path} has no `data.body_model`; presets/sample.yaml shows a complete file.")
    return Path(data["body_model"])


def parse(content: Any, kind: type[S], where: str) -> S:
    """Validates a mapping as a `kind`; `where` names its origin in error messages."""
    try:
        section = kind.model_validate(content if content is not None else {})
    except ValidationError as error:
        raise PoseRftError(_sentence(error, kind, where)) from None
    if (key := _flag_as_number(content, section.model_dump())) is not None:
        raise PoseRftError(f"{where}: `{key[1:]}` is true or false (yes, no, on, off), but input should be a number.")
    return section


def _flag_as_number(content: Any, parsed: Any) -> str | None:
    """Returns the path (e.g. `.rft.steps`) of a boolean that was parsed as another type (True == 1), else None."""
    if isinstance(content, bool):
        return None if isinstance(parsed, bool) else ""
    pairs: Iterable[tuple[Any, Any, Any]] = ()
    if isinstance(content, dict) and isinstance(parsed, dict):
        pairs = ((key, value, parsed[key]) for key, value in content.items() if key in parsed)
    elif isinstance(content, list) and isinstance(parsed, list | tuple):
        pairs = ((row, value, other) for row, (value, other) in enumerate(zip(content, parsed, strict=False)))
    for key, value, other in pairs:
        if (found := _flag_as_number(value, other)) is not None:
            return f".{key}{found}"
    return None


def _sentence(error: ValidationError, kind: type[Section], where: str) -> str:
    problems = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            allowed = sorted(_fields_at(kind, item["loc"][:-1]))
            close = difflib.get_close_matches(str(item["loc"][-1]), allowed, 1)
            hint = f"did you mean `{close[0]}`? Allowed" if close else "allowed"
            problems.append(f"unknown key `{key}` ({hint}: {', '.join(allowed)})")
        elif item["type"] == "missing":
            problems.append(f"key `{key}` is missing")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            problems.append(f"`{key}` is {item['input']!r:.100}, but {message}")
    return f"{where}: {'; '.join(problems)}."


def _fields_at(kind: Any, location: tuple[int | str, ...]) -> list[str]:
    """Returns the field names of the section that `location` points into."""
    for part in location:
        field = kind.model_fields.get(str(part)) if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        kind = field.annotation if field is not None else None
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
