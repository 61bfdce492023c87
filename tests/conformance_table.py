"""A walk of one model type through all contracts, and its row in the table of `docs/image_llms.md`."""

from conformance import Conformance, reason_of_refusal
from family_processors import NO_CHAT
from processor_conformance import ProcessorConformance
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from linvt.image_llms.family_table import ImageLLMFamily
from linvt.image_llms.image_llm_support import LEAST_TRANSFORMERS


def conform(model_type: str, folder) -> str:
    """Walks through all contracts; the row of the table, or an error where a contract is broken."""
    case = Conformance(model_type)
    case.check_frame_tokens()
    case.check_blank_frame()
    case.check_images_and_text()
    logits = case.check_video()
    case.check_a_picture_beside_a_video()
    case.check_generation("words", "video", "words")
    case.check_generation("words", "image", "words", "video", "words")
    case.check_no_answer_leaks()
    case.check_fingerprint()
    case.check_trainable_words()
    if model_type not in NO_CHAT:
        conform_through_processor(case, folder)
    case.check_saving(folder, logits)
    case.check_alignment()
    least = LEAST_TRANSFORMERS.get(model_type)
    supported = f"from Transformers {least}" if least else "yes"
    frames = frames_by_default(case.model.family)
    if model_type in NO_CHAT:
        frames += f"; without LinVTProcessor, since {NO_CHAT[model_type]}"
    return row(model_type, supported, frames, f"LoRA: {', '.join(f'`{name}`' for name in case.check_lora())}")


def conform_through_processor(case: Conformance, folder) -> None:
    through = ProcessorConformance(case)
    through.check_frame_size()
    through.check_frames()
    through.check_presentation()
    through.check_images_and_text()
    through.check_batch()
    through.check_video(folder)


def frames_by_default(family: ImageLLMFamily) -> str:
    size, side = family.frame_size(), family.token_pixels()
    if size is None:
        return "as its image processor says"
    if size == family.image_size():
        return "its image size"
    if side is not None and size[0] == side * family.tokens_per_side:
        return f"{family.tokens_per_side} x {family.tokens_per_side} tokens"
    patches = size[0] // family.image_llm.config.vision_config.patch_size
    return f"{patches} x {patches} patches"


def row(model_type: str, supported: str, frames: str, notes: str) -> str:
    name = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[CONFIG_MAPPING[model_type]].__name__
    return f"| `{model_type}` | `{name}` | {supported} | {frames} | {notes} |"


def refusal_row(model_type: str) -> str:
    return row(model_type, "no", "", f"{reason_of_refusal(model_type)}")
