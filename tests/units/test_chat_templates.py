"""What a chat template is given beside the messages: tools, documents, the last message to go on with, and more."""

from __future__ import annotations

from typing import Any

import pytest

import decodery
from decodery.core.errors import BadPrompt, DecoderyError

from ..hf.test_decode import tokenizer
from ..hf.tiny import network

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool['function']['name'] }} {% endfor %}"
    "{% for one in documents or [] %}{{ one['text'] }} {% endfor %}"
    "{% if brief is defined and brief %}w40 {% endif %}"
    "{% for m in messages %}{{ m['content'] or 'w41' }} {% endfor %}"
    "{% if add_generation_prompt %}w50{% endif %}"
)
ASKED = [{"role": "user", "content": "w5"}]
SCHEMA = {"type": "function", "function": {"name": "w7", "description": "", "parameters": {}}}


def w8(place: str) -> str:
    """
    Tell the weather.

    Args:
        place: where.
    """
    return place


def model(template: str | None = TEMPLATE) -> Any:
    words = tokenizer()
    words.chat_template = template
    return decodery.load((network("llama"), words))


def prompt_of(loaded: Any, messages: Any = ASKED, **options: Any) -> str:
    """The words that the model is given."""
    session = loaded.session()
    decodery.decode(loaded, messages, max_new_tokens=1, session=session, **options)
    return str(loaded.text.decode(session.tokens[:-1]))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, "w5 w50"),
        ({"tools": [SCHEMA]}, "w7 w5 w50"),
        ({"tools": [w8]}, "w8 w5 w50"),
        ({"documents": [{"title": "a", "text": "w9"}]}, "w9 w5 w50"),
        ({"template": {"brief": True}}, "w40 w5 w50"),
        ({"template": {"brief": True}, "tools": (SCHEMA,)}, "w7 w40 w5 w50"),
        ({"template": {"chat_template": "w30"}}, "w30"),
        ({"tools": None, "documents": None, "template": None, "continue_final_message": False}, "w5 w50"),
    ],
)
def test_what_the_template_is_given(options: dict[str, Any], wanted: str) -> None:
    loaded = model()
    assert prompt_of(loaded, **options) == wanted
    words = loaded.tokenizer.apply_chat_template(
        ASKED, add_generation_prompt=True, tokenize=False, **{k: v for k, v in options.items() if k in ("tools", "documents")},
        **(options.get("template") or {}),
    )  # fmt: skip
    assert words.split() == wanted.split()


def test_the_last_message_goes_on() -> None:
    loaded = model()
    begun = [*ASKED, {"role": "assistant", "content": "w6 w7"}]
    assert prompt_of(loaded, begun) == "w5 w6 w7 w50"
    assert prompt_of(loaded, begun, continue_final_message=True) == "w5 w6 w7"
    found = decodery.score(loaded, begun, "w9", continue_final_message=True)
    assert found.logprob == pytest.approx(decodery.score(loaded, "w5 w6 w7", " w9").logprob, abs=1e-4)
    assert found.logprob != pytest.approx(decodery.score(loaded, begun, "w9").logprob, abs=1e-4)


def test_a_call_of_a_tool_needs_no_content() -> None:
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "w7", "arguments": {}}}]}
    told = [*ASKED, call, {"role": "tool", "content": "w6"}]
    assert prompt_of(model(), told, tools=[SCHEMA]) == "w7 w5 w41 w6 w50"


def test_all_prompts_of_a_batch_are_given_the_same() -> None:
    loaded = model()
    both = decodery.decode(loaded, [ASKED, [{"role": "user", "content": "w6"}]], tools=[SCHEMA], max_new_tokens=4)
    assert both[1].tokens == decodery.decode(loaded, "w7 w6 w50", max_new_tokens=4).tokens
    with decodery.stream(loaded, ASKED, tools=[SCHEMA], max_new_tokens=4) as pieces:
        assert pieces.finish()[0].tokens == both[0].tokens


@pytest.mark.parametrize(
    ("prompt", "options", "said"),
    [
        ("w5", {"tools": [SCHEMA]}, "tools go to the chat template, so the prompt must be messages, not a text"),
        ([5, 6], {"documents": [{"text": "w9"}], "tools": [SCHEMA]}, "documents and tools go .* not token ids"),
        ("w5", {"continue_final_message": True}, "must be messages"),
        ([ASKED, "w5"], {"template": {"brief": True}}, "must be messages, not a text"),
        (ASKED, {"tools": SCHEMA}, "tools= is a list of JSON schemas or functions"),
        (ASKED, {"tools": ["weather"]}, "tools= is a list"),
        (ASKED, {"tools": []}, "tools= is a list"),
        (ASKED, {"documents": ["a text"]}, "documents= is a list of mappings"),
        (ASKED, {"continue_final_message": 2}, "continue_final_message= is True, False"),
        (ASKED, {"template": ["brief"]}, "template= is a mapping"),
        (ASKED, {"template": {"tools": [SCHEMA]}}, "give it as an argument of its own"),
        (ASKED, {"template": {"tokenize": False}}, "template= cannot set tokenize"),
        (ASKED, {"template": {"enable_thinking": True}}, "enable_thinking has no effect"),
        ([{"role": "user"}], {}, "needs 'role' and 'content'"),
        (ASKED, {"tool": [SCHEMA]}, "Did you mean 'tools'"),
    ],
)
def test_what_cannot_be_given(prompt: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DecoderyError, match=said):
        decodery.decode(model(), prompt, max_new_tokens=2, **options)


def test_a_template_that_knows_no_tools() -> None:
    plain = model("{% for m in messages %}{{ m['content'] }} {% endfor %}")
    with pytest.raises(BadPrompt, match="tools has no effect, for this model's chat template does not read it"):
        decodery.decode(plain, ASKED, tools=[SCHEMA])
    with pytest.raises(BadPrompt, match="no chat template"):
        decodery.decode(model(None), ASKED, tools=[SCHEMA])
    assert prompt_of(model(None), template={"chat_template": "w30"}) == "w30"
    with pytest.raises(DecoderyError, match="score takes no 'tool'"):
        decodery.score(plain, ASKED, "w5", tool=[SCHEMA])  # type: ignore[call-arg]
