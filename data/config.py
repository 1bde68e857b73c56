"""Configuration files: YAML checked against a pydantic model, with every fault at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """A configuration that cannot be used; the message lists every fault with its dotted name."""


class Config(BaseModel):
    """A part of a configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=Config)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ConfigError: the file is missing, or is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from error


def load_config(path: Path, model: type[Model], content: Any = None) -> Model:
    """Read a YAML file as `model`; `content` stands in for what the file holds, where it was read already.

    Raises:
        ConfigError: the file is missing, is no YAML, or breaks the model; all faults are listed.
    """
    content = read_yaml(path) if content is None else content
    try:
        return model.model_validate(content or {})
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors()]
        raise ConfigError(f"{path}: {len(faults)} fault(s)\n" + "\n".join(faults)) from error
