"""A LLaVA of 0.64 million parameters that knows the words of the small world, and its processor."""

from small_world.phrasings import AROUND, ASK
from small_world.questions import NUMBERS
from small_world.scenes import COLOURS, DIRECTIONS, KINDS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
)


CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% elif part['type'] == 'text' %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] }}{% endgeneration %}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, as Qwen2 writes it, with an image as LLaVA writes it."""

PIXELS = 32  # height and width of a picture
PATCH = 8


def words() -> list[str]:
    """Every word that is asked or answered, in a fixed order."""
    texts = [text for texts in ASK.values() for text in texts] + list(AROUND)
    texts += ["yes no a at the to and then , .", "user assistant system", *COLOURS, *KINDS, *DIRECTIONS, *NUMBERS]
    return sorted({word for text in texts for word in text.split() if "{" not in word})


def small_processor() -> LlavaProcessor:
    """One token per word; words that the small world does not know become `<unk>`."""
    special = ["<|endoftext|>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>"]
    vocabulary = {token: number for number, token in enumerate([*special, *words()])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        padding_side="left",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<image>"]})
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"height": PIXELS, "width": PIXELS},
            do_center_crop=False,
            crop_size={"height": PIXELS, "width": PIXELS},
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def small_llava(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """Random weights; 16 tokens per picture."""
    tokenizer = processor.tokenizer
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=96,
                intermediate_size=256,
                num_hidden_layers=3,
                num_attention_heads=4,
                image_size=PIXELS,
                patch_size=PATCH,
                projection_dim=96,
            ),
            text_config=Qwen2Config(
                vocab_size=len(tokenizer),
                hidden_size=96,
                intermediate_size=256,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=4096,
                tie_word_embeddings=True,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=None,
            ),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-1,
        )
    )
