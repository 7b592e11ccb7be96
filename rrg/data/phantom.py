"""A procedural chest radiograph: thorax, lungs, heart, ribs, and each finding at its side and severity.

A drawing that carries findings, not a simulation of X-ray physics. Frontal view: the patient's right is on
the left of the image; dense is bright.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rrg.data.study import Finding

Image = NDArray[np.float32]
ZONES = {"upper": -0.42, "middle": -0.05, "lower": 0.3}


def render(findings: Sequence[Finding], *, seed: int, size: int = 128) -> NDArray[np.uint8]:
    """Draw one study.

    Args:
        findings: what the image shows.
        seed: of the patient: build, pose, exposure and noise.
        size: height and width in pixels, ≥ 16.

    Returns:
        (size, size) uint8.

    Raises:
        ValueError: for a size below 16.

    Example:
        >>> render([], seed=0).shape
        (128, 128)
    """
    if size < 16:
        raise ValueError(f"size must be >= 16 pixels, got {size}")
    patient = _Patient(np.random.default_rng(seed), size)
    present = {finding.condition for finding in findings}
    for finding in findings:
        if finding.condition == "Cardiomegaly":
            patient.heart_width += 0.10 + 0.16 * finding.severity
        elif finding.condition == "Enlarged Cardiomediastinum":
            patient.mediastinum += 0.07 + 0.08 * finding.severity
        elif finding.condition == "Atelectasis":
            for side in _sides(finding):
                patient.raised[side] += 0.10 * finding.severity
    image = patient.anatomy()
    for finding in findings:
        draw = _DRAW.get(finding.condition)
        if draw is not None:
            for side in _sides(finding):
                image = draw(patient, image, side, finding)
    if "Support Devices" in present:
        image = _devices(patient, image)
    return patient.expose(image)


def seed_of(study_id: str) -> int:
    """The seed under which a study is always rendered.

    Example:
        >>> seed_of("CXR1") == seed_of("CXR1") != seed_of("CXR2")
        True
    """
    return int.from_bytes(hashlib.sha256(study_id.encode()).digest()[:6], "big")


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Image, Image]:
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    return np.meshgrid(axis, axis)[0], np.meshgrid(axis, axis)[1]


def _edge(distance: Image, width: float = 0.03) -> Image:
    """1 inside (negative distance), 0 outside, soft over ``width``."""
    return 1 / (1 + np.exp(np.clip(distance / (width / 4), -30, 30)))


def _blob(x: Image, y: Image, cx: float, cy: float, rx: float, ry: float) -> Image:
    return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)


def _sides(finding: Finding) -> tuple[int, ...]:
    """−1 is the patient's right (image left), +1 the left."""
    return {"right": (-1,), "left": (1,), "both": (-1, 1)}[finding.side]


class _Patient:
    """Build and pose, drawn once; coordinates in [−1, 1], y downwards."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size
        shift_x, shift_y, tilt, zoom = rng.normal(0, (0.02, 0.02, 0.02, 0.025))
        x, y = _grid(size)
        scale = np.float32(1 + zoom)
        self.x = ((x - shift_x) + tilt * y) * scale
        self.y = ((y - shift_y) - tilt * x) * scale
        self.lung_width = 0.36 + rng.normal(0, 0.015)
        self.lung_top = -0.74 + rng.normal(0, 0.03)
        self.dome = 0.46 + rng.normal(0, 0.04)
        self.heart_width = 0.29 + rng.normal(0, 0.02)
        self.mediastinum = 0.13 + rng.normal(0, 0.01)
        self.raised = {-1: 0.05, 1: 0.0}
        self.grain = _smooth_noise(rng, size, 24)
        self.lungs: dict[int, Image] = {}

    def diaphragm(self, side: int) -> Image:
        """y of the diaphragm under the lung, a dome that falls towards the ribs."""
        across = (self.x * side - 0.36) / 0.36
        return np.asarray(self.dome - self.raised[side] + 0.16 * across**2, dtype=np.float32)

    def anatomy(self) -> Image:
        x, y, ax = self.x, self.y, np.abs(self.x)
        body = _edge(np.sqrt((x / 0.97) ** 2 + ((y - 0.35) / 1.35) ** 2) - 1, 0.08)
        body = body * _edge(-(y + 0.93 - 0.35 * np.maximum(ax - 0.18, 0)), 0.1)
        image = 0.04 + 0.5 * body
        for side in (-1, 1):
            cx = side * (0.43 - 0.04 * np.clip(-y, 0, 1))
            oval = ((np.abs(x - cx) / self.lung_width) ** 2.4 + (np.abs(y - 0.02) / -self.lung_top) ** 2.4) - 1
            oval = np.where(y > 0.02, (np.abs(x - cx) / self.lung_width) ** 2.4 - 1, oval)
            lung = _edge(np.maximum(oval * 0.3, y - self.diaphragm(side)), 0.05)
            self.lungs[side] = np.where(x * side > 0, lung, 0).astype(np.float32)
        both = self.lungs[-1] + self.lungs[1]
        image = image - both * (0.36 + 0.05 * y)
        hila = sum(_blob(x, y, s * 0.2, 0.02, 0.09, 0.14) for s in (-1, 1))
        vessels = np.abs(self.grain) * np.exp(-((ax - 0.2) ** 2) / 0.12 - (y / 0.5) ** 2)
        image = image + both * (0.13 * hila + 0.12 * vessels)
        for rib in range(8):
            height = -0.66 + 0.155 * rib
            posterior = height + 0.12 * (ax - 0.35) + 0.5 * np.maximum(ax - 0.45, 0) ** 2
            band = np.exp(-(((y - posterior) / 0.026) ** 2))
            image = image + 0.055 * band * _edge(ax - 0.84, 0.04) * _edge(0.1 - ax, 0.04) * body
        spine = np.exp(-((ax / 0.085) ** 4)) * (0.85 + 0.15 * np.cos(y * 42))
        middle = _edge(ax - self.mediastinum * (1 + 0.25 * np.exp(-(((y + 0.3) / 0.2) ** 2))), 0.05)
        image = np.maximum(image, (0.6 * middle) * body) + 0.07 * spine * body
        trachea = np.exp(-((x / 0.05) ** 2)) * _edge(y + 0.28, 0.1)
        image = image - 0.1 * trachea * body
        width = self.heart_width
        turn = 0.35
        hx, hy = x - (0.10 + 0.35 * (width - 0.29)), y - 0.25
        rx, ry = hx * np.cos(turn) + hy * np.sin(turn), -hx * np.sin(turn) + hy * np.cos(turn)
        heart = _edge(np.sqrt((rx / (width + 0.05)) ** 2 + (ry / (width * 0.86)) ** 2) - 1, 0.12)
        image = np.maximum(image, 0.63 * heart * body)
        for side in (-1, 1):
            collar = -0.72 + 0.16 * (0.62 - side * x)
            clavicle = np.exp(-(((y - collar) / 0.03) ** 2)) * _edge(side * x - 0.68, 0.06)
            image = image + 0.1 * clavicle * _edge(0.06 - side * x, 0.04) * body
        return np.asarray(image, dtype=np.float32)

    def expose(self, image: Image) -> NDArray[np.uint8]:
        gain, offset, gamma = self.rng.normal((1, 0, 1), (0.05, 0.02, 0.07))
        noise = self.rng.standard_normal(image.shape, dtype=np.float32)
        bright = np.clip((image + 0.012 * self.grain) * gain + offset + 0.014 * noise, 0, 1)
        return np.asarray(np.clip(bright**gamma * 285, 0, 255), dtype=np.uint8)


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Image:
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    at = np.linspace(0, cells - 1.001, size)
    low = at.astype(int)
    part = (at - low).astype(np.float32)
    rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
    return np.asarray(rows[:, low] * (1 - part) + rows[:, low + 1] * part, dtype=np.float32)


def _add(image: Image, amount: Image, limit: float = 0.72) -> Image:
    """Brighten towards ``limit``, as overlapping densities do."""
    return np.asarray(image + amount * np.maximum(limit - image, 0), dtype=np.float32)


def _place(p: _Patient, finding: Finding, spread: float = 0.06) -> tuple[float, float]:
    dx, dy = p.rng.normal(0, spread, 2)
    return 0.42 + float(np.clip(dx, -0.12, 0.12)), ZONES[finding.zone] + float(np.clip(dy, -0.12, 0.12))


def _opacity(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """Hazy, ill-defined."""
    cx, cy = _place(p, finding)
    radius = 0.14 + 0.16 * finding.severity
    haze = _blob(p.x, p.y, side * cx, cy, radius, radius * 0.8) * (1 + 0.35 * p.grain)
    return _add(image, p.lungs[side] * np.clip(haze, 0, 1) * (0.5 + 0.4 * finding.severity))


def _consolidation(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """Dense, sharp against a fissure, with air bronchograms."""
    cx, cy = _place(p, finding)
    height = 0.16 + 0.16 * finding.severity
    lobe = (np.abs(p.x - side * cx) / (1.2 * height)) ** 2 + (np.abs(p.y - cy) / height) ** 3
    area = _edge((lobe + 0.25 * p.grain - 1) * 0.3, 0.12)
    bronchi = np.exp(-(((p.grain - 0.6) / 0.25) ** 2))
    return _add(image, p.lungs[side] * area * (0.9 - 0.35 * bronchi), 0.75)


def _pneumonia(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """Patchy: several foci over one lobe."""
    cx, cy = _place(p, finding)
    for _ in range(4):
        dx, dy = p.rng.normal(0, 0.1, 2)
        spot = _blob(p.x, p.y, side * (cx + dx), cy + dy, 0.1, 0.08)
        image = _add(image, p.lungs[side] * spot * (0.55 + 0.4 * finding.severity), 0.7)
    return image


def _atelectasis(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """Linear bands at the base under a raised diaphragm."""
    floor = p.diaphragm(side)
    for band in range(1 + round(2 * finding.severity)):
        line = floor - 0.07 - 0.075 * band + 0.12 * (p.x * side - 0.4) * (1 if band % 2 else -1)
        within = _edge(np.abs(p.x - side * 0.43) - 0.2, 0.08)
        image = _add(image, p.lungs[side] * np.exp(-(((p.y - line) / 0.018) ** 2)) * within * 0.95, 0.78)
    return image


def _edema(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """Perihilar haze in a bat's wing, with septal texture."""
    wing = _blob(p.x, p.y, side * 0.24, 0.0, 0.2 + 0.1 * finding.severity, 0.32)
    texture = 0.75 + 0.5 * np.abs(p.grain)
    return _add(image, p.lungs[side] * np.clip(wing * texture, 0, 1) * (0.45 + 0.4 * finding.severity), 0.7)


def _lesion(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """Round and well-defined."""
    cx, cy = _place(p, finding)
    radius = 0.05 + 0.08 * finding.severity
    ball = _edge(np.hypot(p.x - side * cx, p.y - cy) - radius, 0.03)
    return _add(image, p.lungs[side] * ball * 0.9, 0.78)


def _effusion(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """Fluid with a meniscus that climbs the chest wall and blunts the costophrenic angle."""
    outward = np.clip((p.x * side - 0.15) / 0.6, 0, 1.3)
    level = p.dome + 0.1 - (0.06 + 0.42 * finding.severity) * (0.35 + 0.9 * outward**2)
    fluid = _edge(level - p.y, 0.06)
    below = _edge(np.abs(p.x - side * 0.43) - 0.34, 0.08) * _edge(p.y - p.diaphragm(side) - 0.1, 0.25)
    inside = np.maximum(p.lungs[side], below * (p.x * side > 0))
    return np.asarray(image + fluid * inside * np.maximum(0.68 - image, 0), dtype=np.float32)


def _pneumothorax(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """A dark, vesselless rim outside a thin pleural line."""
    depth = 0.05 + 0.14 * finding.severity
    reach = np.hypot((p.x - side * 0.33) / (0.44 - depth), (p.y - 0.2) / (0.92 - depth))
    rim = _edge(1 - reach, 0.04) * p.lungs[side] * _edge(p.y - 0.45, 0.2)
    line = np.exp(-(((reach - 1) / 0.02) ** 2)) * p.lungs[side] * _edge(p.y - 0.4, 0.2)
    return np.asarray(image * (1 - 0.75 * rim) + 0.22 * line, dtype=np.float32)


def _pleural(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """Thickened pleura along the lateral wall, or an apical cap."""
    if finding.zone == "upper":
        cap = p.lungs[side] * _edge(p.y - (p.lung_top + 0.16 + 0.1 * finding.severity), 0.04)
        return _add(image, 0.85 * cap)
    wall = p.lungs[side] * _edge(0.43 + 0.30 - 0.05 * finding.severity - p.x * side, 0.03)
    return _add(image, 0.9 * wall, 0.75)


def _fracture(p: _Patient, image: Image, side: int, finding: Finding) -> Image:
    """A step in a rib, with bright callus."""
    rib = p.rng.integers(2, 6)
    cx, cy = 0.62, -0.66 + 0.155 * rib + 0.05
    gap = _blob(p.x, p.y, side * cx, cy, 0.025, 0.06)
    callus = _blob(p.x, p.y, side * (cx + 0.05), cy + 0.045, 0.06, 0.035)
    return np.asarray(image - 0.15 * gap + (0.18 + 0.14 * finding.severity) * callus, dtype=np.float32)


def _devices(p: _Patient, image: Image) -> Image:
    """A pacemaker with its lead, a central line, or sternal wires and clips."""
    kind = p.rng.integers(3)
    x, y = p.x, p.y
    if kind == 0:
        box = _edge(np.maximum(np.abs(x - 0.55) - 0.09, np.abs(y + 0.5) - 0.07), 0.03)
        lead = np.exp(-(((x - (0.5 - 0.45 * np.sin((y + 0.5) * 1.9))) / 0.014) ** 2))
        return np.maximum(image, np.maximum(0.95 * box, 0.85 * lead * _edge(np.abs(y + 0.05) - 0.42, 0.05)))
    if kind == 1:
        line = np.exp(-(((x + 0.12 + 0.35 * np.maximum(-0.35 - y, 0)) / 0.015) ** 2))
        return np.maximum(image, 0.85 * line * _edge(np.abs(y + 0.35) - 0.45, 0.05))
    for wire in range(5):
        loop = np.abs(np.hypot(x / 1.4, y + 0.35 - 0.17 * wire) - 0.035)
        image = np.maximum(image, 0.9 * np.exp(-((loop / 0.011) ** 2)))
    return image


_DRAW = {
    "Lung Opacity": _opacity,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Atelectasis": _atelectasis,
    "Edema": _edema,
    "Lung Lesion": _lesion,
    "Pleural Effusion": _effusion,
    "Pneumothorax": _pneumothorax,
    "Pleural Other": _pleural,
    "Fracture": _fracture,
}
