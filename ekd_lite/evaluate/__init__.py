"""Embeddings in, numbers out: TPR at FPR, exact, with identity-level intervals."""

import sys

from ekd_lite.evaluate import embedding
from ekd_lite.evaluate.attributes import read_attributes
from ekd_lite.evaluate.bootstrap import BootstrapResult, bootstrap_tpr_at_fpr
from ekd_lite.evaluate.differences import (
    best_of,
    difference_p_value,
    holm,
    over_runs,
    paired_difference,
)
from ekd_lite.evaluate.dimension import intrinsic_dimension
from ekd_lite.evaluate.embedding import embed
from ekd_lite.evaluate.groups import GroupRates, group_rates
from ekd_lite.evaluate.identify import IdentificationResult, identification_rate
from ekd_lite.evaluate.ijb import ijb_tpr_at_fpr
from ekd_lite.evaluate.ijb_files import (
    read_face_landmarks,
    read_template_media,
    read_template_pairs,
    read_template_subjects,
)
from ekd_lite.evaluate.lfw import VERIFICATION_SETS, VerificationResult, verification_accuracy
from ekd_lite.evaluate.megaface import MegaFaceResult, megaface_rates, refine
from ekd_lite.evaluate.pair_bootstrap import bootstrap_pair_list
from ekd_lite.evaluate.pairs import all_pairs_tpr_at_fpr, count_pairs
from ekd_lite.evaluate.provenance import relation_agreement
from ekd_lite.evaluate.roc import UndefinedMetricWarning, roc, tpr_at_fpr

# `from ekd_lite.evaluate.embed import embed`, as programs of version 1 have it: that module is
# embedding.py now, and beside the function there cannot be one of its name.
sys.modules[f"{__name__}.embed"] = embedding

__all__ = [
    "VERIFICATION_SETS",
    "BootstrapResult",
    "GroupRates",
    "IdentificationResult",
    "MegaFaceResult",
    "UndefinedMetricWarning",
    "VerificationResult",
    "all_pairs_tpr_at_fpr",
    "best_of",
    "bootstrap_pair_list",
    "bootstrap_tpr_at_fpr",
    "count_pairs",
    "difference_p_value",
    "embed",
    "group_rates",
    "holm",
    "identification_rate",
    "ijb_tpr_at_fpr",
    "intrinsic_dimension",
    "megaface_rates",
    "over_runs",
    "paired_difference",
    "read_attributes",
    "read_face_landmarks",
    "read_template_media",
    "read_template_pairs",
    "read_template_subjects",
    "refine",
    "relation_agreement",
    "roc",
    "tpr_at_fpr",
    "verification_accuracy",
]
