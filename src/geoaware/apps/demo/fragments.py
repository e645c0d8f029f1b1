"""The parts of the page that are written as HTML; whatever a visitor named is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from geoaware.apps.demo.session import NAMES, Row, Session

WELCOME = "Bring two images of the same kind of thing, then click points on image A."
OPENED = "Left eye on left eye, right ear on right ear. Point at image A, or choose your own images."
LOST = "What was on this page is no longer here: the demo was started anew, or others needed the room."
_POSES = {"identity": "as it is", "flip": "mirrored"}


def table(rows: Sequence[Row], chosen: int | None) -> str:
    """The matches as a table whose first column chooses the point."""
    if not rows:
        return '<div class="panel"><h2>Matches</h2><p class="faint">None yet.</p></div>'
    lines = [
        f'<tr{_marked(index == chosen)}><td><button type="button" class="number" '
        f'style="background:{row.colour}" data-index="{index}" aria-pressed="{str(index == chosen).lower()}" '
        f'aria-label="Choose point {row.number}">{row.number}</button></td>'
        f"<td>{_xy(row.query)}</td><td>{_xy(row.match)}</td>"
        f'<td><span class="bar"><i style="width:{100 * row.confidence:.0f}%"></i></span>'
        f'{row.confidence:.2f}</td><td class="wide">{row.cycle_error:.3f}</td><td><button type="button" '
        f'class="remove" data-remove="{index}" aria-label="Delete point {row.number}">×</button></td></tr>'
        for index, row in enumerate(rows)
    ]
    return (
        '<div class="panel"><h2>Matches</h2><table><thead><tr><th scope="col">Point</th>'
        '<th scope="col">On A</th><th scope="col">On B</th><th scope="col">Confidence</th>'
        '<th scope="col" class="wide" title="How far from the point its match leads back to, in units of '
        "image A's longer side\">Cycle error</th><th></th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def pose(session: Session) -> str:
    """Which poses of image A were tried, and which was chosen."""
    if not session.aligned:
        text = '<p class="faint">Off: image A is matched as it is.</p>'
    elif not session.distances:
        text = '<p class="faint">The two distances appear when both images are here.</p>'
    else:
        lines = [
            f'<tr{_marked(tried == session.pose)}><td>{_POSES.get(tried, tried)}</td><td data-pose="{tried}">'
            f"{distance:.4f}</td><td>{'chosen' if tried == session.pose else ''}</td></tr>"
            for tried, distance in session.distances.items()
        ]
        text = (
            '<table><thead><tr><th scope="col">Image A</th><th scope="col">Distance to B</th><th></th></tr>'
            f"</thead><tbody>{''.join(lines)}</tbody></table>"
        )
    return f'<div class="panel">{text}</div>'


def _marked(chosen: bool) -> str:
    return ' class="chosen"' if chosen else ""


def hint(session: Session, rows: Sequence[Row]) -> str:
    """What to do next."""
    missing = [name for side, name in NAMES.items() if session.shown(side) is None]
    if len(missing) == 2:
        return WELCOME
    if missing:
        return f"Now bring {missing[0]}."
    if not rows:
        return "Click a point on image A."
    if session.untouched:
        return OPENED
    many = "1 point" if len(rows) == 1 else f"{len(rows)} points"
    low = [str(row.number) for row in rows if row.low]
    if not low:
        return f"{many} matched."
    which = f"point {low[0]}" if len(low) == 1 else f"{len(low)} of them ({', '.join(low)})"
    return f"{many} matched. Low confidence in {which}: image B has several such places, or none."


def note(text: str, bad: bool = False) -> str:
    """One line to the visitor, read out by screen readers: a state, or what went wrong."""
    return f'<p class="note{" bad" if bad else ""}" role="{"alert" if bad else "status"}">{escape(text)}</p>'


def _xy(point: tuple[float, float]) -> str:
    return f"{point[0]:.0f}, {point[1]:.0f}"
