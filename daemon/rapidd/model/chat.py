"""A model's chat template, rendered in a sandbox. No torch, no tokenizer: messages in, prompt text out.

The environment is the one that templates are written for (Hugging Face's: `trim_blocks`, `raise_exception`, `tojson`,
`strftime_now`, `{% generation %}`), in jinja2's immutable sandbox. A template is a program from the model's files,
so its output is bounded while it renders and it may not make huge strings by repetition; the messages it is given
were bounded on the wire.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rapidctl.wire import MAX_PROMPT_CHARS, ChatMessage
from rapidd.errors import ModelError, RequestError

MAX_RENDERED_CHARS: Final = 2 * MAX_PROMPT_CHARS
"""A rendered prompt longer than this is refused: the longest message plus as much again for the template's own text."""
_MAX_REPEAT: Final = 100_000
"""Longest sequence a template may make with ``*``, as jinja2's sandbox bounds range()."""

_TEMPLATE_FAILURES: Final = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template can raise while it renders: each concerns the one conversation it was given."""


class ChatTemplate:
    """A compiled template. ``source`` null: the model has none, and `render` says so.

    ``special_tokens``: ``bos_token``, ``eos_token``, ... as the template's variables of these names.
    """

    def __init__(self, source: str | None, special_tokens: dict[str, str] | None = None) -> None:
        self._variables = dict(special_tokens or {})
        try:
            self._template = None if source is None else _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template does not compile: {error}") from error

    def __bool__(self) -> bool:
        return self._template is not None

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """The prompt text for an answer to ``messages``; encode it without adding special tokens.

        Raises `RequestError`: ``unsupported`` without a template, ``invalid_request`` with the template's own words
        when it refuses the conversation, ``prompt_too_long`` when the text outgrows `MAX_RENDERED_CHARS`.
        """
        if self._template is None:
            raise RequestError(
                "unsupported",
                "this model has no chat template",
                "send a bare prompt instead: rapidctl run --no-chat, or POST /v1/completions",
            )
        turns = [{"role": message.role, "content": message.content} for message in messages]
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(
                messages=turns, add_generation_prompt=True, tools=None, documents=None, **self._variables
            ):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_RENDERED_CHARS:
                    raise RequestError(
                        "prompt_too_long", f"the chat prompt is longer than {MAX_RENDERED_CHARS} characters"
                    )
        except _TEMPLATE_FAILURES as error:
            raise RequestError("invalid_request", f"the chat template refuses these messages: {error}") from error
        return "".join(pieces)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, and no way to make a huge value out of small ones."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise jinja2.TemplateRuntimeError("** is not available to chat templates")
        for sequence, count in ((left, right), (right, left)):
            if hasattr(sequence, "__len__") and isinstance(count, int) and len(sequence) * count > _MAX_REPEAT:
                raise jinja2.TemplateRuntimeError(f"a repetition longer than {_MAX_REPEAT}")
        return super().call_binop(context, operator, left, right)


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks what training learns from; when serving it means its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    functions: dict[str, Callable[..., Any]] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.globals.update(functions)
    environment.filters["tojson"] = _tojson
    return environment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; jinja2's own filter would escape HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
