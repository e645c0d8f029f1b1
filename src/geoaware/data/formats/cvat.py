"""CVAT XML 1.1 for images: skeletons, points and boxes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from geoaware.data import fields
from geoaware.data.files import read_text
from geoaware.data.formats.hub import (
    HIDDEN,
    MARK,
    VISIBLE,
    Entry,
    Head,
    Hub,
    Point,
    Result,
    box_of,
    understanding,
)
from geoaware.runs.errors import InputError

WHAT = "a CVAT XML"

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What may not stand in XML."""


def recognise(path: Path, head: Head) -> bool:
    """Whether a file that begins so is of this format."""
    return head.text.startswith("<") and re.search(r"<annotations[\s/>]", head.text) is not None


def read(paths: Sequence[Path], hub: Hub) -> None:
    """Take in the file."""
    (path,) = paths
    text = read_text(path, WHAT)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path}: has a DOCTYPE, as no CVAT XML has; export it again")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise InputError(
            f"{path}, line {line}: damaged, no valid XML at column {column + 1}; export it again"
        ) from None
    if root.find("track") is not None:
        raise InputError(f"{path}: is a CVAT XML for videos; export it as CVAT for images 1.1")
    for label in root.iter("label"):
        if label.findtext("type") == "skeleton":
            _skeleton(label, root, hub)
    for image in root.iter("image"):
        where = f"{path}: image {image.get('name')!r}"
        with understanding(where, "CVAT"):
            found = hub.image(image.attrib["name"], (image.get("width"), image.get("height")))
            for shape in image:
                _object(shape, found, hub, f"{where}: {shape.get('label')!r}")


def _skeleton(label: ElementTree.Element, root: ElementTree.Element, hub: Hub) -> None:
    """The keypoints of a label in the order of its drawing, else of its sublabels, and its limbs."""
    name = label.findtext("name") or ""
    names = [each.findtext("name") or "" for each in root.iter("label") if each.findtext("parent") == name]
    nodes: dict[str | None, str] = {}
    limbs = []
    try:
        drawing = ElementTree.fromstring(f"<svg>{label.findtext('svg') or ''}</svg>")
    except ElementTree.ParseError:
        drawing = ElementTree.Element("svg")
    for place, circle in enumerate(drawing.iter("circle")):
        called = circle.get("data-label-name") or (names[place] if place < len(names) else "")
        nodes[circle.get("data-node-id")] = called
    for line in drawing.iter("line"):
        ends = nodes.get(line.get("data-node-from")), nodes.get(line.get("data-node-to"))
        if ends[0] and ends[1]:
            limbs.append((ends[0], ends[1]))
    hub.category(name, filter(None, [*nodes.values(), *names]), limbs)


def _object(shape: ElementTree.Element, image: Entry, hub: Hub, where: str) -> None:
    """A skeleton, a box, or points: one is a keypoint of its label's name, several are numbered."""
    label = shape.get("label") or ""
    if shape.tag == "skeleton":
        found = {each.attrib["label"]: _points(each, where) for each in shape.iter("points")}
        points = {name: each[0] for name, each in found.items() if each}
        hub.category(label, found)
        hub.add(image, label, points)
    elif shape.tag == "points":
        several = _points(shape, where)
        names = [label] if len(several) == 1 else map(str, range(1, len(several) + 1))
        hub.add(image, label, dict(zip(names, several, strict=True)))
    elif shape.tag == "box":
        x1, y1, x2, y2 = (
            fields.number(shape.get(each), f"{where}: {each}") for each in ("xtl", "ytl", "xbr", "ybr")
        )
        hub.add(image, label, box=[x1, y1, x2 - x1, y2 - y1])


def _points(shape: ElementTree.Element, where: str) -> list[Point]:
    """The places of a shape of points; none where they are outside of the image, as CVAT calls it."""
    if shape.get("outside") == "1":
        return []
    flag = HIDDEN if shape.get("occluded") == "1" else VISIBLE
    pairs = [each.split(",") for each in shape.attrib["points"].split(";") if each]
    places = [fields.numbers(each, f"{where}: points", 2, "x,y") for each in pairs]
    return [Point(x, y, flag) for x, y in places]


def write(draft: Path, result: Result) -> None:
    """Write the file; a keypoint that is absent is outside, in the middle of its object's box."""
    with draft.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<!-- {MARK} {result.mark} -->\n')
        labels = "".join(map(_label, result.categories))
        file.write(
            f"<annotations>\n<version>1.1</version>\n<meta><task><labels>{labels}</labels></task></meta>\n"
        )
        for number, (image, objects) in enumerate(result.images()):
            sides = "".join(f' {key}="{image[key]}"' for key in ("width", "height") if key in image)
            file.write(f'<image id="{number}" name={_quoted(image["file_name"])}{sides}>\n')
            for each in objects:
                category, points = result.named(each)
                x, y, width, height = box_of(each, points) or (0, 0, 0, 0)
                file.write(f'<skeleton label={_quoted(category["name"])} source="auto" z_order="0">\n')
                for name in category["keypoints"]:
                    point = points.get(name, Point(round(x + width / 2, 2), round(y + height / 2, 2), 0))
                    file.write(
                        f'<points label={_quoted(name)} source="auto" outside="{int(not point.flag)}" '
                        f'occluded="{int(point.flag == HIDDEN)}" points="{point.x},{point.y}"></points>\n'
                    )
                file.write("</skeleton>\n")
            file.write("</image>\n")
        file.write("</annotations>\n")


def _label(category: Entry) -> str:
    """A label and its sublabels, with the keypoints drawn in a circle."""
    names, name = category["keypoints"], escape(_clean(category["name"]))
    turns = [2 * math.pi * each / max(1, len(names)) for each in range(len(names))]
    at = [(round(50 + 40 * math.sin(turn), 2), round(50 - 40 * math.cos(turn), 2)) for turn in turns]
    svg = "".join(
        f'<line x1="{at[a - 1][0]}" y1="{at[a - 1][1]}" x2="{at[b - 1][0]}" y2="{at[b - 1][1]}" '
        f'data-type="edge" data-node-from="{a}" data-node-to="{b}"></line>'
        for a, b in category.get("skeleton") or ()
    ) + "".join(
        f'<circle r="1.5" cx="{x}" cy="{y}" data-type="element node" data-element-id="{number}" '
        f'data-node-id="{number}" data-label-name={_quoted(each)}></circle>'
        for number, (each, (x, y)) in enumerate(zip(names, at, strict=True), start=1)
    )
    return (
        f"<label><name>{name}</name><type>skeleton</type><attributes></attributes>"
        f"<svg>{escape(svg)}</svg></label>\n"
    ) + "".join(
        f"<label><name>{escape(_clean(each))}</name><type>points</type><attributes></attributes>"
        f"<parent>{name}</parent></label>\n"
        for each in names
    )


def _clean(text: str) -> str:
    return _CONTROL.sub("\ufffd", str(text))


def _quoted(text: str) -> str:
    return quoteattr(_clean(text))
