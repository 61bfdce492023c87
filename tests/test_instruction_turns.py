"""Finding the instruction in prompts of chat templates that write turns in very different ways."""

import pytest
from tiny_models import CHAT_TEMPLATE
from transformers.utils.chat_template_utils import render_jinja_template

from linvt.processors.prompts.instruction_turns import TurnHeaders


# LLaVA 1.5: no special tokens, pictures first, spaces around the roles.
VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# Qwen2-VL: ChatML with a system text of its own if there is none.
QWEN = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><image><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Mistral: no role names, and no system turn.
MISTRAL = (
    "<s>{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if message['role'] == 'user' %}[INST]{% endif %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'user' %}[/INST]{% else %}</s>{% endif %}{% endfor %}"
)
# Gemma: texts are trimmed.
GEMMA = (
    "{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] | trim }}"
    "{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# LLaVA-OneVision: a line break before texts, none before pictures.
ONEVISION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# SmolVLM: a space before texts, none before pictures.
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# Pixtral: adds the system content to a string, which fails for a list of parts.
PIXTRAL = (
    "<s>{% for message in messages %}{% if message['role'] == 'system' %}{{ '[INST]' + message['content'] }}"
    "{% elif message['role'] == 'user' %}[INST]{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}[/INST]"
    "{% else %}{{ message['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
)
NO_SYSTEM = ("mistral", "pixtral")
TEMPLATES = {"chatml": CHAT_TEMPLATE, "vicuna": VICUNA, "qwen": QWEN, "mistral": MISTRAL, "gemma": GEMMA}
TEMPLATES |= {"onevision": ONEVISION, "smolvlm": SMOLVLM, "pixtral": PIXTRAL}

each_template = pytest.mark.parametrize("template", TEMPLATES)


def render(template: str, turns: list[dict], **kwargs) -> str:
    return render_jinja_template([turns], chat_template=TEMPLATES[template], **kwargs)[0][0]


def turn(role: str, *texts: str) -> dict:
    parts = [{"type": "image"} if text == "<image>" else {"type": "text", "text": text} for text in texts]
    return {"role": role, "content": parts}


def instruction(template: str, turns: list[dict], which: int = 0, **kwargs) -> str:
    prompt = render(template, turns, **kwargs)
    headers = TurnHeaders.of_template(lambda turns, **kwargs: render(template, turns, **kwargs), "<image>")
    position = -1
    for _ in range(which + 1):
        position = prompt.index("<image>", position + 1)
    start, end = headers.user_turn(prompt, position)
    marks = ("<image>", "<|vision_start|>", "<|vision_end|>")
    text = prompt[start:end]
    for mark in marks:
        text = text.replace(mark, "")
    return text.strip()


@each_template
@pytest.mark.parametrize("generation", [False, True])
@pytest.mark.parametrize("system", [False, True])
def test_one_turn(template, generation, system):
    turns = [turn("user", "<image>", "What is it?")]
    if system and template not in NO_SYSTEM:
        turns.insert(0, turn("system", "Be brief."))
    assert instruction(template, turns, add_generation_prompt=generation) == "What is it?"


@each_template
def test_no_answer_and_no_other_turn(template):
    turns = [
        turn("user", "Hello there."),
        turn("assistant", "Hi."),
        turn("user", "<image>", "What is it?"),
        turn("assistant", "A cat."),
        turn("user", "Sure?"),
        turn("assistant", "Yes."),
    ]
    for length in (3, 4, 5, 6):
        assert instruction(template, turns[:length]) == "What is it?"


@each_template
def test_each_video_has_its_own_turn(template):
    turns = [
        turn("user", "<image>", "First?"),
        turn("assistant", "One."),
        turn("user", "Second? ", "<image>", "<image>"),
        turn("assistant", "Two."),
    ]
    assert [instruction(template, turns, which) for which in range(3)] == ["First?", "Second?", "Second?"]


@each_template
def test_two_user_turns_in_a_row(template):
    turns = [turn("user", "Look here."), turn("user", "<image>", "What is it?"), turn("assistant", "A cat.")]
    assert instruction(template, turns) == "What is it?"


@each_template
def test_a_picture_after_the_text(template):
    turns = [turn("user", "Hi."), turn("assistant", "Hello."), turn("user", "What is it?", "<image>")]
    assert instruction(template, turns, add_generation_prompt=True) == "What is it?"


def test_an_answer_never_stands_in_the_turn():
    """A prompt whose later user turns were written by hand, in another form than the template's."""
    headers = TurnHeaders.of_template(lambda turns, **kwargs: render("vicuna", turns, **kwargs), "<image>")
    prompt = "USER: Hi. ASSISTANT: A secret. HUMAN: <image>\nWhat is it? ASSISTANT:"
    with pytest.raises(ValueError, match="An answer stands between the start of a user turn and its video"):
        headers.user_turn(prompt, prompt.index("<image>"))


@each_template
def test_a_turn_without_text(template):
    turns = [turn("user", "<image>"), turn("assistant", "A cat.")]
    assert instruction(template, turns) == ""


@each_template
def test_a_prompt_of_another_kind_is_refused(template):
    headers = TurnHeaders.of_template(lambda turns, **kwargs: render(template, turns, **kwargs), "<image>")
    with pytest.raises(ValueError, match="user turn that holds a video was not found.*apply_chat_template"):
        headers.user_turn("Please look at <image> and say what it is.", 15)
