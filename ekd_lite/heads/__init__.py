"""Margin heads: embedding and label -> logits of a softmax over identities.

All of them compare the direction of an embedding x with one learned *prototype* w_j per identity::

    cos(theta_j) = x . w_j / (length(x) length(w_j)),

and are the same softmax over s * T(theta_y), s * N(theta_j), with one function of the angle each::

    NormFace        T = cos(theta)                              Wang et al., ACM MM 2017
    SphereFace      T = cos(m theta), made monotone             Liu et al., CVPR 2017
    CosFace         T = cos(theta) - m                          Wang et al., CVPR 2018, eq. 4
    ArcFace         T = cos(theta + m)                          Deng et al., CVPR 2019, eq. 3
    CurricularFace  T = cos(theta + m), N = cos (t + cos)       Huang et al., CVPR 2020
                    for impostors nearer than T
    AdaFace         T = cos(theta - m q) - m q - m              Kim et al., CVPR 2022
                    with q in -1..1 from the length of x
    CIFP            T = cos(theta) - m - (1 + cos(theta)) P     Xu, Huang et al., CVPR 2021
                    with P from false accepts at a preset rate

where N = cos(theta_j) unless stated: T lies below cos(theta), so that training has to make up for
it. Computed in float32 under autocast too: bfloat16 cosines times 64 are wrong by 0.2.
"""

from ekd_lite.heads.adaptive import AdaFace, CurricularFace
from ekd_lite.heads.cifp import CIFP
from ekd_lite.heads.margin import ArcFace, CosFace, NormFace, SphereFace, add_angle
from ekd_lite.heads.partial_fc import PartialFC

HEADS: dict[str, type[NormFace]] = {
    "normface": NormFace,
    "sphereface": SphereFace,
    "cosface": CosFace,
    "arcface": ArcFace,
    "curricularface": CurricularFace,
    "adaface": AdaFace,
    "cifp": CIFP,
}

__all__ = [
    "CIFP",
    "HEADS",
    "AdaFace",
    "ArcFace",
    "CosFace",
    "CurricularFace",
    "NormFace",
    "PartialFC",
    "SphereFace",
    "add_angle",
]
