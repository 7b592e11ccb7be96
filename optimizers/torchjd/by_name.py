"""TorchJD's aggregators as baselines for training, by name."""

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from optimizers.aggregators.by_name import TORCHJD, parse_options
from optimizers.gradients.checks import check_gradients, check_gramian, check_task_weights
from optimizers.torchjd._installed import installed

BASES = ("Aggregator", "WeightedAggregator", "GramianWeightedAggregator")
"""Of names that mean TorchJD's method, where names of ours are given as well."""
NEED_NO_MORE_THAN_A_ROOT = ("Constant", "Mean", "NashMTL", "Random", "Sum")


def torchjd_aggregator(
    name: str, *, seed: int | None = 0, **options: Any
) -> "TorchJDGramianAggregator | TorchJDMatrixAggregator":
    r"""A TorchJD aggregator for :class:`optimizers.MultiTaskOptimizer`.

    TorchJD sees the weighted gradients ω_i g_i: with the weighting w of the method, the coefficients are
    :math:`ω ⊙ w(\mathrm{diag}(ω) M \mathrm{diag}(ω))`. Most methods need the Gramian alone and become a function of
    it, :class:`TorchJDGramianAggregator`. ConFIG, ExcessMTL, GradDrop and TrimmedMean need the gradients and become
    a :class:`TorchJDMatrixAggregator`.

    ExcessMTL, GradVac, NashMTL and PCD carry a state from step to step. It is not part of the optimizer's
    ``state_dict``, as the random stream is: a resumed run starts it anew; before another run call ``reset()``.

    The results are TorchJD's, with what that brings. CAGrad, DualProj and UPGrad take a Gramian with a trace below
    ``norm_eps`` (1e-4) for zero: with weighted gradients shorter than 0.01 CAGrad stops, and the others take the mean.
    NashMTL, and FairGrad with ``alpha=1``, divide the weights out; where NashMTL's solver fails it silently keeps its
    last coefficients. FairGrad's and NashMTL's solvers stop early, so that for nearly dependent gradients their answers
    depend on rounding; so do Krum's on ties, and it always has one where K = n_byzantine + 3.

    Args:
        name: a class of ``torchjd.aggregation``, such as "UPGrad"; the error for an unknown name lists them.
        seed: of the stream that GradDrop, GradVac, PCGrad and Random draw from, so that all processes of
            distributed training draw the same; None draws from torch's own.
        options: of that class, such as ``c`` of CAGrad. Where it takes a tensor, a sequence of numbers will do.

    Raises:
        ImportError: without TorchJD, or without the solver that the method needs.
        ValueError: for an unknown name, or an option outside its domain.
        TypeError: for an option that the class lacks, or a missing one that it requires.

    Example:
        >>> aggregator = torchjd_aggregator("UPGrad")
        >>> aggregator(torch.eye(2), [1.0, 4.0])
        tensor([0.5000, 2.0000], dtype=torch.float64)
        >>> torchjd_aggregator("TrimmedMean", trim_number=1).combine(torch.tensor([[1.0], [2.0], [9.0]]))
        tensor([2.])
    """
    aggregation = installed()
    classes = {n: c for n, c in vars(aggregation).items() if n in aggregation.__all__ and _is_method(n, c, aggregation)}
    if name not in classes:
        raise ValueError(f"{name!r} is no aggregator of TorchJD; it has {', '.join(sorted(classes))}")
    _check_options(name, classes[name], options)
    tensors = {key: _tensor(value) for key, value in options.items() if isinstance(value, Tensor | Sequence)}
    tensors = {key: value for key, value in tensors.items() if isinstance(value, Tensor)}
    try:
        module = classes[name](**(options | tensors))
    except ImportError as error:
        raise ImportError(f"{error}; or, for all methods: pip install 'sde-mtl[peers]'") from error
    if isinstance(module, aggregation.GramianWeightedAggregator) or name in NEED_NO_MORE_THAN_A_ROOT:
        return TorchJDGramianAggregator(module, seed)
    return TorchJDMatrixAggregator(module, tensors, seed)


def torchjd_by_name(text: str, tasks: int) -> "TorchJDGramianAggregator | TorchJDMatrixAggregator":
    """A TorchJD aggregator with its options, as command lines give them: ``torchjd:NAME[:option=value…]``.

    Args:
        text: with values as Python writes them; NashMTL's ``n_tasks`` may be left out.
        tasks: K.

    Raises:
        ValueError: for an unknown name or option, a missing option, or a value that is no number, naming it.
        ImportError: as :func:`torchjd_aggregator`.

    Example:
        >>> torchjd_by_name("torchjd:TrimmedMean:trim_number=1", 3)
        TorchJDMatrixAggregator(TrimmedMean(trim_number=1))
        >>> torchjd_by_name("torchjd:CAGrad:c=big", 2)
        Traceback (most recent call last):
        ValueError: optimizer 'torchjd:CAGrad:c=big': 'c=big' must be option=number, or a list of numbers
    """
    try:
        method, options = parse_options(text, prefix=TORCHJD, words=False)
    except ValueError as error:
        raise ValueError(f"optimizer {error}") from error
    if method == "NashMTL":
        options = {"n_tasks": tasks} | options
    try:
        return torchjd_aggregator(method, **options)
    except TypeError as error:
        raise ValueError(f"optimizer {text!r}: {error}; write {TORCHJD}{method}:option=value") from error


class _Adapter:
    def __init__(self, module: Any, seed: int | None) -> None:
        self.module = module
        self.seed = seed
        self.reset()

    def reset(self) -> None:
        """Forget the state of earlier steps and restart the random stream."""
        if self.stateful:
            self.module.reset()
        if self.seed is not None:
            self._generator = torch.Generator().manual_seed(self.seed)

    @property
    def stateful(self) -> bool:
        """Whether the method carries a state from step to step that :meth:`state_dict` does not hold."""
        return hasattr(self.module, "reset")

    def state_dict(self) -> dict[str, Any]:
        """State of the random stream."""
        return {"stream": None if self.seed is None else self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the random stream that :meth:`state_dict` saved."""
        if self.seed is not None and state["stream"] is not None:
            self._generator.set_state(state["stream"].cpu())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.module!r})"

    @contextmanager
    def _stream(self, device: torch.device) -> Iterator[None]:
        """TorchJD draws from torch's global generators: lend it freshly seeded ones."""
        if self.seed is None:
            yield
            return
        state = int(torch.randint(2**62, (), generator=self._generator))
        cuda = device.type == "cuda"
        with torch.random.fork_rng([device] if cuda else []):
            torch.random.default_generator.manual_seed(state)
            if cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(state)
            yield

    def _checked(self, result: Tensor) -> Tensor:
        if not result.isfinite().all():
            raise RuntimeError(
                f"{self.module!r} gave {result.flatten()[:8].tolist()} for finite gradients; "
                "this is an error of TorchJD's method, use another one"
            )
        return result


class TorchJDGramianAggregator(_Adapter):
    """A method of the Gramian alone: ``(gramian, task_weights) -> coefficients``."""

    @torch.no_grad()
    def __call__(self, gramian: Tensor, task_weights: Tensor | Sequence[float] | None = None) -> Tensor:
        """Coefficients of the update.

        Args:
            gramian: (..., K, K) float32 or float64; problems are solved one by one, in float64 on the CPU.
            task_weights: (K,) or (..., K), ω ≥ 0, not all zero; ones by default.

        Returns:
            (..., K) float64 on the Gramian's device.

        Raises:
            ValueError: for a matrix that is no Gramian, bad weights, several problems where the method has a
                state, or a number of tasks that the method's options exclude.
            RuntimeError: if the method gives numbers that are not finite.
        """
        M = check_gramian(gramian)
        weights = check_task_weights(task_weights, M)
        tasks = M.shape[-1]
        batch = torch.broadcast_shapes(M.shape[:-2], weights.shape[:-1])
        if batch and self.stateful:
            raise ValueError(
                f"{self.module!r} keeps a state between calls and takes one (K, K) Gramian, "
                f"got {tuple(batch)} of them; use one aggregator a problem"
            )
        expected = getattr(self.module, "n_tasks", tasks)
        if expected != tasks:
            raise ValueError(f"{self.module!r} was made for {expected} tasks, the Gramian has {tasks}; pass n_tasks")
        weights = weights.expand(*batch, tasks)
        weighted = M * weights[..., :, None] * weights[..., None, :]
        with self._stream(torch.device("cpu")):
            solved = [self._solve(problem) for problem in weighted.cpu().reshape(-1, tasks, tasks)]
        stacked = torch.stack(solved).reshape(*batch, tasks) if solved else torch.empty(*batch, tasks)
        return self._checked(stacked.to(weights)) * weights

    def _solve(self, M: Tensor) -> Tensor:
        if hasattr(self.module, "gramian_weighting"):
            return self.module.gramian_weighting(M)
        eigenvalues, vectors = torch.linalg.eigh(M)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are solving a parameterized problem that is not DPP", UserWarning)
            return self.module.weighting(vectors * eigenvalues.clamp_min(0).sqrt())


class TorchJDMatrixAggregator(_Adapter):
    """A method of the gradients themselves; see :class:`optimizers.JacobianAggregator`."""

    def __init__(self, module: Any, tensors: dict[str, Tensor], seed: int | None) -> None:
        super().__init__(module, seed)
        self._tensors = tensors

    @torch.no_grad()
    def combine(self, jacobian: Tensor, task_weights: Tensor | Sequence[float] | None = None) -> Tensor:
        """The update from the gradients, at the memory of one more matrix of them where weights differ from one.

        Args:
            jacobian: (K, P) floating point, on any device.
            task_weights: (K,), ω ≥ 0, not all zero; ones by default.

        Returns:
            (P,) of the jacobian's dtype, on its device.

        Raises:
            ValueError: for another shape, bad weights, or a number of tasks that the method's options exclude.
            RuntimeError: if the method gives numbers that are not finite.
        """
        check_gradients(jacobian)
        if jacobian.dim() != 2:
            raise ValueError(f"jacobian must have shape (K, P), got {tuple(jacobian.shape)}; combine one at a time")
        weights = check_task_weights(task_weights, jacobian.new_empty(len(jacobian), len(jacobian)))
        for key, value in self._tensors.items():
            setattr(self.module, key, value.to(jacobian))
        weighted = jacobian if (weights == 1).all() else jacobian * weights.to(jacobian)[:, None]
        with self._stream(jacobian.device):
            return self._checked(self.module(weighted))


def _is_method(name: str, candidate: Any, aggregation: Any) -> bool:
    return inspect.isclass(candidate) and issubclass(candidate, aggregation.Aggregator) and name not in BASES


def _tensor(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double()
    return value if isinstance(value, str) else torch.tensor(value, dtype=torch.float64)


def _check_options(name: str, method: type, options: dict[str, Any]) -> None:
    known = inspect.signature(method).parameters
    described = ", ".join(str(p).split(":")[0] for p in known.values()) or "none"
    unknown = [key for key in options if key not in known]
    if unknown:
        raise TypeError(f"TorchJD's {name} has no option {unknown[0]!r}; its options: {described}")
    missing = [key for key, p in known.items() if p.default is p.empty and key not in options]
    if missing:
        raise TypeError(f"TorchJD's {name} requires the option {missing[0]!r}; its options: {described}")
