"""`geoaware serve` as a program: who is let in, and how it ends."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.apps.demo.serving import request, started
from tests.command_line import assert_refused, geoaware

TOKEN = "a-token-nobody-guesses"


@pytest.mark.parametrize("empty", [False, True])
def test_others_are_not_let_in_without_a_token(monkeypatch: pytest.MonkeyPatch, empty: bool) -> None:
    monkeypatch.delenv("GEOAWARE_TOKEN", raising=False)
    if empty:
        monkeypatch.setenv("GEOAWARE_TOKEN", "")
    done = geoaware("serve", "--host", "0.0.0.0", "--port", "0")
    assert_refused(done, "other machines can reach 0.0.0.0, so a token is needed", "(--token)")


def test_a_token_that_is_easily_guessed() -> None:
    done = geoaware("serve", "--token", "short", "--port", "0")
    assert_refused(done, "the token must be 16 characters or more", "(--token)")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_it_serves_with_the_token_of_the_environment_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("python_multipart")
    monkeypatch.setenv("GEOAWARE_TOKEN", TOKEN)
    with started(tmp_path, "--extractor", "tests.toys:Seeing", command="serve") as program:
        url = program.url()
        assert request(url, "/health")[0] == 200
        assert request(url, "/version")[0] == 401
        assert request(url, "/version", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert program.end(signal.SIGTERM) == "ended\n"
