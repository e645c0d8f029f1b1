from __future__ import annotations

from pathlib import Path

import pytest

from geoaware.runs.errors import InputError
from geoaware.runs.log import FILE, Log, read

pytest.importorskip("tensorboard", reason="needs the extra 'train'")


def test_a_run_that_goes_on_keeps_what_it_has_behind_it(tmp_path: Path) -> None:
    first = Log(tmp_path, 0)
    for step in range(1, 5):
        first.add(step, {"loss": step}, write=step % 2 == 0)
    first.close()
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 5, "lo')
    assert read(tmp_path) == [{"step": 2, "loss": 1.5}, {"step": 4, "loss": 3.5}]
    Log(tmp_path, 3).close()
    assert read(tmp_path) == [{"step": 2, "loss": 1.5}]


@pytest.mark.parametrize(
    "line",
    [
        b'{"step": 3, "loss',
        b'{"step": 3, "loss": \xff}',
        b'{"l\xffss": 1, "step": 3}',
        b'{"loss": 1}',
        b'{"step": "3"}',
        b'{"step": null}',
        b'{"step": true}',
        b"[3]",
        b"3",
        b"[" * 5000,
        b"",
    ],
)
def test_a_damaged_line_is_told_with_the_remedy(tmp_path: Path, line: bytes) -> None:
    (tmp_path / FILE).write_bytes(b'{"step": 2}\n' + line + b'\n{"step": 4}\n')
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(InputError) as caught:
        Log(tmp_path, 4)
    assert str(caught.value) == f"{tmp_path / FILE}: is damaged; restart to begin anew"
    assert caught.value.parameter == "restart"
    assert (tmp_path / FILE).read_bytes() == before
