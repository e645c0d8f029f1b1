"""Options that commands share, by the group, and `expand`, which makes options of a group's fields."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer import Option

from geoaware.runs.errors import InputError, shortened
from geoaware.runs.places import is_remote, place

if TYPE_CHECKING:
    from geoaware.apps.web.images import Limits
    from geoaware.data import DataSet
    from geoaware.evaluation.predict import PredictSettings
    from geoaware.evaluation.protocols import Protocol
    from geoaware.features import Extractor
    from geoaware.matcher import Matcher
    from geoaware.runs.work import Engine
    from geoaware.store.feature_store import FeatureStore

T = TypeVar("T")

_LONGEST = 260
"""More characters than a part of a path can have."""

_CONTROL = re.compile("\n(?!remedy: )|[\0-\t\v-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that are not shown; a message has a second line for its remedy only."""

_WHOLE = 1000
"""No message is longer."""


def say(text: str) -> None:
    """A line on standard error."""
    typer.echo(text, err=True)


def cut(message: str) -> str:
    """The message with long arguments that it repeats, and other long words, cut to about 80 characters.

    What would move the cursor, or turn the writing, is shown as Python writes it.
    """
    for given in (part for word in sys.argv[1:] for part in (word, word.partition("=")[2])):
        for text in (given, repr(given)[1:-1]):
            message = message.replace(text, shortened(text)) if len(text) > _LONGEST else message
    message = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), message)
    return shortened(re.sub(rf"[^\s/]{{{_LONGEST},}}", lambda word: shortened(word[0]), message), _WHOLE)


class Without:
    """In the annotation of a group: fields that a command does not offer; they keep their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


def expand(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command that takes groups of options the flat signature that typer reads.

    A parameter or field whose type is a dataclass stands for the fields of that dataclass, in their order.
    Every path is read by `place`, so it may be a URL. When the command runs, the system is asked first
    whether files can have the names that are given, and no result may go over what is read.
    """
    given = list(signature(command, eval_str=True).parameters.values())
    flat = [each for parameter in given for each in _flat(parameter)]

    @wraps(command)
    def called(**values: Any) -> T:
        bound = called.__signature__.bind(**values)  # type: ignore[attr-defined]
        bound.apply_defaults()
        listed = [each if isinstance(each, list) else [each] for each in values.values()]
        _check_names([path for each in listed for path in each if isinstance(path, Path)], command.__name__)
        _check_apart(values)
        return command(**{each.name: _gather(each, bound.arguments) for each in given})

    called.__signature__ = Signature(flat)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in flat}
    return called


_LOCAL = frozenset(
    {"ablation", "build_ap10k", "demo", "examples", "info", "reproduce", "review", "serve", "train", "tune"}
)
"""Commands whose files are all on this machine: they append to them, lock or map them."""


def _check_names(paths: Iterable[Path], command: str) -> None:
    """Ask the system whether files can have these names.

    Raises:
        InputError: a path is a URL, and the command takes none.
    """
    for path in paths:
        if not is_remote(path):
            # What the system raises for a name that is too long, or no text, is for `cli.main` to tell.
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                path.lstat()
        elif command in _LOCAL:
            raise InputError(f"{path}: this command works on files of this machine; give a path of it")


WRITTEN = frozenset({"out", "json_file", "csv", "markdown", "plots", "review", "report", "frames"})
"""Names of the parameters that say where results go."""

_SHARED = frozenset({"cache", "root"})
"""Names of those whose folders may hold results beside what is read."""


def _check_apart(values: Mapping[str, Any]) -> None:
    """Refuse a result in the place of what is read, be it given as a path, as a text or as KEY=VALUE.

    Raises:
        InputError: one is there.
    """
    from geoaware.runs.files import check_apart

    written = [each for name, each in values.items() if name in WRITTEN and isinstance(each, Path)]
    if isinstance(values.get("b"), Path) and values["b"].is_dir():
        # JSON may lie beside the images, of both kinds; `match` looks at each file.
        written = [each for each in (values["out"],) if each is not None]
    given = {name: each if isinstance(each, list) else [each] for name, each in values.items()}
    words = [each for name in given.keys() - WRITTEN - _SHARED for each in given[name]]
    texts = [part for each in words if isinstance(each, str) for part in (each, each.partition("=")[2])]
    # The options of data sets are relative to their folder.
    folders = [Path(), *(each for each in given.get("root", ()) if isinstance(each, Path))]
    files = [folder / place(each) for each in texts if each for folder in folders]
    if written:
        files = [each for each in files if _is_file(each)]
        check_apart(written, [*files, *(each for each in words if isinstance(each, Path))])


def _is_file(path: Path) -> bool:
    """Whether it is one, or may be; a text that is no path at all is none."""
    try:
        return is_remote(path) or path.is_file()
    except (OSError, ValueError):
        return False


def _flat(parameter: Parameter) -> list[Parameter]:
    """The parameters that one stands for: those of its group, or itself."""
    _, inside = _group(parameter.annotation)
    if inside is None:
        return [parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=_placed(parameter.annotation))]
    return [each for part in inside for each in _flat(part)]


def _placed(annotation: Any) -> Any:
    """The annotation of an option; one of paths reads them by `place`, which keeps URLs as they are."""
    kind, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    inside = [part for each in get_args(kind) for part in (each, *get_args(each))]
    if notes and Path in (kind, *inside):
        info = copy(notes[0])
        info.parser = place
        return Annotated[kind, info]
    return annotation


def _gather(parameter: Parameter, values: dict[str, Any]) -> Any:
    """The value of a parameter of the command: its group, made of flat values, or itself."""
    group, inside = _group(parameter.annotation)
    if inside is None:
        return values[parameter.name]
    return group(**{each.name: _gather(each, values) for each in inside})


def _group(annotation: Any) -> tuple[Any, list[Parameter] | None]:
    """A group and its fields as parameters; ``None`` instead for the type of a single option."""
    group, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if not is_dataclass(group):
        return group, None
    hidden = {name for note in notes if isinstance(note, Without) for name in note.names}
    types = get_type_hints(group, include_extras=True)
    return group, [
        Parameter(
            each.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if each.default is MISSING else each.default,
            annotation=types[each.name],
        )
        for each in fields(group)
        if each.name not in hidden
    ]


# Single options that several commands have.
ExtractorName = Annotated[
    str, Option("--extractor", help="`lite` or an extractor that `geoaware info` lists.")
]
PostProcessorPlace = Annotated[
    str,
    Option(
        "--post-processor",
        metavar="PLACE",
        help="What makes the features geometry-aware: a folder that `geoaware train` wrote, a released .PTH "
        "file, or none; auto: the one shipped with `lite-frozen`, none for other extractors.",
    ),
]
ExifPixels = Annotated[
    str,
    Option("--exif", help="Points and boxes are of the image as EXIF turns it (upright), or as stored."),
]
Device = Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, Option("--dtype", help="fp32, bf16 or fp16.")]
ConfigSettings = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Change a value, by its dotted key; may be repeated."),
]
RestartRun = Annotated[bool, Option("--restart", help="Throw away what an earlier run left in the folder.")]
Restart = Annotated[bool, Option("--restart", help="Throw away what an earlier run wrote to the file.")]
AsJson = Annotated[bool, Option("--json", help="Print all figures as JSON and nothing else.")]
Markdown = Annotated[Path | None, Option("--markdown", help="Write the tables to a Markdown file.")]


@dataclass(frozen=True)
class LoaderOptions:
    """What a data set's loader is given beside folder and split."""

    annotations: Annotated[str | None, Option(help="Annotation file, if not SPLIT.json; any format.")] = None
    option: Annotated[
        list[str] | None,
        Option(metavar="KEY=VALUE", help="An option of the data set's loader; may be repeated."),
    ] = None

    def given(self) -> dict[str, Any]:
        """As the loader takes them."""
        given = parse_settings(self.option, "option")
        return given if self.annotations is None else {**given, "annotations": self.annotations}


@dataclass(frozen=True)
class DataOptions:
    """Which data set."""

    dataset: Annotated[str, Option(help="spair71k, cub, coco, pairs … (docs/data.md has all).")]
    root: Annotated[Path, Option(help="Folder of the data set.")]
    split: Annotated[str, Option(help="Its split: trn, val, test …")]
    loader: LoaderOptions = LoaderOptions()


@dataclass(frozen=True)
class PairOptions:
    """Which of its pairs."""

    pairs: Annotated[str, Option(metavar="N|all", help="How many pairs, chosen by --seed.")] = ""
    seed: Annotated[int, Option(min=0, help="Of the choice of pairs.")] = 0

    @property
    def count(self) -> int | None:
        """The number asked for; ``None`` for all."""
        if self.pairs in ("", "all"):
            return None
        if not self.pairs.isdecimal() or int(self.pairs) < 1:
            raise InputError(
                f"--pairs {self.pairs!r}: give a number or all; a list of pairs is --option pairs=FILE"
            )
        return int(self.pairs)


@dataclass(frozen=True)
class ViewOptions:
    """How images are laid out before they are encoded."""

    zoom: Annotated[
        str | None,
        Option(metavar="off|auto", help="auto: find small objects, and encode them alone; usual for lite."),
    ] = None
    upright: Annotated[
        str, Option(metavar="off|auto", help="auto: turn images that do not stand upright (lite only).")
    ] = "off"


@dataclass(frozen=True)
class UploadOptions:
    """The images that a server takes."""

    max_upload_mb: Annotated[float, Option(min=0.1, max=1000, help="Largest file taken, in megabytes.")] = 20
    max_megapixels: Annotated[
        float,
        Option(min=0.1, max=170, help="Largest image taken, decoded; less in formats that take more memory."),
    ] = 40

    def limits(self) -> Limits:
        """As servers take them."""
        from geoaware.apps.web.images import Limits

        return Limits(self.max_upload_mb, self.max_megapixels)


@dataclass(frozen=True)
class FeatureOptions:
    """With what images are encoded; whole, by commands without `views`."""

    extractor: ExtractorName = "lite"
    post_processor: PostProcessorPlace = "auto"
    blend: Annotated[
        float | None,
        Option(
            metavar="SHARE",
            help="Of the post-processor's features, 0 (none) to 1 (they alone); as measured if not given.",
        ),
    ] = None
    views: ViewOptions = ViewOptions(zoom="off")


@dataclass(frozen=True)
class PoseOptions:
    """How the source is turned to the pose of the target."""

    pose: Annotated[str, Option(help="Turn the source: auto (as measured), off, flip, rotate.")] = "auto"
    pose_rule: Annotated[
        str | None,
        Option(
            help="How the pose is chosen: mutual-nn, imd, or with a margin imd:0.01; +padding and +released "
            "as in the released code; as measured if not given."
        ),
    ] = None


@dataclass(frozen=True)
class ProtocolOptions:
    """Under which rules a data set is predicted."""

    protocol: Annotated[
        str | None,
        Option(help="paper, dift, pf-pascal … (docs/evaluation.md); the data set's usual one if not given."),
    ] = None
    matching: Annotated[
        str,
        Option(
            help="auto: the window measured for the features, looking where the protocol looks; paper: its "
            "constants; extractor: as `geoaware match` does."
        ),
    ] = "auto"
    labels: Annotated[
        bool,
        Option("--labels/--no-labels", help="In a mirrored source, read at the annotated flip partner (†)."),
    ] = True
    masks: Annotated[
        bool,
        Option(
            "--masks/--no-masks",
            help="Choose the pose on the source's object mask (protocol released: on both images').",
        ),
    ] = False

    def check(self) -> None:
        """Find an unknown protocol before anything is loaded."""
        from geoaware.evaluation.protocols import get_protocol

        if self.protocol is not None:
            get_protocol(self.protocol)

    def of(self, data: DataSet) -> Protocol:
        """The protocol asked for, or the data set's usual one."""
        from geoaware.evaluation.protocols import get_protocol, usual_protocol

        return get_protocol(self.protocol) if self.protocol else usual_protocol(data)


@dataclass(frozen=True)
class RunOptions:
    """How features are computed and kept."""

    setting: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the matching (window, temperature …) or of the extractor; may be repeated.",
        ),
    ] = None
    batch: Annotated[int, Option(min=0, help="Images extracted together; 0: by device.")] = 0
    cache_mb: Annotated[int, Option(min=0, help="Memory for features, in megabytes.")] = 2048
    cache: Annotated[
        Path | None, Option(help="Read features from `geoaware extract`'s folder, and keep new ones there.")
    ] = None
    device: Device = "auto"
    dtype: Dtype = "fp32"


@dataclass(frozen=True)
class EngineOptions:
    """What does the work."""

    workers: Annotated[
        int | None,
        Option(metavar="N", min=1, help="Processes side by side; on a CPU one a core if not given."),
    ] = None
    engine: Annotated[
        str, Option(metavar="local|ray", help="local: this machine; ray: the machines of a Ray cluster.")
    ] = "local"
    address: Annotated[
        str | None,
        Option(metavar="auto|HOST:PORT", help="Of the Ray cluster; auto: the one this machine is part of."),
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        Option(metavar="F", min=0, help="GPUs of each process on a Ray cluster; 0.25: four share one."),
    ] = None

    def load(self, batches: int, module: str) -> Engine:
        """The engine; processes of this machine start beside the loading of the model."""
        if self.engine == "ray":
            from geoaware.runs.cluster import Ray

            return Ray(self.address or "auto", self.workers, self.gpus_per_worker)
        if self.engine != "local":
            raise InputError(f"unknown engine {self.engine!r}; choose local or ray", "engine")
        for name in ("address", "gpus_per_worker"):
            if getattr(self, name) is not None:
                raise InputError("only the engine ray takes this", name)

        from geoaware.runs.work import Local

        local = Local(self.workers)
        local.prepare(batches, module)
        return local


def predict_settings(protocol: str, rules: ProtocolOptions, run: RunOptions) -> PredictSettings:
    """What a prediction needs to know beside the matcher."""
    from geoaware.evaluation.predict import PredictSettings

    return PredictSettings(protocol, rules.labels, rules.masks, run.batch, run.cache_mb * 2**20)


def load_data(data: DataOptions, chosen: PairOptions) -> DataSet:
    """The data set, cut down to the pairs asked for."""
    from geoaware.data import checked, load, options
    from geoaware.evaluation.predict import choose_pairs

    given = data.loader.given()
    draws_pairs = "seed" in options(data.dataset)
    if draws_pairs:
        # Such a loader makes the pairs itself; it would give its usual number before we could choose.
        given = {"pairs": chosen.pairs or None, "seed": chosen.seed, **given}
    loaded = load(data.dataset, data.root, data.split, **checked(data.dataset, given))
    return loaded if draws_pairs else choose_pairs(loaded, chosen.count, chosen.seed)


def load_matcher(
    features: FeatureOptions,
    run: RunOptions,
    pose: PoseOptions,
    protocol: str = "paper",
    matching: str = "auto",
) -> Matcher:
    """The matcher, reading features from the cache if there is one.

    What is wrong with the settings is found before the extractor is loaded.
    """
    from geoaware.evaluation.predict import matching_settings
    from geoaware.features import check_name, load_extractor
    from geoaware.matcher import Matcher
    from geoaware.method.alignment import PoseRule
    from geoaware.method.matching import MatchSettings
    from geoaware.presets import choose_post_processor, preset_extractor
    from geoaware.store.feature_store import CachedExtractor

    given = parse_extractor_settings(run.setting)
    for_matching = {key: given.pop(key) for key in list(given) if key in MatchSettings.__dataclass_fields__}
    network = choose_post_processor(features.extractor, features.post_processor)
    if features.blend == 0:
        network = None
    name = preset_extractor(features.extractor)
    check_name(name)
    settings = matching_settings(name, protocol, matching, for_matching, network)
    rule = None if pose.pose_rule is None else PoseRule.parse(pose.pose_rule)
    extractor = load_extractor(name, device=run.device, dtype=run.dtype, **given)
    if run.cache is not None:
        extractor = CachedExtractor(extractor, find_store(run.cache, extractor))
    zoom, upright = features.views.zoom, features.views.upright
    return Matcher(extractor, settings, pose.pose, rule, network, features.blend, zoom, upright)


def find_store(cache: Path, extractor: Extractor) -> FeatureStore:
    """The most exact set of these features in a cache folder; a new one in fp16 if there is none."""
    from geoaware.store.feature_store import FeatureStore, set_key

    new = set_key(extractor)
    for stored in ("fp32", "fp16", "int8"):
        key = replace(new, stored=stored)
        folder = cache / key.folder
        if folder.is_dir() if is_remote(folder) else any(folder.glob("*/*.safetensors")):
            return FeatureStore(cache / key.folder, key)
    return FeatureStore(cache / new.folder, new)


def parse_settings(given: list[str] | None, option: str = "set") -> dict[str, Any]:
    """``["canvas=448", "weights=folder"]`` to a dictionary; values are read as YAML.

    ``option`` is the name of the option that they were given by, for the message.
    """
    from geoaware.runs.settings import read_yaml

    settings: dict[str, Any] = {}
    for item in given or []:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--{option} {item!r} is not of the form key=value")
        try:
            parsed = read_yaml(value)
        except ValueError:
            parsed = value
        settings[key.strip()] = tuple(parsed) if isinstance(parsed, list) else parsed
    return settings


def parse_extractor_settings(given: list[str] | None) -> dict[str, Any]:
    """`parse_settings` of what goes to an extractor, beside the arguments that loading one has.

    Raises:
        InputError: an item is not KEY=VALUE, or its key is such an argument.
    """
    from geoaware.matcher import Matcher

    settings = parse_settings(given)
    for key in sorted(settings.keys() & signature(Matcher.from_pretrained).parameters.keys()):
        own = "extractor" if key == "name" else key
        raise InputError(f"{key} is no setting of an extractor; give it by an option of its own", own)
    return settings
