"""What both trainings share: data sets, the run's folder, reading ahead, and what follows a step.

In the folder of every run lie

    config.yaml               what the run does, every value
    checkpoint.safetensors    where it is; with config.yaml all that is needed to go on
    log.jsonl, tensorboard/   losses and validation figures by step

and folders of weights. A run that was stopped at any moment goes on bit for bit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from geoaware.data import DataSet, load
from geoaware.data.dataset import with_keypoints
from geoaware.evaluation.predict import choose_pairs
from geoaware.runs import checkpoint, log, settings
from geoaware.runs.checkpoint import Position
from geoaware.runs.errors import InputError
from geoaware.runs.files import check_same_run, replacing, sweep
from geoaware.runs.log import Log
from geoaware.runs.progress import Tell
from geoaware.training.settings import DataChoice, RunSettings
from geoaware.training.validation import Score, named_scores

CONFIG = "config.yaml"

Say = Callable[[str], None]
"""Takes a line on what happens."""

T = TypeVar("T")


class DivergedError(RuntimeError):
    """The loss or its gradient is no number; the checkpoint before it is in place."""


def load_sets(choices: Sequence[DataChoice], root: str) -> list[DataSet]:
    """Splits of data sets, each with the keypoints chosen."""
    loaded = [load(each.name, Path(root) / each.root, each.split, **each.options) for each in choices]
    return [
        data if choice.keypoints is None else with_keypoints(data, choice.keypoints)
        for choice, data in zip(choices, loaded, strict=True)
    ]


def load_validation(config: RunSettings) -> list[DataSet]:
    """The validation sets, cut down to the pairs asked for, chosen by the seed."""
    chosen = config.validation
    return [choose_pairs(each, chosen.pairs, config.seed) for each in load_sets(chosen.data, config.root)]


def say_notes(sets: Sequence[DataSet], say: Say) -> None:
    """Repeat what the data sets have to say, each sentence once."""
    for note in dict.fromkeys(note for data in sets for note in data.notes):
        say(f"note: {note}")


def open_folder(
    config: RunSettings, out: Path, restart: bool, weights: Sequence[str]
) -> checkpoint.Saved | None:
    """Make the run's folder, or make sure that it belongs to this run.

    Args:
        config: of the run.
        out: the folder.
        restart: throw away what is in it.
        weights: folders in it that hold weights.

    Returns:
        The state of the run, if it has begun.

    Raises:
        InputError: it belongs to another run, or cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); choose another folder", "out") from None
    sweep(out, *(out / each for each in weights))
    path, wanted = out / CONFIG, config.model_dump(mode="json")
    if restart:
        for file in (path, out / checkpoint.FILE, out / log.FILE):
            file.unlink(missing_ok=True)
        for folder in (*weights, log.TENSORBOARD):
            shutil.rmtree(out / folder, ignore_errors=True)
    # Without a checkpoint there is nothing to lose: the settings of a run that never began may be mended.
    if path.exists() and (out / checkpoint.FILE).exists():
        found = settings.load(type(config), path, out)
        check_same_run(found.model_dump(mode="json"), wanted, out, depth=9)
    else:
        with replacing(path) as draft:
            draft.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    return checkpoint.load(out)


def read_ahead(read: Callable[[int], T], first: int, total: int) -> Iterator[tuple[int, T]]:
    """The steps ``first`` … ``total - 1`` with what they need; the next is read while one is computed."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read, first) if first < total else None
        for step in range(first, total):
            assert waiting is not None
            ready = waiting.result()
            waiting = pool.submit(read, step + 1) if step + 1 < total else None
            yield step, ready


@dataclass
class Journal:
    """Where a run is, and what it writes and tells after each step.

    Attributes:
        config: of the run.
        total: steps of the whole run.
        position: where the run is.
        log: of its figures.
        tell: is told how far the run is.
        say: is told of validations.
        active: whether this process writes; of several only the first does.
    """

    config: RunSettings
    total: int
    position: Position
    log: Log
    tell: Tell
    say: Say
    active: bool = True

    def after_step(
        self,
        figures: Mapping[str, float],
        last: bool,
        validate: Callable[[], list[Score]],
        save: Callable[[Mapping[str, float] | None], None],
    ) -> bool:
        """Count a step; log, validate and save where it is time.

        Args:
            figures: of the step.
            last: whether it is the last one of its stage.
            validate: scores the network as it is.
            save: writes weights and the checkpoint. It is given the validation figures in per cent when they
                are the best so far.

        Returns:
            Whether there was a validation, for which other processes must wait.
        """
        config, position = self.config, self.position
        position.step += 1
        position.total += 1
        validated = bool(config.validation.data) and (last or position.total % config.validation.every == 0)
        saved = validated or last or position.total % config.save_every == 0
        # A line at every checkpoint: a resumed run has lost the sums of the steps before it.
        self.log.add(position.total, figures, write=saved or position.total % config.log_every == 0)
        if self.active:
            best = self._note(validate) if validated else None
            if saved:
                self.log.flush()
                save(best)
            self.tell("training", position.total, self.total, self._shown(figures))
        return validated

    def _note(self, validate: Callable[[], list[Score]]) -> dict[str, float] | None:
        """Log a validation; its figures in per cent if no earlier one was as good."""
        began, position = time.monotonic(), self.position
        scores = validate()
        figures = named_scores(self.config.validation.data, scores)
        mean = sum(each.standard for each in scores) / len(scores)
        seconds = time.monotonic() - began
        self.log.write(position.total, {**figures, "validation": mean, "seconds": seconds})
        better = mean > position.best
        position.best = max(position.best, mean)
        shown = f"PCK {100 * mean:.1f}, best so far {100 * position.best:.1f}"
        self.say(f"step {position.total} of {self.total}: {shown}")
        return {key: round(100 * value, 2) for key, value in figures.items()} if better else None

    def _shown(self, figures: Mapping[str, float]) -> str:
        """The latest losses and the best validation figure, in a few characters."""
        parts = [f"{name} {figures[name]:.2f}" for name in ("cells", "dense", "sparse") if name in figures]
        if self.position.best >= 0:
            parts.append(f"best PCK {100 * self.position.best:.1f}")
        return ", ".join(parts)
