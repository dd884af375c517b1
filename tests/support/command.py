"""`rapidctl` as a script sees it: words in, exit code and streams out."""

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from rapidctl import cli
from rapidctl.commands.schema import document_type


class Ran:
    """What a command did."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr

    @property
    def documents(self) -> list[dict[str, Any]]:
        """One a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def document(self, name: str) -> dict[str, Any]:
        """The only one, which is as `rapidctl schema` says under this name."""
        msgspec.json.decode(self.stdout, type=document_type(name))
        (found,) = self.documents
        return found


class Rapidctl:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Ran:
        """Run one."""
        code = cli.main(words)
        captured = self._capsys.readouterr()
        return Ran(code, captured.out, captured.err)


def spawn(*words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run one in a process of its own."""
    command = [sys.executable, "-m", "rapidctl.cli", *words]
    return subprocess.run(command, text=True, timeout=60, check=False, **{"capture_output": True, **how})
