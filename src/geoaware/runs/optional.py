"""Import packages that only an extra installs, with an error that says which."""

from __future__ import annotations

import importlib
from types import ModuleType

from geoaware.runs.errors import MissingDependencyError


def require(module: str, extra: str) -> ModuleType:
    """Import ``module`` by its dotted name, or say which extra of geoaware installs it.

    Raises:
        MissingDependencyError: the module's top-level package is not installed. A package that is there but
            fails inside (a broken install) raises its own error.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingDependencyError(
            f"the package {module.split('.')[0]!r} is not installed: pip install 'geoaware[{extra}]'"
        ) from None
