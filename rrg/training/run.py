"""A training run in progress: model, optimizer, random states, and the step."""

import gc
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from optimizers import NonFiniteError
from rrg.config import TrainConfig
from rrg.data import PAD, Corpus, ReportDataset
from rrg.distributed import barrier, gather, mean_over_processes, rank, world_size
from rrg.model import Output, ReportGenerator, needed, task_losses
from rrg.training import checkpoint
from rrg.training.activation_memory import prepared
from rrg.training.batches import StepSampler, loader
from rrg.training.schedule import learning_rate
from rrg.training.setup import build_optimizer

Batch = dict[str, Tensor]
SMALLEST_SCALE = 2.0**-10
_NEWER, _OLDER = "forward_sync_buffers", "broadcast_buffers"
_OWN_BUFFERS: dict[str, Any] = {_NEWER if _NEWER in signature(DistributedDataParallel).parameters else _OLDER: False}


class TrainingRun:
    """Model, optimizer and random states of a run; every process has one.

    Args:
        config: options.
        corpus: named in the gradient log.
        dataset: training split.
        model: on its device.
        steps: to make altogether.
    """

    def __init__(
        self, config: TrainConfig, corpus: Corpus, dataset: ReportDataset, model: ReportGenerator, steps: int
    ) -> None:
        self.config, self.corpus, self.dataset, self.model, self.steps = config, corpus, dataset, model, steps
        model.train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.shared = model.shared_parameters() if config.shared else self.parameters
        self.device = self.parameters[0].device
        inner = torch.optim.AdamW(self._groups(), lr=config.lr, weight_decay=config.weight_decay)
        self.optimizer = build_optimizer(
            config,
            inner,
            steps,
            shared=self.shared if config.shared else None,
            refresh_every=config.refresh_every,
            track=config.track,
            on_nonfinite="propagate" if config.precision == "fp16" else "raise",
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.network: nn.Module = self._distributed(prepared(model, config))
        self._batches: Iterator[Batch] = iter(())

    def begin(self, first: int) -> None:
        """Have the batches of step ``first`` and later ready."""
        c = self.config
        sampler = StepSampler(
            len(self.dataset), c.batch_size, steps=self.steps, first=first, accumulate=c.accumulate, seed=c.seed,
            rank=rank(), world_size=world_size(),
        )  # fmt: skip
        self._batches = iter(loader(self.dataset, sampler, workers=c.workers, pin=self.device.type == "cuda"))

    def step(self, step: int) -> list[float]:
        """One training step; the losses before it, averaged over micro-batches and processes, one a task.

        Raises:
            NonFiniteError: for a NaN or infinite loss, or gradient unless losses are scaled.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(group["peak"], self.config.warmup, step, self.steps)
        micro_batches = [self.to_device(next(self._batches)) for _ in range(self.config.accumulate)]
        count = len(micro_batches)
        tokens = sum(float((b["input_ids"][:, 1:] != PAD).sum()) for b in micro_batches) / count
        tokens = mean_over_processes(tokens, self.device)
        scale = self.scaler.get_scale()
        values = torch.zeros(len(self.config.tasks), dtype=torch.float64)
        remembered = []
        self.optimizer.zero_grad()
        for number, batch in enumerate(micro_batches, 1):
            with self._sync(number == count):
                output = self._forward(batch)
                losses = [loss / count for loss in self._losses(output, batch, tokens)]
            values += torch.stack([loss.detach().double().cpu() for loss in losses])
            scaled = [self.scaler.scale(loss) for loss in losses]
            take = self.optimizer.backward if number == count else self.optimizer.accumulate
            take(scaled, self.config.weights, scale=scale)
            remembered.append((batch, output))
        values = torch.tensor([mean_over_processes(v, self.device) for v in values.tolist()])
        if not values.isfinite().all():
            task = self.config.tasks[int((~values.isfinite()).nonzero()[0])]
            raise NonFiniteError(f"the loss of {task} is not finite")
        self._update()
        for batch, output in remembered:
            self._remember(batch, output)
        return values.tolist()

    def decided(self) -> Tensor | None:
        """(K,) coefficients of the last step that was taken, the task weights before there is one; None for none."""
        last = self.optimizer.last
        return torch.tensor(self.config.weights, dtype=torch.float64) if last is None else last.coefficients

    def losses(self, batch: Batch) -> list[Tensor]:
        """Losses of one micro-batch at the present parameters with their graph, one a task; nothing is remembered."""
        return self._losses(self._forward(batch), batch, None)

    def to_device(self, batch: Batch) -> Batch:
        """The batch where the model is."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def _update(self) -> None:
        inner = self.optimizer.optimizer
        self.scaler.unscale_(inner)
        if self.config.clip_value > 0:
            nn.utils.clip_grad_value_(self.parameters, self.config.clip_value)
        if self.config.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.scaler.step(inner)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            raise NonFiniteError(f"gradients overflow fp16 at every scale down to {SMALLEST_SCALE}; try bf16 or fp32")

    def save(self, step: int) -> None:
        """Write a checkpoint of the run after ``step`` steps; called by every process, written by the first."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": gather(torch.get_rng_state()[None].to(self.device)).cpu(),
            "steps": self.steps,
            "studies": self._fingerprint(),
        }
        if self.device.type == "cuda":
            state["random_cuda"] = gather(torch.cuda.get_rng_state(self.device)[None].to(self.device)).cpu()
        if rank() == 0:
            checkpoint.save(self.config.out / "checkpoints", step, self.model, state)

    def restore(self) -> int:
        """Load the last checkpoint; the number of steps it has made, 0 if the run was stopped before its first.

        Raises:
            ValueError: if it was written by another number of processes or on other training studies, or the
                aggregator has a state that is not saved.
        """
        made = checkpoint.steps(self.config.out / "checkpoints")
        if not made:
            return 0
        if getattr(self.optimizer.aggregator, "stateful", False):
            raise ValueError(
                f"{self.config.optimizer} carries a state from step to step that TorchJD cannot save, so that a "
                "resumed run would be another one; train again in another folder"
            )
        newest = made[-1]
        checkpoint.load_model(newest, self.model)
        state = checkpoint.load_state(newest)
        if len(state["random"]) != world_size():
            raise ValueError(
                f"{newest} was written by {len(state['random'])} processes, resume it with as many, not {world_size()}"
            )
        if state["studies"] != self._fingerprint():
            raise ValueError(f"{newest} was trained on other studies than those now read; give the data of the run")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"][rank()])
        if self.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"][rank()], self.device)
        return checkpoint.step_of(newest)

    def leave(self) -> None:
        """Part from the other processes: a DistributedDataParallel that outlives their group can block its end."""
        self.network = self.model
        gc.collect()
        barrier()

    def _fingerprint(self) -> str:
        """SHA-256 of the training studies' identifiers and tokens, in their order."""
        digest = hashlib.sha256(self.dataset.input_ids.numpy().tobytes())
        digest.update("\n".join(study.id for study in self.dataset.studies).encode())
        return digest.hexdigest()

    def _groups(self) -> list[dict[str, Any]]:
        """The image encoder, and the rest, each with its peak learning rate."""
        config = self.config
        if config.encoder_lr is None:
            return [{"params": self.parameters, "peak": config.lr}]
        encoder = {id(p) for p in self.model.encoder.parameters()}
        return [
            {"params": [p for p in self.parameters if id(p) in encoder], "peak": config.encoder_lr},
            {"params": [p for p in self.parameters if id(p) not in encoder], "peak": config.lr},
        ]

    def _distributed(self, model: ReportGenerator) -> nn.Module:
        if world_size() == 1:
            return model
        torch.manual_seed(torch.initial_seed() + rank())  # dropout differs between processes
        return DistributedDataParallel(
            model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            **_OWN_BUFFERS,
            find_unused_parameters=self.config.find_unused_parameters,
        )

    def _sync(self, last: bool) -> AbstractContextManager[Any]:
        if last or not self.config.no_sync or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def _autocast(self) -> AbstractContextManager[Any]:
        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, kinds[self.config.precision])

    def _forward(self, batch: Batch) -> Output:
        with self._autocast():
            return self.network(
                batch["pixel_values"],
                batch["input_ids"],
                batch["labels"],
                batch["view_mask"] if self.config.max_views > 1 else None,
                batch["index"],
            )

    def _losses(self, output: Output, batch: Batch, tokens: float | None) -> list[Tensor]:
        with self._autocast():
            return task_losses(self.model, output, batch, tokens=tokens)

    def _remember(self, batch: Batch, output: Output) -> None:
        if "re" in self.config.tasks:
            embeddings = gather(needed(output.report_embedding, "re").detach())
            self.model.memory.update(gather(batch["index"]), embeddings, gather(batch["labels"]))
