"""Images and labels: procedural faces, folders, packed caches, batches with genuine pairs."""

from ekd_lite.data.faceset import FaceSet
from ekd_lite.data.folder import ImageFolder
from ekd_lite.data.packed import PackedFaces, cache_faces
from ekd_lite.data.pair_lists import read_pairs
from ekd_lite.data.recordio import RecordIO
from ekd_lite.data.sampler import IdentityBalancedSampler
from ekd_lite.data.sets import convert, open_faces, open_packed, verify
from ekd_lite.data.splits import Splits, load_splits
from ekd_lite.data.synthetic import SyntheticFaces, preview, preview_sweep
from ekd_lite.data.verification import VerificationSet, read_verification_bin

__all__ = [
    "FaceSet",
    "IdentityBalancedSampler",
    "ImageFolder",
    "PackedFaces",
    "RecordIO",
    "Splits",
    "SyntheticFaces",
    "VerificationSet",
    "cache_faces",
    "convert",
    "load_splits",
    "open_faces",
    "open_packed",
    "preview",
    "preview_sweep",
    "read_pairs",
    "read_verification_bin",
    "verify",
]
