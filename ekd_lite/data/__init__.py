"""Images and labels: procedural faces, folders, packed caches, batches with genuine pairs."""

from ekd_lite.data.align import (
    align_face,
    similarity_transform,
    template_landmarks,
    warp_image,
)
from ekd_lite.data.archives import unpack_faces
from ekd_lite.data.cache import cache_faces
from ekd_lite.data.dataset import FaceDataset
from ekd_lite.data.decode import decode_image
from ekd_lite.data.detect import LandmarkDetector
from ekd_lite.data.faceset import FaceSet
from ekd_lite.data.folder import ImageFolder
from ekd_lite.data.latents import NUM_LATENTS, faces_from_latents
from ekd_lite.data.neighbours import NeighbourSampler
from ekd_lite.data.opening import open_faces, open_packed
from ekd_lite.data.packed import PackedFaces
from ekd_lite.data.pair_lists import read_pairs
from ekd_lite.data.preview import preview, preview_sweep
from ekd_lite.data.processes import capped_workers
from ekd_lite.data.recordio import RecordIO
from ekd_lite.data.registry import REGISTRY
from ekd_lite.data.sampler import IdentityBalancedSampler
from ekd_lite.data.sets import convert, verify, write_checksums
from ekd_lite.data.shards import Shards
from ekd_lite.data.splits import PROCEDURAL, Splits, load_splits
from ekd_lite.data.synthetic import SyntheticFaces
from ekd_lite.data.verification import VerificationSet, read_verification_bin

__all__ = [
    "NUM_LATENTS",
    "PROCEDURAL",
    "REGISTRY",
    "FaceDataset",
    "FaceSet",
    "IdentityBalancedSampler",
    "ImageFolder",
    "LandmarkDetector",
    "NeighbourSampler",
    "PackedFaces",
    "RecordIO",
    "Shards",
    "Splits",
    "SyntheticFaces",
    "VerificationSet",
    "align_face",
    "cache_faces",
    "capped_workers",
    "convert",
    "decode_image",
    "faces_from_latents",
    "load_splits",
    "open_faces",
    "open_packed",
    "preview",
    "preview_sweep",
    "read_pairs",
    "read_verification_bin",
    "similarity_transform",
    "template_landmarks",
    "unpack_faces",
    "verify",
    "warp_image",
    "write_checksums",
]
