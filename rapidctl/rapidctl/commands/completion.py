"""`rapidctl completion`: a static script for a shell, made from the argument parser itself; it starts no Python."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rapidctl.commands import common

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rapidctl.out import Out


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(
        commands,
        "completion",
        run,
        "print a completion script",
        "bash: source <(rapidctl completion bash)    "
        "zsh: source <(rapidctl completion zsh), or as a file _rapidctl in a folder of fpath    "
        "fish: rapidctl completion fish > ~/.config/fish/completions/rapidctl.fish",
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(args: argparse.Namespace, out: Out) -> int:
    """Print it."""
    from rapidctl.cli import build_parser  # the tree itself; cli imports this module

    words = {path: list(_words(parser)) for path, parser in _walk(build_parser(), ())}
    out.text(_SCRIPTS[args.shell](words), end="")
    return 0


Words = dict[tuple[str, ...], list[str]]


def _walk(
    parser: argparse.ArgumentParser, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield path, parser
    for name, command in _commands(parser).items():
        yield from _walk(command, (*path, name))


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Commands, values of positional arguments, and options that may come next."""
    for action in parser._actions:
        if action.option_strings:
            yield from action.option_strings
        elif action.choices is not None:
            yield from map(str, action.choices)


def _bash(words: Words) -> str:
    """In zsh, too, which runs bash's functions when told. A path of command names selects the list; options before them
    are skipped over."""
    cases = "\n".join(f'    "{" ".join(path)}") words="{" ".join(options)}" ;;' for path, options in words.items())
    paths = " ".join(f'"{" ".join(path)}"' for path in words if path)
    return f"""[[ -n "${{ZSH_VERSION-}}" ]] && autoload -U +X bashcompinit && bashcompinit
_rapidctl() {{
  local word path="" next words="" known
  for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD - 1))}}"; do
    next="${{path:+$path }}$word"
    for known in {paths}; do
      [[ "$known" == "$next" ]] && path="$next"
    done
  done
  case "$path" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _rapidctl rapidctl
"""


def _zsh(words: Words) -> str:
    """Sourced, or a function of ``fpath``: that has the file's name, and answers its first call, too."""
    answer = '[[ "${funcstack[1]}" == _rapidctl ]] && _bash_complete -o default -F _rapidctl || true'
    return f"#compdef rapidctl\n{_bash(words)}{answer}\n"


def _fish(words: Words) -> str:
    lines = []
    for path, options in words.items():
        seen = [f"__fish_seen_subcommand_from {name}" for name in path]
        below = [longer[-1] for longer in words if longer and longer[:-1] == path]
        unseen = [f"not __fish_seen_subcommand_from {' '.join(below)}"] if below else []
        condition = "; and ".join([*seen, *unseen])
        for option in options:
            if option.startswith("--"):
                what = f"-l {option[2:]}"
            elif option.startswith("-"):
                what = f"-s {option[1:]}"
            else:
                what = f"-a '{option}'"
            lines.append(f"complete -c rapidctl -n '{condition}' {what}")
    return "\n".join(lines) + "\n"


_SCRIPTS: dict[str, Callable[[Words], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
