"""Changes of valid input: of bytes, of trees of values, of tables, of images, and of words.

Every function takes the random numbers to draw from first.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import yaml
from PIL import Image

TEXTS = (
    *("", " ", "x", "nan", "inf", "-inf", "-1", "0", "1", "1e308", "-1e999", "9" * 400, "2147483648", "0.5"),
    *(
        "1_000",
        "0x10",
        "1e-320",
        "true",
        "null",
        "[]",
        "[1, 2]",
        "{a: 1}",
        "!!python/name:os.system",
        "&a [*a]",
    ),
    *("[b]", "[/x]", "a\nb", "a\r\nb", "a\tb", "\x1b[31m", "\udcff", "é", "e\u0301", "\u202e"),
    *(
        "x" * 90,
        "y" * 300,
        "word " * 700,
        "z" * 5000,
        "%s{}$HOME",
        "*",
        "**/*",
        "~",
        ".",
        "..",
        "-",
        "--",
        "/",
    ),
    *(
        "a.png/b",
        "img",
        "img/",
        "img/a.png",
        "coco",
        "points.csv",
        "p.jsonl",
        "no/such/file.png",
        "/dev/null",
    ),
    *("/dev/full", "/dev/stdout", "/proc/self/mem", "1,2", "1;2", "nan,nan", "inf,5", "-5,-5", "1e9,1e9"),
    *(
        "auto",
        "all",
        "none",
        "lite",
        "toy",
        "toy+toy",
        "cuda:7",
        "meta",
        "cpu:1",
        "flip",
        "<b>",
        "=",
        "a=b",
        ",",
    ),
)
"""Words and texts that may be where others are expected."""

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        2,
        3,
        -1,
        0.5,
        1.5,
        -0.0,
        1e308,
        -1e308,
        5e-324,
        2**31,
        2**63,
        -(2**64),
        10**30,
    ),
    *(float("nan"), float("inf"), float("-inf"), [], {}, [[]], [None], [0], [1, 2], [1, 2, 3], {"": None}),
    *(
        [float("nan")] * 3,
        [[1, 2], [3, 4]],
        {"a": {"b": []}},
        [1] * 70,
        ["x"],
        "left eye",
        "nose",
        "cat",
        "\ud800",
        "a\0b",
    ),
)
"""Values that may be where others are expected."""

_NUMBERS = (0, 1, 2, 3, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def text(dice: Random) -> str:
    """A word."""
    return dice.choice(TEXTS)


def value(dice: Random) -> Any:
    """A value of any kind."""
    if dice.random() < 0.4:
        return text(dice)
    return copy.deepcopy(dice.choice(VALUES))


def spoil(dice: Random, content: bytes, others: list[bytes]) -> bytes:
    """Change bytes here and there, or blocks of them."""
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        content = dice.choice(_BYTES)(dice, content, others)
    return content


def _flip(dice: Random, content: bytes, _: list[bytes]) -> bytes:
    changed = bytearray(content)
    # Formats say the most at their beginnings.
    end = len(changed) if dice.random() < 0.5 else min(len(changed), 64)
    for _ in range(dice.choice((1, 1, 2, 8, 64)) if changed else 0):
        changed[dice.randrange(end)] ^= dice.choice((1 << dice.randrange(8), dice.randrange(256)))
    return bytes(changed)


def _block(dice: Random, content: bytes) -> tuple[int, int]:
    begin = dice.randrange(len(content) + 1)
    return begin, min(len(content), begin + dice.choice((1, 2, 4, 16, 200, len(content))))


def _cut(dice: Random, content: bytes, _: list[bytes]) -> bytes:
    begin, end = _block(dice, content)
    return dice.choice((content[:begin], content[end:], content[:begin] + content[end:]))


def _repeat(dice: Random, content: bytes, _: list[bytes]) -> bytes:
    begin, end = _block(dice, content)
    return content[:end] + content[begin:end] * dice.choice((1, 2, 30)) + content[end:]


def _exchange(dice: Random, content: bytes, _: list[bytes]) -> bytes:
    first, second = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    size = min(second - first, len(content) - second, dice.choice((1, 4, 16, 4096)))
    one, other = content[first : first + size], content[second : second + size]
    return content[:first] + other + content[first + size : second] + one + content[second + size :]


def _insert(dice: Random, content: bytes, _: list[bytes]) -> bytes:
    begin, end = _block(dice, content)
    strange = (
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\n",
        b'"',
        b"[" * 3000,
        b"\x00" * 300,
        b"<html>",
        b"NaN",
    )
    return content[:begin] + dice.choice((*strange, dice.randbytes(9))) + content[dice.choice((begin, end)) :]


def _splice(dice: Random, content: bytes, others: list[bytes]) -> bytes:
    other = dice.choice(others)
    return content[: _block(dice, content)[0]] + other[_block(dice, other)[0] :]


def _other(dice: Random, _: bytes, others: list[bytes]) -> bytes:
    return dice.choice((*others, b""))


def _number(dice: Random, content: bytes, _: list[bytes]) -> bytes:
    """A whole number, as file formats have them, replaced by one at a border."""
    size, kind = dice.choice(((2, "H"), (4, "I")))
    if len(content) < size:
        return content
    place = dice.randrange(min(len(content) - size + 1, dice.choice((32, 256, len(content)))))
    packed = struct.pack(dice.choice("<>") + kind, dice.choice(_NUMBERS) & (256**size - 1))
    return content[:place] + packed + content[place + size :]


_BYTES: tuple[Callable[[Random, bytes, list[bytes]], bytes], ...] = (
    *(_flip, _flip, _flip, _number, _number, _cut, _cut, _repeat, _exchange, _insert, _splice, _other),
)


# Trees of values: JSON, JSON lines and YAML.


class _Raw(str):
    """A text that stands in JSON as it is."""


def tree(dice: Random, content: Any, longer: bool = True) -> Any:
    """Change a tree of values in one to three places."""
    content = copy.deepcopy(content)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        places = list(_places(content))
        if not places:
            return value(dice)
        inside, key = dice.choice(places)
        _change(dice, inside, key, longer)
    return content


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every mapping or list in a tree, with each of its keys; some of a long list stand for all."""
    found, waiting = [], [content]
    while waiting:
        inside = waiting.pop()
        if isinstance(inside, (dict, list)):
            keys = list(inside) if isinstance(inside, dict) else list(range(min(len(inside), 12)))
            found += [(inside, key) for key in keys]
            waiting += [inside[key] for key in keys]
    return found


def _change(dice: Random, inside: Any, key: Any, longer: bool) -> None:
    kind, old = dice.randrange(10), inside[key]
    if kind < 5:
        inside[key] = value(dice)
    elif kind == 5:
        del inside[key]
    elif kind == 6 and isinstance(inside, dict):
        inside[text(dice) if dice.random() < 0.7 else f"{key} "] = old
        if dice.random() < 0.5:
            inside.pop(key, None)
    elif kind == 6:
        inside.insert(key, copy.deepcopy(old))
    elif kind == 7:
        inside[key] = [old] if dice.random() < 0.5 else {str(key): old}
    elif kind == 8 and longer:
        deep = dice.choice((3, 60, 900, 30_000))
        inside[key] = _Raw("[" * deep + "]" * deep)
    elif isinstance(old, (int, float)) and not isinstance(old, bool):
        inside[key] = dice.choice((-old, old + 0.5, old * 1e6, old * 1e300, str(old), f"{old}x", old - 1))
    else:
        inside[key] = str(old)[: dice.randrange(9)]


def as_json(content: Any, indent: int | None = None) -> bytes:
    """JSON that may be none: numbers that are not finite, keys that stand there twice, any depth."""
    raw: list[str] = []

    def kept(part: Any) -> Any:
        if isinstance(part, _Raw):
            raw.append(part)
            return f"@raw{len(raw) - 1}@"
        if isinstance(part, dict):
            return {each: kept(inside) for each, inside in part.items()}
        return [kept(inside) for inside in part] if isinstance(part, list) else part

    made = json.dumps(kept(content), indent=indent)
    for number, each in enumerate(raw):
        made = made.replace(f'"@raw{number}@"', each)
    return made.encode("utf-8", errors="surrogatepass")


def json_file(dice: Random, content: bytes) -> bytes:
    """Change JSON or lines of it; what is none stays."""
    whole = content.decode("utf-8", errors="replace")
    try:
        changed = as_json(tree(dice, json.loads(whole)), dice.choice((None, 1)))
        return _twice(dice, changed) if dice.random() < 0.1 else changed
    except (ValueError, RecursionError):
        pass
    lines = whole.splitlines()
    row = dice.randrange(len(lines)) if lines else 0
    if not lines or dice.random() < 0.25:
        return "\n".join(_shuffled(dice, lines, row)).encode()
    try:
        changed = as_json(tree(dice, json.loads(lines[row])))
    except (ValueError, RecursionError):
        return content
    return b"\n".join(
        [*(each.encode() for each in lines[:row]), changed, *map(str.encode, lines[row + 1 :]), b""]
    )


def _twice(dice: Random, content: bytes) -> bytes:
    """A key that stands there twice."""
    places = [place for place in range(len(content)) if content[place : place + 1] == b"{"]
    place = dice.choice(places) + 1 if places else 0
    return content[:place] + b'"id": 7, "images": 3, "name": "x", "points": [],' + content[place:]


def yaml_file(dice: Random, content: bytes) -> bytes:
    """Change YAML; what stands for a million values already stays."""
    if b"*a9" in content:
        return content
    try:
        read = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError):
        return content
    changed = tree(dice, read, longer=False)
    made = yaml.safe_dump(_speakable(changed), sort_keys=False).encode("utf-8", errors="surrogatepass")
    if dice.random() < 0.1:
        anchors = b"a0: &a0 [1, 1]\n" + b"".join(
            b"a%d: &a%d [*a%d, *a%d]\n" % (n + 1, n + 1, n, n) for n in range(25)
        )
        made = dice.choice(
            (made + b"x: " + b"[" * 5000, anchors + made, made + b"\n---\na: 1\n", b"- " + made)
        )
    return made


def _speakable(content: Any) -> Any:
    """Without what the writer of YAML refuses."""
    if isinstance(content, str):
        return content.encode("utf-8", "ignore").decode()
    if isinstance(content, dict):
        return {_speakable(key): _speakable(each) for key, each in content.items()}
    return [_speakable(each) for each in content] if isinstance(content, list) else content


def table(dice: Random, content: bytes) -> bytes:
    """Change cells, rows or separators of a CSV file or a list."""
    lines = content.decode("utf-8", errors="replace").splitlines()
    if not lines:
        return text(dice).encode("utf-8", errors="surrogatepass")
    row, kind = dice.randrange(len(lines)), dice.randrange(4)
    if kind == 0:
        lines = _shuffled(dice, lines, row)
    elif kind == 1:
        old, new = dice.choice(",;:\t .-/"), dice.choice((",", ";", "\t", " ", "", '"', "\n"))
        lines = [each.replace(old, new) for each in lines]
    else:
        mark = next((each for each in ",;:\t " if each in lines[row]), ",")
        cells = lines[row].split(mark)
        cells[dice.randrange(len(cells))] = text(dice)
        lines[row] = mark.join(cells)
    end = dice.choice(("\n", "\r\n", "\r"))
    return (end.join(lines) + end).encode(dice.choice(("utf-8", "utf-16", "latin-1")), errors="replace")


def _shuffled(dice: Random, lines: list[str], row: int) -> list[str]:
    changed = list(lines)
    if changed and dice.random() < 0.4:
        del changed[row]
    elif changed and dice.random() < 0.5:
        changed.insert(row, changed[row])
    else:
        dice.shuffle(changed)
    return changed


# Files with a head of their own.


def safetensors_file(dice: Random, content: bytes) -> bytes:
    """Change the head of a safetensors file, or the values of its tensors."""
    try:
        size = struct.unpack("<Q", content[:8])[0]
        head = json.loads(content[8 : 8 + size])
    except (ValueError, struct.error, RecursionError):
        return content
    body = content[8 + size :]
    said = head.get("__metadata__") if isinstance(head, dict) else None
    if dice.random() < 0.3:
        odd = struct.pack("<f", dice.choice((float("nan"), float("inf"), 1e38, -1.0)))
        body = (odd * (len(body) // 4 + 1))[: len(body)]
    elif said and isinstance(said, dict) and dice.random() < 0.6:
        name = dice.choice(list(said))
        inside = json_file(dice, str(said[name]).encode())
        head["__metadata__"][name] = inside.decode("utf-8", errors="replace")
    else:
        head = tree(dice, head)
    made = as_json(head)
    made += b" " * (-len(made) % 8)
    return struct.pack("<Q", len(made)) + made + body


def image_file(dice: Random, content: bytes) -> bytes:
    """Change an image's head so that its checksum is right, a TIFF's tags, or the whole image."""
    if content.startswith(b"\x89PNG") and dice.random() < 0.7:
        return _png(dice, content)
    if content[:4] in (b"II*\0", b"MM\0*") and dice.random() < 0.8:
        return _tiff(dice, content)
    size = dice.choice(((1, 1), (1, 48), (48, 1), (2, 2), (48, 48), (300, 3), (700, 500)))
    mode = dice.choice(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"))
    kind = dice.choice(("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000", "ICO", "SGI"))
    buffer = io.BytesIO()
    try:
        image = Image.new(mode, size)
        if mode == "F":
            odd = dice.choice((np.nan, np.inf, -np.inf, 3e38, 0))
            image = Image.fromarray(np.full(size[::-1], odd, np.float32))
        exif = Image.Exif()
        exif[0x0112] = dice.choice((*range(10), 65535, "x"))
        image.save(buffer, kind, exif=exif)
    except Exception:  # whatever a format cannot hold
        return content
    return buffer.getvalue()


def _png(dice: Random, content: bytes) -> bytes:
    """Another width, height, depth or type, or a chunk left out, repeated or spoiled, with its checksum."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        size = struct.unpack(">I", content[place : place + 4])[0]
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    if not chunks:
        return content
    row = dice.choice((0, dice.randrange(len(chunks))))
    kind, inside = chunks[row]
    if kind == b"IHDR" and len(inside) == 13:
        fields = list(struct.unpack(">IIBBBBB", inside))
        at = dice.randrange(7)
        fields[at] = dice.choice((0, 1, 2, 3, 4, 6, 8, 16) if at > 1 else (0, 1, 7, 4000, 20000, 2**31 - 1))
        inside = struct.pack(">IIBBBBB", *fields)
    else:
        inside = spoil(dice, inside, [content])
    changed = dice.choice(
        ([(kind, inside)], [(kind, inside), (kind, inside)], []) if row else ([(kind, inside)],)
    )
    chunks[row : row + 1] = changed
    if dice.random() < 0.3:
        chunks.insert(
            1, (dice.choice((b"eXIf", b"iCCP", b"tRNS", b"zTXt", b"PLTE", b"acTL")), dice.randbytes(20))
        )
    packed = [struct.pack(">I", len(each)) + name + each for name, each in chunks]
    sums = [struct.pack(">I", zlib.crc32(each[4:])) for each in packed]
    return content[:8] + b"".join(each + check for each, check in zip(packed, sums, strict=True))


def _tiff(dice: Random, content: bytes) -> bytes:
    """Another kind, count or value of a tag."""
    order = "<" if content[:2] == b"II" else ">"
    try:
        begin = struct.unpack(order + "I", content[4:8])[0]
        count = struct.unpack(order + "H", content[begin : begin + 2])[0]
        place = begin + 2 + 12 * dice.randrange(count)
        tag, kind, number, value = struct.unpack(order + "HHII", content[place : place + 12])
    except (struct.error, ValueError):
        return content
    which = dice.randrange(4)
    if which == 0:
        tag = dice.choice((tag, 256, 257, 258, 259, 262, 273, 274, 277, 279, 284, 317, 338, 339, 34665))
    elif which == 1:
        kind = dice.choice((0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 16, 99))
    elif which == 2:
        number = dice.choice(_NUMBERS)
    else:
        value = dice.choice((*_NUMBERS, value + 1, value ^ 1))
    packed = struct.pack(order + "HHII", tag & 0xFFFF, kind, number & 0xFFFFFFFF, value & 0xFFFFFFFF)
    return content[:place] + packed + content[place + 12 :]


def mat_file(dice: Random, content: bytes) -> bytes:
    """Another matrix under the name of one."""
    from scipy.io import savemat

    odd = (
        np.full((2, 10), np.nan),
        np.zeros((0, 0)),
        np.array("x"),
        np.array([[1 + 2j]]),
        {"a": 1},
        -np.ones((10, 2)),
    )
    made = io.BytesIO()
    savemat(made, {key: dice.choice(odd) for key in ("kps", "pts_coord")})
    return made.getvalue() if dice.random() < 0.5 else content


def by_kind(dice: Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    """A change that suits the kind of the file, or one of its bytes."""
    suffix = name.lower().rpartition(".")[2]
    kinds: dict[str, Callable[[Random, bytes], bytes]] = {
        **dict.fromkeys(("json", "jsonl", "part"), json_file),
        **dict.fromkeys(("csv", "txt"), table),
        **dict.fromkeys(
            ("png", "jpg", "jpeg", "tif", "tiff", "webp", "bmp", "gif", "avif", "ppm", "pgm"), image_file
        ),
        "yaml": yaml_file,
        "safetensors": safetensors_file,
        "mat": mat_file,
    }
    change = kinds.get(suffix, json_file if ".part" in name else None)
    if change is None or dice.random() < 0.35:
        return spoil(dice, content, others)
    try:
        changed = change(dice, content)
    except RecursionError:  # nested deep by an earlier change
        changed = content
    return spoil(dice, changed, others) if dice.random() < 0.1 else changed
