import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)  # xdist already uses every core

# Rendered faces go to a folder of this session, never to the user's own cache. It is made once: the
# processes of xdist and those that tests start inherit the variable.
_FOLDER = "EKD_LITE_CACHE"
_OURS = "EKD_LITE_CACHE_OF_TESTS"
if _OURS not in os.environ:
    os.environ[_OURS] = os.environ[_FOLDER] = tempfile.mkdtemp(prefix="ekd-lite-tests-")
    _MADE_HERE = os.environ[_FOLDER]
else:
    _MADE_HERE = None


def pytest_unconfigure():
    if _MADE_HERE is not None:
        shutil.rmtree(_MADE_HERE, ignore_errors=True)
