"""Things to play with that need no running kernel and no network; see `base`."""

from ekd_lite.plots.play.ekd import EkdByHand
from ekd_lite.plots.play.faces import TwoFaces, two_faces
from ekd_lite.plots.play.margin import MarginByHand
from ekd_lite.plots.play.roc import RocByHand
from ekd_lite.plots.play.soft import SoftLabels, soft_labels
from ekd_lite.plots.play.study import StudyFigure

__all__ = [
    "EkdByHand",
    "MarginByHand",
    "RocByHand",
    "SoftLabels",
    "StudyFigure",
    "TwoFaces",
    "soft_labels",
    "two_faces",
]
