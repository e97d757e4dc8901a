"""Images and labels: procedural faces, folders, packed caches, batches with genuine pairs."""

from ekd_lite.data.faceset import FaceSet
from ekd_lite.data.folder import ImageFolder
from ekd_lite.data.packed import PackedFaces, cache_faces
from ekd_lite.data.sampler import IdentityBalancedSampler
from ekd_lite.data.splits import Splits, load_splits
from ekd_lite.data.synthetic import SyntheticFaces, preview, preview_sweep

__all__ = [
    "FaceSet",
    "IdentityBalancedSampler",
    "ImageFolder",
    "PackedFaces",
    "Splits",
    "SyntheticFaces",
    "cache_faces",
    "load_splits",
    "preview",
    "preview_sweep",
]
