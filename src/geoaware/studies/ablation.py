"""What each part of the method is worth: the leave-one-out rows of the paper's table 9, trained and compared.

A row is the run of a configuration with one part left out. All rows are matched on the same pairs, those of
the configuration's validation sets, with the weights of their last step. What lies in the folder:

    full/seed0/                   a training run, as `training.loop` leaves it
    full/seed0/NAME-window.jsonl  its predictions on a validation set, as `evaluation.predict` leaves them
    without-dense/seed0/ …

Example:
    >>> table = ablate(load_config("ablation-lite"), Path("runs/ablation"))    # doctest: +SKIP
    >>> print("\\n".join(table.sentences()))                                    # doctest: +SKIP
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from geoaware.data import DataSet
from geoaware.evaluation.protocols import usual_protocol
from geoaware.runs.errors import InputError
from geoaware.runs.progress import Tell, silent
from geoaware.studies.ablation_table import FULL, Ablation, Row, SetFigures, choose_rows, compare
from geoaware.studies.case import slug
from geoaware.studies.metrics import pair_values
from geoaware.studies.trained import Trainer
from geoaware.training.kit import load_validation
from geoaware.training.post_processor.config import TrainConfig

NamedSets = Sequence[tuple[str, DataSet]]
"""The validation sets, with the same pairs for every row and seed, by what to call them."""


def ablate(
    config: TrainConfig,
    out: Path,
    *,
    seeds: int = 3,
    rows: Sequence[str] | None = None,
    device: str = "auto",
    restart: bool = False,
    tell: Tell = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Ablation:
    """Train and match every row with every seed, and compare them with "full".

    The configuration is that of "full", and its validation sets are what the rows are compared on. Seeds are
    counted from its own; for ``rows`` see `choose_rows`. With ``restart``, what an earlier ablation left of
    these rows and seeds in ``out`` is thrown away.

    Raises:
        InputError: an unknown row, a configuration that cannot be ablated, or a folder of another one.
        DivergedError: the loss of a run became NaN or infinite.
    """
    trainer = Trainer(config.as_released(), device, restart, tell)
    chosen = choose_rows(rows)
    _check(trainer, chosen, seeds)
    sets = _named_sets(trainer.config)
    for _, data in sets:
        for note in data.notes:
            say(f"note: {note}")
    numbers = tuple(range(config.seed, config.seed + seeds))
    runs = [(name, seed) for seed in numbers for name in dict.fromkeys(row.trained_as for row in chosen)]
    values: dict[str, list[list[np.ndarray]]] = {row.name: [] for row in chosen}
    for number, (name, seed) in enumerate(runs, start=1):
        title = f"run {number} of {len(runs)}: {name}, seed {seed}"
        alike = [row for row in chosen if row.trained_as == name]
        for row, paths in _run(trainer, alike, sets, out / slug(name) / f"seed{seed}", seed, title).items():
            values[row].append([pair_values(path) for path in paths])
    tables = []
    for place, (name, data) in enumerate(sets):
        of_set = {row: np.stack([each[place] for each in of_seeds]) for row, of_seeds in values.items()}
        ends = [pair.source.id for pair in data.pairs], [pair.target.id for pair in data.pairs]
        facts = name, usual_protocol(data).name, len(data), len(data.images)
        tables.append(SetFigures(*facts, compare(of_set, *ends)))
    return Ablation(chosen, numbers, tuple(tables))


def _check(trainer: Trainer, rows: Sequence[Row], seeds: int) -> None:
    """Find out before hours of training what would make the table meaningless, an `InputError`."""
    config = trainer.config
    if seeds < 1:
        raise InputError(f"at least one seed is needed, got {seeds}", "seeds")
    if not config.validation.data:
        raise InputError("there is no validation.data in the configuration to compare the rows on; add it")
    if not config.loss.sparse and not all(row.dense for row in rows):
        raise InputError(
            "without the dense loss nothing is left to train, because loss.sparse is 0; set it above 0, or "
            "leave these rows out",
            "rows",
        )
    for row in rows:
        if row is not FULL and _same_as_full(row, trainer):
            raise InputError(
                f"the row {row.name!r} would be the same as 'full': the configuration does not use what it "
                "leaves out; use it, or leave the row out",
                "rows",
            )


def _same_as_full(row: Row, trainer: Trainer) -> bool:
    config = trainer.config
    if row.configure(config, config.seed) != FULL.configure(config, config.seed):
        return False
    return row.mode == "window" or (row.mode == "soft" and config.matching.window >= _matched_grid(trainer))


def _matched_grid(trainer: Trainer) -> int:
    """Cells a side of the maps that are matched, as the features of a trained network have them."""
    own, blend = trainer.config.network.grid, trainer.config.matching.blend
    return own if blend == 1 else max(own, trainer.extractor.layout.grid)


def _named_sets(config: TrainConfig) -> NamedSets:
    """The validation sets; numbered where two are called the same."""
    chosen = [(Path(config.root) / each.root, each) for each in config.validation.data]
    names = [f"{folder.name or each.name} {each.split}" for folder, each in chosen]
    times = Counter(map(slug, names))
    named = [f"{name} {row + 1}" if times[slug(name)] > 1 else name for row, name in enumerate(names)]
    return list(zip(named, load_validation(config), strict=True))


def _run(
    trainer: Trainer, rows: Sequence[Row], sets: NamedSets, folder: Path, seed: int, title: str
) -> dict[str, list[Path]]:
    """Predictions of the rows that share a training run, by name of the row; what is not there is made."""
    paths = {row.name: [folder / f"{slug(name)}-{row.mode}.jsonl" for name, _ in sets] for row in rows}
    wanted, matching = rows[0].configure(trainer.config, seed), trainer.config.matching
    network = trainer.network(wanted, folder, title, [path for each in paths.values() for path in each])
    for row in rows:
        settings = replace(matching.settings(), mode=row.mode)
        for (_, data), path in zip(sets, paths[row.name], strict=True):
            protocol, what = usual_protocol(data).name, f"{title}, {path.stem}"
            trainer.predict(data, path, protocol, settings, network, matching.blend, what)
    return paths
