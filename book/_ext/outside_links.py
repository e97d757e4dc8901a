"""Links from API pages to the documentation of PyTorch, NumPy, Matplotlib and Python.

The usual way (intersphinx) downloads each project's list of names at build time. The book builds
without a network, so the few names that our docstrings and signatures use stand here. A name that
is neither here nor in ekd_lite is a broken reference and fails the build.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

PYTHON = "https://docs.python.org/3/library"
TORCH = "https://docs.pytorch.org/docs/stable"
NUMPY = "https://numpy.org/doc/stable/reference"
MATPLOTLIB = "https://matplotlib.org/stable/api"

PAGES = {
    "collections.abc.Callable": f"{PYTHON}/collections.abc.html#collections.abc.Callable",
    "collections.abc.Collection": f"{PYTHON}/collections.abc.html#collections.abc.Collection",
    "collections.abc.Iterable": f"{PYTHON}/collections.abc.html#collections.abc.Iterable",
    "collections.abc.Iterator": f"{PYTHON}/collections.abc.html#collections.abc.Iterator",
    "collections.abc.Mapping": f"{PYTHON}/collections.abc.html#collections.abc.Mapping",
    "collections.abc.Sequence": f"{PYTHON}/collections.abc.html#collections.abc.Sequence",
    "pathlib.Path": f"{PYTHON}/pathlib.html#pathlib.Path",
    "torch.Generator": f"{TORCH}/generated/torch.Generator.html#torch.Generator",
    "torch.Tensor": f"{TORCH}/tensors.html#torch.Tensor",
    "torch.device": f"{TORCH}/tensor_attributes.html#torch.device",
    "torch.dtype": f"{TORCH}/tensor_attributes.html#torch.dtype",
    "torch.nn.Module": f"{TORCH}/generated/torch.nn.Module.html#torch.nn.Module",
    "torch.nn.ModuleDict": f"{TORCH}/generated/torch.nn.ModuleDict.html#torch.nn.ModuleDict",
    "torch.amp.GradScaler": f"{TORCH}/amp.html#torch.amp.GradScaler",
    "torch.nn.Parameter": f"{TORCH}/generated/torch.nn.parameter.Parameter.html",
    "torch.optim.Optimizer": f"{TORCH}/optim.html#torch.optim.Optimizer",
    "torch.utils.data.DataLoader": f"{TORCH}/data.html#torch.utils.data.DataLoader",
    "torch.utils.data.Dataset": f"{TORCH}/data.html#torch.utils.data.Dataset",
    "numpy.dtype": f"{NUMPY}/generated/numpy.dtype.html#numpy.dtype",
    "numpy.ndarray": f"{NUMPY}/generated/numpy.ndarray.html#numpy.ndarray",
    "numpy.random.Generator": f"{NUMPY}/random/generator.html#numpy.random.Generator",
    "numpy.typing.ArrayLike": f"{NUMPY}/typing.html#numpy.typing.ArrayLike",
    "matplotlib.axes.Axes": f"{MATPLOTLIB}/_as_gen/matplotlib.axes.Axes.html#matplotlib.axes.Axes",
    "matplotlib.figure.Figure": f"{MATPLOTLIB}/figure_api.html#matplotlib.figure.Figure",
}
# Where a class was written is not where it is documented.
WRITTEN_IN = {
    "Path": "pathlib.Path",
    "Tensor": "torch.Tensor",
    "np.ndarray": "numpy.ndarray",
    "matplotlib.axes._axes.Axes": "matplotlib.axes.Axes",
    "torch.amp.grad_scaler.GradScaler": "torch.amp.GradScaler",
    "torch.nn.parameter.Parameter": "torch.nn.Parameter",
    "torch.nn.modules.container.ModuleDict": "torch.nn.ModuleDict",
    "torch.nn.modules.module.Module": "torch.nn.Module",
    "nn.Module": "torch.nn.Module",  # as written in the signature of a class
    "torch.optim.optimizer.Optimizer": "torch.optim.Optimizer",
    "torch.utils.data.dataloader.DataLoader": "torch.utils.data.DataLoader",
    "torch.utils.data.dataset.Dataset": "torch.utils.data.Dataset",
}


def link(app: Sphinx, env: Any, node: Any, words: nodes.Element) -> nodes.reference | None:
    """Sphinx's hook for a name it cannot find: a link outside, or None."""
    name = node.get("reftarget", "")
    name = WRITTEN_IN.get(name, name)
    if node.get("refdomain") != "py" or name not in PAGES:
        return None
    return nodes.reference("", "", words, refuri=PAGES[name], reftitle=name, internal=False)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("missing-reference", link)
    return {"version": "1", "parallel_read_safe": True}
