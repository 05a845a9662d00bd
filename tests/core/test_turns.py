"""Chat templates of GGUF files: the strings derived from a template give the same text as Jinja."""

from __future__ import annotations

import pytest

from impchat import prompts
from impchat.errors import ModelError
from impchat.messages import Picture, Prompt, Turn
from impchat.models import turns
from impchat.models.turns import Turns
from impchat.prompts import Template, Tokens

LLAVA = (  # llava-hf/llava-1.5-7b-hf: content is a list of parts; only the next question ends an answer
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CHATML = (  # Qwen's: adds a default system text
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (  # refuses a system turn
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
LLAMA2 = (  # the system text is inside the first question, and a space precedes eos
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
PARTS = (  # keeps pictures at their position
    "{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<img>\n\n{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
NUMBERED = "{% for m in messages %}{{ loop.length }}. {{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
MARKERS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|end|>", "<|user|>"]
ENDS = ["</s>", "<|im_end|>", "<end_of_turn>", "<|end|>"]


def derive(source: str) -> Turns:
    return turns.derive(source, bos="<s>", eos="</s>", markers=MARKERS, ends=ENDS)


def letters(text: str, special: bool = False, /) -> list[int]:
    """A token for each letter; a marker, if markers are requested, is one token with no valid id."""
    if special:
        assert text.replace(">", "> ").split() and all(m in MARKERS for m in text.replace(">", "> ").split())
        return [0x110000 + MARKERS.index(m) for m in text.replace(">", "> ").split()]
    return [ord(c) for c in text]


def written(found: Turns, *talk: str, system: str = "") -> str:
    """The text for the model, with eos as {end}; every second item of `talk` is an answer."""
    said = tuple(Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(talk))
    pieces = prompts.render(Prompt(system, said), found.template, letters, eos=0)
    ids = [i for piece in pieces if isinstance(piece, Tokens) for i in piece.ids]
    return "".join("{end}" if i == 0 else MARKERS[i - 0x110000] if i >= 0x110000 else chr(i) for i in ids)


@pytest.mark.parametrize(
    ("source", "end", "asked", "with_system"),
    [
        (LLAVA, None, "USER: Q ASSISTANT: A USER: R ASSISTANT:", "S USER: Q ASSISTANT:"),
        (
            CHATML,
            "<|im_end|>",
            "<|im_start|>system\nYou are helpful.<|im_end|>\n"
            "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA{end}\n<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            GEMMA,
            "<end_of_turn>",
            "<s><start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\nA{end}"
            "\n<start_of_turn>user\nR<end_of_turn>\n<start_of_turn>model\n",
            "<s><start_of_turn>user\nS\n\nQ<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            LLAMA2,
            "</s>",
            "<s>[INST] Q [/INST] A{end}<s>[INST] R [/INST]",
            "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST]",
        ),
    ],
    ids=["llava", "chatml", "gemma", "llama2"],
)
def test_a_conversation_gets_the_text_that_the_template_gives(
    source: str, end: str | None, asked: str, with_system: str
) -> None:
    found = derive(source)
    assert found.end == end
    assert written(found, "Q", "A", "R") == asked
    assert written(found, "Q", system="S") == with_system


def test_without_an_end_marker_the_next_question_ends_an_answer() -> None:
    assert derive(LLAVA).stop == ("USER:",) and not derive(LLAVA).template.ends
    assert derive(CHATML).stop == ()


@pytest.mark.parametrize(("source", "after_picture"), [(LLAVA, "\n"), (CHATML, "\n"), (PARTS, "\n\n")])
def test_a_picture_comes_first_in_its_turn_with_the_templates_text_after_it(source: str, after_picture: str) -> None:
    found, picture = derive(source), Picture("a", b"")
    pieces = prompts.render(Prompt("", (Turn("user", "Q", (picture, picture)),)), found.template, letters, eos=0)
    assert pieces.count(picture) == 2
    first = pieces.index(picture)
    assert pieces[first + 1] == Tokens(tuple(letters(after_picture)))
    after = pieces[first + 3]
    assert isinstance(after, Tokens) and after.ids[: len(after_picture) + 1] == tuple(letters(after_picture + "Q"))


def test_an_answer_begins_with_the_text_of_the_generation_prompt() -> None:
    """This template starts an answer with <think> and removes the thoughts of earlier answers."""
    assert written(derive(PARTS), "Q", "A", "R").count("<think>") == 2


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (NUMBERED, "template.not_fixed"),  # earlier turns change with the number of turns
        ("always the same", "template.not_fixed"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "template.not_fixed"),
        ("{% for", "template.broken"),
        ("{{ raise_exception('no') }}", "template.broken"),
        ("{{ ().__class__.__base__.__subclasses__() }}", "template.broken"),  # the sandbox blocks it
        ("{{ messages[7].content }}", "template.broken"),
    ],
)
def test_a_template_that_needs_more_than_strings_around_turns_is_refused(source: str, code: str) -> None:
    with pytest.raises(ModelError) as caught:
        derive(source)
    assert caught.value.code == code and caught.value.sentence("zh")


def test_the_named_templates_can_be_derived_too() -> None:
    """Imp's own GGUF files contain these templates; derived from them, the strings are the same."""
    qwen = prompts.TEMPLATES["qwen"]
    found = derive(CHATML).template
    assert isinstance(qwen, Template)
    assert (found.system, found.first, found.later, found.answer) == (qwen.system, qwen.first, qwen.later, qwen.answer)
