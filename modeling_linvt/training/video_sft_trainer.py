"""Trains with TRL on video chats: next-token loss, and the contrastive loss of the alignment stage beside it.

Needs `pip install linvt[train]`, so `import linvt` does not import it.
"""

import copy
import inspect
from collections import defaultdict
from typing import Any

import torch
from accelerate.utils import DistributedType
from peft import PeftModel
from torch import nn
from transformers.trainer_utils import TrainOutput
from transformers.utils import ModelOutput, logging

from linvt.configuration.input_values import IGNORED_LABEL
from linvt.modeling_linvt import LinVTForConditionalGeneration
from linvt.processors.processing_linvt import LinVTProcessor
from linvt.training.token_metrics import sum_token_metrics
from linvt.training.video_chat_collator import VideoChatCollator


try:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
except ImportError as error:
    raise ImportError(f"VideoSFTTrainer needs TRL ({error}); pip install 'linvt[train]'.") from error


logger = logging.get_logger(__name__)


class VideoSFTTrainer(SFTTrainer):
    """
    TRL's `SFTTrainer` whose rows become batches in the collator, since TRL prepares text and images but no videos.

    Args:
        model ([`LinVTForConditionalGeneration`] or `PeftModel`): With `requires_grad` where it shall learn; see
            `training_stages.py`. A warning counts what learns in the image-LLM itself.
        args (`SFTConfig`): Copied, so that it stays as it is. Settings that ask for another collator, data set or loss
            than ours are a `ValueError` that names them; they are in `_unsupported`.
        contrastive_weight (`float`, *optional*, defaults to 0.0): Factor of the contrastive loss. 0 leaves it out.
        kwargs: Other arguments of `SFTTrainer`. `data_collator` is a [`VideoChatCollator`] of `processing_class` by
            default.

    The loss is

        sum of the next-token losses / number of learnt tokens in all micro-batches and ranks of this step
        + contrastive_weight * mean of the contrastive losses of its micro-batches.

    Pairs of the contrastive loss are contrasted over all ranks, but not over the micro-batches of gradient
    accumulation, as they are not there at the same time.

    Logged are, beside what `Trainer` logs, `language_loss` per learnt token, `contrastive_loss`, and as TRL does
    `mean_token_accuracy` and `entropy` (in nats) of the learnt tokens, and `num_tokens`, the tokens of all batches of
    this training so far, padding excluded. TRL's `aux_loss` of mixtures of experts is not: no stage trains a router.

    Trainable weights of the video tokenizer become float32 here, whatever the image-LLM is in: a step may be smaller
    than bfloat16 can tell. That holds beside a quantised LLM too, for which TRL casts LoRA to bfloat16.
    """

    def __init__(
        self,
        model: LinVTForConditionalGeneration | PeftModel,
        args: SFTConfig,
        contrastive_weight: float = 0.0,
        **kwargs: Any,
    ):
        if not isinstance(args, SFTConfig):
            raise TypeError(f"args is {type(args).__name__}; give a trl.SFTConfig.")
        processor = kwargs.get("processing_class")
        if kwargs.get("data_collator") is None:
            if not isinstance(processor, LinVTProcessor):
                raise ValueError(
                    f"processing_class is {type(processor).__name__}; give the model's LinVTProcessor, of which a "
                    "VideoChatCollator is made, or a data_collator that reads videos."
                )
            kwargs["data_collator"] = VideoChatCollator(processor)
        self.check_settings(args, contrastive_weight, **kwargs)
        dataset = kwargs.get("train_dataset")
        columns = dataset.column_names if isinstance(dataset, Dataset) else []
        if args.train_sampling_strategy == "group_by_length" and args.length_column_name not in columns:
            raise ValueError(
                f"group_by_length needs a column {args.length_column_name!r} in the data set, with the number of "
                f"tokens of each row; it has {columns}. Rows are tokenized when their batch is made."
            )
        whole = model.get_base_model() if isinstance(model, PeftModel) else model
        parameters = inspect.signature(whole.image_llm.forward).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            raise ValueError(
                f"{type(whole.image_llm).__name__}.forward takes no num_items_in_batch, without which its loss cannot "
                "be averaged over gradient accumulation and ranks."
            )
        if not isinstance(model, PeftModel):
            # Where it is not asked for, it would be a weight without a gradient. PEFT freezes it and does not save it.
            whole.contrast.requires_grad_(contrastive_weight > 0)
        self.contrastive_weight = contrastive_weight
        self._sums: dict[str, defaultdict[str, float]] = {"train": defaultdict(float), "eval": defaultdict(float)}
        self._num_tokens: torch.Tensor | int = 0
        args = copy.copy(args)
        args.remove_unused_columns = False
        args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        args.max_length = None
        args.assistant_only_loss = False  # TRL would look for marks in the template; the collator finds the answers
        args.label_names = ["labels"]
        super().__init__(model=model, args=args, **kwargs)
        for module in (whole.video_tokenizer, whole.contrast):
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        if self.accelerator.distributed_type == DistributedType.FSDP and not self.accelerator.is_fsdp2:
            raise ValueError("FSDP version 1 cannot run ranks with different batches; set fsdp_version: 2.")
        if self._image_llm_learns():
            logger.warning(
                f"Weights of the image-LLM itself learn ({_count_learning(whole)}), so what it knows about text and "
                "images changes. To keep it, call freeze_for_alignment(model), or give "
                "peft_config=lora_for_instruction(model), both of linvt.training."
            )

    @staticmethod
    def check_settings(args: SFTConfig, contrastive_weight: float = 0.0, **kwargs: Any) -> None:
        """
        Checks arguments of the trainer that need neither a model nor rows, so that a script can fail before it has
        loaded them. The constructor checks them too.

        Raises:
            `ValueError`: If one asks for what the trainer cannot do.
        """
        given = _unsupported(args, kwargs)
        if given:
            raise ValueError(
                f"VideoSFTTrainer has no {', '.join(given)}: every row is a row of its batch as the data set has it, "
                "answers are learnt and nothing else, and the loss is nll."
            )
        if args.max_length not in (None, SFTConfig.max_length):
            raise ValueError(
                f"max_length is {args.max_length}, but rows are not truncated, since that would cut video tokens off; "
                "give max_length to the collator (max_tokens in the scripts), for which longer rows are bad rows."
            )
        rows_at_once = args.train_batch_size * args.world_size
        if contrastive_weight > 0 and rows_at_once < 2:
            raise ValueError(
                f"contrastive_weight is {contrastive_weight:g}, but per_device_train_batch_size is "
                f"{args.per_device_train_batch_size} on {args.world_size} process, and the contrastive loss needs at "
                "least 2 rows at the same time (more is better; gradient accumulation adds none). Raise "
                "per_device_train_batch_size, use more processes, or set contrastive_weight to 0."
            )

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """As `SFTTrainer.train`; a `ValueError` if weights that have learnt would not be found again."""
        loads = resume_from_checkpoint or self.args.load_best_model_at_end
        if loads and self._image_llm_learns():
            # Measured with Transformers 5.23: only a warning says that keys are missing.
            raise ValueError(
                "Weights of the image-LLM itself learn. Checkpoints hold them under the names of from_pretrained, "
                "where the Trainer does not look when it resumes or loads the best model at the end, so it would "
                "leave those that it has. Freeze them and use LoRA, or load the model from the checkpoint yourself."
            )
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _image_llm_learns(self) -> bool:
        """Tells whether weights of the image-LLM other than LoRA learn."""
        if isinstance(self.model, PeftModel):
            return False
        return any(parameter.requires_grad for parameter in self.model.image_llm.parameters())

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """Returns the loss of a micro-batch, and with `return_outputs` what the model returned, with its logits."""
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
        num_correct, entropy = sum_token_metrics(outputs.logits, inputs["labels"])
        sums["correct"] += num_correct
        sums["entropy"] += entropy
        if self.model.training:
            self._num_tokens += inputs["attention_mask"].sum()
        loss = loss * ranks
        if self.contrastive_weight > 0:
            loss = loss + self.contrastive_weight * outputs.contrastive_loss / steps
            sums["contrastive"] += outputs.contrastive_loss.detach()
            sums["batches"] += 1
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means since the last call, over all ranks, to what is logged."""
        mode = "train" if self.model.training else "eval"
        sums = self._sums[mode]
        if sums:
            values = torch.stack([torch.as_tensor(value, device=self.args.device).float() for value in sums.values()])
            total = dict(zip(sums, self._sum_over_ranks(values).tolist(), strict=True))
            tokens = max(total["tokens"], 1)
            found = {
                "language_loss": total["language"] / tokens,
                "mean_token_accuracy": total["correct"] / tokens,
                "entropy": total["entropy"] / tokens,
                "num_tokens": self._sum_over_ranks(torch.as_tensor(self._num_tokens, device=self.args.device)).item(),
            }
            if "contrastive" in total:
                found["contrastive_loss"] = total["contrastive"] / total["batches"]
            prefix = "eval_" if mode == "eval" else ""
            logs |= {f"{prefix}{name}": value for name, value in found.items()}
            sums.clear()
        super().log(logs, start_time)

    def _sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        return self.accelerator.gather(values[None]).sum(0)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes nothing: TRL's card would name no base and show code that cannot run. `linvt export` writes ours."""


def _unsupported(args: SFTConfig, kwargs: dict[str, Any]) -> list[str]:
    """Names of the settings that TRL has and that would be passed over here."""
    given = {
        "packing": args.packing,
        "eval_packing": args.eval_packing,
        "padding_free": args.padding_free,
        "pad_to_multiple_of": args.pad_to_multiple_of is not None,
        "pad_token": args.pad_token is not None,
        "shuffle_dataset": args.shuffle_dataset,
        "completion_only_loss=False": args.completion_only_loss is False,
        "label_smoothing_factor": args.label_smoothing_factor != 0,
        "loss_type": args.loss_type != "nll",
        "router_aux_loss_coef": bool(args.router_aux_loss_coef),
        "use_liger_kernel": args.use_liger_kernel,
        "compute_loss_func": kwargs.get("compute_loss_func") is not None,
        "formatting_func": kwargs.get("formatting_func") is not None,
    }
    return [name for name, is_given in given.items() if is_given]


def _count_learning(model: nn.Module) -> str:
    """Counts the parameters of each part that learn, for a message."""
    counts = []
    for name, part in model.named_children():
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
        learning = sum(size for size, learns in sizes if learns)
        counts.append(f"{name} {learning:,} of {sum(size for size, _ in sizes):,}")
    return ", ".join(counts)


__all__ = ["VideoSFTTrainer"]
