"""Figures of scores and error rates (arrays in, Axes out) and drawings of how things hang together.

Every function draws on `ax`, or on a new figure if there is none, and returns the Axes. Curves
differ in colour (Okabe and Ito's set, safe for colour-blind readers) *and* in line style or hatch,
so that a grey print still tells them apart. Arrays may be numpy arrays, CPU tensors or lists.

The package is imported by nothing else in the library: `import ekd_lite` stays free of matplotlib.
"""

from ekd_lite.plots.diagrams import blank_axes, draw_arrow, draw_box, plot_distillation
from ekd_lite.plots.faces import plot_faces
from ekd_lite.plots.methods import MethodScores, plot_methods
from ekd_lite.plots.play import (
    EkdByHand,
    MarginByHand,
    RocByHand,
    SoftLabels,
    StudyFigure,
    TwoFaces,
    soft_labels,
    two_faces,
)
from ekd_lite.plots.roc import plot_roc
from ekd_lite.plots.scores import plot_scores
from ekd_lite.plots.slider import Slider, threshold_slider
from ekd_lite.plots.style import BLUE, COLOURS, GREEN, LINES, ORANGE, PURPLE
from ekd_lite.plots.training import plot_training

__all__ = [
    "BLUE",
    "COLOURS",
    "GREEN",
    "LINES",
    "ORANGE",
    "PURPLE",
    "EkdByHand",
    "MarginByHand",
    "MethodScores",
    "RocByHand",
    "Slider",
    "SoftLabels",
    "StudyFigure",
    "TwoFaces",
    "blank_axes",
    "draw_arrow",
    "draw_box",
    "plot_distillation",
    "plot_faces",
    "plot_methods",
    "plot_roc",
    "plot_scores",
    "plot_training",
    "soft_labels",
    "threshold_slider",
    "two_faces",
]
