"""Completion: every shell gets every command, and offers what fits."""

import shutil
import subprocess

import pytest

from rapidctl import cli
from support.command import Rapidctl, spawn


@pytest.fixture(scope="module")
def bash_script() -> str:
    return spawn("completion", "bash").stdout


def complete(script: str, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = " ".join(f'"{word}"' for word in ("rapidctl", *words))
    script += f'\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _rapidctl; printf "%s\\n" "${{COMPREPLY[@]}}"'
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr == ""
    return set(ran.stdout.split())


def test_completion_knows_the_tree(bash_script: str) -> None:
    assert complete(bash_script, "par") == {"partition"}
    assert complete(bash_script, "--json", "partition", "") >= {"show", "predict", "set", "auto", "log"}
    assert complete(bash_script, "partition", "set", "--de") == {"--decode-units"}
    assert complete(bash_script, "stats", "l") == {"latency"}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_by_the_same_function(bash_script: str) -> None:
    """It used to complain of an "unrecognized modifier" at every tab: ``${words[@]:1:NAME}`` is another thing there."""
    script = f"""autoload -Uz compinit && compinit -D
{bash_script}
emulate ksh -c 'COMP_WORDS=(rapidctl --json partition set --de); COMP_CWORD=4; _rapidctl'
print -l -- $COMPREPLY"""
    ran = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr == ""
    offered = set(ran.stdout.split())  # the words of this command; which of them fit is for zsh's own matching
    assert "--decode-units" in offered
    assert "--demo" not in offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_every_command(shell: str, rapidctl: Rapidctl) -> None:
    script = rapidctl("completion", shell).stdout
    for name in (*cli.COMMANDS, "predict", "decode-units"):
        assert name in script
