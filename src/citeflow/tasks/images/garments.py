"""Drawn garments in the shape of Fashion-MNIST, for tests and demonstrations without a download.

Polygons of ten classes whose cut, place, shade and noise vary; some classes differ by sleeves,
heels or handles only, so that a classifier has something to confuse.

Legend: N images.
"""

import numpy as np
from PIL import Image, ImageDraw

VERSION = 1
"""Goes up when the same seed draws other images."""

SIDE = 28
SCALE = 4
"""Drawn so many times larger, then averaged: edges are soft."""

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""Those of Fashion-MNIST, by label."""

Point = tuple[float, float]
Shape = list[Point]


def draw(num: int, *, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Draw images and labels, uint8 [N, 28, 28] and [N]; classes are equally frequent."""
    random = np.random.default_rng(seed)
    label_N = random.permutation(num) % len(CLASSES)
    image_N = np.empty((num, SIDE, SIDE), np.uint8)
    for row, label in enumerate(label_N.tolist()):
        image_N[row] = _draw_one(label, random)
    return image_N, label_N.astype(np.uint8)


def _draw_one(label: int, random: np.random.Generator) -> np.ndarray:
    side = SIDE * SCALE
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    shade = int(random.integers(110, 240))
    shift = random.normal(0, 0.025, 2)
    scale = random.uniform(0.85, 1.08, 2)

    def place(shape: Shape) -> Shape:
        jitter = random.normal(0, 0.012, (len(shape), 2))
        at = (np.array(shape) - 0.5) * scale + 0.5 + shift + jitter
        return [(float(x), float(y)) for x, y in at * side]

    for number, shape in enumerate(_shapes(label, random)):
        # Later shapes are seams, buckles and openings.
        pen.polygon(
            place(shape), fill=shade if number == 0 or random.random() < 0.5 else shade // 2
        )
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    noise = random.normal(0, random.uniform(2, 22), (SIDE, SIDE))
    pixels = np.asarray(small, np.float64)
    return np.where(pixels > 0, (pixels + noise).clip(1, 255), pixels).astype(np.uint8)


def _shapes(label: int, random: np.random.Generator) -> list[Shape]:
    if label in (0, 2, 4, 6):
        return _top(label, random)
    if label in (5, 7, 9):
        return _shoe(label, random)
    if label == 1:
        gap, cuff = random.uniform(0.02, 0.08), random.uniform(0.1, 0.17)
        left = [(0.34, 0.06), (0.5, 0.06), (0.5, 0.3), (0.5 - gap, 0.94), (0.5 - gap - cuff, 0.94)]
        return [left, [(1 - x, y) for x, y in left]]
    if label == 3:
        waist, hem = random.uniform(0.09, 0.14), random.uniform(0.15, 0.3)
        half = [(0.1, 0.05), (0.15, 0.3), (waist, 0.45), (hem, 0.95)]
        return [_mirrored(half)]
    handle = random.uniform(0.1, 0.3)
    body = [(0.1, 0.4), (0.9, 0.4), (0.95, 0.9), (0.05, 0.9)]
    return [
        body,
        [(0.3, 0.42), (0.35, handle), (0.65, handle), (0.7, 0.42), (0.6, 0.42), (0.4, 0.2)],
    ]


def _top(label: int, random: np.random.Generator) -> list[Shape]:
    """T-shirt, pullover, coat and shirt: sleeves, length and front tell them apart."""
    sleeve = random.uniform(0.28, 0.5) if label == 0 else random.uniform(0.6, 0.9)
    if label == 6:
        sleeve = random.uniform(0.4, 0.85)
    hem = random.uniform(0.9, 0.97) if label == 4 else random.uniform(0.8, 0.92)
    reach = random.uniform(0.36, 0.45)
    half = [(0.1, 0.08), (0.24, 0.12), (reach, sleeve), (reach - 0.1, sleeve + 0.03)]
    half += [(0.23, 0.36), (random.uniform(0.2, 0.26), hem)]
    shapes: list[Shape] = [_mirrored(half)]
    if label in (4, 6):  # an open front, or buttons
        width = random.uniform(0.015, 0.03) if label == 4 else random.uniform(0.006, 0.014)
        shapes.append(_mirrored([(width, 0.1), (width, hem - 0.02)]))
    return shapes


def _shoe(label: int, random: np.random.Generator) -> list[Shape]:
    """Sandal, sneaker and ankle boot: height of the shaft, heel and openings."""
    top = {5: 0.5, 7: 0.42, 9: 0.12}[label] + random.uniform(-0.05, 0.05)
    toe = random.uniform(0.55, 0.66)
    body: Shape = [(0.08, 0.8), (0.1, top), (0.4, top), (0.55, 0.55), (0.92, toe), (0.95, 0.8)]
    shapes = [body]
    if label == 5:
        shapes.append([(0.2, 0.52), (0.45, 0.55), (0.6, 0.72), (0.25, 0.74)])
    if random.random() < {5: 0.5, 7: 0.1, 9: 0.6}[label]:
        shapes.append([(0.08, 0.78), (0.26, 0.78), (0.22, 0.92), (0.1, 0.92)])
    return shapes


def _mirrored(half: Shape) -> Shape:
    """Close a right half, given by its distance from the middle, with its mirror image."""
    return [(0.5 + x, y) for x, y in half] + [(0.5 - x, y) for x, y in reversed(half)]
