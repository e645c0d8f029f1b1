"""A run: a command is given changed input or other words, and what it did is looked at."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from geoaware.commands.options import WRITTEN
from geoaware.runs.files import _DRAFT
from tests.fuzz import frame, mutations
from tests.fuzz.cases import CASES, CHOICES, SAME, Case

LONGEST_MESSAGE = 2_000
FAILURES = (
    "(DivergedError; ",
    "(NotFiniteError; ",
    "(DiskFullError; ",
    "not enough memory; ",
    "no space left",
)
"""What may end long work with exit code 1, by a message of the library."""

_PYTHON = re.compile(
    r"Traceback|File \"|\bNoneType\b|object (has|is|does|cannot)|unhashable"
    r"|(?<!palette )\bindex out of|(?<!palette index )out of range"
    r"|unsupported operand|not supported between|unexpected keyword|positional argument|invalid literal"
    r"|could not convert|[Mm]ust be (real|str|int)|embedded null|<class |object at 0x|\[Errno|Warning:"
    r"|codec can't|set_int_max_str|not subscriptable|not iterable"
    r"|\b(?!Diverged|NotFinite|DiskFull)[A-Z]\w+Error\b"
)
"""What Python, or a library, says to programmers."""


@dataclass(frozen=True)
class Round:
    """A run of a case, and what was wrong with it; nothing if ``faults`` is empty."""

    case: Case
    words: list[str]
    ended: frame.Ended
    faults: list[str]


def run(seed: int, number: int, world: Path, place: Path) -> Round:
    """The run of a number; the same whenever it is asked for."""
    dice = Random(f"{seed}/{number}")
    case = dice.choices(CASES, [each.weight for each in CASES])[0]
    return run_case(
        case, dice, dice.choices(("files", "words", "both", "names"), (60, 28, 6, 6))[0], world, place
    )


def run_case(case: Case, dice: Random, plan: str, world: Path, place: Path) -> Round:
    """A case, of which the plan says what is changed; nothing if it is empty."""
    words = [_chosen(dice, word) for each in case.words.split() for word in SAME.get(each, (each,))]
    folder = place / "run"
    folder.mkdir()
    try:
        _copy(world, folder, [*words, *case.reads])
        if plan in ("files", "both"):
            _spoil(dice, case, folder)
        if plan in ("words", "both"):
            words = _mutated(dice, words)
        if plan == "names":
            words = _renamed(dice, case, words, folder)
        before = _contents(folder)
        ended = frame.run(words, folder, case.stop)
        faults = [*_judged(case, ended), *_touched(case, words, folder, before)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Round(case, words, ended, faults)


def _chosen(dice: Random, word: str) -> str:
    return re.sub(r"{(\w+)}", lambda name: dice.choice(CHOICES[name[1]]), word)


def _copy(world: Path, folder: Path, words: list[str]) -> None:
    """Those files and folders of the world that are named."""
    for name in dict.fromkeys(part.rstrip("/") for word in words for part in (word, word.partition("=")[2])):
        source = world / name
        if not name or name == "." or not source.exists() or (folder / name).exists():
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / name, dirs_exist_ok=True)
        else:
            shutil.copy(source, folder / name)


def _candidates(case: Case, folder: Path) -> list[Path]:
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    return [each for each in files if _fits(each.relative_to(folder).as_posix(), case.spoils)] or files


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, each) for each in patterns)


def _spoil(dice: Random, case: Case, folder: Path) -> None:
    files = _candidates(case, folder)
    # A text decides more than an image does.
    texts = [each for each in files if each.suffix not in (".png", ".jpg")]
    for _ in range(dice.choice((1, 1, 1, 2)) if files else 0):
        path = dice.choice(texts if texts and dice.random() < 0.6 else files)
        others = [dice.choice(files).read_bytes() for _ in range(2)]
        path.write_bytes(mutations.by_kind(dice, path.name, path.read_bytes(), others))


def _mutated(dice: Random, words: list[str]) -> list[str]:
    """Words left out, repeated, replaced or added."""
    command = _command(words)
    words = list(words)
    for _ in range(dice.choice((1, 1, 2, 3))):
        place, kind = dice.randrange(1, max(2, len(words))), dice.randrange(10)
        if kind < 3 and place < len(words):
            words[place] = mutations.text(dice)
        elif kind == 3 and place < len(words):
            del words[place]
        elif kind == 4 and place < len(words):
            words.insert(place, words[place])
        elif kind == 5:
            words += ["--set", f"{dice.choice(_KEYS)}={mutations.text(dice)}"]
        else:
            option = dice.choice(command.params)
            name = dice.choice([*option.opts, *option.secondary_opts])
            words.append(name) if name.startswith("-") else None
            if not getattr(option, "is_flag", False):
                words.append(mutations.text(dice))
    return [_within(each) for each in words]


_KEYS = (
    *(
        "window",
        "temperature",
        "weight",
        "canvas",
        "grid",
        "extractor",
        "device",
        "name",
        "weights",
        "",
        ".",
        "a.b",
    ),
    *(
        "stages.0.steps",
        "stages.0.batch",
        "stages.0.learning_rate",
        "stages.-1.steps",
        "stages.9",
        "network.width",
    ),
    *("network.grid", "loss.window", "matching.window", "seed", "root", "start", "validation.every", "cache"),
    *(
        "steps",
        "shape.width",
        "size",
        "views.turn",
        "objective.points",
        "data.0.objects",
        "workers",
        "inside_picture",
    ),
)


def _within(word: str) -> str:
    """No word leads out of the run's folder, but to devices and the like."""
    return re.sub(r"^(--?\w*=|\w+=)?/(?!dev/|proc/)(?=.)", r"\1", word)


def _command(words: list[str]) -> Any:
    found = frame.commands().commands[words[0]]
    return found.commands[words[1]] if hasattr(found, "commands") else found


def _renamed(dice: Random, case: Case, words: list[str], folder: Path) -> list[str]:
    """A file is missing, is something else, or has another name; words that named it name it so."""
    files = _candidates(case, folder)
    if not files:
        return words
    path = dice.choice(files)
    kind = dice.randrange(8)
    if kind < 5:
        path.unlink()
        if kind == 1:
            path.mkdir()
        elif kind == 2:
            path.symlink_to("nowhere")
        elif kind == 3:
            path.symlink_to(path.name)
        elif kind == 4:
            path.touch()
        return words
    names = ("[b]", "[x]", "a\nb", "\udce9", "x" * 200, "e\u0301", "<b>", "a b", "-n", "%s{0}", "\x1b[31m")
    fresh = path.with_name(dice.choice(names) + path.suffix)
    path.rename(fresh)
    old = path.relative_to(folder).as_posix()
    return [each.replace(old, str(fresh.relative_to(folder))) for each in words]


def _contents(folder: Path) -> dict[str, bytes]:
    """Content, or what else it is, of all that is in a folder."""
    found = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(above, name)
            shown = str(path.relative_to(folder))
            if path.is_symlink():
                found[shown] = os.fsencode(path.readlink())
            elif path.is_file():
                found[shown] = path.read_bytes()
    return found


def _judged(case: Case, ended: frame.Ended) -> Iterator[str]:
    """What is wrong with the code or with what was said."""
    if ended.trouble:
        yield ended.trouble
    said = ended.err
    whole = ended.code == 1 and "failed while working" in said
    allowed = {0, 2, 130} | ({1} if case.fails and not whole else set())
    if ended.code not in allowed and not any(each in said for each in FAILURES):
        yield f"exit code {ended.code}"
    if (found := _PYTHON.search(said)) is not None:
        yield f"says {found[0]!r}"
    if ended.code == 2 and not said.strip() and "problem" not in ended.out:
        yield "exit code 2 without a word"
    begin = said.find("error: ")
    longest = max(
        (
            len(each)
            for each in (*said.split("\n"), *ended.below.split("\n"), said[begin:] if begin >= 0 else "")
        ),
        default=0,
    )
    if longest > LONGEST_MESSAGE:
        yield f"a message of {longest} characters"
    if said.count("\n", begin) > 2 and begin >= 0 and "failed: " not in said:
        yield f"an error of {said.count(chr(10), begin)} lines"


def _touched(case: Case, words: list[str], folder: Path, before: dict[str, bytes]) -> Iterator[str]:
    """What was changed or left behind though it is not the command's."""
    after = _contents(folder)
    for name in before.keys() - after.keys():
        if not _fits(name, case.owns):
            yield f"{name} is gone"
    for name, content in after.items():
        if (
            name in before
            and content != before[name]
            and not _fits(name, case.owns)
            and not _is_result(name, words)
        ):
            yield f"{name} was changed"
        if _DRAFT.fullmatch(Path(name).name) or name.startswith("tmp/"):
            yield f"{name} was left behind"


def _is_result(name: str, words: list[str]) -> bool:
    """Whether a file is only named as a place for a result."""
    flags = {f"--{each.replace('_', '-')}" for each in WRITTEN} | {"--json"}
    places = [row for row, word in enumerate(words) if Path(word.partition("=")[2] or word) == Path(name)]
    inside = [word for word in words if word and Path(word) in Path(name).parents and word != "."]
    return (
        not inside
        and bool(places)
        and all(words[row - 1] in flags or words[row].partition("=")[0] in flags for row in places)
    )
