"""The shape of the package: imports point one way, importing is light, the promised names exist."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ekd_lite

PACKAGE = Path(ekd_lite.__file__).parent
# Each may import from those before it (and from itself).
ORDER = [
    *(
        "assets",
        "ops",
        "files",
        "parallel",
        "data",
        "models",
        "heads",
        "distill",
        "evaluate",
        "train",
    ),
    *("plots", "export", "experiments", "commands", "coursework", "__main__"),
]


def imported_parts(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.startswith("ekd_lite."):
                yield name.split(".")[1]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_point_only_up_the_list(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = [] if part == "__init__" else ORDER[: ORDER.index(part) + 1]
    for name in imported_parts(path):
        assert name in allowed, f"{path.name} imports {name}"


def test_import_is_light():
    script = (
        "import torch, sys, time; before = set(sys.modules); start = time.perf_counter();"
        "import ekd_lite; print(time.perf_counter() - start, len(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    seconds, modules = output.stdout.split()
    assert float(seconds) < 0.3
    assert int(modules) < 5


def test_library_needs_no_command_line_or_plots():
    script = (
        "import sys, ekd_lite.train, ekd_lite.evaluate, ekd_lite.distill, ekd_lite.data;"
        "print([m for m in ('tyro', 'matplotlib', 'sklearn', 'pandas') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


HEAVY = "matplotlib sklearn pandas scipy onnx onnxruntime cv2 IPython torch.utils.tensorboard"


@pytest.mark.parametrize("name", ["__main__", "experiments", "experiments.runner"])
def test_commands_and_their_processes_start_without_heavy_modules(name):
    """What draws, exports or teaches imports its library when it does."""
    script = f"import sys, ekd_lite.{name};print([m for m in {HEAVY.split()} if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


PROMISED = {
    "data": "SyntheticFaces ImageFolder RecordIO read_verification_bin IdentityBalancedSampler",
    "distill": "DISTILLERS EKDLoss KDLoss FitNetLoss DarkRankLoss SPLoss CCKDLoss RKDLoss "
    "ShrinkTeaNetLoss TripletDistillationLoss MarginDistillationLoss",
    "evaluate": "tpr_at_fpr roc all_pairs_tpr_at_fpr bootstrap_tpr_at_fpr verification_accuracy "
    "ijb_tpr_at_fpr identification_rate",
    "experiments": "load_study run_study compare_runs read_runs over_seeds PlannedRun Machine",
    "heads": "ArcFace CosFace NormFace",
    "models": "build_backbone",
}


@pytest.mark.parametrize("part", PROMISED)
def test_promised_names(part):
    """DESIGN's public contract."""
    module = importlib.import_module(f"ekd_lite.{part}")
    for name in PROMISED[part].split():
        assert hasattr(module, name)
        assert name in getattr(module, "__all__", [name])


def test_promised_methods():
    from ekd_lite.distill import DISTILLERS

    named = "fitnet kd darkrank sp cckd rkd shrinkteanet triplet margin ekd"
    assert set(named.split()) <= DISTILLERS.keys()
