"""Programs of the repository, which no package holds, as modules."""

import importlib.util


def load(path):
    """Run a file as a module of its own; its `main` is not called."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
