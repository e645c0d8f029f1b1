"""The data sets that the paper's tables and trainings need: what is there, fetched, or missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from geoaware.data import DataSet
from geoaware.data.ap10k_pairs import INTRA, MANIFEST, OFFICIAL_IMAGES, Rules, build
from geoaware.data.ap10k_pairs import PAPER as AP10K_PAIRS
from geoaware.data.get import DOWNLOADS, get
from geoaware.evaluation.protocols import get_protocol
from geoaware.runs.errors import InputError
from geoaware.runs.progress import Tell, silent
from geoaware.studies.costs import Rates, Work
from geoaware.studies.steps import Step
from geoaware.studies.study import Requirement, SetConfig, StudySet, load_set
from geoaware.training.kit import load_sets
from geoaware.training.post_processor.config import SPAIR_PAIRS
from geoaware.training.settings import DataChoice

# Min et al. 2019; Yu et al. 2021, and the paper's appendix B; Ham et al. 2017.
IMAGES = {"spair71k": 1800, "ap10k": OFFICIAL_IMAGES, "pf-pascal": 1300}
PAIRS = {
    "spair71k": {"trn": SPAIR_PAIRS, "val": 5384, "test": 12_234},
    "pf-pascal": {"test": 299},
}
"""What is published of data sets, for as long as they are not there; AP-10K's pairs are in `ap10k_pairs`."""

_ARCHIVES = {"spair71k": 200_000_000, "pf-pascal": 100_000_000}
# Bytes, about, as `data check` says; archive and folder lie on the disk side by side.


class ExpectedSet(StudySet):
    """A data set that is not there yet; it is taken to have everything that analyses ask for."""

    def lacks(self, what: Requirement) -> str | None:
        """Nothing."""
        return None


def published_pairs(name: str, split: str, options: Mapping[str, Any]) -> int | None:
    """How many pairs a split has; ``None`` where that is not known."""
    counts = AP10K_PAIRS[options.get("benchmark", INTRA)] if name == "ap10k" else PAIRS.get(name, {})
    return counts.get(split)


@dataclass
class PaperData:
    """Data sets below a root, loaded once, as far as they are there.

    Attributes:
        root: the folder that holds those of the data sets.
        sets: those to test on.
        choices: the splits to train and to validate on.
        pairs, seed: how many pairs of each are tested, and which; all if not given.
        protocol: other than the data sets' own.
        rules: of AP-10K's pairs.
    """

    root: Path
    sets: Sequence[SetConfig]
    choices: Sequence[DataChoice] = ()
    pairs: int | None = None
    seed: int = 0
    protocol: str | None = None
    rules: Rules = field(default_factory=Rules)
    _found: dict[str, Any] = field(default_factory=dict, init=False)
    _wrong: dict[Path, str] = field(default_factory=dict, init=False)

    @property
    def names(self) -> dict[Path, str]:
        """The data set of each folder below the root."""
        tested = {each.root: each.name for each in self.sets}
        return tested | {Path(each.root): each.name for each in self.choices}

    def of(self, config: SetConfig) -> StudySet:
        """A data set to test on; only expected as long as it is not there, or not whole."""

        def load() -> StudySet:
            return load_set(config, self.root, pairs=self.pairs, seed=self.seed, protocol=self.protocol)

        found: StudySet | None = self._loaded(config, load)
        if found is not None:
            return found
        empty = DataSet(config.name, config.split, {}, (), "box")
        return ExpectedSet(config, empty, get_protocol(self.protocol or config.protocol or "paper"))

    def split(self, choice: DataChoice) -> DataSet | None:
        """A split to train or validate on; ``None`` as long as it is not there, or not whole."""
        found: DataSet | None = self._loaded(choice, lambda: load_sets([choice], str(self.root))[0])
        return found

    def _loaded(self, config: SetConfig | DataChoice, load: Callable[[], Any]) -> Any:
        """What is loaded once; ``None`` if its folder, or AP-10K's list of pairs, is absent or wrong."""
        key, folder = repr(config), self.root / config.root
        if key not in self._found:
            if not folder.is_dir() or (config.name == "ap10k" and not _manifest(folder).is_file()):
                return None
            try:
                self._found[key] = load()
            except InputError as error:
                self._found[key] = None
                self._wrong.setdefault(Path(config.root), str(error))
        return self._found[key]

    def count(self, of: StudySet) -> int:
        """Pairs that are tested; as published while the data set is not there."""
        if not isinstance(of, ExpectedSet):
            return len(of.data)
        known = published_pairs(of.config.name, of.config.split, of.config.options) or 0
        return known if self.pairs is None else min(known, self.pairs)

    def steps(self, rates: Rates, tell: Tell = silent) -> Iterator[Step]:
        """What is fetched and built, and what must be brought by hand."""
        for config in self.sets:  # which finds what is wrong
            self.of(config)
        for choice in self.choices:
            self.split(choice)
        for root, name in self.names.items():
            folder = self.root / root
            there = folder.is_dir() and any(folder.iterdir())
            yield Step(
                f"data {root}",
                partial(get, name, folder.parent, tell=tell),
                int(there),
                left=Work(disk=2 * _ARCHIVES.get(name, 0)),
                missing=self._missing(root, name, there),
            )
            if name == "ap10k":
                yield Step(
                    f"pairs of {root}",
                    partial(build, folder, rules=self.rules),
                    int(_manifest(folder).is_file()),
                    left=Work({"build": OFFICIAL_IMAGES}, rates.size.get("benchmark", 0)),
                )

    def _missing(self, root: Path, name: str, there: bool) -> str:
        """What has to be done by hand; empty if nothing has."""
        known, folder = DOWNLOADS.get(name), self.root / root
        by_hand = f" ({known.missing})" if known is not None and known.missing else ""
        if there:
            return self._wrong[root] + by_hand if root in self._wrong else ""
        if known is not None and known.url and folder.name == known.root:
            return ""
        return (
            f"{folder}: no such folder; {name} must be fetched by hand{by_hand}; what it must hold says "
            f"`geoaware data check {name} {folder}`"
        )


def _manifest(folder: Path) -> Path:
    return folder / "correspondence" / MANIFEST
