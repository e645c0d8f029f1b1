"""The type checker of the tests: beartype, with an int accepted where a float is asked for, as mypy does."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
