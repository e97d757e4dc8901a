"""Knowledge distillation for face recognition, from ArcFace to EKD.

Subpackages, in the order arrays flow through them (imports only point up this list):

    ekd_lite.data       images and labels: procedural faces, folders, samplers
    ekd_lite.models     image -> embedding
    ekd_lite.heads      embedding, label -> margin logits
    ekd_lite.distill    student, teacher -> loss
    ekd_lite.evaluate   embeddings -> TPR at FPR with intervals
    ekd_lite.train      the training step, loop and checkpoints
    ekd_lite.plots      arrays -> figures
    ekd_lite.coursework your own function -> what is wrong with it
"""

__version__ = "0.1.0"
