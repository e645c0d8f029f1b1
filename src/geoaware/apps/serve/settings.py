"""What is served over HTTP, where, to whom, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from geoaware.apps.serve.images import Bounds
from geoaware.apps.web.guard import is_loopback
from geoaware.apps.web.images import Limits
from geoaware.runs.errors import InputError

SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class ServeSettings:
    """What is served, and where.

    Attributes:
        host: name or address to listen at; 127.0.0.1: this machine alone.
        port: 0 takes one that is free.
        extractor, post_processor, device, dtype, zoom, upright: as `Matcher.from_pretrained` takes them.
        limits: of an image.
        bounds: of the images that are kept.
        points: matched at once.
        waiting: requests that may wait for the device; others are told to come back.
        token: what every request must bring; must be given where other machines can reach the server.

    Raises:
        InputError: the token is missing where one is needed, or easy to guess.
    """

    host: str = "127.0.0.1"
    port: int = 7870
    extractor: str = "lite"
    post_processor: str = "auto"
    device: str = "auto"
    dtype: str = "fp32"
    zoom: str | None = None
    upright: str = "off"
    limits: Limits = field(default_factory=Limits)
    bounds: Bounds = field(default_factory=Bounds)
    points: int = 1000
    waiting: int = 64
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is None:
            if not is_loopback(self.host):
                raise InputError(
                    f"other machines can reach {self.host}, so a token is needed; give one of "
                    f"{SHORTEST_TOKEN} characters or more that nobody can guess",
                    parameter="token",
                )
        elif len(self.token) < SHORTEST_TOKEN or not all("!" <= each <= "~" for each in self.token):
            raise InputError(
                f"the token must be {SHORTEST_TOKEN} characters or more: letters, digits and signs of ASCII, "
                "without spaces",
                parameter="token",
            )
