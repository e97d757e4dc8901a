"""Knowledge distillation for face recognition, from ArcFace to EKD.

Its parts, in the order arrays flow through them (imports only point up this list):

    ekd_lite.assets      files that come with the package: a small teacher, tables of results
    ekd_lite.ops         small operations that heads, losses and metrics share
    ekd_lite.files       files that are whole or not there
    ekd_lite.parallel    what processes say to one another
    ekd_lite.data        images and labels: procedural faces, folders, samplers
    ekd_lite.models      image -> embedding
    ekd_lite.heads       embedding, label -> margin logits
    ekd_lite.distill     student, teacher -> loss
    ekd_lite.evaluate    embeddings -> TPR at FPR with intervals
    ekd_lite.train       the training step, loop and checkpoints
    ekd_lite.plots       arrays -> figures
    ekd_lite.export      a trained net -> ONNX, and ONNX in 8-bit integers
    ekd_lite.experiments whole comparisons: plans of runs, tables, pages
    ekd_lite.commands    the commands of `ekd-lite`
    ekd_lite.coursework  your own function -> what is wrong with it
    ekd_lite.__main__    the command line
"""

__version__ = "0.1.0"
