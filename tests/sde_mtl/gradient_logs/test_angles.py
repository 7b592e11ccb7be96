import numpy as np
import pytest

from sde_mtl.gradient_logs import angle, cosines, cosines_with


def test_cosines_from_the_gramian_are_those_of_vectors() -> None:
    rng = np.random.default_rng(0)
    G, w = rng.normal(size=(5, 3, 7)), np.array([1.0, 4.0, 0.5])
    joint = np.einsum("k,nkd->nd", w, G)
    expected = np.einsum("nkd,nd->nk", G, joint) / (
        np.linalg.norm(G, axis=-1) * np.linalg.norm(joint, axis=-1)[:, None]
    )
    assert cosines_with(G @ G.transpose(0, 2, 1), w) == pytest.approx(expected)


def test_angles_from_the_gramian_are_those_of_vectors() -> None:
    rng = np.random.default_rng(1)
    G, x, y = rng.normal(size=(5, 3, 7)), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    a, b = np.einsum("nk,nkd->nd", x, G), np.einsum("nk,nkd->nd", y, G)
    expected = np.arccos((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))
    assert angle(G @ G.transpose(0, 2, 1), x, y) == pytest.approx(expected)


def test_what_has_no_direction_has_no_angle() -> None:
    M = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert np.isnan(cosines(M)).tolist() == [[True, True], [True, False]]
    assert np.isnan(cosines_with(M, np.array([1.0, 1.0]))).tolist() == [True, False]
    assert np.isnan(cosines_with(M, np.array([1.0, 0.0]))).all()
    assert np.isnan(angle(M, np.array([1.0, 0.0]), np.array([0.0, 1.0])))
