"""What both trainings share: data sets, the run's folder, and the order of its steps.

In the folder of every run lie

    config.yaml               what the run does, every value
    checkpoint.safetensors    where it is; with config.yaml all that is needed to go on
    log.jsonl, tensorboard/   losses and validation figures by step

and folders of weights. A run that was stopped at any moment goes on bit for bit.
"""

from __future__ import annotations

import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import yaml

from geoaware.data import DataSet, load
from geoaware.data.dataset import with_keypoints
from geoaware.evaluation.predict import choose_pairs
from geoaware.runs import checkpoint, log, settings
from geoaware.runs.checkpoint import Position
from geoaware.runs.errors import InputError
from geoaware.runs.files import check_same_run, locked, replacing, sweep
from geoaware.runs.log import Log
from geoaware.runs.progress import Tell
from geoaware.training.settings import DataChoice, RunSettings
from geoaware.training.validation import Score

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


def require_flip_pairs(data: DataSet, instead: str = "") -> None:
    """Refuse a data set of which no category says what becomes of the labels in a mirror.

    Raises:
        InputError: it is such a one; ``instead`` says what else mends it.
    """
    if not any(data.schemas[image.category].flip_pairs for image in data.images):
        raise InputError(
            f"{data.name}, split {data.split}: has no flip pairs, so mirrored images cannot be labelled; "
            f"add flip_pairs to the annotation file{instead}"
        )


def say_notes(sets: Sequence[DataSet], say: Say) -> None:
    """Repeat what the data sets have to say, each sentence once."""
    for note in dict.fromkeys(note for data in sets for note in data.notes):
        say(f"note: {note}")


def open_folder(
    config: RunSettings, out: Path, restart: bool, weights: Sequence[str], say: Say, held: ExitStack | None
) -> tuple[checkpoint.Saved | None, Position]:
    """Make the run's folder, or make sure that it is this run's; its state, if it has begun, and position.

    With ``restart`` what is in it is thrown away, also the folders that hold ``weights``. Until ``held`` is
    closed, no other process can open it.

    Raises:
        InputError: it belongs to another run or to somebody else, is in use, or cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); choose another folder", "out") from None
    if held is not None:
        held.enter_context(locked(out))
    path, state, folders = out / CONFIG, out / checkpoint.FILE, (*weights, log.TENSORBOARD)
    there = [each for each in (CONFIG, checkpoint.FILE, log.FILE, *folders) if (out / each).exists()]
    if there and not _is_run(config, path, state.exists()):
        raise InputError(
            f"{out}: holds {there[0]}, which no such run of geoaware wrote; choose another folder", "out"
        )
    sweep(out, *(out / each for each in weights))
    if restart:
        for file in (path, state, out / log.FILE):
            file.unlink(missing_ok=True)
        for folder in folders:
            shutil.rmtree(out / folder, ignore_errors=True)
    # Without a checkpoint there is nothing to lose: the settings of a run that never began may be mended.
    if path.exists() and state.exists():
        found = settings.load(type(config), path, out)
        wanted = config.model_dump(mode="json")
        check_same_run(found.model_dump(mode="json"), wanted, out, depth=9)
    else:
        with replacing(path) as draft:
            draft.write_text(_text(config), encoding="utf-8")
    saved = checkpoint.load(out)
    if saved is None:
        return None, Position()
    say(f"going on at step {saved.position.total}")
    return saved, saved.position


def _is_run(config: RunSettings, path: Path, begun: bool) -> bool:
    """Whether a file of settings is that of a run: what a user writes does not state every setting."""
    try:
        found = settings.load(type(config), path, path.parent)
    except InputError:
        return False
    return begun or path.read_text(encoding="utf-8") == _text(found)


def _text(config: RunSettings) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


@dataclass
class Run(ABC, Generic[T]):
    """A training: where it is, what a step is, and what is written and told after each step.

    Attributes:
        config: of the run.
        out: its folder.
        total: steps of the whole run.
        position: where it is.
        validation: data sets to be scored on the way.
        log: of its figures.
        tell: is told how far the run is.
        say: is told of validations.
        active: whether this process writes; of several only the first does.
    """

    config: RunSettings
    out: Path
    total: int
    position: Position
    validation: list[DataSet]
    log: Log
    tell: Tell
    say: Say
    active: bool

    @abstractmethod
    def read(self, step: int) -> T:
        """What a step of the stage takes; it is read in a thread while the step before it is computed."""

    @abstractmethod
    def take(self, step: int, ready: T) -> dict[str, float]:
        """Do a step, with what was read for it; its figures.

        Raises:
            DivergedError: loss or gradient is not finite; nothing was changed.
        """

    @abstractmethod
    def scores(self) -> list[Score]:
        """PCK of the network as it is, on each validation set."""

    @abstractmethod
    def save(self, best: Mapping[str, float] | None) -> None:
        """Write weights and the checkpoint, with the validation figures in per cent if they are the best."""

    def wait(self) -> None:
        """Hold the processes that do not validate until the first one has."""

    def run_stage(self, count: int) -> None:
        """Do what is left of the steps of a stage."""
        steps = range(self.position.step, count)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.read, steps[0]) if steps else None
            for step in steps:
                assert waiting is not None
                ready, last = waiting.result(), step + 1 == count
                waiting = None if last else pool.submit(self.read, step + 1)
                self._after_step(self.take(step, ready), last)

    def _after_step(self, figures: Mapping[str, float], last: bool) -> None:
        """Count a step; log, validate and save where it is time."""
        config, position = self.config, self.position
        position.step += 1
        position.total += 1
        validated = bool(config.validation.data) and (last or position.total % config.validation.every == 0)
        saved = validated or last or position.total % config.save_every == 0
        # A line at every checkpoint: a resumed run has lost the sums of the steps before it.
        self.log.add(position.total, figures, write=saved or position.total % config.log_every == 0)
        if self.active:
            best = self._validate() if validated else None
            if saved:
                self.log.flush()
                self.save(best)
            shown = [
                f"{name} {figures[name]:.2f}" for name in ("cells", "dense", "sparse") if name in figures
            ]
            if position.best >= 0:
                shown.append(f"best PCK {100 * position.best:.1f}")
            self.tell("training", position.total, self.total, ", ".join(shown))
        if validated:
            self.wait()

    def _validate(self) -> dict[str, float] | None:
        """Log a validation; its figures in per cent if no earlier one was as good."""
        began, position = time.monotonic(), self.position
        scores = self.scores()
        figures = {}
        for choice, score in zip(self.config.validation.data, scores, strict=True):
            figures[f"{choice.root} {choice.split} standard"] = score.standard
            if not math.isnan(score.geometry_aware):
                figures[f"{choice.root} {choice.split} geometry-aware"] = score.geometry_aware
        mean = sum(each.standard for each in scores) / len(scores)
        seconds = time.monotonic() - began
        self.log.write(position.total, {**figures, "validation": mean, "seconds": seconds})
        better = mean > position.best
        position.best = max(position.best, mean)
        shown = f"PCK {100 * mean:.1f}, best so far {100 * position.best:.1f}"
        self.say(f"step {position.total} of {self.total}: {shown}")
        return {key: round(100 * value, 2) for key, value in figures.items()} if better else None
