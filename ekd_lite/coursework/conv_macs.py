"""Check of chapter 5: what a convolution costs."""

from __future__ import annotations

from ekd_lite.coursework.exercise import Case, Exercise, Function, replaced
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


def _groups_left_out(*given: int) -> int:
    """The groups were left out.

    With g groups each output channel sees only in_channels / g inputs; for a depthwise convolution
    that is one, which is why it is cheap.
    """
    return _conv_macs(*replaced(given, {5: 1}))


def _places_of_the_input(*given: int) -> int:
    """The places of the input were counted instead of those of the output.

    The kernel is applied once for each output pixel; stride and padding decide how many there are:
    floor((H + 2 padding - kernel) / stride) + 1 a side.
    """
    in_channels, out_channels, kernel, _, _, groups, height, width = given
    return height * width * out_channels * (in_channels // groups) * kernel * kernel


def _operations_for_macs(*given: int) -> int:
    """This is the number of floating-point operations, twice as many.

    One multiply-add is one MAC and two FLOP.
    """
    return 2 * _conv_macs(*given)


def _parameters_for_macs(*given: int) -> int:
    """This is the number of weights.

    Each weight is used once for every output pixel: multiply by the output's height and width.
    """
    in_channels, out_channels, kernel, _, _, groups, _, _ = given
    return out_channels * (in_channels // groups) * kernel * kernel


def _padding_left_out(*given: int) -> int:
    """The padding was left out.

    It is added on both sides before the kernel moves: H + 2 padding.
    """
    return _conv_macs(*replaced(given, {4: 0}))


def _padding_on_one_side(*given: int) -> int:
    """The padding was added on one side only.

    It goes on both: H + 2 padding.
    """
    padding, height, width = given[4], given[6], given[7]
    return _conv_macs(*replaced(given, {4: 0, 6: height + padding, 7: width + padding}))


def _kernel_not_squared(*given: int) -> int:
    """The kernel counts once.

    A kernel of side k covers k times k pixels.
    """
    return _conv_macs(*given) // given[2]


def _last_place_forgotten(*given: int) -> int:
    """The output is one row and one column too small.

    A kernel can stand at the first place and at floor((H + 2 padding - kernel) / stride) further
    ones: add 1.
    """
    _, _, kernel, stride, padding, _, height, width = given
    sides = [_side(size, kernel, stride, padding) for size in (height, width)]
    return _conv_macs(*given) // (sides[0] * sides[1]) * (sides[0] - 1) * (sides[1] - 1)


def _divided_by_groups_twice(*given: int) -> int:
    """Both channel counts were divided by the groups.

    That is one group's work, and there are g groups: divide once.
    """
    return _conv_macs(*given) // given[5]


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
