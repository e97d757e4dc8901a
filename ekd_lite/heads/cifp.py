r"""CIFP: a larger margin for images that many strangers reach (Xu, Huang et al., CVPR 2021).

"Consistent Instance False Positive Improves Fairness in Face Recognition", by the group that wrote
EKD a year later, and like EKD it trains with the threshold of an evaluation. Cosines of a batch
with all prototypes stand for the impostor scores, and a preset false-positive rate for the level:

    hard     j != y_i with cos_ij > cos_iy: recognised wrongly already, left to the softmax
    tau      the k-th largest cos_ij of all images, j != y_i, not hard;
             k = ceil(fpr * (N (C - 1) - number of hard))
    F_i      false accepts of image i: j != y_i, not hard, cos_ij > tau
    P_i      mean over F_i of cos_ij^2, and 0 if there are none
    target   T_i = cos_iy - m - (1 + cos_iy) P_i,      logits s T_i, s cos_ij

No gradient reaches the prototypes through (1 + cos_iy), nor through the cosines of P_i that are
above cos_iy - m. With k from fpr = 1 / (C - 1), the default, N false accepts are shared out among N
images: consistent would be one each.

Read in the authors' program (Tencent/TFace 8f5b85a, torchkit/head/localfc/cifp.py); of the paper we
have the abstract. It says that the penalty is "in proportion to the ratio of instance FPR over
overall FPR"; the program divides by the number of an image's own false accepts, so that their
number does not matter, only how near they come. We do as the program.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ekd_lite.heads.margin import CosFace
from ekd_lite.ops import are_numbers, unit_rows
from ekd_lite.parallel import gather_batch, sum_over_ranks, world_size


class CIFP(CosFace):
    """CosFace with a penalty for false accepts at a preset false-positive rate.

    Args:
        embedding_dim: width D.
        num_identities: number C.
        scale: factor s.
        margin: m, in units of the cosine.
        fpr: the preset rate, 0..1; None is 1 / (C - 1). With several processes it is counted over
            the images of all.

    Example:
        >>> head = CIFP(4, 3)
        >>> head(torch.randn(2, 4), torch.tensor([0, 2])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        embedding_dim: int,
        num_identities: int,
        *,
        scale: float = 64.0,
        margin: float = 0.35,
        fpr: float | None = None,
    ) -> None:
        super().__init__(embedding_dim, num_identities, scale=scale, margin=margin)
        if fpr is not None and not (are_numbers(fpr) and 0 < fpr <= 1):
            raise ValueError(f"fpr must lie in (0, 1], got {fpr}")
        self.fpr = fpr

    def forward(
        self, embeddings: Tensor, labels: Tensor, *, cosines: Tensor | None = None
    ) -> Tensor:
        """Embeddings (N, D), labels (N,) -> logits (N, C), see `NormFace.forward`."""
        cosines, index = self.checked_cosines(embeddings, labels, cosines)
        own = cosines.gather(1, index)
        margined = self.target(own)
        row, column, is_accepted = self._false_accepts(cosines.detach(), index)
        with torch.autocast(embeddings.device.type, enabled=False):
            unit, prototypes = unit_rows(embeddings), unit_rows(self.prototypes.detach())
            fixed = torch.linalg.vecdot(unit[row], prototypes[column])
            own_fixed = torch.linalg.vecdot(unit, prototypes[index[:, 0]])[:, None]
        accepted = cosines[row, column]
        accepted = torch.where(margined[row, 0] > accepted, accepted, fixed)
        squared = torch.where(is_accepted, accepted.square(), 0.0)
        none = torch.zeros_like(margined[:, 0])
        counts = none.index_add(0, row, is_accepted.to(none.dtype)).clamp(min=1)
        penalty = (none.index_add(0, row, squared) / counts)[:, None]
        return self.scale * cosines.scatter(1, index, margined - (1 + own_fixed) * penalty)

    @torch.no_grad()
    def _false_accepts(self, cosines: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and columns of as many pairs as could be false accepts, and which of them are.

        How many there are a GPU would have to say; that there are fewer than k, the host knows, and
        how large k is without hard ones.
        """
        num_identities = cosines.shape[1]
        own = cosines.gather(1, index)
        is_hard = cosines > own
        pairs = world_size() * len(cosines) * (num_identities - 1)
        fpr = 1 / max(num_identities - 1, 1) if self.fpr is None else self.fpr
        most = math.ceil(fpr * pairs)
        if most < 1:
            nothing = index.new_zeros(0)
            return nothing, nothing, nothing.bool()
        k = (fpr * (pairs - sum_over_ranks(is_hard.sum()).double())).ceil().long()
        # Below every cosine: the true identity, and those that are hard.
        others = cosines.masked_fill(is_hard, -3).scatter(1, index, -3).flatten()
        top, place = others.topk(min(most, len(others)))
        threshold = gather_batch(top).topk(most).values.take((k - 1).clamp(min=0))
        place = place.sort().values  # by rows
        return place // num_identities, place % num_identities, others[place] > threshold
