"""Write a gradient log: per-step losses, Gramians and projected per-task gradients of a training run.

The folder holds ``meta.json`` and safetensors shards, each written atomically, so that a killed run leaves a
readable log:

- ``steps-NNNNNN.safetensors``: n consecutive steps: ``step`` (n,) int64, ``losses`` (n, K) float64,
  ``gramian`` (n, K, K) float64 (exact, full space), ``projected`` (n, K, m) float32, and since version 2
  ``gramian_groups`` (n, G, K, K) float64, the same for each group of parameters, whose sum it is, and
  ``projected_shared`` (n, K, m) float32, the part of ``projected`` of the parameters that two tasks or more reach;
- ``frozen-SSSSSS-NNNNNN.safetensors``: n micro-batches at the parameters that step S started from:
  the same without ``step``, and ``projected_groups`` (n, G, K, m/4) float32, of each group, where buckets of
  ``projected`` that are m/4 apart are added up;
- ``frozen-SSSSSS-mean.safetensors``, once that set is complete: ``mean_gramian`` (K, K) float64, the exact
  Gramian of the mean gradients, ``mean_gramian_groups`` (G, K, K), the same for each group, and ``count`` (1,) int64.
  From them the products of gradients of *different* micro-batches, which are unbiased for those of the expectations,
  :math:`U_{ij} = (n^2⟨\\bar g_i, \\bar g_j⟩ - \\sum_a⟨g_i^a, g_j^a⟩)/(n(n-1))`, and
  :math:`\\operatorname{tr} Σ_{ij} = \\overline{⟨g_i, g_j⟩} - U_{ij}` are exact;
- ``frozen-SSSSSS-curvature.safetensors``, if asked for: ``basis`` (r, m) float32, projections of r orthonormal
  directions v (the span of the mean task gradients and of some deviations from them), and ``hessian`` (K, r, r)
  float64, :math:`v_a^⊤\\nabla²L_iv_b` from Hessian-vector products on ``batches`` micro-batches.

``meta.json`` lists the G groups in their order, each with ``name``, ``tensors`` (positions of its parameters),
``parameters`` (scalars), ``reached_by`` (tasks whose gradients are not all zero there) and ``shared`` (two or more
of them). The first gradients that the log sees decide that: a named group whose parameters are reached by different
tasks is split. Products of two tasks' gradients live on shared parameters alone, so ``gramian`` and the sum of the
shared ``gramian_groups`` differ in their diagonals only.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from optimizers import task_gradients
from optimizers.files import write_json
from rrg.files import write_tensors
from rrg.gradient_log.curvature import hessians, orthonormal
from rrg.gradient_log.groups import Gradients, Group, GroupedProducts, split_by_reach

FORMAT = "multi-task-gradient-log"
VERSION = 2


class GradientLogWriter:
    """Collects steps and writes a shard every ``shard_steps`` of them.

    Use it as ``MultiTaskOptimizer(..., observer=writer.observe)``, call :meth:`end_step` after each step
    with the losses, and leave the ``with`` block to write the steps since the last shard.

    Args:
        folder: created if missing.
        meta: what the reader should know of the run: at least ``tasks`` and ``task_weights``; the
            format, its version, the number of parameters and the projection are added.
        parameters: P, number of trainable scalars.
        dim: m, length of the projected gradients.
        seed: of the projection.
        groups: name of a group → positions of its parameters in the optimizer's order; one group of all by default.
        shard_steps: steps in a shard; a kill loses fewer than that many.
        resume_step: None refuses a folder that holds a log; s keeps its steps before s and drops the rest.

    Raises:
        FileExistsError: if the folder holds a log and ``resume_step`` is None.
        ValueError: if ``meta`` lacks the tasks, if shards of the old log do not end at ``resume_step``, or for
            sizes below 1.

    Example:
        >>> import tempfile
        >>> meta = {"tasks": ["rg", "dc"], "task_weights": [1.0, 4.0]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with GradientLogWriter(folder, meta, parameters=3, dim=4) as log:
        ...         log.observe([[torch.ones(3)], [torch.zeros(3)]], torch.eye(2).double())
        ...         log.end_step(0, [2.5, 1.0])
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['meta.json', 'steps-000000.safetensors']
    """

    def __init__(
        self,
        folder: str | Path,
        meta: dict[str, Any],
        parameters: int,
        *,
        dim: int = 1024,
        seed: int = 0,
        groups: Mapping[str, Sequence[int]] | None = None,
        shard_steps: int = 50,
        resume_step: int | None = None,
    ) -> None:
        if shard_steps < 1:
            raise ValueError(f"shard_steps must be >= 1, got {shard_steps}")
        if not meta.get("tasks") or len(meta["tasks"]) != len(meta.get("task_weights", ())):
            raise ValueError("meta needs 'tasks' and as many 'task_weights'")
        self.folder = Path(folder)
        self.tasks = len(meta["tasks"])
        self.shard_steps = shard_steps
        self._parameters, self._dim, self._seed = parameters, dim, seed
        self._named = groups
        self._products: GroupedProducts | None = None
        self._rows: list[dict[str, Tensor]] = []
        self._observed: dict[str, Tensor] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shards = self._continue(resume_step)
        self._meta = {
            "format": FORMAT,
            "version": VERSION,
            "parameters": parameters,
            "projection": {"kind": "countsketch", "dim": dim, "seed": seed},
            **meta,
        }
        known = self._known_groups()
        if known:
            self._group(known)
        else:
            write_json(self.folder / "meta.json", self._meta)

    def _known_groups(self) -> list[Group]:
        """Those of the log that is continued; none in a new one."""
        path = self.folder / "meta.json"
        listed = json.loads(path.read_text(encoding="utf-8")).get("groups", []) if path.exists() else []
        return [Group(**{**g, "tensors": tuple(g["tensors"]), "reached_by": tuple(g["reached_by"])}) for g in listed]

    def _group(self, groups: Sequence[Group]) -> GroupedProducts:
        """Settle the groups, and tell the reader."""
        self._products = GroupedProducts(groups, self._dim, self._seed)
        write_json(self.folder / "meta.json", {**self._meta, "groups": [group.as_dict() for group in groups]})
        return self._products

    def _products_of(self, gradients: Gradients) -> dict[str, Tensor]:
        products = self._products
        if products is None:
            total = sum(tensor.numel() for tensor in gradients[0])
            if total != self._parameters:
                raise ValueError(f"this log is of {self._parameters} parameters, got gradients of {total}")
            named = {"all": range(len(gradients[0]))} if self._named is None else self._named
            products = self._group(split_by_reach(named, gradients, self._meta["tasks"]))
        return products(gradients)

    def _continue(self, resume_step: int | None) -> int:
        """Drop what the resumed run will write again; return the number of shards kept."""
        if resume_step is None:
            if any(self.folder.glob("*.safetensors")) or (self.folder / "meta.json").exists():
                raise FileExistsError(f"{self.folder} already holds a gradient log; choose another folder or remove it")
            return 0
        kept = 0
        for path in sorted(self.folder.glob("steps-*.safetensors")):
            steps = load_file(path)["step"]
            if steps[0] >= resume_step:
                path.unlink()
            elif steps[-1] >= resume_step:
                raise ValueError(
                    f"{path} holds steps on both sides of step {resume_step}; "
                    "resume from a checkpoint of the run that wrote it"
                )
            else:
                kept += 1
        for path in self.folder.glob("frozen-*.safetensors"):
            if int(path.name.split("-")[1]) >= resume_step:
                path.unlink()
        return kept

    def observe(self, gradients: Gradients, gramian: Tensor) -> None:
        """Take per-task gradients (K lists of tensors) and their exact Gramian (K, K) float64."""
        self._observed = {"gramian": gramian.detach().cpu().double(), **self._products_of(gradients)}

    def end_step(self, step: int, losses: Sequence[float]) -> None:
        """Record the observed gradients as those of ``step``, with its K losses.

        A step whose gradients were never observed (skipped as non-finite) leaves no row.
        """
        if self._observed is None:
            return
        row = self._row(losses, self._observed)
        self._rows.append({"step": torch.tensor(step), **row})
        self._observed = None
        if len(self._rows) == self.shard_steps:
            self.flush()

    def flush(self) -> None:
        """Write the collected steps as one shard, if there are any."""
        if self._rows:
            write_tensors(self.folder / f"steps-{self._shards:06d}.safetensors", _stack(self._rows))
            self._shards += 1
            self._rows = []

    def log_frozen(
        self,
        step: int,
        batches: Iterable[Any],
        losses_of: Callable[[Any], Sequence[Tensor]],
        parameters: Sequence[nn.Parameter],
        *,
        shard_batches: int = 16,
        directions: int = 0,
        curvature_batches: int = 2,
    ) -> None:
        """Per-task gradients of many micro-batches at the present parameters, which stay as they are.

        Args:
            step: the training step about to be made.
            batches: micro-batches, drawn independently of each other; two or more.
            losses_of: batch → K losses with graph.
            parameters: trainable parameters, in the optimizer's order.
            shard_batches: micro-batches in a shard.
            directions: r, how many directions' curvature to log; 0 for none, otherwise at least K.
            curvature_batches: micro-batches whose Hessians are averaged.

        Raises:
            ValueError: for fewer than two micro-batches, which have no covariance, or for fewer directions than tasks.
        """
        if 0 < directions < self.tasks:
            raise ValueError(f"directions = {directions} must be 0 or at least {self.tasks}, one a task")
        rows: list[dict[str, Tensor]] = []
        sums = [[torch.zeros_like(p, dtype=torch.float64) for p in parameters] for _ in range(self.tasks)]
        shards = count = 0
        measured: list[Any] = []
        deviations: list[Sequence[Tensor]] = []
        for batch in batches:
            losses = losses_of(batch)
            gradients = task_gradients(losses, parameters)
            for total, gradient in zip(sums, gradients, strict=True):
                torch._foreach_add_(total, [g.double() for g in gradient])
            products = self._products_of(gradients)
            products["projected_groups"] = self._settled().project_groups(gradients)
            observed = {"gramian": products["gramian_groups"].sum(0), **products}
            rows.append(self._row([loss.item() for loss in losses], observed))
            if directions and len(measured) < curvature_batches:
                measured.append(batch)
            if len(deviations) < directions - self.tasks:
                deviations.append(gradients[count % self.tasks])
            count += 1
            if len(rows) == shard_batches:
                self._write_frozen(step, shards, rows)
                shards, rows = shards + 1, []
        if rows:
            self._write_frozen(step, shards, rows)
        if count < 2:
            raise ValueError(f"a frozen set needs at least 2 micro-batches, got {count}")
        grouped = self._settled().gramians(sums) / count**2
        write_tensors(
            self.folder / f"frozen-{step:06d}-mean.safetensors",
            {"mean_gramian": grouped.sum(0), "mean_gramian_groups": grouped, "count": torch.tensor([count])},
        )
        if directions:
            basis = orthonormal([*sums, *deviations])
            sizes = [p.numel() for p in parameters]
            projected = [self._settled().project(column.split(sizes)) for column in basis.T]
            write_tensors(
                self.folder / f"frozen-{step:06d}-curvature.safetensors",
                {
                    "basis": torch.stack(projected),
                    "hessian": hessians(losses_of, measured, parameters, basis),
                    "batches": torch.tensor([len(measured)]),
                },
            )

    def _settled(self) -> GroupedProducts:
        if self._products is None:
            raise RuntimeError("the groups of a gradient log are settled by the first gradients it sees")
        return self._products

    def _write_frozen(self, step: int, shard: int, rows: list[dict[str, Tensor]]) -> None:
        write_tensors(self.folder / f"frozen-{step:06d}-{shard:06d}.safetensors", _stack(rows))

    def _row(self, losses: Sequence[float], observed: dict[str, Tensor]) -> dict[str, Tensor]:
        if len(losses) != self.tasks or len(observed["gramian"]) != self.tasks:
            raise ValueError(
                f"this log has {self.tasks} tasks, got {len(losses)} losses and {len(observed['gramian'])} gradients"
            )
        return {"losses": torch.tensor(losses, dtype=torch.float64), **observed}

    def __enter__(self) -> "GradientLogWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()


def _stack(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
