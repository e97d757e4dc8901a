"""Embeddings in, numbers out: TPR at FPR, exact, with identity-level intervals."""

from ekd_lite.evaluate.bootstrap import BootstrapResult, bootstrap_tpr_at_fpr, paired_difference
from ekd_lite.evaluate.lfw import VERIFICATION_SETS, VerificationResult, verification_accuracy
from ekd_lite.evaluate.pairs import all_pairs_tpr_at_fpr
from ekd_lite.evaluate.roc import UndefinedMetricWarning, roc, tpr_at_fpr

__all__ = [
    "VERIFICATION_SETS",
    "BootstrapResult",
    "UndefinedMetricWarning",
    "VerificationResult",
    "all_pairs_tpr_at_fpr",
    "bootstrap_tpr_at_fpr",
    "paired_difference",
    "roc",
    "tpr_at_fpr",
    "verification_accuracy",
]
