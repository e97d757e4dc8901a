"""`ekd-lite export`: a trained net as weights alone, as ONNX, in 8-bit integers."""

from __future__ import annotations

import math
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import tyro
from torch import nn

from ekd_lite.commands.outputs import check_output
from ekd_lite.commands.own_net import own_net
from ekd_lite.commands.rates import measurable
from ekd_lite.data import load_splits
from ekd_lite.evaluate import UndefinedMetricWarning
from ekd_lite.experiments import level, percents, write_table
from ekd_lite.export import (
    FormatCost,
    OnnxModel,
    calibration_images,
    compare_formats,
    export_onnx,
    quantize_int8,
)
from ekd_lite.export.int8 import MIN_IMAGES
from ekd_lite.train import load_backbone, save_backbone

Format = Literal["safetensors", "onnx", "int8-dynamic", "int8-static"]
FPRS = (1e-2, 1e-3, 1e-4)
CALIBRATION = 256


@dataclass(frozen=True)
class Export:
    """Write a trained net for use elsewhere: weights alone, ONNX, or ONNX in 8-bit integers."""

    model: tyro.conf.Positional[Path]
    """Run folder or model.safetensors."""
    out: Path
    """File to write."""
    to: Format = "onnx"
    """safetensors: the backbone without the prototypes of the training identities. onnx: for any
    batch size, checked against torch. int8-dynamic, int8-static: ONNX, smaller and less exact."""
    faces: Path | None = None
    """Folder the net was trained from (its training people calibrate int8-static, its test people
    are for the report); procedural faces if left out."""
    calibration: int = CALIBRATION
    """Training images that calibrate int8-static."""
    reduce_range: bool = False
    """7-bit weights, for x86 processors without VNNI instructions."""
    report: Path | None = None
    """CSV to write: size, latency and TPR of every format on unseen people, against torch."""
    resamples: int = 1000
    """Bootstrap resamples behind the report's intervals."""
    student_module: str | None = None
    """What makes the net, package.module:callable, if it is one of your own."""

    def run(self) -> None:
        """Export, and measure if asked to."""
        if self.to == "int8-static" and self.calibration < MIN_IMAGES:
            raise ValueError(
                f"--calibration must be {MIN_IMAGES} or more images, got {self.calibration}"
            )
        if self.resamples < 1:
            raise ValueError(f"--resamples must be at least 1, got {self.resamples}")
        self._check_use()
        form = ".safetensors" if self.to == "safetensors" else ".onnx"  # also in whole numbers
        check_output(self.out, self.model, form=form)
        if self.report is not None:
            check_output(self.report, self.model, self.out)
        print(f"wrote {self.out}: {self._write(self.to, self.out)}")
        if self.report is not None:
            self._measure(self.report)

    def _check_use(self) -> None:
        """Refuse what would not be looked at."""
        is_static = self.to == "int8-static" or self.report is not None
        is_int8 = self.to.startswith("int8") or self.report is not None
        unused = ["--faces"] if self.faces is not None and not is_static else []
        unused += ["--calibration"] if self.calibration != CALIBRATION and not is_static else []
        unused += ["--reduce-range"] if self.reduce_range and not is_int8 else []
        if unused:
            raise ValueError(
                f"{', '.join(unused)}: not looked at for {self.to} without --report; leave it out, "
                "or choose another --to"
            )

    def _load(self, path: Path) -> tuple[nn.Module, dict[str, Any]]:
        """A backbone and what its file says of it."""
        return load_backbone(path, student=own_net(self.student_module))

    def _write(self, to: Format, out: Path) -> str:
        """Write one format; says what it is like."""
        backbone, info = self._load(self.model)
        if to == "safetensors":
            save_backbone(out, backbone, info)
            return f"{out.stat().st_size:,} bytes, {info['backbone']} without its head"
        if to == "onnx":
            difference = export_onnx(backbone, out, info=info)
            return f"{out.stat().st_size:,} bytes, largest difference from torch {difference:.0e}"
        with tempfile.TemporaryDirectory(prefix="ekd_lite-") as folder:
            float32 = Path(folder) / "float32.onnx"
            export_onnx(backbone, float32, info=info)
            if to == "int8-static":
                train = load_splits(self.faces, image_size=info["image_size"]).train
                cosine = quantize_int8(
                    float32,
                    out,
                    method="static",
                    calibration=calibration_images(train, count=self.calibration),
                    reduce_range=self.reduce_range or None,
                )
            else:
                cosine = quantize_int8(
                    float32, out, method="dynamic", reduce_range=self.reduce_range or None
                )
        return f"{out.stat().st_size:,} bytes, mean cosine with the float32 net {cosine:.4f}"

    def _measure(self, path: Path) -> None:
        """Make every format in a temporary folder, measure them and write the table."""
        _, info = self._load(self.model)
        test = load_splits(self.faces, image_size=info["image_size"]).test
        levels = measurable(FPRS, test.labels)
        if not levels:
            raise ValueError(
                f"the {len(test.labels)} test images have too few pairs of two people for a report "
                f"at FPR {max(FPRS):g}"
            )
        sizes: dict[str, int] = {}
        nets: dict[str, nn.Module] = {}
        with tempfile.TemporaryDirectory(prefix="ekd_lite-") as folder:
            for to in get_args(Format):
                file = Path(folder) / to
                self._write(to, file)
                sizes[to] = file.stat().st_size
                torch_net = to == "safetensors"
                nets[to] = self._load(file)[0] if torch_net else OnnxModel(file, threads=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # the table says it
            costs = compare_formats(nets, test, levels, num_resamples=self.resamples)
        rows = [
            {"model": str(self.model), "format": name, "bytes": sizes[name], **_columns(cost)}
            for name, cost in costs.items()
        ]
        write_table(path, rows)
        _show(costs, sizes)
        print(f"wrote {path}")


def _columns(cost: FormatCost) -> dict[str, float]:
    """The numbers of a row of the CSV; TPR and its difference in percent, with intervals."""
    tpr, fprs = cost.result, cost.result.fprs
    return {
        "latency_ms": round(cost.latency_ms, 4),
        **percents("tpr", fprs, (tpr.estimate, tpr.low, tpr.high)),
        **percents("difference", fprs, (cost.difference, cost.low, cost.high)),
    }


def _show(costs: dict[str, FormatCost], sizes: dict[str, int]) -> None:
    """Print the table; its first row is torch itself, running what the safetensors file holds."""
    fprs = next(iter(costs.values())).result.fprs
    print("TPR in percent on unseen people; its difference from torch with the 95 % interval")
    print(f"{'format':13}{'bytes':>12}{'ms':>9}" + "".join(f"   at {level(f):27}" for f in fprs))
    for name, cost in costs.items():
        line = f"{name:13}{sizes[name]:12,}{cost.latency_ms:9.3f}"
        for m in range(len(fprs)):
            tpr, *triple = (
                100 * float(values[m])
                for values in (cost.result.estimate, cost.difference, cost.low, cost.high)
            )
            line += f"   {tpr:6.2f} {_difference(*triple):23}"
        print(line.rstrip())


def _difference(difference: float, low: float, high: float) -> str:
    if math.isnan(low):
        return f"{difference:+.2f} (no interval)"
    return f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"
