"""Choices that the commands about data sets share: which pairs, and with what to match them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoaware.commands.options import parse_pose_rule, parse_settings
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.data import DataSet
    from geoaware.evaluation.predict import PredictSettings
    from geoaware.evaluation.protocols import Protocol
    from geoaware.matcher import Matcher

Dataset = Annotated[
    str, typer.Option("--dataset", help="spair71k, pf-pascal, pf-willow, ap10k, coco or pairs.")
]
Root = Annotated[Path, typer.Option("--root", help="Folder of the data set.")]
Split = Annotated[str, typer.Option("--split", help="Its split: trn, val, test …")]
Annotations = Annotated[
    str | None, typer.Option("--annotations", help="Annotation file of a COCO data set, if not SPLIT.json.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="An option of the data set's loader; may be repeated."
    ),
]
Extractor = Annotated[
    str, typer.Option("--extractor", help="`lite` or an extractor that `geoaware info` lists.")
]
Pose = Annotated[str, typer.Option("--pose", help="Turn the source: auto (as measured), off, flip, rotate.")]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="paper, released, dift, pf-pascal, pf-willow; the data set's usual one if not given.",
    ),
]
MatchingChoice = Annotated[
    str,
    typer.Option(
        "--matching",
        help="auto: the window measured for the features, looking where the protocol looks; paper: its "
        "constants; extractor: as `geoaware match` does.",
    ),
]
Labels = Annotated[
    bool,
    typer.Option(
        "--labels/--no-labels", help="In a mirrored source, read at the annotated flip partner (†)."
    ),
]
Masks = Annotated[
    bool, typer.Option("--masks/--no-masks", help="Choose the pose on the source's annotated object mask.")
]
Pairs = Annotated[str, typer.Option("--pairs", metavar="N|all", help="How many pairs, chosen by --seed.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the choice of pairs.")]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the matching (window, temperature …) or of the extractor; may be repeated.",
    ),
]
Batch = Annotated[int, typer.Option("--batch", help="Images extracted together; 0: by device.")]
CacheSize = Annotated[int, typer.Option("--cache-mb", help="Memory for features, in megabytes.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option("--cache", help="Read features from `geoaware extract`'s folder, and keep new ones there."),
]


@dataclass(frozen=True)
class DataChoice:
    """Which pairs."""

    dataset: str
    root: Path
    split: str
    annotations: str | None
    option: list[str] | None
    pairs: str
    seed: int

    def load(self) -> DataSet:
        """The data set, cut down to the pairs asked for."""
        from geoaware.data import load, options
        from geoaware.evaluation.predict import choose_pairs

        given = parse_settings(self.option)
        if self.annotations is not None:
            given["annotations"] = self.annotations
        draws_pairs = "seed" in options(self.dataset)
        if draws_pairs:
            # Such a loader makes the pairs itself; it would give its usual number before we could choose.
            given = {"pairs": self.pairs or None, "seed": self.seed, **given}
        data = load(self.dataset, self.root, self.split, **given)
        if draws_pairs or self.pairs in ("", "all"):
            return data
        if not self.pairs.isdecimal():
            raise InputError(
                f"--pairs {self.pairs!r}: give a number or all; a list of pairs is --option pairs=FILE"
            )
        return choose_pairs(data, int(self.pairs), self.seed)


@dataclass(frozen=True)
class RunChoice:
    """With what to predict."""

    extractor: str
    post_processor: str
    blend: float | None
    pose: str
    pose_rule: str | None
    protocol: str | None
    matching: str
    labels: bool
    masks: bool
    setting: list[str] | None
    batch: int
    cache_mb: int
    cache: Path | None
    device: str
    dtype: str

    def check(self) -> None:
        """Find an unknown protocol before anything is loaded.

        Raises:
            InputError: there is none of that name.
        """
        from geoaware.evaluation.protocols import get_protocol

        if self.protocol is not None:
            get_protocol(self.protocol)

    def protocol_for(self, data: DataSet) -> Protocol:
        """The protocol asked for, or the data set's usual one."""
        from geoaware.evaluation.protocols import FOR_BASE, get_protocol

        return get_protocol(self.protocol or FOR_BASE[data.threshold_base])

    def how(self, protocol: str) -> PredictSettings:
        """What a prediction needs to know beside the matcher."""
        from geoaware.evaluation.predict import PredictSettings

        return PredictSettings(protocol, self.labels, self.masks, self.batch, self.cache_mb * 2**20)

    def matcher(self, protocol: str) -> Matcher:
        """The matcher, reading features from the cache if there is one.

        What is wrong with the settings is found before the extractor is loaded.
        """
        from geoaware.evaluation.predict import matching_settings
        from geoaware.features import check_name, load_extractor
        from geoaware.matcher import Matcher
        from geoaware.method.matching import MatchSettings
        from geoaware.presets import PRESETS, choose_post_processor
        from geoaware.store.feature_store import CachedExtractor, FeatureStore

        given = parse_settings(self.setting)
        for_matching = {
            key: given.pop(key) for key in list(given) if key in MatchSettings.__dataclass_fields__
        }
        network = choose_post_processor(self.extractor, self.post_processor)
        if self.blend == 0:
            network = None
        name = PRESETS.get(self.extractor, self.extractor)
        check_name(name)
        settings = matching_settings(name, protocol, self.matching, for_matching, network)
        rule = parse_pose_rule(self.pose_rule)
        extractor = load_extractor(name, device=self.device, dtype=self.dtype, **given)
        if self.cache is not None:
            extractor = CachedExtractor(extractor, FeatureStore.of(self.cache, extractor))
        return Matcher(extractor, settings, self.pose, rule, network, self.blend)
