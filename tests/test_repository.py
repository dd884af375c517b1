"""The repository itself: versions agree, the Makefile explains itself, and no file tells where it was made."""

import re
import subprocess
import tomllib
from collections.abc import Iterator

import pytest

from rapidctl import __version__
from support.process import ROOT

TARGETS = {
    "help",
    "setup",
    "model",
    "demo",
    "test",
    "test-gpu",
    "storm",
    "soak",
    "test-faults",
    "lint",
    "bench",
    "bench-gpu",
    "bench-console",
    "docs",
    "clean",
}
SERIES = {"commands", "screens", "widgets", "wire"}
"""Folders with a file a command, a screen, a widget, a kind of message."""
MACHINE = re.compile(
    r"(?<![\w.])/(?:work|home|Users|root|mnt)/[\w.-]"  # a path of somebody's machine
    r"|\bpypi\.org\b|\bpythonhosted\b|\bindex-url\b|\bdownload\.pytorch\b",  # a registry
)


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Name and text of every file under version control, or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in sorted(set(listed.stdout.decode().split("\0")) - {""}):
        path = ROOT / name
        if path.is_file():
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == __version__
    assert len(set(headings)) == len(headings)


def test_make_lists_every_target() -> None:
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[1] for line in listed.stdout.splitlines()} == TARGETS


def test_every_module_is_on_the_map() -> None:
    """Of the folders that hold one thing many times over, the folder is."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", text[text.index("## Files") : text.index("Imports point one way")]))
    packages = (ROOT / "rapidctl/rapidctl", ROOT / "daemon/rapidd", ROOT / "kernels/rapid_kernels")
    found = [path for package in packages for path in package.rglob("*.py") if not path.stem.startswith("__")]
    missing = [path for path in found if path.stem not in named and path.parent.name not in SERIES]
    assert missing == []


def test_the_pinned_torch_satisfies_the_daemon() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (needed,) = [line for line in project["project"]["optional-dependencies"]["daemon"] if line.startswith("torch")]
    (pinned,) = re.findall(r"^torch==([\d.]+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    oldest = needed.removeprefix("torch>=")
    assert [int(part) for part in pinned.split(".")] >= [int(part) for part in oldest.split(".")]


def test_no_file_names_a_machine_or_a_registry() -> None:
    offences = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in tracked_texts()
        if not name.startswith("tests/data/") and name != "tests/test_repository.py"
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE.search(line)
    ]
    assert offences == []


def test_every_text_ends_with_a_newline_and_has_no_stray_blanks() -> None:
    offences = [
        name
        for name, text in tracked_texts()
        if name.endswith((".py", ".md", ".toml", ".txt", "Makefile", "run"))
        and text
        and (not text.endswith("\n") or re.search(r"[ \t]+$", text, re.MULTILINE))
    ]
    assert offences == []
