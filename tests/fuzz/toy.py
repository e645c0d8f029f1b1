"""The extractor of the fuzzed commands: quick, and with settings that are checked as those of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geoaware.features.extractor import describe, make_settings
from geoaware.runs.errors import InputError
from tests.toys import Patches


@dataclass(frozen=True)
class ToySettings:
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < abs(self.weight) < 1e3:
            raise InputError(f"weight must be below 1000, and not 0; got {self.weight}")


class Toy(Patches):
    def __init__(self, settings: ToySettings) -> None:
        super().__init__(grid=7, cell=5)
        self.name, self.identity = "toy", describe("toy", settings)
        self.scale.data.fill_(settings.weight)
        self.requires_grad_(False)

    @classmethod
    def load(cls, name: str, **settings: Any) -> Toy:
        return cls(make_settings(ToySettings, name, settings))
