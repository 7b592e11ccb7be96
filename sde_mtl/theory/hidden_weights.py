r"""Expected coefficients of an aggregator under gradient noise, and where training with them comes to rest (T13 … T20).

Noise here is Gaussian and isotropic in each task, Cov(ε_i, ε_j) = S_ij I. Then the noisy Gramian
M̃ = (G + ε)(G + ε)ᵀ has a non-central Wishart law, which is drawn exactly in K×K numbers whatever d is: in an
orthonormal basis whose first K vectors hold the gradients, G + ε is a K×K block L + N with LLᵀ = GGᵀ and N Gaussian,
and d − K columns of noise alone, whose Gramian is Wishart (Bartlett's decomposition). The first block also gives the
expected update in coordinates, so that E F itself costs nothing more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.optimize
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from optimizers import came_grad_coefficients
from sde_mtl.theory.descent import Center
from sde_mtl.theory.examples import KAPPA

Array = NDArray[np.float64]
Rule = Callable[[Tensor], Tensor]
"""Gramians (..., K, K) to coefficients (..., K)."""


def rule(
    task_weights: ArrayLike, *, rho: float = 0.5, nu: float = 0.2, kappa: float = KAPPA, center: Center = "mean"
) -> Rule:
    """CAME-Grad's coefficients as a function of the Gramian alone.

    Args:
        task_weights: (K,) ω ≥ 0.
        rho, nu, kappa, center: of CAME-Grad.

    Example:
        >>> rule([1.0, 1.0], nu=1.0, kappa=1.0)(torch.eye(2).double())
        tensor([1., 1.], dtype=torch.float64)
    """
    w = torch.as_tensor(np.asarray(task_weights, np.float64))
    return partial(came_grad_coefficients, task_weights=w, rho=rho, nu=nu, kappa=kappa, center=center)


def factor(matrix: ArrayLike) -> Array:
    """A square root L of a positive semidefinite matrix, LLᵀ = M, (K, K); M may be singular.

    Example:
        >>> L = factor([[1.0, 1.0], [1.0, 1.0]])
        >>> np.allclose(L @ L.T, 1.0)
        True
    """
    values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


@dataclass(frozen=True)
class NoisyGradients:
    """Exact draws of what an aggregator sees of G + ε.

    Attributes:
        gramians: (n, K, K) draws of M̃.
        mirrored: (n, K, K) the Gramians at −N, of the same law; with them odd moments lose most of their variance.
        exact: (K, K) L with LLᵀ = GGᵀ: the gradients in K coordinates.
        noise: (n, K, K) N, the noise in these coordinates.
    """

    gramians: Tensor
    mirrored: Tensor
    exact: Array
    noise: Array


def noisy_gradients(
    gradients_gramian: ArrayLike, covariance: ArrayLike, dimension: int, samples: int, seed: int
) -> NoisyGradients:
    """Draw M̃ = (G + ε)(G + ε)ᵀ for Gaussian ε with Cov(ε_i, ε_j) = S_ij I in d dimensions, exactly, at O(K²) numbers.

    Args:
        gradients_gramian: (K, K) GGᵀ, which may be singular.
        covariance: (K, K) S, of one component.
        dimension: d ≥ K.
        samples: n.
        seed: of the draws.

    Raises:
        ValueError: if d < K: then K coordinates do not hold R^d.

    Example:
        >>> drawn = noisy_gradients(np.eye(2), 0.1 * np.eye(2), 50, 20_000, 0)
        >>> bool(abs(drawn.gramians.mean(0) - 6 * torch.eye(2)).max() < 0.05)  # GGᵀ + T, T = 50·0.1
        True
    """
    rng = np.random.default_rng(seed)
    L, C = factor(gradients_gramian), factor(covariance)
    tasks = len(L)
    if dimension < tasks:
        raise ValueError(f"dimension = {dimension} must be at least the number of tasks, {tasks}")
    noise = C @ rng.normal(size=(samples, tasks, tasks))
    free = dimension - tasks
    if free >= tasks:  # Bartlett: a triangular root of a Wishart matrix with ``free`` degrees of freedom
        root = np.tril(rng.normal(size=(samples, tasks, tasks)), -1)
        diagonal = np.arange(tasks)
        root[:, diagonal, diagonal] = np.sqrt(rng.chisquare(free - diagonal, size=(samples, tasks)))
    else:
        root = rng.normal(size=(samples, tasks, free))
    across = C @ root
    rest = across @ across.transpose(0, 2, 1)

    def seen(block: Array) -> Tensor:
        return torch.from_numpy(block @ block.transpose(0, 2, 1) + rest)

    return NoisyGradients(seen(L + noise), seen(L - noise), L, noise)


@dataclass(frozen=True)
class Expectation:
    """Moments of an aggregator's coefficients and update under noise, by exact draws.

    Attributes:
        coefficients: (K,) c̄ = E c(M̃), with their standard errors in ``coefficients_error``.
        drift: (K,) E F in the coordinates of ``exact``, with standard errors in ``drift_error``.
        remainder: (K,) E F − Σc̄_ig_i in the same coordinates, with standard errors in ``remainder_error``.
        exact: (K, K) L: gradient i is the row i.
    """

    coefficients: Array
    coefficients_error: Array
    drift: Array
    drift_error: Array
    remainder: Array
    remainder_error: Array
    exact: Array

    @property
    def shares(self) -> Array:
        """(K,) c̄/Σc̄."""
        return np.asarray(self.coefficients / self.coefficients.sum())

    @property
    def effective(self) -> Array:
        """(K,) ĉ = c̄ + correction with E F = Σĉ_ig_i exactly; the correction is the shortest that there is."""
        return np.asarray(self.coefficients + np.linalg.lstsq(self.exact.T, self.remainder, rcond=1e-6)[0])

    @property
    def relative_remainder(self) -> float:
        """‖E F − Σc̄_ig_i‖/‖E F‖."""
        return float(np.linalg.norm(self.remainder) / np.linalg.norm(self.drift))


def expectation(
    rule: Rule,
    gradients_gramian: ArrayLike,
    covariance: ArrayLike,
    dimension: int,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> Expectation:
    """c̄ and E F of an aggregator, from antithetic draws of the noisy Gramian with itself as a control variate.

    Args:
        rule: Gramians to coefficients, such as :func:`rule`'s.
        gradients_gramian, covariance, dimension: GGᵀ, S and d, as in :func:`noisy_gradients`.
        samples: antithetic pairs.
        seed: of the draws.

    Example:
        >>> found = expectation(rule([1.0, 1.0]), np.eye(2), 0.1 * np.eye(2), 50)
        >>> np.allclose(found.shares, 0.5, atol=0.01)  # nothing tells the tasks apart
        True
    """
    drawn = noisy_gradients(gradients_gramian, covariance, dimension, samples, seed)
    ahead, behind = rule(drawn.gramians).numpy(), rule(drawn.mirrored).numpy()
    c = (ahead + behind) / 2
    # M̃'s expectation is known: what c owes to M̃ − E M̃, by regression, is variance without information.
    corner = np.triu_indices(len(drawn.exact))
    mean = drawn.exact @ drawn.exact.T + dimension * np.asarray(covariance, np.float64)
    deviation = ((drawn.gramians + drawn.mirrored) / 2).numpy()[:, corner[0], corner[1]] - mean[corner]
    c = c - deviation @ np.linalg.lstsq(deviation.T @ deviation, deviation.T @ (c - c.mean(0)), rcond=1e-12)[0]
    noisy = np.einsum("nka,nk->na", drawn.noise, (ahead - behind) / 2)
    update = c @ drawn.exact + noisy
    root = np.sqrt(samples)
    return Expectation(c.mean(0), c.std(0) / root, update.mean(0), update.std(0) / root, noisy.mean(0),
                       noisy.std(0) / root, drawn.exact)  # fmt: skip


def gramian_covariance(gradients_gramian: ArrayLike, covariance: ArrayLike, dimension: int) -> Array:
    r"""Cov(M̃_ij, M̃_kl) of the non-central Wishart law in closed form, (K, K, K, K).

    .. math:: d(S_{ik}S_{jl} + S_{il}S_{jk}) + S_{ik}M_{jl} + S_{il}M_{jk} + S_{jk}M_{il} + S_{jl}M_{ik} .

    Args:
        gradients_gramian, covariance, dimension: M = GGᵀ, S and d, as in :func:`noisy_gradients`.

    Example:
        >>> gramian_covariance([[0.0]], [[1.0]], 7).item()  # a chi-square: 2d
        14.0
    """
    M, S = np.asarray(gradients_gramian, np.float64), np.asarray(covariance, np.float64)

    def pairs(A: Array, B: Array) -> Array:
        return np.asarray(np.einsum("ik,jl->ijkl", A, B) + np.einsum("il,jk->ijkl", A, B))

    return dimension * pairs(S, S) + pairs(S, M) + pairs(M, S)


def plug_in(rule: Rule, gradients_gramian: ArrayLike, covariance: ArrayLike, dimension: int) -> Array:
    """c(T + GGᵀ), the coefficients at the expected Gramian, (K,).

    Args:
        rule, gradients_gramian, covariance, dimension: as in :func:`expectation`.

    Example:
        >>> plug_in(rule([1.0, 4.0]), np.zeros((2, 2)), np.eye(2), 50).round(3).tolist()
        [3.799, 4.699]
    """
    mean = np.asarray(gradients_gramian, np.float64) + dimension * np.asarray(covariance, np.float64)
    return rule(torch.from_numpy(mean)).numpy()


def second_order(
    rule: Rule, gradients_gramian: ArrayLike, covariance: ArrayLike, dimension: int, *, step: float = 0.5
) -> Array:
    """c̄ to second order in the fluctuations of M̃: c + ½D²c:Cov(M̃) at T + GGᵀ, (K,).

    D² is taken by central differences along the principal directions of Cov(M̃), over ``step`` of their standard
    deviations, so that a kink nearer than that is smoothed rather than missed.

    Args:
        rule, gradients_gramian, covariance, dimension: as in :func:`expectation`.
        step: of the differences, in standard deviations.

    Example:
        >>> bool(np.isclose(*second_order(rule([1.0, 1.0]), np.eye(2), 0.1 * np.eye(2), 50)))
        True
    """
    mean = np.asarray(gradients_gramian, np.float64) + dimension * np.asarray(covariance, np.float64)
    tasks = len(mean)
    columns = factor(gramian_covariance(gradients_gramian, covariance, dimension).reshape(tasks**2, -1)).T
    columns = columns.reshape(-1, tasks, tasks)
    columns = columns[np.abs(columns).max((1, 2)) > 1e-9 * np.abs(mean).max()]
    at, ahead, behind = (rule(torch.from_numpy(mean + s * columns)).numpy() for s in (0.0, step, -step))
    return np.asarray(at[0] + 0.5 * ((ahead - 2 * at + behind) / step**2).sum(0))


def fluctuation(
    coefficients: Callable[[Array], Array], covariance: ArrayLike, learning_rate: float, momentum: float = 0.0
) -> float:
    r"""Stationary variance q of one coordinate of θ around the resting point, where every task has the Hessian I.

    Heavy ball with curvature h = Σc̄ and noise of variance v = c̄ᵀSc̄ has

    .. math:: q = \frac{ηv(1+β)}{h(1-β)(2(1+β)-ηh)} .

    All tasks see the same displacement: it acts like noise q·11ᵀ beside S, on which c̄ depends in turn.

    Args:
        coefficients: covariance (K, K) of all noise to c̄ (K,).
        covariance: (K, K) S.
        learning_rate, momentum: η and β of training.

    Raises:
        ArithmeticError: if ηh ≥ 2(1 + β), where training does not settle.

    Example:
        >>> round(fluctuation(lambda _: np.array([1.0, 4.0]), np.eye(2), 0.1), 4)  # ηv/(h(2 − ηh))
        0.2267
    """
    S = np.asarray(covariance, np.float64)
    q = 0.0
    for _ in range(8):
        c = coefficients(S + q)
        h, v = float(c.sum()), float(c @ S @ c)
        slack = 2 * (1 + momentum) - learning_rate * h
        if slack <= 0:
            raise ArithmeticError(f"learning_rate = {learning_rate} is too large for the curvature {h:.4g}")
        q = learning_rate * v * (1 + momentum) / (h * (1 - momentum) * slack)
    return q


def rest_weights(
    rule: Rule,
    centres: ArrayLike,
    covariance: ArrayLike,
    *,
    learning_rate: float = 0.0,
    momentum: float = 0.0,
    exact: bool = True,
    samples: int = 10_000,
    seed: int = 0,
) -> Array:
    """Weights p of the resting point Σp_kc_k of K tasks ½‖θ − c_k‖²: the solution of p = ĉ(p)/Σĉ(p), (K,).

    Args:
        rule: Gramians to coefficients.
        centres: (K, d) minimizers.
        covariance: (K, K) S, of one component of the noise.
        learning_rate, momentum: of training, for its own :func:`fluctuation`; 0 is the limit of small rates.
        exact: with ĉ of E F = Σĉ_ig_i; otherwise with c̄ alone.
        samples, seed: of the draws, the same at every p, so that the root is one of a continuous function.

    Raises:
        ArithmeticError: if the solver does not get within 5e-4, about the error of the draws.

    Example:
        >>> three = rule([1.0, 2.0, 1.0], nu=1.0)
        >>> rest_weights(three, np.eye(3, 20), 0.01 * np.eye(3)).round(3).tolist()
        [0.25, 0.5, 0.25]
    """
    c, S = np.asarray(centres, np.float64), np.asarray(covariance, np.float64)
    inner = c @ c.T
    tasks, dimension = c.shape

    def excess(free: Array) -> Array:
        p = np.append(1 - free.sum(), free)
        across = p - np.eye(tasks)  # row i: θ − c_i in terms of the centres
        M = across @ inner @ across.T
        q = fluctuation(lambda noise: plug_in(rule, M, noise, dimension), S, learning_rate, momentum)
        found = expectation(rule, M, S + q, dimension, samples=samples, seed=seed)
        hidden = found.effective if exact else found.coefficients
        return np.asarray((hidden / hidden.sum() - p)[1:])

    if tasks == 2:
        free = np.array([scipy.optimize.brentq(lambda p: excess(np.array([p]))[0], 0.001, 0.999, xtol=1e-5)])
    else:
        free = scipy.optimize.root(excess, np.full(tasks - 1, 1 / tasks), options={"eps": 1e-2, "xtol": 1e-4}).x
        if np.abs(excess(free)).max() > 5e-4:
            raise ArithmeticError("the resting point was not found")
    return np.append(1 - free.sum(), free)


def rest_on_line(
    rule: Rule,
    gradients: Callable[[float], ArrayLike],
    covariance: ArrayLike,
    dimension: int,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> float:
    """Where E F = Σĉ_i(p)g_i(p) = 0 on a line along which all gradients point, as η → 0; any losses.

    Args:
        rule: Gramians to coefficients.
        gradients: position p in (0, 1) to the (K,) gradients along the line.
        covariance, dimension: S and d, as in :func:`noisy_gradients`.
        samples, seed: of the draws, the same at every p.

    Example:
        >>> noise = 0.01 * np.eye(2)
        >>> round(rest_on_line(rule([1.0, 4.0], nu=1.0), lambda p: [p, p - 1], noise, 50), 4)
        0.8
    """

    def balance(p: float) -> float:
        g = np.asarray(gradients(p), np.float64)
        found = expectation(rule, np.outer(g, g), covariance, dimension, samples=samples, seed=seed)
        return float(found.effective @ g)

    return float(scipy.optimize.brentq(balance, 0.001, 0.999, xtol=1e-5))
