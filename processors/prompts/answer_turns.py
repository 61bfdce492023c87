"""Finds the answers in a rendered conversation: what the LLM has to write, with the token that ends its turn.

The conversation is rendered a second time with a mark in place of every text that is to be learnt. What stands between
the marks is what the chat template writes, and the true prompt must be the same with the texts in between. So answers
are found for every chat template, character for character, also where it has no `{% generation %}` block, and a
template that rewrites them is noticed.
"""

from collections.abc import Callable

from linvt.processors.prompts.instruction_turns import TurnHeaders


_MARK = "\ue002"  # a private-use character: no chat template writes or trims it

Span = tuple[int, int]


def prompt_with_answers(
    render: Callable[[list[dict]], str],
    messages: list[dict],
    first_answer: int,
    headers: TurnHeaders,
    eos_token: str | None,
) -> tuple[str, list[Span]]:
    """
    The prompt of a conversation, and where its answers stand in it.

    An answer reaches to the end of its turn, since an LLM that does not learn to end its turn writes on for ever.
    Where the template writes no end (LLaVA 1.5), `eos_token` is put after the last answer.

    Args:
        render (`Callable`): From a conversation to its prompt.
        messages (`list[dict]`): The conversation; contents are lists of parts.
        first_answer (`int`): Number of the message from which on messages of role `assistant` are answers.
        headers ([`TurnHeaders`]): Those of the template.

    Returns:
        The prompt, and half-open ranges of characters, one per text of an answer.

    Raises:
        `ValueError`: If the template rewrites the answers, or there is no token to end a turn.
    """
    prompt = render(messages)
    texts: list[str] = []
    pieces = render(_marked(messages, first_answer, texts)).split(_MARK)
    if _MARK in prompt or len(pieces) != len(texts) + 1:
        raise ValueError(
            f"The chat template writes {len(pieces) - 1} of the {len(texts)} texts of answers, so it is unknown what "
            "is to be learnt."
        )
    spans, place = [], len(pieces[0])
    for text, piece in zip(texts, pieces[1:], strict=True):
        # Templates trim texts, some of them at one end.
        forms = (text, text.lstrip(), text.rstrip(), text.strip())
        found = next((form for form in forms if prompt.startswith(form + piece, place)), None)
        if found is None:
            break
        end = place + len(found)
        spans.append((place, end + len(headers.end_of_answer) if piece.startswith(headers.end_of_answer) else end))
        place = end + len(piece)
    if len(spans) < len(texts) or place != len(prompt) or not prompt.startswith(pieces[0]):
        raise ValueError(
            "The chat template writes the answers otherwise than they are given, so it is unknown what is to be "
            f"learnt. The prompt is {prompt!r}."
        )
    if not headers.end_of_answer and not pieces[-1].strip():
        if eos_token is None:
            raise ValueError("Neither the chat template nor the tokenizer has a token that ends an answer.")
        start, end = spans.pop()
        prompt = prompt[:end] + eos_token
        spans.append((start, len(prompt)))
    return prompt, spans


def _marked(messages: list[dict], first_answer: int, texts: list[str]) -> list[dict]:
    """The conversation with marks for the texts that are to be learnt, which are added to `texts`."""
    marked = []
    for number, message in enumerate(messages):
        if number >= first_answer and message["role"] == "assistant":
            texts += [part["text"] for part in message["content"]]
            message = {**message, "content": [{**part, "text": _MARK} for part in message["content"]]}
        marked.append(message)
    return marked


__all__ = ["prompt_with_answers"]
