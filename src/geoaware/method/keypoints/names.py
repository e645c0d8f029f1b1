"""Left and right read out of keypoint names.

A name counts as sided only if its counterpart is in the list too: ``leftover`` is not the left ``over``
unless there is a ``rightover``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[^\W\d_]+|\d+")
_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_ENDS = frozenset({"front", "back", "fore", "hind", "rear"})
_SIDE = "*"

Key = tuple[str, ...]


def infer_flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Positions of names that differ in left and right only, lower position first, rising.

    Understood are the words left, right, l and r in any case, set off by anything that is no letter or by a
    capital (``left_ear``, ``L ear``, ``ear.R``, ``earLeft``, ``LEar``), and left and right written onto the
    word (``leftear``). Names that occur twice are left alone.

    Example:
        >>> infer_flip_pairs(["l_eye", "nose", "r_eye", "collar"])
        ((0, 2),)
    """
    words = [_words(name) for name in names]
    pairs = _matched({index: _set_off(each) for index, each in enumerate(words)})
    paired = {index for pair in pairs for index in pair}
    rest = {index: _written_on(each) for index, each in enumerate(words) if index not in paired}
    return tuple(sorted(pairs + _matched(rest)))


def sides(names: Sequence[str], flip_pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Of each keypoint ``left``, ``right`` or, without a partner, ``middle``.

    Where the names of two partners do not tell, the first is taken for the left one.

    Example:
        >>> sides(["ear.R", "ear.L", "nose", "horn 1", "horn 2"], [(0, 1), (3, 4)])
        ['right', 'left', 'middle', 'left', 'right']
    """
    found = ["middle"] * len(names)
    for pair in flip_pairs:
        words = [_words(names[each]) for each in pair]
        said = [{side for _, side in _set_off(each) or _written_on(each)} for each in words]
        turned = "right" in said[0] or ("left" in said[1] and "left" not in said[0])
        for each, side in zip(pair, ("right", "left") if turned else ("left", "right"), strict=True):
            found[each] = side
    return found


def infer_subgroups(
    names: Sequence[str], flip_pairs: Sequence[tuple[int, int]]
) -> Mapping[str, tuple[int, ...]]:
    """Subgroups of alike keypoints: partners, with those partners whose names differ in front and back only.

    Example:
        >>> infer_subgroups(["left front paw", "right front paw", "left back paw", "right back paw", "nose"],
        ...                 [(0, 1), (2, 3)])
        {'paw': (0, 1, 2, 3)}
    """
    parts: dict[str, list[int]] = defaultdict(list)
    for pair in flip_pairs:
        words = part_name(names, pair).split()
        anywhere = [word for word in words if word not in _ENDS] or words
        parts[" ".join(anywhere) or f"part {len(parts) + 1}"] += pair
    whole = {part: part_name(names, members) or part for part, members in parts.items()}
    unique = len(set(whole.values())) == len(whole)
    return {whole[part] if unique else part: tuple(sorted(members)) for part, members in parts.items()}


def part_name(names: Sequence[str], members: Sequence[int]) -> str:
    """The words that the names of some keypoints have in common, without sides; empty if there are none.

    Example:
        >>> part_name(["l_front_paw", "r_front_paw", "l_back_paw"], (0, 1, 2))
        'paw'
    """
    stems = [_stem(_words(names[each])) for each in members]
    return " ".join(word for word in stems[0] if all(word in stem for stem in stems[1:]))


def _words(name: str) -> Key:
    return tuple(word.lower() for word in _WORD.findall(name))


def _set_off(words: Key) -> list[tuple[Key, str]]:
    """The name with its one side word taken out, and the side; nothing if there is none or more."""
    places = [index for index, word in enumerate(words) if word in _SIDES]
    if len(places) != 1 or words in (("l",), ("r",)):  # names may be letters of the alphabet
        return []
    place = places[0]
    return [((*words[:place], _SIDE, *words[place + 1 :]), _SIDES[words[place]])]


def _written_on(words: Key) -> list[tuple[Key, str]]:
    """Every reading of the name with left or right written onto a word."""
    readings = []
    for index, word in enumerate(words):
        for side in ("left", "right"):
            before, after = words[:index], words[index + 1 :]
            if word.startswith(side) and word != side:
                readings.append(((*before, _SIDE, word[len(side) :], *after), side))
            if word.endswith(side) and word != side:
                readings.append(((*before, word[: -len(side)], _SIDE, *after), side))
    return readings


def _matched(readings: Mapping[int, list[tuple[Key, str]]]) -> list[tuple[int, int]]:
    """Pairs of one left and one right name with the same rest; each name in one pair at most."""
    sides: dict[Key, dict[str, list[int]]] = defaultdict(lambda: {"left": [], "right": []})
    for index, found in readings.items():
        for key, side in found:
            sides[key][side].append(index)
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for found_at in sides.values():
        left, right = found_at["left"], found_at["right"]
        if len(left) == len(right) == 1 and left[0] != right[0] and not taken & {left[0], right[0]}:
            pairs.append((min(left[0], right[0]), max(left[0], right[0])))
            taken |= {left[0], right[0]}
    return pairs


def _stem(words: Key) -> Key:
    """The name without its side."""
    readings = _set_off(words) or _written_on(words)
    return tuple(word for word in (readings[0][0] if readings else words) if word != _SIDE)
