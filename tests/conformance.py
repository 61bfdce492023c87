"""The contracts of the design on one tiny image-LLM, and what the table of `docs/image_llms.md` says of it."""

import inspect
import re

import torch
from peft import get_peft_model
from tiny_families import SMALL, move_from_merging
from tiny_image_llms import IMAGE_TOKEN, build
from tiny_pictures import KEPT, picture_inputs, picture_side
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    GPT2Config,
    PreTrainedConfig,
    ViTConfig,
)

from linvt import LinVTForConditionalGeneration
from linvt.fingerprints import encoder_fingerprint
from linvt.image_llms.family_table import image_llm_family
from linvt.image_llms.image_llm_support import refusal_reason
from linvt.rank_agreement import blank_frame_tokens
from linvt.training.training_stages import freeze_for_alignment, lora_for_instruction


MODEL_TYPES = sorted(
    config.model_type
    for config in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.keys()
    if config.__module__.startswith(("transformers.", "linvt.")) and config.model_type != "linvt"
)
"""Every model type that the installed Transformers, or `linvt.ports`, maps to an image-text-to-text class."""

WORDS, FRAMES, VIDEO_TOKENS, MARK = 2, 5, 12, 240


def default_config(model_type: str) -> PreTrainedConfig:
    parts = {}
    if model_type == "vision-encoder-decoder":  # has no defaults in older versions of Transformers
        parts = {"encoder": ViTConfig().to_dict(), "decoder": GPT2Config().to_dict()}
    return CONFIG_MAPPING[model_type](**parts)


def reason_of_refusal(model_type: str) -> str | None:
    return refusal_reason(default_config(model_type))


class Conformance:
    """A tiny image-LLM, the same wrapped, and prompts of words, a picture and a video."""

    def __init__(self, model_type: str):
        self.model_type = model_type
        # Before an image or a video stands the word that marks one, where positions or embeddings depend on it.
        self.marks_images = model_type in ("ovis2", "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
        self.image_llm = build(model_type)
        side = picture_side(model_type)
        self.frames = torch.randn(FRAMES, 3, side, side, generator=torch.Generator().manual_seed(0))
        self.picture = picture_inputs(self.image_llm, self.frames[0])
        self.picture_tokens = self.own_tokens(self.picture)
        with torch.random.fork_rng(devices=[]):
            # Whatever ran before: in few code words, as those of Emu3, not every video tokenizer finds a difference.
            torch.manual_seed(2)
            self.model = LinVTForConditionalGeneration.from_image_llm(self.image_llm, SMALL)
            move_from_merging(self.model.video_tokenizer)

    def own_tokens(self, picture: dict) -> torch.Tensor:
        """Visual tokens that the image-LLM makes of a picture, `(tokens, channels)`, without a line of linvt."""
        owners = (self.image_llm, self.image_llm.base_model)
        owner = next(owner for owner in owners if hasattr(type(owner), "get_image_features"))
        pixels, *others = picture  # the name of the pixels differs
        others = {name: picture[name] for name in others}
        output = owner.get_image_features(picture[pixels], **others, return_dict=True)
        if self.model_type == "llama4":
            return self.image_llm.multi_modal_projector(output.last_hidden_state.flatten(0, -2))
        if self.model_type == "fuyu":
            return output.last_hidden_state.flatten(0, -2)
        tokens = output.pooler_output
        return (tokens if isinstance(tokens, torch.Tensor) else torch.cat([*tokens])).flatten(0, -2)

    def prompt(self, *parts: str) -> dict:
        """Inputs of a prompt of `words`, `image` and `video`; the words behind a video are its instruction."""
        ids, types = [], []
        for place, part in enumerate(parts):
            length = {"words": WORDS, "image": len(self.picture_tokens), "video": VIDEO_TOKENS}[part]
            is_marked = self.marks_images and parts[place + 1 : place + 2] in (("image",), ("video",))
            words = [5 + 2 * place, MARK if is_marked else 6 + 2 * place]
            ids += words if part == "words" else [IMAGE_TOKEN] * length
            types += [("words", "image", "video").index(part)] * length
        types = torch.tensor([types])
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones_like(types)}
        if "image" in parts:
            inputs |= self.picture
        if "video" in parts:
            turns = (types == 2).long()
            turns[:, -WORDS:] = 1
            return inputs | {
                "mm_token_type_ids": types,
                "instruction_turns": turns,
                "pixel_values_videos": self.frames,
                "video_num_frames": torch.tensor([FRAMES]),
                "video_milliseconds": torch.arange(FRAMES) * 500,
                "video_shot_ids": torch.zeros(FRAMES, dtype=torch.long),
            }
        takes = inspect.signature(self.image_llm.forward).parameters
        names = {"token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids"} & set(takes)
        # PaliGemma's token types tell the prompt from the answer.
        types = torch.zeros_like(types) if self.model_type == "paligemma" else types
        return inputs | dict.fromkeys(names, types)

    @torch.no_grad()
    def check_frame_tokens(self) -> None:
        """V of a frame is what the image-LLM makes of it as a picture, whatever frames are beside it."""
        frame_tokens = self.model.get_frame_tokens(self.frames)
        expected = KEPT.get(self.model_type, lambda tokens: tokens)(self.picture_tokens)
        if self.model_type == "molmo2":  # adds visual tokens to the embedding of their placeholder
            expected = expected + self.image_llm.get_input_embeddings()(torch.tensor(IMAGE_TOKEN))
        torch.testing.assert_close(frame_tokens[0], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            self.model.get_frame_tokens(self.frames[2:]), frame_tokens[2:], rtol=1e-4, atol=1e-4
        )
        assert not torch.allclose(frame_tokens[1], frame_tokens[0], atol=1e-3)

    @torch.no_grad()
    def check_blank_frame(self) -> None:
        """The frame that a rank encodes when it has none is one that the encoder takes."""
        if self.model_type == "gemma3n":
            return  # its own encoder makes equally many tokens of every size, which the tiny one here does not
        assert blank_frame_tokens(self.model).isfinite().all()

    @torch.no_grad()
    def check_images_and_text(self) -> None:
        """Bit for bit what the image-LLM gives, and the picture is seen."""
        for parts in (("words", "words"), ("words", "image", "words")):
            inputs = self.prompt(*parts)
            expected = self.image_llm(**inputs).logits
            assert expected.isfinite().all() and torch.equal(self.model(**inputs).logits, expected)
            greedy = {"max_new_tokens": 3, "do_sample": False}
            assert torch.equal(self.model.generate(**inputs, **greedy), self.image_llm.generate(**inputs, **greedy))
        pixels = next(iter(self.picture))
        other = self.image_llm(**inputs | {pixels: inputs[pixels].flip(-1)}).logits
        assert not torch.allclose(other[:, -1], expected[:, -1], atol=1e-5)

    @torch.no_grad()
    def check_video(self) -> torch.Tensor:
        """Video tokens are averages of V, and the answer depends on the video. Returns the logits."""
        inputs = self.prompt("words", "video", "words")
        output = self.model(**inputs, output_token_weights=True)
        weights, frame_tokens = output.video_token_weights[0], self.model.get_frame_tokens(self.frames)
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(-1), torch.ones(VIDEO_TOKENS), rtol=0, atol=1e-5)
        torch.testing.assert_close(output.video_tokens[0], weights @ frame_tokens.flatten(0, 1), rtol=1e-4, atol=1e-4)
        other = self.model(**inputs | {"pixel_values_videos": -inputs["pixel_values_videos"].flip(-1)}).logits
        assert output.logits.isfinite().all() and not torch.allclose(other[:, -1], output.logits[:, -1], atol=1e-5)
        return output.logits

    @torch.no_grad()
    def check_a_picture_beside_a_video(self) -> None:
        """What stands before the video is read as without it: features, places and attention of the picture."""
        inputs = self.prompt("words", "image", "words", "video", "words")
        alone = self.prompt("words", "image", "words")
        length = alone["input_ids"].shape[1]
        if self.model_type == "paligemma":  # what follows must be marked as answer, or it is seen
            inputs["token_type_ids"] = (torch.arange(inputs["input_ids"].shape[1]) >= length).long()[None]
        # All but the last word, which may mark the video.
        logits, expected = self.model(**inputs).logits, self.image_llm(**alone).logits
        torch.testing.assert_close(logits[:, : length - 1], expected[:, :-1], rtol=1e-3, atol=1e-3)

    @torch.no_grad()
    def check_generation(self, *parts: str) -> None:
        """Each word that is generated with the cache is the best one of a forward pass without it."""
        inputs = self.prompt(*parts)
        output = self.model.generate(**inputs, max_new_tokens=3, do_sample=False)
        length = inputs["input_ids"].shape[1]
        assert output.shape[1] == length + 3 and torch.equal(output[:, :length], inputs["input_ids"])
        whole = inputs | {"input_ids": output}
        for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0), ("instruction_turns", 0)):
            whole[name] = torch.nn.functional.pad(inputs[name], (0, 3), value=value)
        if self.model_type == "paligemma":
            whole["token_type_ids"] = (torch.arange(length + 3) >= length).long()[None]
        logits = self.model(**whole).logits[:, length - 1 : -1]
        logits[..., IMAGE_TOKEN] = float("-inf")
        chosen = logits.gather(-1, output[:, length:, None])[..., 0]
        torch.testing.assert_close(chosen, logits.amax(-1), rtol=0, atol=1e-3)

    @torch.no_grad()
    def check_no_answer_leaks(self) -> None:
        """In training, what is before a word of the answer does not see it, whatever the attention of the prompt."""
        inputs = self.prompt("words", "video", "words")
        labels = inputs["input_ids"].clone()
        labels[:, :-WORDS] = -100
        other = inputs["input_ids"].clone()
        other[:, -1] += 1
        turns = inputs["instruction_turns"].clone()
        turns[:, -WORDS:] = 0  # these words are the answer, no instruction
        turns[:, 0] = 1
        inputs["instruction_turns"] = turns
        logits = [
            self.model(**inputs | {"input_ids": ids}, labels=labels).logits[:, :-1]
            for ids in (inputs["input_ids"], other)
        ]
        torch.testing.assert_close(*logits, rtol=0, atol=1e-5)

    @torch.no_grad()
    def check_fingerprint(self) -> None:
        """What the encoder's fingerprint spares changes nothing in V, and what it covers changes the fingerprint."""
        family, state = self.model.family, self.image_llm.state_dict(keep_vars=True)
        covered, words = family.encoder_tensors(), list(family.words_in_frames())
        fingerprint, frame_tokens = encoder_fingerprint(self.model), self.model.get_frame_tokens(self.frames)
        embeddings = self.image_llm.get_input_embeddings().weight
        spared = {id(tensor): tensor for tensor in state.values()}
        for tensor in covered.values():
            spared.pop(id(tensor), None)
        before = {number: tensor.clone() for number, tensor in spared.items()}
        kept = embeddings[words].clone()
        for tensor in spared.values():
            tensor += 1
        if id(embeddings) in spared:
            embeddings[words] = kept
        assert spared and encoder_fingerprint(self.model) == fingerprint
        torch.testing.assert_close(self.model.get_frame_tokens(self.frames), frame_tokens, rtol=0, atol=0)
        for number, tensor in spared.items():
            tensor.copy_(before[number])
        parts = [tensor for tensor in covered.values() if id(tensor) in {id(other) for other in state.values()}]
        for tensor in (parts[0], parts[len(parts) // 2], parts[-1], *([embeddings[words[-1]]] if words else [])):
            value = tensor.view(-1)[-1].clone()
            tensor.view(-1)[-1] += 1
            assert encoder_fingerprint(self.model) != fingerprint
            tensor.view(-1)[-1] = value
        assert encoder_fingerprint(self.model) == fingerprint

    def check_trainable_words(self) -> None:
        """Where embeddings of words are a part of V, their gradient comes through V; elsewhere V has none."""
        embeddings = self.image_llm.get_input_embeddings().weight
        self.image_llm.requires_grad_(False)
        embeddings.requires_grad_(True)
        depends = self.model.family.frame_tokens(self.frames[:1, None]).requires_grad
        assert self.model.family.has_trainable_encoder() == depends
        frame_tokens = self.model.get_frame_tokens(self.frames[:1])
        assert frame_tokens.requires_grad == depends
        if depends:
            frame_tokens.square().sum().backward()
            assert embeddings.grad.any()
        self.image_llm.zero_grad()
        self.image_llm.requires_grad_(True)

    @torch.no_grad()
    def check_saving(self, folder, logits: torch.Tensor) -> None:
        self.model.save_pretrained(folder)
        loaded = LinVTForConditionalGeneration.from_pretrained(folder).eval()
        tensors, expected = loaded.state_dict(), self.model.state_dict()
        assert tensors.keys() == expected.keys() and all(
            torch.equal(tensors[name], expected[name]) for name in expected
        )
        # Where tensors lie in memory changes the last digit of a sum.
        torch.testing.assert_close(loaded(**self.prompt("words", "video", "words")).logits, logits, rtol=0, atol=1e-5)

    def _loss(self, model) -> torch.Tensor:
        inputs = self.prompt("words", "video", "words")
        labels = inputs["input_ids"].clone()
        labels[:, :-WORDS] = -100
        return model(**inputs, labels=labels).loss

    def check_alignment(self) -> None:
        """A step of stage 1 reaches every parameter of the video tokenizer, and none of the image-LLM."""
        freeze_for_alignment(self.model).train()
        self._loss(self.model).backward()
        dead = [
            name
            for name, parameter in self.model.video_tokenizer.named_parameters()
            if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
        ]
        assert dead == [] and all(parameter.grad is None for parameter in self.image_llm.parameters())

    def check_lora(self) -> list[str]:
        """LoRA learns in the language model and nowhere else. Returns the names of its linear layers."""
        decoder = {id(module) for module in image_llm_family(self.image_llm).decoder().modules()}
        before = {name: id(module) for name, module in self.model.named_modules()}
        lora = get_peft_model(self.model, lora_for_instruction(self.model, r=2)).train()
        self._loss(lora).backward()
        places = {name.partition(".lora_B")[0] for name, _ in lora.named_parameters() if ".lora_B" in name}
        places = {place.removeprefix("base_model.model.") for place in places}
        assert places and all(before[place] in decoder for place in places)
        gradients = [parameter.grad for name, parameter in lora.named_parameters() if ".lora_B" in name]
        # A mixture of experts does not ask all of them.
        learning = [gradient for gradient in gradients if gradient is not None and gradient.any()]
        assert learning and all(gradient.isfinite().all() for gradient in learning)
        return sorted({re.sub(r"(\.\d+)+$", "", place).rpartition(".")[2] for place in places})
