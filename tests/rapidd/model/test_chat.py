"""Chat templates: `transformers.apply_chat_template` is the reference, on templates in the style of each family."""

import datetime
import re
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models

from rapidctl.wire import ChatMessage
from rapidd.errors import ModelError, RequestError
from rapidd.model import chat
from rapidd.model.chat import ChatTemplate
from rapidd.model.gguf import read_header

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADERS = """
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{%- if tools is not none %}{{- raise_exception("tools given") }}{%- endif %}
<|system|>Today is {{ date_string }}. {{ system }}
{% for message in messages %}
    {% if message.role == 'skip' %}{% continue %}{% endif %}
<|{{ message.role }}|>{% generation %}{{ message.content | trim }}{% endgeneration %}{{ eos_token }}
{% endfor %}
"""
INSTRUCT = """{%- set ns = namespace(turn=0) -%}
{{ bos_token }}{% for m in messages %}
{%- if (m['role'] == 'user') != (ns.turn % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- set ns.turn = ns.turn + 1 -%}
{{ '[INST] ' ~ m.content ~ ' [/INST]' if m.role == 'user' else ' ' ~ m.content ~ eos_token }}{% endfor %}"""
AS_JSON = "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ messages[0]['content'].split('a')[-1] }}"
TEMPLATES = {"chatml": CHATML, "headers": HEADERS, "instruct": INSTRUCT, "json": AS_JSON}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def reference() -> Any:
    backend = tokenizers.Tokenizer(models.BPE({"<s>": 0, "</s>": 1}, []))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **TOKENS)


ROLES = st.sampled_from(["user", "assistant", "system", "skip"])
CONTENT = st.text(max_size=20) | st.sampled_from(["<b>&'\"</b>", " padded ", "{{ 7 * 7 }}", "a\nb", "é😀"])
MESSAGES = st.lists(st.builds(ChatMessage, ROLES, CONTENT), min_size=1, max_size=4)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40)
@given(messages=MESSAGES)
def test_renders_as_transformers_does(reference: Any, name: str, messages: list[ChatMessage]) -> None:
    template = ChatTemplate(TEMPLATES[name], TOKENS)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        expected = reference.apply_chat_template(
            turns, chat_template=TEMPLATES[name], add_generation_prompt=True, tokenize=False
        )
    except Exception as error:
        refusal: Exception | None = error
    else:
        refusal = None
    if refusal is None:
        assert template.render(messages) == expected
    else:
        with pytest.raises(RequestError, match=re.escape(str(refusal))):
            template.render(messages)


def test_the_default_model_s_template(default_gguf: Any, reference: Any) -> None:
    source = read_header(default_gguf).metadata["tokenizer.chat_template"]
    messages = [ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello"), ChatMessage("user", "Bye")]
    turns = [{"role": message.role, "content": message.content} for message in messages]
    expected = reference.apply_chat_template(turns, chat_template=source, add_generation_prompt=True, tokenize=False)
    assert ChatTemplate(source, TOKENS).render(messages) == expected


def test_the_template_s_own_refusal_reaches_the_client() -> None:
    with pytest.raises(RequestError, match="roles must alternate") as refused:
        ChatTemplate(INSTRUCT, TOKENS).render([ChatMessage("assistant", "Hello")])
    assert refused.value.code == "invalid_request"


def refusal(source: str) -> RequestError:
    """Of a request whose model has this template."""
    with pytest.raises(RequestError) as refused:
        ChatTemplate(source).render([ChatMessage("user", "x")])
    return refused.value


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[99].content }}",
        "{{ messages[0].content + 1 }}",
        "{{ 1 / 0 }}",
        "{{ messages.nosuch() }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ strftime_now(1) }}",
    ],
)
def test_a_failing_template_fails_one_request(source: str) -> None:
    assert refusal(source).code == "invalid_request"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10000000) %}x{% endfor %}",
        "{{ 'x' * 100000000 }}",
        "{{ 100000000 * 'x' }}",
        "{{ [1] * 100000000 }}",
        "{{ 9 ** 9 ** 9 }}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    assert refusal(source).code == "invalid_request"


def test_small_multiplication_works() -> None:
    assert ChatTemplate("{{ 6 * 7 }}{{ '=' * 3 }}").render([]) == "42==="


def test_output_is_bounded_while_it_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "MAX_RENDERED_CHARS", 1000)
    source = "{% for i in range(300) %}{% for j in range(300) %}{{ messages[0].content }}{% endfor %}{% endfor %}"
    with pytest.raises(RequestError, match="1000 characters") as refused:
        ChatTemplate(source).render([ChatMessage("user", "0123456789")])
    assert refused.value.code == "prompt_too_long"


def test_no_template() -> None:
    template = ChatTemplate(None)
    assert not template
    with pytest.raises(RequestError, match="no chat template") as refused:
        template.render([ChatMessage("user", "x")])
    assert refused.value.code == "unsupported"
    assert "--no-chat" in refused.value.hint


@pytest.mark.parametrize("source", ["{% if %}", "{{ x | no_such_filter }}", "{% unknown_tag %}"])
def test_a_template_that_does_not_compile_is_a_model_error(source: str) -> None:
    with pytest.raises(ModelError, match="does not compile"):
        ChatTemplate(source)


def test_content_is_data_and_not_a_template() -> None:
    assert ChatTemplate("{{ messages[0].content }}").render([ChatMessage("user", "{{ 7 * 7 }}")]) == "{{ 7 * 7 }}"


def test_today_is_today() -> None:
    now = datetime.datetime.now().strftime("%Y")
    assert ChatTemplate("{{ strftime_now('%Y') }}").render([]) in (now, str(int(now) + 1))
