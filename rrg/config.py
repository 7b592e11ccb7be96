"""Options of a training run, checked before any work is done."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec

from optimizers.aggregators import DEFAULTS, CAMEGradOptions
from rrg.aggregators import check_optimizer
from rrg.files import check_exist
from rrg.model import DEFAULT_WEIGHTS, TASKS, ModelConfig

PATHS = ("out", "reports", "annotation", "images", "chexbert", "chexbert_vocab")


def _split(words: list[str]) -> list[str]:
    return [part for word in words for part in word.split(",") if part]


def _weights(words: list[str]) -> tuple[float, ...] | Literal["equal"]:
    return "equal" if words == ["equal"] else tuple(float(word) for word in _split(words))


Tasks = Annotated[
    tuple[str, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="rg,dc,ita,re",
        instance_from_str=lambda words: tuple(_split(words)),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=list,
    ),
]
Weights = Annotated[
    tuple[float, ...] | Literal["equal"],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="FLOAT,FLOAT,…|equal",
        instance_from_str=_weights,
        is_instance=lambda value: value == "equal" or isinstance(value, tuple),
        str_from_instance=lambda value: ["equal"] if value == "equal" else [str(x) for x in value],
    ),
]


@dataclass(frozen=True)
class TrainConfig:
    """Train a report generator on several tasks at once. Everything a run writes is in the folder ``out``."""

    dataset: Literal["openi", "phantom", "r2gen"] = "openi"
    """openi: the reports of IU X-Ray with rendered images. phantom: reports from a grammar, no network needed.
    r2gen: an annotation.json and its images, as R2Gen uses and ``rrg prepare`` writes."""
    annotation: Path | None = None
    """The annotation.json (r2gen only)."""
    images: Path | None = None
    """Folder of its images; by default the folder images beside it (r2gen only)."""
    verify: Literal["decode", "open", "exists"] = "decode"
    """How every image is checked before training starts (r2gen only)."""
    skip_bad: bool = False
    """Leave out what that check refuses, and go on (r2gen only)."""
    reports: Path | None = None
    """Own copy of the OpenI reports, a .tgz or a folder of XML files (openi only)."""
    tasks: Tasks = ("rg", "dc")
    """Some of rg (report generation), dc (disease classification), ita (image-text alignment), re (retrieval)."""
    task_weights: Weights = ()
    """One weight a task, or equal; by default 4 for dc and 1 for the others."""
    optimizer: str = "came-grad"
    """How the task gradients are combined: linear, came-grad, cagrad, mgda, pcgrad, imtl-g, aligned-mtl, nash-mtl;
    TorchJD's methods such as torchjd:UPGrad and torchjd:CAGrad:c=0.5; or replay:RUN[,RUN…][:smooth=N][:mean=True], the
    weighted sum with the weights that those runs' aggregators decided on, at one backward pass a step."""
    rho: float = DEFAULTS.rho
    """CAME-Grad and CAGrad: relative radius of the trust region, in [0, 1)."""
    kappa: float = DEFAULTS.kappa
    """CAME-Grad: magnitude enhancement, >= 1."""
    nu: float = DEFAULTS.nu
    """CAME-Grad: share of the joint gradient, in [0, 1]."""
    center: Literal["mean", "weighted"] = DEFAULTS.center
    """CAME-Grad: centre of the trust region; mean is the paper's."""
    fusion: Literal["fixed", "adaptive"] = DEFAULTS.fusion
    """CAME-Grad: fixed is the paper's."""
    shared: bool = False
    """Resolve conflicts on the shared parameters only; task heads follow the weighted sum."""
    refresh_every: int = 1
    """Solve on every N-th step; the steps between reuse the coefficients in one weighted backward."""
    track: float | None = None
    """Solve for moving averages of the task gradients of the steps before, with this share of the past in [0, 1), so
    that coefficients do not depend on the step's own noise; takes one more gradient's memory a task."""
    epochs: float = 3.0
    """Passes over the training split, unless steps is given."""
    steps: int | None = None
    """Training steps."""
    batch_size: int = 16
    """Studies of a micro-batch on each process."""
    accumulate: int = 1
    """Micro-batches of a step; their task gradients are summed before they are combined."""
    lr: float = 3e-3
    """Peak learning rate of AdamW: linear warm-up, then cosine decay to a tenth."""
    encoder_lr: float | None = None
    """Peak learning rate of the image encoder; that of the rest by default."""
    warmup: float = 0.05
    """Share of the steps spent warming up."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    """Longest update that reaches AdamW; 0 does not clip."""
    clip_value: float = 0.0
    """Largest entry of the update that reaches AdamW; 0 does not clip."""
    logit_adjustment: float = 1.0
    """Strength τ of the adjustment of dc's logits by class frequency; 0 is plain cross-entropy."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast of the forward pass; fp16 scales losses. Parameters stay float32."""
    compile: bool = False
    """torch.compile of encoder and decoder, each for itself, so that a task's backward runs only what it reaches."""
    activation_checkpointing: bool = False
    """Recompute the blocks' activations in the backward pass instead of keeping them."""
    find_unused_parameters: bool = False
    """For DistributedDataParallel; makes no difference to the result."""
    no_sync: bool = True
    """Run all but the last micro-batch under DistributedDataParallel.no_sync; makes no difference to the result."""
    workers: int = 0
    """Processes that load images."""
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
    max_views: int = 1
    """Images of a study that the model sees; 2 for IU X-Ray as R2Gen uses it."""
    augment: bool = False
    """Random crops of the training images, decided by seed and epoch."""
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
    validate_every: int = 0
    """Steps between the losses of the validation split in metrics.jsonl; 0 takes them at the end alone."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard events."""
    evaluate: Literal["train", "val", "test", "none"] = "val"
    """Split on which reports are generated and scored at the end."""
    num_beams: int = 1
    """Beams of that generation; 1 is greedy."""
    chexbert: Path | None = None
    """CheXbert checkpoint that labels reports for clinical efficacy; the built-in labeller by default."""
    chexbert_vocab: Path | None = None
    """vocab.txt of bert-base-uncased; by default beside the checkpoint, or in transformers' cache."""
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        self._check_tasks()
        check_optimizer(self.optimizer, len(self.tasks))
        CAMEGradOptions(self.rho, self.kappa, self.nu, self.center, self.fusion)
        for name in ("epochs", "lr", "weight_decay", "clip_norm", "clip_value", "logit_adjustment"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}")
        _positive(self, "epochs", "lr", "batch_size", "accumulate", "log_every", "checkpoint_every", "num_beams")
        _positive(self, "projection_dim", "phantom_studies", "image_size", "max_views", "refresh_every")
        _non_negative(self, "weight_decay", "clip_norm", "clip_value", "frozen_batches", "seed", "workers")
        _non_negative(self, "logit_adjustment", "validate_every")
        if self.track is not None and not 0 <= self.track < 1:
            raise ValueError(f"track must be in [0, 1), got {self.track}")
        if self.encoder_lr is not None and not 0 < self.encoder_lr < math.inf:
            raise ValueError(f"encoder_lr must be finite and > 0, got {self.encoder_lr}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}")
        if self.limit is not None and self.limit < 10:
            raise ValueError(f"limit must be >= 10 to leave studies for every split, got {self.limit}")
        if self.max_length < 4:
            raise ValueError(f"max_length must be >= 4, got {self.max_length}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {self.warmup}")
        self._check_gradient_log()
        self._check_data()
        if self.model.encoder == "convnext":
            smallest = self.model.patch_size * 2 ** (len(self.model.encoder_widths) - 1)
            if self.image_size < smallest:
                raise ValueError(f"image_size must be >= {smallest} for this encoder, got {self.image_size}")
        elif self.model.encoder == "vit" and self.image_size % self.model.patch_size:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of the ViT's patch_size {self.model.patch_size}"
            )

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each task."""
        if self.task_weights == "equal":
            return (1.0,) * len(self.tasks)
        return self.task_weights or tuple(DEFAULT_WEIGHTS[task] for task in self.tasks)

    def _check_tasks(self) -> None:
        if not self.tasks or set(self.tasks) - set(TASKS) or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks {self.tasks} must be some of {TASKS}, each once")
        if len(self.weights) != len(self.tasks):
            raise ValueError(f"task_weights {self.weights} must be one for each of the tasks {self.tasks}, or equal")
        if not all(math.isfinite(w) for w in self.weights):
            raise ValueError(f"task_weights must be finite, got {self.weights}")
        if min(self.weights) < 0 or max(self.weights) <= 0:
            raise ValueError(f"task_weights of {self.tasks} must be >= 0 and not all zero, got {self.weights}")

    def _check_gradient_log(self) -> None:
        if self.frozen_batches == 1:
            raise ValueError("frozen_batches must be 0 or >= 2: one micro-batch has no covariance")
        if self.curvature_directions != 0 and self.curvature_directions < len(self.tasks):
            raise ValueError(
                f"curvature_directions must be 0 or >= {len(self.tasks)}, one a task, got {self.curvature_directions}"
            )
        for at in self.frozen_at:
            if not at >= 0 or (at >= 1 and not float(at).is_integer()):
                raise ValueError(f"frozen_at takes shares in [0, 1) or whole steps >= 1, got {at}")
        if self.steps is not None:
            self.frozen_steps(self.steps)

    def _check_data(self) -> None:
        if self.reports is not None and self.dataset != "openi":
            raise ValueError(f"reports belong to the dataset openi, not to {self.dataset}")
        if (self.annotation is None) == (self.dataset == "r2gen"):
            raise ValueError(
                "dataset r2gen and --annotation FILE belong together, got "
                f"dataset {self.dataset} with annotation {self.annotation}"
            )
        if self.images is not None and self.dataset != "r2gen":
            raise ValueError(f"images belong to the dataset r2gen, not to {self.dataset}")
        check_exist(self, *PATHS[1:])

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
        frozen = sorted({int(at * steps) if at < 1 else int(at) for at in self.frozen_at})
        if frozen and frozen[-1] >= steps:
            raise ValueError(f"frozen_at {frozen[-1]} is beyond the last of {steps} steps")
        return frozen


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The options as plain values.

    Example:
        >>> from_json(as_json(TrainConfig(lr=0.1))) == TrainConfig(lr=0.1)
        True
    """
    plain = dataclasses.asdict(config)
    for name in PATHS:
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
    for name in PATHS:
        values[name] = None if values[name] is None else Path(values[name])
    return TrainConfig(**values)


def _positive(config: TrainConfig, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be > 0, got {getattr(config, name)}")


def _non_negative(config: TrainConfig, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name} must be >= 0, got {getattr(config, name)}")
