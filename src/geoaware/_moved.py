"""Old paths of modules, for one release: they load the module at its new place, and warn."""

from __future__ import annotations

import importlib
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

MOVED = {
    "alignment": "method.alignment",
    "analyses": "studies",
    "blending": "features.refined",
    "demo": "apps.demo",
    "errors": "runs.errors",
    "files": "runs.files",
    "gallery": "report.gallery",
    "geometry": "method.geometry",
    "images": "data.images",
    "keypoints": "method.keypoints",
    "losses": "method.losses",
    "matching": "method.matching",
    "metrics": "method.metrics",
    "points_file": "data.points_file",
    "post_processor": "method.post_processor",
    "transfer": "apps.transfer",
    "tuning": "training.backbone",
    "types": "method.types",
    "viz": "drawing",
}
"""Old name in the package to the new one."""


class MovedFinder:
    """Finds ``geoaware.OLD`` and what lies in it; everything else is left to the other finders."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A specification whose loader gives the module at its new place."""
        package, _, rest = name.partition(".")
        old, _, inside = rest.partition(".")
        if package != "geoaware" or old not in MOVED:
            return None
        new = ".".join(filter(None, ("geoaware", MOVED[old], inside)))
        return ModuleSpec(name, cast(Any, _Alias(name, new)), is_package=True)


class _Alias:
    """Loads a module that hands every question on to the one at the new place."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        warnings.warn(f"{self.old} is now {self.new}", DeprecationWarning, stacklevel=2)
        return _OldPath(self.old, importlib.import_module(self.new))

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


class _OldPath(ModuleType):
    def __init__(self, name: str, new: ModuleType) -> None:
        super().__init__(name, new.__doc__)
        self.__dict__.update(new=new, __path__=getattr(new, "__path__", []))

    def __getattr__(self, name: str) -> object:
        return getattr(self.__dict__["new"], name)

    def __setattr__(self, name: str, value: object) -> None:
        # The import of a submodule binds it here; it must not hide a function of its name (metrics.pck).
        if not isinstance(value, ModuleType):
            super().__setattr__(name, value)


def renamed(module: str, names: dict[str, str], name: str) -> object:
    """A value by its old name, for the ``__getattr__`` of a module.

    Args:
        module: name of the module.
        names: old name to the new one.
        name: what is asked for.

    Raises:
        AttributeError: the module has neither.
    """
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{name} is now {names[name]}", DeprecationWarning, stacklevel=3)
    return getattr(importlib.import_module(module), names[name])
