"""The log is one JSON object a line, whoever speaks."""

from __future__ import annotations

import json
import logging

import pytest

from edgepure.serve.logs import take_logs_of


def test_libraries_write_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    take_logs_of("edgepure.test")
    child = logging.getLogger("edgepure.test.child")
    child.info("nothing of interest")
    child.warning("%d tasks", 1)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        child.exception("failed")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["source"], first["words"]) == ("warning", "edgepure.test.child", "1 tasks")
    assert second["event"] == "error" and "ValueError" in second["error"]
