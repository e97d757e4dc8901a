"""The shape of the package: imports point one way, importing is light, the promised names exist."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ekd_lite

PACKAGE = Path(ekd_lite.__file__).parent
# Each may import from those before it (and from itself).
ORDER = re.findall(r"^    ekd_lite\.(\w+) ", ekd_lite.__doc__ or "", re.MULTILINE)


def imported_parts(source):
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write ekd_lite in full, not `from .`"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, part = f"{name}.".split(".")[:2]
            if package == "ekd_lite" and part in ORDER:
                yield part


def test_the_list_of_parts_is_complete():
    """The one in the docstring of the package; what holds no code is no part."""
    there = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    there |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(ORDER) == sorted(there)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_point_only_up_the_list(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = [] if part == "__init__" else ORDER[: ORDER.index(part) + 1]
    for name in imported_parts(path.read_text(encoding="utf-8")):
        assert name in allowed, f"{path.name} imports {name}"


def test_every_way_to_import_a_part_would_be_seen():
    ways = [
        "import ekd_lite, os.path, ekd_lite.data.cache as cache",
        "from ekd_lite.heads import NormFace",
        "from ekd_lite import __version__, ops, train",
        "def f(): import ekd_lite.plots",
    ]
    assert sorted(imported_parts("\n".join(ways))) == ["data", "heads", "ops", "plots", "train"]
    for source in ("from ..train import fit", "from . import fit"):
        with pytest.raises(AssertionError, match="line 1: write ekd_lite in full"):
            list(imported_parts(source))


@pytest.mark.parametrize(
    "folder", ["benchmarks", "book", "ekd_lite", "examples", "scripts", "studies"]
)
def test_every_file_can_be_printed_in_the_book(folder):
    paths = sorted((Path(__file__).parents[1] / folder).rglob("*.py"))
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}


# One new interpreter, which imports more and more and says what that brought with it.
IMPORTS = """
import json, sys, time, torch
before, start = set(sys.modules), time.perf_counter()
import ekd_lite
found = {"seconds": time.perf_counter() - start, "package": sorted(set(sys.modules) - before)}
import ekd_lite.train, ekd_lite.evaluate, ekd_lite.distill, ekd_lite.data
found["library"] = sorted(sys.modules)
import ekd_lite.export
found["export"] = sorted(sys.modules)
import ekd_lite.experiments.runner
found["runs"] = sorted(sys.modules)
import ekd_lite.experiments
found["experiments"] = sorted(sys.modules)
import ekd_lite.__main__
found["commands"] = sorted(sys.modules)
print(json.dumps(found))
"""


HEAVY = "matplotlib sklearn pandas scipy onnx onnxruntime cv2 IPython torch.utils.tensorboard"


@pytest.fixture(scope="module")
def imported():
    output = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    )
    return json.loads(output.stdout)


@pytest.mark.starts_process
def test_import_is_light(imported):
    assert imported["seconds"] < 0.3
    assert len(imported["package"]) < 5


@pytest.mark.starts_process
@pytest.mark.parametrize(
    ("part", "heavy"),
    [
        ("package", HEAVY),
        ("library", f"{HEAVY} tyro"),
        ("export", f"{HEAVY} tyro"),
        # Commands, and the processes that they start; what draws or exports imports it then.
        ("runs", HEAVY),
        ("experiments", HEAVY),
        ("commands", HEAVY),
    ],
)
def test_nobody_needs_what_only_others_use(imported, part, heavy):
    """No command line and no plots for the library, no extra for the module that asks for one."""
    assert not set(heavy.split()) & set(imported[part])


PROMISED = {
    "data": "SyntheticFaces ImageFolder RecordIO read_verification_bin IdentityBalancedSampler "
    "NeighbourSampler FaceDataset",
    "distill": "DISTILLERS EKDLoss KDLoss FitNetLoss DarkRankLoss SPLoss CCKDLoss RKDLoss "
    "ShrinkTeaNetLoss TripletDistillationLoss MarginDistillationLoss FineEKDLoss GalleryEKDLoss "
    "AdaDistillLoss GroupedKDLoss TeacherQueueLoss TeacherHeadLoss",
    "evaluate": "tpr_at_fpr roc all_pairs_tpr_at_fpr bootstrap_tpr_at_fpr verification_accuracy "
    "ijb_tpr_at_fpr identification_rate embed count_pairs relation_agreement intrinsic_dimension",
    "experiments": "load_study run_study compare_runs read_runs over_seeds PlannedRun Machine",
    "heads": "ArcFace CosFace NormFace",
    "models": "build_backbone load_published",
    "train": "TrainConfig Teacher fit load_model cache_teacher",
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

    named = "fitnet kd darkrank sp cckd rkd shrinkteanet triplet margin ekd "
    named += "ekd_decisions ekd_labels ekd_gallery ekd_l2 "
    named += "adadistill arcdistill dkd gkd qud seed thkd lskd"
    assert set(named.split()) <= DISTILLERS.keys()


def test_every_folder_of_tests_is_a_package():
    """Else pytest names a module by its file alone, and two files of one name collide."""
    tests = Path(__file__).parent
    folders = {path.parent for path in tests.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
