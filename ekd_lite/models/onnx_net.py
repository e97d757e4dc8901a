"""Nets in ONNX files of any origin, run by onnxruntime on the CPU."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HINT = 'ONNX needs an optional extra: pip install "ekd-lite[export]"'
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


class OnnxNet(nn.Module):
    """A published graph that maps images to embeddings; it has no parameters and no gradient.

    The graph takes one input, (N, 3, H, W) or (N, H, W, 3), with N free or fixed: images come in
    any number, and a fixed batch is filled up with black ones. Inputs that are initialisers, or
    that nothing reads, as some files have them, are taken off its list of inputs.

    Args:
        path: the file.
        output: name of the output, or its number in the graph's order.
        threads: threads of one embedding; 0 lets onnxruntime take every core.

    Attributes:
        input_size: H, if the graph fixes it.
        digest: the sha256 of the file, with those of its external weights.
        metadata: what the file says of itself.
        summary: what it takes and gives, and its terms if it says them; to be printed.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: the extra is not installed.
        ValueError: no ONNX file or a damaged one; a graph of several inputs, or of none that takes
            images; an output that it does not have.
    """

    def __init__(self, path: str | Path, *, output: int | str = 0, threads: int = 0) -> None:
        super().__init__()
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no ONNX file at {path}")
        source, self.digest = _readable(path)
        self._session = open_session(source, str(path), threads)
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        inputs = self._session.get_inputs()
        found = ", ".join(f"{i.name} {i.shape}" for i in inputs)
        if len(inputs) != 1:
            raise ValueError(f"{path} takes {len(inputs)} inputs ({found}), expected one, images")
        shape = inputs[0].shape
        # A free size is a name, None or, in some files, -1.
        fixed = [n if isinstance(n, int) and n > 0 else None for n in shape]
        takes_images = len(fixed) == 4 and (fixed[1] in (3, None) or fixed[3] == 3)
        if not takes_images or inputs[0].type not in TYPES:
            raise ValueError(
                f"{path} takes {found} of {inputs[0].type}, expected images (N, 3, H, W) or "
                "(N, H, W, 3)"
            )
        self._input, self._type = inputs[0].name, TYPES[inputs[0].type]
        self._channels_last = fixed[1] != 3 and fixed[3] == 3
        self._batch = fixed[0]
        self.input_size = fixed[1] if self._channels_last else fixed[2]
        outputs = [o.name for o in self._session.get_outputs()]
        self._output = _named_output(outputs, output, path)
        licence = self.metadata.get("license") or self.metadata.get("licence")
        self.summary = (
            f"file        {path}\n"
            f"graph       takes {found} of {inputs[0].type}, gives {', '.join(outputs)}; the "
            f"embedding is {self._output}\n"
            f"licence     {licence or 'not stated in the file: read the terms where it came from'}"
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (N, 3, H, W) with the pixels that the graph wants: (N, D)."""
        array = images.detach().cpu().float().numpy()
        if self._channels_last:
            array = array.transpose(0, 2, 3, 1)
        if self._type is np.uint8:
            array = array.round().clip(0, 255)
        array = np.ascontiguousarray(array, dtype=self._type)
        step = self._batch or len(array)
        rows = [self._run(array[i : i + step]) for i in range(0, len(array), step)]
        return torch.from_numpy(np.concatenate(rows)).float().to(images.device)

    def _run(self, part: Any) -> Any:
        count = len(part)
        if self._batch and count < self._batch:
            empty = np.zeros((self._batch - count, *part.shape[1:]), self._type)
            part = np.concatenate([part, empty])
        try:
            (rows,) = self._session.run([self._output], {self._input: part})
        except Exception as error:  # its errors share no narrower class
            first_line = str(error).partition("\n")[0]
            raise ValueError(f"the ONNX graph cannot embed {part.shape}: {first_line}") from error
        return rows[:count]


def _named_output(names: list[str], output: int | str, path: Path) -> str:
    if output in names:
        return str(output)
    if isinstance(output, int) and -len(names) <= output < len(names):
        return names[output]
    raise ValueError(f"{path} has no output {output!r}: it gives {', '.join(names)}")


def _readable(path: Path) -> tuple[str | bytes, str]:
    """What onnxruntime can open, the path or bytes of a graph with fewer inputs; the digest."""
    onnx = import_onnx()
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors share no narrower class
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"{path}: no ONNX file, or a damaged one: {first_line}") from error
    tensors = model.graph.initializer
    files = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    missing = sorted(name for name in files if not (path.parent / name).is_file())
    if missing:
        raise ValueError(f"{path} keeps weights in {', '.join(missing)}, which is not beside it")
    digest = hashlib.sha256()
    for file in [path, *(path.parent / name for name in sorted(files))]:
        if file.resolve().is_relative_to(path.parent.resolve()):  # else onnxruntime refuses it
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    constants, read = {t.name for t in tensors}, _names_read(model.graph)
    inputs = [i for i in model.graph.input if i.name in read - constants]
    if len(inputs) == len(model.graph.input):
        return str(path), digest.hexdigest()
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    if files:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    written: bytes = model.SerializeToString()
    return written, digest.hexdigest()


def _names_read(graph: Any) -> set[str]:
    """The names that the nodes of a graph, and of the graphs inside of them, take."""
    found = {name for node in graph.node for name in node.input}
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return found.union(*map(_names_read, inner))


def open_session(source: str | bytes, name: str, threads: int) -> Any:
    """An onnxruntime session on the CPU, of a path or of a file's bytes."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModuleNotFoundError(HINT, name="onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; else every initialiser that is not used has a line
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no narrower class
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"{name}: no ONNX file, or a damaged one: {first_line}") from error


def import_onnx() -> Any:
    """The onnx package, which is an optional extra."""
    try:
        import onnx
    except ImportError as error:
        raise ModuleNotFoundError(HINT, name="onnx") from error
    return onnx
