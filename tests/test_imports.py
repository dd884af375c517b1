"""Imports point one way: rapidctl <- rapidd -> rapid_kernels; and what must start fast never loads torch or Textual."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.process import ROOT, WAIT_S, environment

PACKAGES = {"rapidctl": ROOT / "rapidctl", "rapidd": ROOT / "daemon", "rapid_kernels": ROOT / "kernels"}

FORBIDDEN = {
    "rapidctl": {"rapidd", "rapid_kernels", "torch", "transformers"},
    "rapidctl.cli": {"textual"},
    "rapidctl.out": {"textual"},
    "rapidctl.client": {"textual"},
    "rapidctl.commands": {"textual"},
    "rapidctl.bench": {"textual", "rich", "asyncio"},
    "rapidctl.bench.trace": {"zmq", "textual"},
    "rapidd.cli": {"torch", "rapid_kernels", "zmq"},
    "rapidd.supervisor": {"torch", "rapid_kernels", "zmq"},
    "rapidd.settings": {"torch", "rapid_kernels"},
    "rapidd.doctor": {"torch", "rapid_kernels"},
    "rapidd.demo": {"torch", "rapid_kernels"},
    "rapidd.http": {"torch", "rapid_kernels", "transformers", "tokenizers", "numpy"},
    "rapidd.http.command": {"zmq", "starlette", "uvicorn", "prometheus_client"},
    "rapidd.front": {"torch", "rapid_kernels", "transformers"},
    "rapidd.telemetry": {"torch", "rapid_kernels"},
    "rapidd.policy": {"torch", "rapid_kernels", "zmq"},
    "rapidd.model.config": {"torch", "rapid_kernels"},
    "rapidd.model.resolve": {"torch", "rapid_kernels"},
    "rapidd.model.tokenizer": {"torch", "rapid_kernels", "transformers"},
    "rapidd.model.chat": {"torch", "rapid_kernels", "transformers"},
    "rapidd": {"textual", "transformers"},
    "rapid_kernels": {"rapidd", "rapidctl", "zmq", "transformers"},
}
"""Module or package -> top-level packages that no file of it may import, anywhere in the file."""


def module_files() -> Iterator[tuple[str, Path]]:
    """Every module of the three packages."""
    for package, root in PACKAGES.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path) -> set[str]:
    """Top-level packages imported anywhere in a file, type-checking blocks and functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            names.add((node.module or "").partition(".")[0])
    return names


def test_no_module_imports_what_it_must_not() -> None:
    modules = dict(module_files())
    assert {module.partition(".")[0] for module in modules} == set(PACKAGES)
    offences = [
        f"{module} imports {name}"
        for module, path in modules.items()
        for owner, forbidden in FORBIDDEN.items()
        if module == owner or module.startswith(f"{owner}.")
        for name in sorted(imported(path) & forbidden)
    ]
    assert offences == []


@pytest.mark.parametrize("owner", FORBIDDEN)
def test_every_rule_names_a_module_that_exists(owner: str) -> None:
    assert owner in dict(module_files())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("rapidctl.cli", {"textual", "rich", "torch", "rapidd", "asyncio"}),
        ("rapidctl.client", {"textual", "torch", "rapidd"}),
        ("rapidctl.wire", {"zmq", "textual", "rapidd"}),
        ("rapidctl.bench.trace", {"zmq", "textual", "rapidd", "asyncio"}),
        ("rapidctl.bench.command", {"textual", "rich", "torch", "rapidd", "asyncio"}),
        ("rapidd.cli", {"torch", "numpy", "zmq", "textual", "asyncio"}),
        ("rapidd.supervisor.core", {"torch", "numpy", "zmq", "textual", "asyncio"}),
        ("rapidd.http.server", {"torch", "numpy", "textual", "transformers", "tokenizers", "pydantic"}),
        ("rapidd.http.command", {"zmq", "starlette", "uvicorn", "asyncio"}),
        ("rapidd.front.__main__", {"torch", "textual", "transformers"}),
        ("rapidd.policy.policies", {"torch", "zmq"}),
        ("rapidd.model.resolve", {"torch", "transformers"}),
        ("rapidd.model.chat", {"torch", "transformers"}),
        ("rapid_kernels", {"zmq", "transformers"}),
    ],
)
def test_what_importing_really_loads(module: str, absent: set[str]) -> None:
    """What the files themselves say is not enough: a dependency could load torch behind our back."""
    code = f"import {module}, json, sys; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(), capture_output=True, timeout=WAIT_S, check=True
    )
    assert not absent & set(json.loads(answer.stdout))
