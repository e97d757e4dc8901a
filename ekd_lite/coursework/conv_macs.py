"""Check of chapter 5: what a convolution costs."""

from __future__ import annotations

from ekd_lite.coursework.exercise import Case, Exercise, Function
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict


def _side(size: int, kernel: int, stride: int, padding: int) -> int:
    """Side of the output of a convolution."""
    return (size + 2 * padding - kernel) // stride + 1


def _conv_macs(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    places = _side(height, kernel, stride, padding) * _side(width, kernel, stride, padding)
    return places * out_channels * (in_channels // groups) * kernel * kernel


def _groups_left_out(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    """The groups were left out.

    With g groups each output channel sees only in_channels / g inputs; for a depthwise convolution
    that is one, which is why it is cheap.
    """
    return _conv_macs(in_channels, out_channels, kernel, stride, padding, 1, height, width)


def _places_of_the_input(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    """The places of the input were counted instead of those of the output.

    The kernel is applied once for each output pixel; stride and padding decide how many there are:
    floor((H + 2 padding - kernel) / stride) + 1 a side.
    """
    return height * width * out_channels * (in_channels // groups) * kernel * kernel


def _operations_for_macs(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    """This is the number of floating-point operations, twice as many.

    One multiply-add is one MAC and two FLOP.
    """
    arguments = in_channels, out_channels, kernel, stride, padding, groups, height, width
    return 2 * _conv_macs(*arguments)


def _parameters_for_macs(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    """This is the number of weights.

    Each weight is used once for every output pixel: multiply by the output's height and width.
    """
    return out_channels * (in_channels // groups) * kernel * kernel


def _padding_left_out(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    """The padding was left out.

    It is added on both sides before the kernel moves: H + 2 padding.
    """
    return _conv_macs(in_channels, out_channels, kernel, stride, 0, groups, height, width)


def _padding_on_one_side(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    """The padding was added on one side only.

    It goes on both: H + 2 padding.
    """
    return _conv_macs(
        in_channels, out_channels, kernel, stride, 0, groups, height + padding, width + padding
    )


def _kernel_not_squared(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    """The kernel counts once.

    A kernel of side k covers k times k pixels.
    """
    arguments = in_channels, out_channels, kernel, stride, padding, groups, height, width
    return _conv_macs(*arguments) // kernel


def _last_place_forgotten(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    """The output is one row and one column too small.

    A kernel can stand at the first place and at floor((H + 2 padding - kernel) / stride) further
    ones: add 1.
    """
    arguments = in_channels, out_channels, kernel, stride, padding, groups, height, width
    sides = [_side(size, kernel, stride, padding) for size in (height, width)]
    return _conv_macs(*arguments) // (sides[0] * sides[1]) * (sides[0] - 1) * (sides[1] - 1)


def _divided_by_groups_twice(
    in_channels: int, out_channels: int, kernel: int, stride: int,
    padding: int, groups: int, height: int, width: int,
) -> int:  # fmt: skip
    """Both channel counts were divided by the groups.

    That is one group's work, and there are g groups: divide once.
    """
    arguments = in_channels, out_channels, kernel, stride, padding, groups, height, width
    return _conv_macs(*arguments) // groups


def _conv_cases() -> list[Case]:
    return [
        Case("a dense 3x3", (2, 4, 3, 1, 1, 1, 5, 5)),
        Case("no padding", (3, 8, 3, 1, 0, 1, 9, 7)),
        Case("stride 2", (16, 32, 3, 2, 1, 1, 112, 96)),
        Case("depthwise", (64, 64, 3, 1, 1, 64, 28, 28)),
        Case("groups of 4, 5x5", (16, 24, 5, 2, 2, 4, 15, 20)),
        Case("pointwise", (64, 128, 1, 1, 0, 1, 14, 14)),
    ]


CONV_MACS = Exercise(
    "conv_macs",
    _conv_macs,
    _conv_cases,
    (
        _groups_left_out,
        _places_of_the_input,
        _operations_for_macs,
        _parameters_for_macs,
        _padding_left_out,
        _padding_on_one_side,
        _kernel_not_squared,
        _last_place_forgotten,
        _divided_by_groups_twice,
    ),
)


def check_conv_macs(f: Function) -> Verdict:
    """Check a function for the multiply-adds of a convolution.

    Args:
        f: f(in_channels, out_channels, kernel, stride, padding, groups, height, width) -> int, for
            a square kernel without bias and one image of height x width.
    """
    return judge(CONV_MACS, f)
