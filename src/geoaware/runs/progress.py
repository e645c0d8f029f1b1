"""How long work tells how far it is, and the bars on standard error that show it.

Work takes a `Tell` and calls it with what it does, how much of it is done and how much there is. It need not
know whether anybody looks: `silent` is the default, and `progress_bars` gives one that draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task


@runtime_checkable
class Tell(Protocol):
    """What long work calls to tell how far it is."""

    def __call__(self, what: str, done: int, total: int, note: str = "", /) -> None:
        """Take what is being done, how much of it is done, how much there is, and a few words on it."""


def silent(what: str, done: int, total: int, note: str = "", /) -> None:
    """Tell nobody."""


def renamed(tell: Tell, title: str) -> Tell:
    """Tells the same under another name."""
    return lambda what, done, total, note="", /: tell(title, done, total, note)


def advancing(tell: Tell, what: str, total: int) -> Callable[[int], None]:
    """For work that says at each call how much more is done, instead of how much in all."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tell(what, done, total)

    if total:
        tell(what, 0, total)
    return advance


@contextmanager
def progress_bars(active: bool = True, terminal_only: bool = False) -> Iterator[Tell]:
    """Bars on standard error, one for each kind of work, with its rate and the time left.

    A bar appears when its work begins; when other work begins, the bars of finished work go.

    Args:
        active: whether this process shows anything; of several processes only the first should.
        terminal_only: show nothing if standard error is no terminal, instead of a last line for each bar.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not active or (terminal_only and not console.is_terminal):
        yield silent
        return
    progress = _progress(console)

    def tell(what: str, done: int, total: int, note: str = "", /) -> None:
        # It starts with the first work: stopping a display that shows nothing would print an empty line.
        progress.start()
        bars = {task.description: task for task in progress.tasks}
        if what not in bars:
            for each in bars.values():
                if each.finished:
                    progress.remove_task(each.id)
            bar = progress.add_task(what, total=total, note=note)
        else:
            bar = bars[what].id
            if bars[what].finished and done < total:
                progress.reset(bar, total=total)
        progress.update(bar, completed=done, total=total, note=note)

    try:
        yield tell
    finally:
        if progress.live.is_started:
            progress.stop()


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class Words(ProgressColumn):
        def __init__(self, words: Callable[[Task], str]) -> None:
            super().__init__()
            self.words = words

        def render(self, task: Task) -> Text:
            return Text(self.words(task))

    return Progress(
        Words(lambda task: task.description),
        BarColumn(),
        MofNCompleteColumn(),
        Words(lambda task: rate(task.finished_speed or task.speed)),
        TimeRemainingColumn(),
        Words(lambda task: task.fields["note"]),
        console=console,
    )


def rate(speed: float | None) -> str:
    """``12.3/s``, or ``4.1 s each`` where a second is not enough for one; nothing while it is not known."""
    if not speed:
        return ""
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
