"""TRL's `SFTTrainer` for video chats: next-token loss, and the contrastive loss of the alignment stage beside it.

Needs `pip install linvt[train]`, so `import linvt` does not import it.
"""

import inspect
from collections import defaultdict

import torch
from accelerate.utils import DistributedType
from peft import PeftModel
from trl import SFTConfig, SFTTrainer

from linvt.configuration.input_values import IGNORED_LABEL
from linvt.modeling_linvt import LinVTForConditionalGeneration


class VideoSFTTrainer(SFTTrainer):
    """
    `SFTTrainer` whose rows become batches in the collator, since TRL prepares text and images but no videos.

    Args:
        model ([`LinVTForConditionalGeneration`] or `PeftModel`): With `requires_grad` where it shall learn; see
            `training_stages.py`.
        args (`SFTConfig`): What TRL needs for videos is set in it: nothing is tokenized, packed or truncated before
            the collator. Settings that ask for another collator than ours are a `ValueError`.
        contrastive_weight (`float`, *optional*, defaults to 0.0): Factor of the contrastive loss. 0 leaves it out.
        kwargs: Other arguments of `SFTTrainer`. `data_collator` is needed, as is `processing_class`.

    The loss is

        sum of the next-token losses / number of learnt tokens in all micro-batches and ranks of this step
        + contrastive_weight * mean of the contrastive losses of its micro-batches.

    Pairs of the contrastive loss are contrasted over all ranks, but not over the micro-batches of gradient
    accumulation, as they are not there at the same time. Both losses are logged, `language_loss` per token.

    What learns of the video tokenizer is float32, beside a quantised LLM too, where TRL makes LoRA bfloat16.
    """

    def __init__(
        self,
        model: LinVTForConditionalGeneration | PeftModel,
        args: SFTConfig,
        contrastive_weight: float = 0.0,
        **kwargs,
    ):
        if kwargs.get("data_collator") is None:
            raise ValueError("VideoSFTTrainer needs a data_collator that reads videos, such as VideoChatCollator.")
        unsupported = {
            "packing": args.packing,
            "eval_packing": args.eval_packing,
            "padding_free": args.padding_free,
            "pad_to_multiple_of": args.pad_to_multiple_of is not None,
            "completion_only_loss=False": args.completion_only_loss is False,
            "label_smoothing_factor": args.label_smoothing_factor != 0,
            "loss_type": args.loss_type != "nll",
            "compute_loss_func": kwargs.get("compute_loss_func") is not None,
        }
        given = [name for name, value in unsupported.items() if value]
        if given:
            raise ValueError(
                f"VideoSFTTrainer has no {', '.join(given)}: every row is a row of its batch, answers are learnt and "
                "nothing else, and the loss is nll."
            )
        if args.max_length not in (None, SFTConfig.max_length):
            raise ValueError(
                f"max_length is {args.max_length}, but rows are not truncated, since that would cut video tokens off; "
                "give max_length to the collator (max_tokens in the scripts), for which longer rows are bad rows."
            )
        whole = model.get_base_model() if isinstance(model, PeftModel) else model
        parameters = inspect.signature(whole.image_llm.forward).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            raise ValueError(
                f"{type(whole.image_llm).__name__}.forward takes no num_items_in_batch, without which its loss cannot "
                "be averaged over gradient accumulation and ranks."
            )
        if contrastive_weight == 0:
            whole.contrast.requires_grad_(False)  # or it would be a weight without a gradient
        self.contrastive_weight = contrastive_weight
        self._sums = {"train": defaultdict(float), "eval": defaultdict(float)}
        args.remove_unused_columns = False
        args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        args.max_length = None
        args.label_names = ["labels"]
        super().__init__(model=model, args=args, **kwargs)
        for module in (whole.video_tokenizer, whole.contrast):
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        if self.accelerator.distributed_type == DistributedType.FSDP and not self.accelerator.is_fsdp2:
            raise ValueError("FSDP version 1 cannot run ranks with different batches; set fsdp_version: 2.")

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """As `SFTTrainer.train`; a `ValueError` if weights that have learnt would not be found again."""
        full = not isinstance(self.model, PeftModel)
        loads = resume_from_checkpoint or self.args.load_best_model_at_end
        if loads and full and any(p.requires_grad for p in self.model.image_llm.parameters()):
            # Measured with Transformers 5.23: only a warning says that keys are missing.
            raise ValueError(
                "Weights of the image-LLM itself learn. Checkpoints hold them under the names of from_pretrained, "
                "where the Trainer does not look when it resumes or loads the best model at the end, so it would "
                "leave those that it has. Freeze them and use LoRA, or load the model from the checkpoint yourself."
            )
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        num_tokens = (inputs["labels"][:, 1:] != IGNORED_LABEL).sum()
        num_items = num_tokens if num_items_in_batch is None else num_items_in_batch
        num_items = torch.as_tensor(num_items, device=num_tokens.device).clamp(min=1)
        outputs = model(
            **inputs,
            use_cache=False,
            num_items_in_batch=num_items,
            return_contrastive_loss=self.contrastive_weight > 0,
        )
        loss, ranks, steps = outputs.loss, 1, 1
        if num_items_in_batch is not None:
            # It counts the tokens of all micro-batches, and of all ranks, over which gradients are then averaged.
            steps = self.current_gradient_accumulation_steps
            ranks = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        sums = self._sums["train" if self.model.training else "eval"]
        sums["language"] += outputs.loss.detach() * num_items
        sums["tokens"] += num_tokens
        loss = loss * ranks
        if self.contrastive_weight > 0:
            loss = loss + self.contrastive_weight * outputs.contrastive_loss / steps
            sums["contrastive"] += outputs.contrastive_loss.detach()
            sums["batches"] += 1
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        sums = self._sums[mode]
        if sums:
            values = torch.stack([torch.as_tensor(value, device=self.args.device).float() for value in sums.values()])
            totals = self.accelerator.gather(values[None]).sum(0).tolist()
            total = dict(zip(sums, totals, strict=True))
            prefix = "eval_" if mode == "eval" else ""
            logs[f"{prefix}language_loss"] = total["language"] / max(total["tokens"], 1)
            if "contrastive" in total:
                logs[f"{prefix}contrastive_loss"] = total["contrastive"] / total["batches"]
            sums.clear()
        super().log(logs, start_time)


__all__ = ["VideoSFTTrainer"]
