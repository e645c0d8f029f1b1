"""Reading a file in COCO's format: every entry is checked, and exporters' own ways are understood.

What is understood in one of several possible ways, and what is not used, becomes a note.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geoaware.data import fields, formats
from geoaware.data.dataset import LEFT_OUT, Annotations, make_box, shortened
from geoaware.data.files import known_as
from geoaware.data.formats.hub import HIDDEN, VISIBLE
from geoaware.data.pairs import describe_groups, keypoint_ids, make_schema, mirrored, rebased
from geoaware.method.keypoints import AP10K, Schema
from geoaware.method.types import Box
from geoaware.runs.errors import InputError

REPEATED = f"{LEFT_OUT}: annotations that stand there twice"

_OTHERS = "annotations are of categories without keypoints and are not used"
_BARE = "annotations have no list of keypoints and are not used"
_FLAT = "annotations have polygons of less than three points, which count as none"

_OBJECTS, _KEYPOINTS = "COCO file of images and objects", "COCO keypoints file"
_FLAGS = frozenset({-1, 0, HIDDEN, VISIBLE})
_OF = ("image_id", "category_id")
_OUTLINE = 6
"""Numbers that a polygon needs at least."""
_BOX = "x, y, width, height"

Entry = dict[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """A checked annotation file: every annotation has a known image and category and enough numbers.

    Attributes:
        categories: by id; those with keypoints, or all where keypoints are not needed.
        annotations: those of a single object, likewise, in which ids, boxes and keypoints are numbers; an id
            is added where it is missing.
        crowds: ids of images with an annotation of a whole group (``iscrowd``).
        flip_pairs: as it stands at the top of the file, or ``None``; ``keypoint_groups`` likewise.
        notes: what was understood and what was not used, one sentence each.
        folder: of the images, where the format tells.
        format: of the file, as `formats.FORMATS` calls it.
    """

    path: Path
    images: Mapping[int, Entry]
    categories: Mapping[int, Entry]
    annotations: tuple[Entry, ...]
    crowds: frozenset[int] = frozenset()
    flip_pairs: Any = None
    keypoint_groups: Any = None
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    format: str = "coco"

    def names(self, category: int) -> list[str]:
        """Keypoint names of a category; the position is the annotation id. None where there is no list."""
        listed = self.categories[category].get("keypoints")
        return [str(each) for each in listed] if isinstance(listed, list) else []


def read_coco(path: Path, objects: bool = False) -> CocoFile:
    """Read and check an annotation file; an `InputError` names file and entry.

    With ``objects``, objects of any category count, with keypoints or without, and the lists of categories
    and annotations may be missing; keypoints are not looked at.
    """
    return check_coco(path, formats.read(path, f"a {_OBJECTS if objects else _KEYPOINTS}"), objects)


def check_coco(path: Path, read: formats.Read, objects: bool = False) -> CocoFile:
    """What was read from a file, checked as `read_coco` does."""
    found, kind = Annotations(), _OBJECTS if objects else _KEYPOINTS
    found.said.extend(read.notes)
    content = _content(path, read.content, kind, objects, found)
    images = _by_id(content, "images", "file_name", path)
    categories = _by_id(content, "categories", "name", path)
    entries = _entries(content["annotations"], path)
    if not objects:
        categories, entries = _one_object(categories, entries, found)
        named = {key: each for key, each in categories.items() if _named(each, f"{path}: category {key}")}
        categories = {**named, **_numbered(categories.keys() - named.keys(), categories, entries, found)}
        if not named:
            missing = "no category lists its 'keypoints'; add their names to the categories"
            raise InputError(
                f"{path}: {missing if read.format == 'coco' else 'shows no keypoint; annotate at least one'}"
            )
    for name, times in Counter(each["name"] for each in categories.values()).most_common(1):
        if times > 1:
            raise InputError(f"{path}: two categories are called {name!r}; names must differ")
    single = [each for each in entries if not each.get("iscrowd")]
    annotations = tuple(_annotations(single, path, images, categories, objects, found))
    crowds = frozenset(each["image_id"] for each in entries if each.get("iscrowd"))
    flips, groups = mirrored(content, str(path)), content.get("keypoint_groups")
    if fields.has_nan(groups):
        raise InputError(f"{path}: keypoint_groups holds numbers that are none; give ids or names")
    notes = tuple(found.notes())
    return CocoFile(
        path, images, categories, annotations, crowds, flips, groups, notes, read.folder, read.format
    )


def _content(path: Path, content: Any, kind: str, objects: bool, found: Annotations) -> Entry:
    """A file's object with images, categories and annotations as lists."""
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no {kind} (a JSON object with images, …){known_as(content)}")
    for key, label in (("images", "file_name"), ("categories", "name"), ("annotations", "id")):
        listed, by_order = _as_list(content.get(key), label)
        if by_order:
            found.said.append(f"{key} have names but no ids, so ids count from 1 in the order of the file")
        content[key] = listed or [] if objects and key != "images" else listed
        if not isinstance(content[key], list):
            raise InputError(f"{path}: has no list {key!r}, so is no {kind}{known_as(content)}")
    if objects and not content["images"]:
        raise InputError(f"{path}: lists no images, so is no {kind}")
    return content


def read_places(annotation: Mapping[str, Any], count: int, where: str) -> list[float] | None:
    """An annotation's keypoints as numbers x, y, flag, x, y, flag …; ``None`` where it has none.

    Triples may stand in lists of their own, ``null`` for one that is not annotated. Where the flag is 0,
    coordinates may be missing.
    """
    values = annotation.get("keypoints")
    if values is None or values == []:
        return None
    if isinstance(values, list) and any(isinstance(each, list) for each in values):
        triples = [[0, 0, 0] if each is None else each for each in values]
        if not all(isinstance(each, list) and len(each) == 3 for each in triples):
            raise InputError(f"{where}: a keypoint is not [x, y, flag]")
        values = [value for triple in triples for value in triple]
    if not isinstance(values, list) or len(values) != 3 * count:
        raise InputError(f"{where} must have {3 * count} numbers (x, y, flag for {count} keypoints)")
    if not fields.are_numbers(values):
        values = [
            value for each in range(count) for value in _triple(values, each, f"{where}: keypoint {each}")
        ]
    if not _FLAGS.issuperset(values[2::3]):
        wrong = next(flag for flag in values[2::3] if flag not in _FLAGS)
        raise InputError(
            f"{where}: the flag {wrong:g} of a keypoint is not 0, 1 or 2; if flags are confidences, write 2 "
            "for the keypoints to use and 0 for the others"
        )
    return values


def visible_from(keypoints: Sequence[Sequence[float] | None], hidden: bool) -> tuple[int, list[str]]:
    """The flag from which keypoints of a file count as visible, and what is to be said of it.

    That is 2, or 1 if ``hidden``. In a file that never uses 2, flag 1 means visible.
    """
    flags = Counter[float]()
    for values in keypoints:
        flags.update((values or ())[2::3])
    if hidden or not flags[HIDDEN]:
        return (HIDDEN if hidden else VISIBLE), []
    if not flags[VISIBLE]:
        return HIDDEN, ["no keypoint has flag 2, so flag 1 counts as visible"]
    what = f"{flags[HIDDEN]} keypoints are marked as hidden (flag 1) and do not count"
    return VISIBLE, [f"{what}; the option hidden counts them"]


def keypoint_places(
    values: Sequence[float] | None, least: int = VISIBLE
) -> dict[int, tuple[float, float] | None]:
    """Places by id of an annotation's keypoints; ``None`` for those whose flag is below ``least``."""
    given = values or ()
    triples = zip(given[::3], given[1::3], given[2::3], strict=True)
    return {number: (x, y) if flag >= least else None for number, (x, y, flag) in enumerate(triples)}


def content_of(annotation: Entry, image: str) -> str:
    """What an annotation says of an image file: the same text where two of them say the same."""
    return json.dumps([image, *map(annotation.get, ("category_id", "bbox", "keypoints"))])


def corners(annotation: Mapping[str, Any], where: str) -> tuple[float, float, float, float] | None:
    """COCO's box (x, y, width, height) as x1, y1, x2, y2, with an extent or not; ``None``: there is none."""
    values = annotation.get("bbox")
    if fields.missing(values):
        return None
    x, y, width, height = fields.numbers(values, f"{where}: bbox", 4, _BOX)
    return x, y, x + width, y + height


def corner_box(annotation: Mapping[str, Any], where: str) -> Box | None:
    """COCO's box (x, y, width, height) as (x1, y1, x2, y2); ``None`` where there is none with an extent."""
    return make_box(corners(annotation, where), where)


def read_schemas(file: CocoFile) -> tuple[dict[str, Schema], list[str]]:
    """Schema of every category by name, and what was inferred; a category's own entries go before the file's.

    Keypoints called exactly as in AP-10K get the subgroups of AP-10K if the file gives none.
    """
    schemas: dict[str, Schema] = {}
    most = max(map(file.names, file.categories), key=len)
    flips, shared, note = rebased(most, file.flip_pairs, file.keypoint_groups)
    said = defaultdict[str, list[str]](list, {note: []} if note else {})
    for number, category in sorted(file.categories.items()):
        names = file.names(number)
        where = f"{file.path}: category {category['name']!r}"
        own = mirrored(category, where)
        pairs = _inside(flips, len(names)) if own is None else own
        groups = category.get("keypoint_groups", _inside(shared, len(names)))
        as_ap10k = groups is None and tuple(names) == AP10K.names
        schema, inferred = make_schema(names, pairs, dict(AP10K.subgroups) if as_ap10k else groups, where)
        if as_ap10k:
            inferred.append(f"named as in AP-10K, so with its subgroups: {describe_groups(schema)}")
        limbs, notes = _limbs(category, names)
        schemas[category["name"]] = replace(schema, skeleton=limbs)
        for sentence in [*inferred, *notes]:
            said[sentence].append(category["name"])
    return schemas, [
        f"{shortened(named)}: {sentence}" if named else sentence for sentence, named in said.items()
    ]


def _limbs(category: Entry, names: Sequence[str]) -> tuple[tuple[tuple[int, int], ...], list[str]]:
    """Joined keypoints from 0, and notes; what joins no two keypoints is passed over.

    A skeleton counts from 1, or from 0 if more of its limbs are keypoints so.
    """
    given = category.get("skeleton")
    limbs = given if isinstance(given, list) else []
    from_1, from_0 = (tuple(_joined(limbs, names, first)) for first in (1, 0))
    found = max(from_1, from_0, key=len)
    notes = [] if found is from_1 else ["the skeleton counts from 0, because more limbs join keypoints so"]
    if len(found) < len(limbs):
        notes.append(f"{len(limbs) - len(found)} limbs of the skeleton join no two keypoints")
    return found, notes


def _joined(limbs: Sequence[Any], names: Sequence[str], first: int) -> Iterator[tuple[int, int]]:
    for limb in limbs:
        with suppress(InputError, TypeError, ValueError):
            one, other = keypoint_ids(limb, names, first)
            if min(one, other) >= 0 and max(one, other) < len(names):
                yield one, other


def _inside(entries: Any, count: int) -> Any:
    """Those of a file's flip pairs or groups whose ids a category of so many keypoints has."""
    try:
        if isinstance(entries, dict):
            return {name: ids for name, ids in entries.items() if max(ids) < count}
        return [ids for ids in entries if max(ids) < count]
    except (TypeError, ValueError):
        return entries


def _as_list(entries: Any, label: str) -> tuple[Any, bool]:
    """The entries of an object by id or by name as a list, and whether their ids follow from their order.

    Whatever else is given is handed back as it is.
    """
    if not isinstance(entries, dict):
        return entries, False
    listed, by_order = list[Any](), False
    for key, entry in entries.items():
        named, is_id = {label: entry} if isinstance(entry, str) else entry, key.strip().isdecimal()
        by_order |= isinstance(named, dict) and not is_id and "id" not in named
        mine = {"id": key} if is_id else {label: key, "id": len(listed) + 1}
        listed.append({**mine, **named} if isinstance(named, dict) else entry)
    return listed, by_order


def _by_id(content: Entry, key: str, label: str, path: Path) -> dict[int, Entry]:
    """The entries of a list by their ids, each with a text under ``label``."""
    found: dict[int, Entry] = {}
    for place, entry in enumerate(content[key]):
        where = f"{path}: {key}[{place}]"
        if not isinstance(entry, dict) or "id" not in entry or label not in entry:
            raise InputError(f"{where} lacks id or {label}")
        if not isinstance(entry[label], str):
            raise InputError(f"{where}: {label} must be text")
        number = fields.whole(entry["id"], f"{where}: id")
        if number in found:
            raise InputError(f"{path}: two {key} have the id {number}; ids must differ")
        found[number] = _changed(entry, id=number)
    return found


def _entries(given: Sequence[Any], path: Path) -> list[Entry]:
    """Annotations with ids and ``iscrowd`` as numbers; missing ids follow the largest one, from 1."""
    checked: list[Entry] = []
    for place, entry in enumerate(given):
        where = f"{path}: annotations[{place}]"
        if not isinstance(entry, dict) or any(fields.missing(entry.get(key)) for key in _OF):
            raise InputError(f"{where} lacks image_id or category_id")
        numbers = [key for key in ("id", *_OF) if not fields.missing(entry.get(key))]
        changes: Entry = {key: fields.whole(entry[key], f"{where}: {key}") for key in numbers}
        if "iscrowd" in entry:
            changes["iscrowd"] = int(fields.flag(entry["iscrowd"], f"{where}: iscrowd"))
        checked.append(_changed(entry, **changes))
    free = max([0, *(each["id"] for each in checked if not fields.missing(each.get("id")))])
    for each in checked:
        if fields.missing(each.get("id")):
            free += 1
            each["id"] = free
    return checked


def _annotations(
    entries: Sequence[Entry],
    path: Path,
    images: Mapping[int, Entry],
    categories: Mapping[int, Entry],
    objects: bool,
    found: Annotations,
) -> Iterator[Entry]:
    """Annotations of a single object, checked; what is left out is counted in ``found``."""
    for entry in entries:
        where = f"{path}: annotation {entry['id']}"
        if not (objects or entry["category_id"] in categories):
            found.noted[_OTHERS].append(where)
            continue
        if entry["image_id"] not in images:
            raise InputError(f"{where} belongs to image {entry['image_id']}, which the file does not list")
        changes: Entry = {}
        if not objects:
            values = read_places(entry, len(categories[entry["category_id"]]["keypoints"]), where)
            if values is None:
                found.noted[_BARE].append(where)
                continue
            changes["keypoints"] = values
        if (box := entry.get("bbox")) is not None:
            empty = fields.missing(box)
            changes["bbox"] = None if empty else fields.numbers(box, f"{where}: bbox", 4, _BOX)
        outline = entry.get("segmentation")
        if fields.has_nan(outline):
            raise InputError(f"{where}: segmentation holds numbers that are none; mend or remove it")
        if isinstance(outline, list):
            kept = [each for each in outline if not isinstance(each, list) or len(each) >= _OUTLINE]
            if len(kept) < len(outline):
                found.noted[_FLAT].append(where)
                changes["segmentation"] = kept
        yield _changed(entry, **changes)


def _one_object(
    categories: dict[int, Entry], entries: list[Entry], found: Annotations
) -> tuple[dict[int, Entry], list[Entry]]:
    """Some exporters make a category of every keypoint: all of them are one object then.

    They do if none names more than one keypoint, every annotation has one, and images show several of them,
    each once.
    """
    listed = {key: each.get("keypoints") or [None] for key, each in sorted(categories.items())}
    flat = [each.get("keypoints") for each in entries]
    flat = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in flat]
    shown = {(each["image_id"], each["category_id"]) for each in entries if each["category_id"] in listed}
    if (
        not len({image for image, _ in shown}) < len(shown) == len(entries)
        or any(not isinstance(each, list) or len(each) > 1 for each in listed.values())
        or any(not isinstance(each, list) or len(each) != 3 for each in flat)
    ):
        return categories, entries
    names = [each[0] for each in listed.values()]
    if None in names or len(set(map(str, names))) < len(names):
        names = [categories[key]["name"] for key in listed]
    kinds = {str(each.get("supercategory") or "") for each in categories.values()}
    name = (kinds.pop() if len(kinds) == 1 else "") or "object"
    places, number = list(listed), min(listed)
    merged: dict[int, Entry] = {}
    for entry, values in zip(entries, flat, strict=True):
        image = entry["image_id"]
        blank = {
            "id": entry["id"],
            "image_id": image,
            "category_id": number,
            "keypoints": [None] * len(names),
        }
        merged.setdefault(image, blank)["keypoints"][places.index(entry["category_id"])] = values
    found.said.append(
        f"every category is a single keypoint, so {len(names)} categories are read as the keypoints of one "
        f"object: {shortened([str(each) for each in names])}"
    )
    return {number: {"id": number, "name": name, "keypoints": names}}, list(merged.values())


def _triple(values: Sequence[Any], each: int, where: str) -> tuple[float, float, float]:
    """One keypoint of a list that does not only hold numbers: x, y, flag; zeros where it is not annotated."""
    x, y, flag = values[3 * each : 3 * each + 3]
    seen = 0 if fields.missing(flag) else fields.number(flag, f"{where}: flag")
    if seen <= 0 and (fields.missing(x) or fields.missing(y)):
        return 0, 0, 0
    return fields.number(x, f"{where}: x"), fields.number(y, f"{where}: y"), seen


def _numbered(
    keys: Iterable[int], categories: Mapping[int, Entry], entries: Sequence[Entry], found: Annotations
) -> dict[int, Entry]:
    """Those of the categories without names of keypoints whose annotations have some, with numbers as names.

    Data sets of many categories, such as MP-100, name the keypoints of most of them.
    """
    lengths: dict[int, set[int]] = {key: set() for key in keys}
    for each in entries:
        values = each.get("keypoints")
        if each["category_id"] in lengths and isinstance(values, list) and values:
            lengths[each["category_id"]].add(len(values))
    given = {}
    for key, sizes in sorted(lengths.items()):
        if len(sizes) == 1 and (size := sizes.pop()) % 3 == 0:
            given[key] = {**categories[key], "keypoints": list(map(str, range(size // 3)))}
    if given:
        called = shortened([each["name"] for each in given.values()])
        found.said.append(f"{called}: names no keypoints, so they are called by their numbers from 0")
    return given


def _named(category: Entry, where: str) -> bool:
    """Whether a category lists the names of its keypoints, which must be texts or numbers."""
    names = category.get("keypoints")
    if not isinstance(names, list) or not names:
        return False
    wrong = [each for each in names if not isinstance(each, str | int)]
    if wrong:
        raise InputError(f"{where}: the keypoint {fields.shown(wrong[0])} is no name")
    return True


def _changed(entry: Entry, **changes: Any) -> Entry:
    """The entry with the changes; the very same where there are none."""
    differ = {key: value for key, value in changes.items() if key not in entry or entry[key] is not value}
    return {**entry, **differ} if differ else entry
