"""Options of a training run, checked before any work is done."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from optimizers.came_grad import check_options
from rrg.model import ModelConfig
from rrg.tasks import TASKS


@dataclass(frozen=True)
class TrainConfig:
    """Train a report generator on two tasks: report generation (rg) and disease classification (dc).

    Images are rendered from the reports' findings. Everything a run writes is in the folder ``out``.
    """

    dataset: Literal["openi", "phantom"] = "openi"
    """openi: the reports of IU X-Ray. phantom: reports from a grammar, no network needed."""
    reports: Path | None = None
    """Own copy of the OpenI reports, a .tgz or a folder of XML files (openi only)."""
    optimizer: Literal["linear", "came-grad"] = "came-grad"
    """How the task gradients are combined."""
    rho: float = 0.5
    """CAME-Grad: relative radius of the trust region, in [0, 1)."""
    kappa: float = 1.5
    """CAME-Grad: magnitude enhancement, >= 1."""
    nu: float = 0.2
    """CAME-Grad: share of the joint gradient, in [0, 1]."""
    center: Literal["mean", "weighted"] = "mean"
    """CAME-Grad: centre of the trust region; mean is the paper's."""
    fusion: Literal["fixed", "adaptive"] = "fixed"
    """CAME-Grad: fixed is the paper's."""
    task_weights: tuple[float, float] = (1.0, 4.0)
    """Weights of rg and dc."""
    epochs: float = 3.0
    """Passes over the training split, unless steps is given."""
    steps: int | None = None
    """Training steps."""
    batch_size: int = 16
    lr: float = 3e-3
    """Peak learning rate of AdamW: linear warm-up, then cosine decay to a tenth."""
    warmup: float = 0.05
    """Share of the steps spent warming up."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    """Longest update that reaches AdamW; 0 does not clip."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    out: Path = Path("out/train")
    """Folder of the run."""
    resume: bool = False
    """Continue the run in the folder from its last checkpoint."""
    limit: int | None = None
    """Use only that many studies."""
    phantom_studies: int = 2000
    """Studies to make (phantom only)."""
    vocabulary_size: int = 1000
    """Most tokens of the vocabulary learned from the training reports."""
    max_length: int = 64
    """Longest report in tokens, with its begin and end marks."""
    image_size: int = 128
    """Height and width of the images in pixels."""
    log_gradients: bool = False
    """Write a gradient log, for sde-mtl analyze, to the folder gradients."""
    frozen_at: tuple[float, ...] = (0.1, 0.5, 0.9)
    """Steps, or shares of all steps if below 1, at which gradients of many micro-batches are logged."""
    frozen_batches: int = 48
    """Micro-batches at each of them; 0 logs none."""
    curvature_directions: int = 0
    """Directions along which each task's Hessian is logged there, by Hessian-vector products; 0 logs none."""
    projection_dim: int = 1024
    """Length of the projected gradients in the log."""
    log_every: int = 10
    """Steps between the lines of metrics.jsonl."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard events."""
    evaluate: Literal["val", "test", "none"] = "val"
    """Split on which reports are generated and scored at the end."""
    num_beams: int = 1
    """Beams of that generation; 1 is greedy."""
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        check_options(rho=self.rho, kappa=self.kappa, nu=self.nu, center=self.center, fusion=self.fusion)
        for name in ("epochs", "lr", "weight_decay", "clip_norm", "task_weights"):
            value = getattr(self, name)
            if not all(math.isfinite(x) for x in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"{name} must be finite, got {value}")
        _positive(self, "epochs", "lr", "batch_size", "log_every", "checkpoint_every", "num_beams")
        _positive(self, "projection_dim", "phantom_studies", "image_size")
        _non_negative(self, "weight_decay", "clip_norm", "frozen_batches", "seed")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}")
        if self.limit is not None and self.limit < 10:
            raise ValueError(f"limit must be >= 10 to leave studies for every split, got {self.limit}")
        if self.max_length < 4:
            raise ValueError(f"max_length must be >= 4, got {self.max_length}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {self.warmup}")
        if self.frozen_batches == 1:
            raise ValueError("frozen_batches must be 0 or >= 2: one micro-batch has no covariance")
        if self.curvature_directions != 0 and self.curvature_directions < len(TASKS):
            raise ValueError(
                f"curvature_directions must be 0 or >= {len(TASKS)}, one a task, got {self.curvature_directions}"
            )
        for at in self.frozen_at:
            if not at >= 0 or (at >= 1 and not float(at).is_integer()):
                raise ValueError(f"frozen_at takes shares in [0, 1) or whole steps >= 1, got {at}")
        if self.steps is not None:
            self.frozen_steps(self.steps)
        if min(self.task_weights) < 0 or max(self.task_weights) <= 0:
            raise ValueError(f"task_weights of {TASKS} must be >= 0 and not all zero, got {self.task_weights}")
        if self.reports is not None and self.dataset != "openi":
            raise ValueError(f"reports belong to the dataset openi, not to {self.dataset}")
        if self.reports is not None and not self.reports.exists():
            raise ValueError(f"reports: {self.reports} does not exist")
        smallest = self.model.patch_size * 2 ** (len(self.model.encoder_widths) - 1)
        if self.image_size < smallest:
            raise ValueError(f"image_size must be >= {smallest} for this encoder, got {self.image_size}")

    def frozen_steps(self, steps: int) -> list[int]:
        """The steps of ``frozen_at`` in a run of so many steps, sorted.

        Raises:
            ValueError: for a step that the run does not reach.

        Example:
            >>> TrainConfig(frozen_at=(0.5, 20)).frozen_steps(100)
            [20, 50]
        """
        if self.frozen_batches == 0:
            return []
        found = sorted({int(at * steps) if at < 1 else int(at) for at in self.frozen_at})
        if found and found[-1] >= steps:
            raise ValueError(f"frozen_at {found[-1]} is beyond the last of {steps} steps")
        return found


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The options as plain values.

    Example:
        >>> from_json(as_json(TrainConfig(lr=0.1))) == TrainConfig(lr=0.1)
        True
    """
    plain = dataclasses.asdict(config)
    for name in ("out", "reports"):
        plain[name] = None if plain[name] is None else str(plain[name])
    return json.loads(json.dumps(plain))


def from_json(plain: dict[str, Any]) -> TrainConfig:
    """Inverse of :func:`as_json`.

    Raises:
        ValueError: for unknown options, naming them.
    """
    unknown = plain.keys() - {option.name for option in dataclasses.fields(TrainConfig)}
    if unknown:
        raise ValueError(f"unknown training options {sorted(unknown)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    model: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain["model"].items()}
    values["model"] = ModelConfig(**model)
    values["out"] = Path(values["out"])
    values["reports"] = None if values["reports"] is None else Path(values["reports"])
    return TrainConfig(**values)


def _positive(config: TrainConfig, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be > 0, got {getattr(config, name)}")


def _non_negative(config: TrainConfig, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name} must be >= 0, got {getattr(config, name)}")
