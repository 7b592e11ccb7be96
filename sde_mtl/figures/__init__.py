"""Figures, one module a subject, in one style; every function returns a :class:`matplotlib.figure.Figure`.

gradient_logs   conflict, deviation, diffusion and effective SDE of training runs (T1 to T4)
plane           two gradients in the plane: weighted sum, trust regions, the stages of CAME-Grad
deviation       drift deviation over the angle between two gradients (T2)
dual            the conflict-averse dual: its objective, its solution over ρ
validity        where stage 1 harms a task, what fusion does (T5, T9)
noise           where training rests over the noise of the gradients (T13, T15, T17)
paths           training as a stochastic process: bands, moments, stationary clouds (T3)
resting         where training under several task weights comes to rest (T6, T7)
theory          maps and curves of the theory's results (T2, T4, T6, T10, T11)
GALLERY         the theory's figures by name, computed and drawn: ``sde-mtl figures``
canvas, save    the style: begin a figure in it, write it as SVG and PNG
"""

from sde_mtl.figures import deviation, dual, gradient_logs, noise, paths, plane, resting, theory, validity
from sde_mtl.figures.gallery import GALLERY
from sde_mtl.figures.style import canvas, save

__all__ = [
    "GALLERY",
    "canvas",
    "deviation",
    "dual",
    "gradient_logs",
    "noise",
    "paths",
    "plane",
    "resting",
    "save",
    "theory",
    "validity",
]
