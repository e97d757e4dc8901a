"""Check of chapter 5: what a convolution costs."""

from __future__ import annotations

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import instead, times


def _conv_macs(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    rows, columns = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
    return rows * columns * out_channels * (in_channels // groups) * kernel**2


def _weights(in_channels: int, out_channels: int, kernel: int, *others: int) -> int:
    """What one place of the output costs."""
    return out_channels * (in_channels // others[2]) * kernel**2


MISTAKES = {
    "groups left out": Mistake(
        "The groups were left out. With g groups each output channel sees only in_channels / g "
        "inputs; for a depthwise convolution that is one, which is why it is cheap.",
        instead(_conv_macs, groups=lambda a: 1),
    ),
    "places of the input": Mistake(
        "The places of the input were counted instead of those of the output. The kernel is "
        "applied once for each output pixel; stride and padding decide how many there are: "
        "floor((H + 2 padding - kernel) / stride) + 1 a side.",
        lambda *given: given[6] * given[7] * _weights(*given),
    ),
    "operations for macs": Mistake(
        "This is the number of floating-point operations, twice as many. One multiply-add is one "
        "MAC and two FLOP.",
        times(_conv_macs, lambda a: 2),
    ),
    "parameters for macs": Mistake(
        "This is the number of weights. Each weight is used once for every output pixel: multiply "
        "by the output's height and width.",
        _weights,
    ),
    "padding left out": Mistake(
        "The padding was left out. It is added on both sides before the kernel moves: "
        "H + 2 padding.",
        instead(_conv_macs, padding=lambda a: 0),
    ),
    "padding on one side": Mistake(
        "The padding was added on one side only. It goes on both: H + 2 padding.",
        instead(
            _conv_macs,
            padding=lambda a: 0,
            height=lambda a: a.height + a.padding,
            width=lambda a: a.width + a.padding,
        ),
    ),
    "kernel not squared": Mistake(
        "The kernel counts once. A kernel of side k covers k times k pixels.",
        times(_conv_macs, lambda a: 1 / a.kernel),
    ),
    "last place forgotten": Mistake(
        "The output is one row and one column too small. A kernel can stand at the first place and "
        "at floor((H + 2 padding - kernel) / stride) further ones: add 1.",
        instead(
            _conv_macs,
            height=lambda a: a.height - a.stride,
            width=lambda a: a.width - a.stride,
        ),
    ),
    "divided by groups twice": Mistake(
        "Both channel counts were divided by the groups. That is one group's work, and there are g "
        "groups: divide once.",
        times(_conv_macs, lambda a: 1 / a.groups),
    ),
}


def _cases() -> list[Case]:
    return [
        Case("a dense 3x3", (2, 4, 3, 1, 1, 1, 5, 5)),
        Case("no padding", (3, 8, 3, 1, 0, 1, 9, 7)),
        Case("stride 2", (16, 32, 3, 2, 1, 1, 112, 96)),
        Case("depthwise", (64, 64, 3, 1, 1, 64, 28, 28)),
        Case("groups of 4, 5x5", (16, 24, 5, 2, 2, 4, 15, 20)),
        Case("pointwise", (64, 128, 1, 1, 0, 1, 14, 14)),
    ]


CONV_MACS = Exercise("conv_macs", _conv_macs, _cases, MISTAKES)


def check_conv_macs(f: Function) -> Feedback:
    """Check a function for the multiply-adds of a convolution.

    Args:
        f: f(in_channels, out_channels, kernel, stride, padding, groups, height, width) -> int, for
            a square kernel without bias and one image of height x width.
    """
    return judge(CONV_MACS, f)
