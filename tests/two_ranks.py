"""Runs a function in two processes that form a process group, and gives back what each of them returned.

What a process runs must be importable there, so it stands in this file.
"""

from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from warm_processes import start

from linvt import LinVTForConditionalGeneration
from linvt.contrastive_loss import VideoTextContrast
from linvt.late_interaction import LateInteractionContrast


def on_two_ranks(function, folder: Path, inputs, timeout_seconds: float = 240) -> list:
    """`[function(inputs) on rank 0, on rank 1]`. Ranks that wait for each other for ever are ended, as a failure."""
    torch.save(inputs, folder / "inputs.pt")
    processes = [start(_run, function, rank, folder) for rank in range(2)]
    for process in processes:
        process.join(timeout_seconds)
    hung = [process for process in processes if process.exitcode is None]
    for process in hung:
        process.kill()
        process.join()
    assert not hung, f"{len(hung)} of 2 ranks were still waiting after {timeout_seconds} s"
    exit_codes = [process.exitcode for process in processes]
    assert exit_codes == [0, 0], f"the ranks ended with {exit_codes}"
    return [torch.load(folder / f"result_{rank}.pt", weights_only=False) for rank in range(2)]


def _run(function, rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    result = function(torch.load(folder / "inputs.pt", weights_only=False))
    torch.save(result, folder / f"result_{rank}.pt")
    dist.barrier()  # or the first to end takes the connections with it
    dist.destroy_process_group()


class ProjectedContrast(torch.nn.Module):
    """The contrastive loss of embeddings that a weight has a part in."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(channels))
        self.contrast = VideoTextContrast().requires_grad_()

    def forward(self, embeds, is_video, labels):
        return self.contrast(None if embeds is None else embeds @ self.weight, is_video, labels)


def contrastive_gradients(cases: list[tuple[dict, dict]]) -> list[dict]:
    """Per case the loss of this rank's part of the batch, and the gradients after DDP has averaged them."""
    results = []
    for parts in cases:
        part = parts[dist.get_rank()]
        model = DistributedDataParallel(
            ProjectedContrast(channels=parts[0]["embeds"].shape[-1]), find_unused_parameters=True
        )
        loss = model(**part)
        loss.backward()
        results.append({"loss": loss.detach(), **gradients(model.module)})
    return results


def late_interaction_gradients(cases: list[list[dict]]) -> list[dict]:
    """Per case the loss, and the gradients of a weight that words and keys pass; their mean over the ranks."""
    results = []
    for parts in cases:
        part = parts[dist.get_rank() if dist.is_initialized() else 0]
        weight = torch.eye(part["words"].shape[-1], requires_grad=True)
        contrast = LateInteractionContrast().requires_grad_()
        keys = [tokens @ weight for tokens in part["keys"]]
        loss = contrast(keys, part["words"] @ weight, part["text_ids"])
        loss.backward()
        found = {"loss": loss.detach(), "weight": weight.grad, "logit_scale": contrast.logit_scale.grad}
        if dist.is_initialized():
            for name in ("weight", "logit_scale"):
                dist.all_reduce(found[name])
                found[name] /= dist.get_world_size()
        results.append(found)
    return results


def fsdp_gradients(inputs) -> list[list[dict]]:
    """Per set of parts that learn, per batch: the loss, and the gradients of the whole weights."""
    folder, batches, learning_parts = inputs
    results = []
    for parts in learning_parts:
        sharded = shard(learning(LinVTForConditionalGeneration.from_pretrained(folder), parts))
        results.append([])
        for batch in batches:
            output = sharded(**batch[dist.get_rank()], return_contrastive_loss=True)
            (output.loss + output.contrastive_loss).backward()
            results[-1].append({"loss": output.loss.detach(), **gradients(sharded)})
            sharded.zero_grad()
        sharded.eval()
        with torch.no_grad():
            results[-1].append({"loss": sharded(**batches[0][dist.get_rank()]).loss})
    return results


def learning(model, parts: list[str]):
    model.train().requires_grad_(False)
    for part in parts:
        model.get_submodule(part).requires_grad_()
    return model


def shard(model):
    """FSDP2, as accelerate applies it: the layers, then the whole."""
    mesh = init_device_mesh("cpu", (2,))
    for module in list(model.modules()):
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding.weight is head.weight:
        fully_shard([embedding, head], mesh=mesh, reshard_after_forward=False)
    else:
        fully_shard(embedding, mesh=mesh)
        fully_shard(head, mesh=mesh, reshard_after_forward=False)
    return fully_shard(model, mesh=mesh)


def gradients(model) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
