"""Writes the code on a model card. It runs as it stands, next to a file video.mp4 (tests/test_model_card.py)."""

_ASK = """processor = AutoProcessor.from_pretrained("{name}"{remote})
model = AutoModelForImageTextToText.from_pretrained("{name}"{remote})

content = [{{"type": "video", "video": "video.mp4"}}, {{"type": "text", "text": "What happens?"}}]
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": content}}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
)
answer = model.generate(**inputs, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))"""

_PIPELINE = """pipe = pipeline("video-text-to-text", model="{name}"{remote})
print(pipe("video.mp4", text="What happens?", max_new_tokens=64))"""

_WITH_LINVT = """With `pip install linvt`:

```python
import linvt
from transformers import AutoModelForImageTextToText, AutoProcessor

{ask}
```

```python
import linvt
from transformers import pipeline

{pipe}
```

```bash
linvt ask video.mp4 "What happens?" --model {name}
```"""

_ALONE = """\
With `pip install transformers torch torchvision av`. The code of the video tokenizer is in this repository: read it
before you trust it, and name a `revision`.

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

{ask}
```

```python
from transformers import pipeline

{pipe}
```"""


def snippets(format: str, name: str) -> str:
    """Returns Markdown for a checkpoint of this format under this name, a Hub id or a folder."""
    alone = format == "self-contained"
    values = {"name": name, "remote": ", trust_remote_code=True" if alone else ""}
    text = _ALONE if alone else _WITH_LINVT
    return text.format(ask=_ASK.format(**values), pipe=_PIPELINE.format(**values), name=name)


__all__ = ["snippets"]
