"""How the simulated engine turns a conversation into one prompt: ChatML, as the default real model uses."""

from __future__ import annotations

from collections.abc import Iterable

TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The same in Jinja, for clients that ask for it."""

_CLOSE = "<|im_end|>\n"


def render(messages: Iterable[tuple[str, str]]) -> str:
    """The prompt of a conversation of (role, content).

    A conversation that ends with the assistant's own words is left open there, so that they are continued.
    """
    conversation = list(messages)
    prompt = "".join(f"<|im_start|>{role}\n{content}{_CLOSE}" for role, content in conversation)
    if conversation and conversation[-1][0] == "assistant":
        return prompt.removesuffix(_CLOSE)
    return prompt + "<|im_start|>assistant\n"
