"""Runs that analyses train, and predictions with the weights of their last step.

Runs have no validation: nothing is chosen on the images that the tables are about. What is finished is not
done again, and what was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from geoaware.data import DataSet
from geoaware.evaluation.predict import PredictSettings, predict
from geoaware.features import Extractor
from geoaware.matcher import Matcher
from geoaware.method.matching import MatchSettings
from geoaware.method.post_processor import PostProcessor
from geoaware.runs.progress import Tell, renamed, silent
from geoaware.training.kit import CONFIG
from geoaware.training.post_processor.config import TrainConfig, load_config
from geoaware.training.post_processor.features import cached_extractor
from geoaware.training.post_processor.loop import LAST, train
from geoaware.training.settings import Validation


@dataclass(frozen=True)
class Trainer:
    """What several runs on the same features and their predictions share.

    ``config`` is that of one of the runs. With ``restart``, what an earlier call left of the runs and
    predictions that are asked for is thrown away.
    """

    config: TrainConfig
    device: str = "auto"
    restart: bool = False
    tell: Tell = silent
    say: Callable[[str], None] = lambda _: None

    @cached_property
    def extractor(self) -> Extractor:
        """Reads the features of the cache."""
        return cached_extractor(self.config, self.device)

    def network(
        self, config: TrainConfig, folder: Path, title: str, predictions: Sequence[Path] = ()
    ) -> PostProcessor:
        """The weights of a run's last step.

        Where all ``predictions``, the files that are made with the weights, are there, nothing is trained.

        Raises:
            InputError: a setting or data set does not fit, or the folder holds another run.
            DivergedError: the loss of the run became NaN or infinite.
        """
        wanted = config.model_copy(update={"validation": Validation()})
        finished = predictions and all(path.is_file() for path in predictions) and is_of(wanted, folder)

        def tell(what: str, done: int, total: int, note: str = "", /) -> None:
            self.tell(f"{title}, {what}", done, total, note)

        if self.restart or not finished:
            train(wanted, folder, device=self.device, restart=self.restart, tell=tell, say=self.say)
        return PostProcessor.from_pretrained(folder / LAST)

    def predict(
        self,
        data: DataSet,
        path: Path,
        protocol: str,
        settings: MatchSettings,
        network: PostProcessor | None,
        blend: float,
        title: str,
    ) -> None:
        """Predictions of a data set without pose alignment, made unless the file is there."""
        matcher = Matcher(self.extractor, settings, "off", post_processor=network, blend=blend, zoom="off")
        tell = renamed(self.tell, title)
        predict(data, matcher, path, PredictSettings(protocol), restart=self.restart, progress=tell)


def is_of(config: TrainConfig, folder: Path) -> bool:
    """Whether a run's folder says that it is of this configuration."""
    path = folder / CONFIG
    return path.is_file() and load_config(path).model_dump(mode="json") == config.model_dump(mode="json")
