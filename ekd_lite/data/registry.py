"""Data sets by name: where they are, what they must hash to, and their terms.

Only sets that may be downloaded without an application, and whose checksum is known from a source
that can be named, have an address here. For the others it says where and how to ask.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        terms: licence or terms of use, as the source states them.
        how: what a reader does to get it, or what it is.
        file: name of the file, if it can be downloaded.
        url: its address.
        sha256: its checksum.
        max_bytes: no more than this is ever written.
    """

    terms: str
    how: str
    file: str = ""
    url: str = ""
    sha256: str = ""
    max_bytes: int = 0


_LFW_TERMS = (
    "news photographs for research; its makers ask not to draw commercial conclusions from it. "
    "Mostly men, mostly light-skinned, mostly from US news"
)
_RESEARCH = "non-commercial research only"
# Addresses and checksums of LFW: scikit-learn, sklearn/datasets/_lfw.py (BSD-3), its figshare copy.
_FIGSHARE = "https://ndownloader.figshare.com/files/"
REGISTRY: dict[str, Source] = {
    "lfw": Source(
        _LFW_TERMS,
        "13,233 pictures of 5,749 people, 250 x 250, not aligned",
        "lfw.tgz",
        _FIGSHARE + "5976018",
        "055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
        400_000_000,
    ),
    "lfw-funneled": Source(
        _LFW_TERMS,
        "the same pictures, roughly upright",
        "lfw-funneled.tgz",
        _FIGSHARE + "5976015",
        "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
        400_000_000,
    ),
    "lfw-pairs": Source(
        _LFW_TERMS,
        "the 6,000 pairs of View 2 in 10 folds",
        "pairs.txt",
        _FIGSHARE + "5976006",
        "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
        1_000_000,
    ),
    "lfw-pairs-dev-train": Source(
        _LFW_TERMS,
        "the 2,200 pairs to develop on",
        "pairsDevTrain.txt",
        _FIGSHARE + "5976012",
        "1d454dada7dfeca0e7eab6f65dc4e97a6312d44cf142207be28d688be92aabfa",
        1_000_000,
    ),
    "lfw-pairs-dev-test": Source(
        _LFW_TERMS,
        "the 1,000 pairs to test development on",
        "pairsDevTest.txt",
        _FIGSHARE + "5976009",
        "7cb06600ea8b2814ac26e946201cdb304296262aad67d046a16a7ec85d0ff87c",
        1_000_000,
    ),
    "casia-webface": Source(
        _RESEARCH,
        "insightface, recognition/_datasets_: follow its link to faces_webface_112x112 (.rec)",
    ),
    "ms1mv2": Source(
        f"{_RESEARCH}; made from MS-Celeb-1M, which its maker withdrew",
        "insightface, recognition/_datasets_: follow its link to faces_emore (.rec)",
    ),
    "ms1mv3": Source(
        f"{_RESEARCH}; made from MS-Celeb-1M, which its maker withdrew",
        "insightface, recognition/_datasets_: follow its link to ms1m-retinaface-t1 (.rec)",
    ),
    "glint360k": Source(
        _RESEARCH, "insightface, recognition/_datasets_: follow its link to Glint360K (.rec)"
    ),
    "ijb": Source(
        "an agreement signed for your institution",
        "apply to NIST (IARPA Janus Benchmark, face challenges) for IJB-B and IJB-C",
    ),
    "megaface": Source(
        _RESEARCH, "closed by its makers in 2020; only those who have it can use it"
    ),
    "digiface-1m": Source(
        f"{_RESEARCH}; rendered faces, nobody in them",
        "github.com/microsoft/DigiFace1M: accept the terms there and take a part of the zip files",
    ),
    "celeba": Source(
        f"{_RESEARCH}, no redistribution",
        "ask for it at mmlab.ie.cuhk.edu.hk (CelebA), identities by a separate request",
    ),
}
