"""What a name in a file means: as it stands, or as another system or tool spells it.

Names come with backslashes, with the folders of another machine, with ``%20`` for a space, with accents as
one character or as two, in capitals. What is found so is noted; what could be several files is not found.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from geoaware.runs.errors import InputError
from geoaware.runs.places import is_remote, missing_bucket

_UPLOAD = re.compile("[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of every file that is uploaded."""

_FEW = 50
"""For more files at a URL their folders are listed; for fewer the store is asked of each."""


class Names:
    """Looks names up among known ones, such as ids of images; ``where`` names the file that they stand in."""

    def __init__(self, known: Iterable[str] = (), where: str = "") -> None:
        self._where = where and f"{where}: "
        self._known = _by_plain(known)
        self._found: dict[str, str | None] = {}
        self._called: dict[str, str] = {}
        self._rules: dict[str, list[str]] = {}

    def find(self, name: str) -> str | None:
        """The known name that is meant, or ``None``.

        Raises:
            InputError: two names that were asked for mean the same.
        """
        if name not in self._found:
            self._found[name] = self._search(name)
        return self._found[name]

    def notes(self) -> list[str]:
        """A sentence for each rule by which names were found that nothing is called exactly."""
        return [
            f"names spelled in another way ({rule}): {len(each)}, such as {each[0]}"
            for rule, each in self._rules.items()
        ]

    def _search(self, name: str) -> str | None:
        for spelled, rule in _spellings(name):
            found = self._look(spelled)
            if found is None:
                continue
            other = self._called.setdefault(found, name)
            if other != name:
                raise InputError(
                    f"{self._where}the names {other!r} and {name!r} both lead to {found}; they must differ"
                )
            letters = _letters(spelled, found)
            if rule or letters:
                text = " and ".join(filter(None, (rule, letters)))
                self._rules.setdefault(text, []).append(f"{name!r} is {found!r}")
            return found
        return None

    def _look(self, spelled: str) -> str | None:
        """The known name that is spelled so, but for capitals and accents."""
        return _only(self._known, spelled)


class FileNames(Names):
    """Looks up the files in a folder and in those inside it; a folder is listed when a name is not there.

    One at a URL is also listed when many names are looked up: that asks the store less often.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._listed: dict[Path, dict[str, list[str]]] = {}
        self._asked = 0

    def path(self, name: str) -> Path:
        """The file that is meant; where there is none, the place where it should be.

        Raises:
            InputError: no file can have this name.
        """
        if "\0" in name:
            raise InputError(f"{self.folder}: no file in it can be called {name!r}; mend the name")
        return self.folder / (self.find(name) or name)

    def _look(self, spelled: str) -> str | None:
        if self.has(spelled):
            return spelled
        place = Path()
        for part in PurePosixPath(spelled).parts:
            folder = self.folder / place
            found = part if part == ".." else _only(self._names(folder), part)
            if found is None:
                return None
            place /= found
        return place.as_posix() if self.has(place.as_posix()) else None

    def has(self, name: str) -> bool:
        """Whether there is a file of exactly this name."""
        path = self.folder / name
        self._asked += 1
        if is_remote(path) and self._asked > _FEW:
            return path.name in self._names(path.parent).get(_plain(path.name), ())
        return is_file(path)

    def _names(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listed:
            self._listed[folder] = _by_plain(_inside(folder))
        return self._listed[folder]


def alike(path: Path) -> str:
    """For the message that nothing is at a path: the file that it may mean; empty if there is none.

    At a URL it is said if the bucket is missing.
    """
    if is_remote(path):
        return missing_bucket(path)
    root = Path(path.anchor)
    found = FileNames(root).find(path.relative_to(root).as_posix())
    return f"; {root / found} is there" if found else ""


def _spellings(name: str) -> Iterator[tuple[str, str]]:
    """What a name may mean, likeliest first, with the rule."""
    slashed = name.replace("\\", "/")
    whole = [(name, ""), (slashed, "backslashes"), (unquote(name), "%20"), (unquote(slashed), "%20")]
    yield from (each for place, each in enumerate(whole) if each[0] not in dict(whole[:place]))
    for each in (slashed, unquote(slashed)):
        parts = PurePosixPath(each).parts
        for start in range(1, len(parts)):
            yield "/".join(parts[start:]), "folders of another place"
        if parts and (begin := _UPLOAD.match(parts[-1])):
            yield parts[-1][begin.end() :], "uploads of Label Studio"


def _letters(spelled: str, found: str) -> str:
    """In what two spellings differ that are the same but for that."""
    if spelled == found or PurePosixPath(spelled) == PurePosixPath(found):
        return ""
    composed = (unicodedata.normalize("NFC", each) for each in (spelled, found))
    return "accents" if len(set(composed)) == 1 else "capitals"


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _by_plain(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in names:
        found.setdefault(_plain(each), []).append(each)
    return found


def _only(known: dict[str, list[str]], name: str) -> str | None:
    """The known name that is this one, or else the only one that is alike."""
    alike = known.get(_plain(name), [])
    return name if name in alike else alike[0] if len(alike) == 1 else None


def printable(name: str) -> str:
    """A name as it can be written anywhere: bytes that are not UTF-8 stand in it as ``\\udce9``."""
    return name.encode(errors="backslashreplace").decode()


def missing_files(paths: Sequence[Path]) -> list[Path]:
    """Those of the paths at which no file is."""
    folders = {folder: FileNames(folder) for folder in {path.parent for path in paths if is_remote(path)}}
    return [
        path
        for path in paths
        if not (folders[path.parent].has(path.name) if is_remote(path) else path.is_file())
    ]


def is_file(path: Path) -> bool:
    """Whether there is such a file; there is none of a name that the system does not allow."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that the system does not allow
        return False


def _inside(folder: Path) -> list[str]:
    try:
        if is_remote(folder):
            return [each.name for each in folder.iterdir()]
        return os.listdir(folder)  # noqa: PTH208  (names alone, for speed)
    except (OSError, ValueError):
        return []
