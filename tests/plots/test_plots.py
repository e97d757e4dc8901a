"""plots: what is drawn is what was counted, and the slider stands on its own."""

import base64
import re
import struct
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch

mpl.use("Agg")

from matplotlib import pyplot as plt

from ekd_lite import plots
from ekd_lite.plots.style import style_of


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    return generator.normal(0.6, 0.1, 500), generator.normal(0.0, 0.1, 4000)


def test_roc_shows_the_largest_tpr_not_above_the_level():
    fpr = torch.tensor([0.0, 0.01, 0.01, 0.1, 1.0])
    tpr = torch.tensor([0.2, 0.4, 0.5, 0.9, 1.0])
    ax = plots.plot_roc({"a": (fpr, tpr), "b": (fpr, tpr / 2)})
    x, y = ax.lines[0].get_data()
    assert ax.get_xscale() == "log"
    assert y[0] == pytest.approx(0.5)  # at FPR 0.01
    assert y[(x > 0.011) & (x < 0.099)] == pytest.approx(0.5)
    assert y[(x > 0.101) & (x < 0.99)] == pytest.approx(0.9)
    assert y[-1] == 1.0
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_roc_curves_differ_in_colour_and_in_line_style():
    curve = ([0.0, 0.1, 1.0], [0.5, 0.8, 1.0])
    ax = plots.plot_roc({str(k): curve for k in range(5)})
    assert len({line.get_color() for line in ax.lines}) == 5
    lines: list[Any] = [*ax.lines]
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in lines}) == 5


def test_roc_draws_on_the_axes_it_is_given():
    ax = plt.subplots()[1]
    assert plots.plot_roc({"a": ([0.1, 1.0], [0.5, 1.0])}, ax) is ax


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "empty"),
        ({"a": ([0.0, 1.0], [1.0])}, "'a': fpr has shape"),
        ({"a": ([0.0, 0.0], [0.5, 1.0])}, "no FPR above 0"),
    ],
)
def test_roc_names_what_is_wrong(curves, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_roc(curves)


def test_two_figures_with_one_order_show_a_name_alike():
    curve, order = ([0.1, 1.0], [0.5, 1.0]), ["a", "b", "c"]
    roc = plots.plot_roc({"c": curve, "b": curve}, order=order)
    training = plots.plot_training({name: [curve] for name in order}, order=order)
    drawn = [
        {x.get_label(): (x.get_color(), x.get_linestyle()) for x in ax.lines}
        for ax in (roc, training)
    ]
    assert drawn[0] == {name: drawn[1][name] for name in "bc"}


def test_colour_and_line_style_repeat_only_after_49_curves():
    names = [str(k) for k in range(49)]
    styles = [style_of(names, name) for name in names]
    assert len({(s["color"], str(s["linestyle"])) for s in styles}) == 49


def test_training_curves_are_means_over_seeds_with_a_band():
    """The second seed stopped early: from there on the mean is of the first alone."""
    seeds: list[Any] = [([1, 2, 3], [4.0, 2.0, 1.0]), ([1, 2], torch.tensor([6.0, 3.0]))]
    ax = plots.plot_training({"ekd": seeds, "kd": seeds[:1]}, ylabel="identity loss")
    assert ax.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert ax.lines[0].get_ydata().tolist() == [5.0, 2.5, 1.0]
    assert ax.lines[1].get_ydata().tolist() == [4.0, 2.0, 1.0]
    assert len(ax.collections) == 1
    corners = {tuple(v) for v in ax.collections[0].get_paths()[0].vertices.tolist()}
    assert corners >= {(1, 4.0), (1, 6.0), (2, 2.0), (2, 3.0), (3, 1.0)}
    assert ax.get_ylabel() == "identity loss"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ekd", "kd"]


def test_long_training_curves_are_smoothed_and_short_ones_are_not():
    values = np.random.default_rng(0).normal(size=200)
    ax = plots.plot_training({"a": [(range(200), values)], "b": [(range(99), values[:99])]})
    expected = [values[max(0, k - 2) : k + 2].mean() for k in range(200)]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), values[:99])


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "empty"),
        ({"a": []}, "'a': no run"),
        ({"a": [([], [])]}, r"'a': steps have shape \(0,\)"),
        ({"a": [([1, 2], [1.0])]}, r"shape \(2,\) and values \(1,\)"),
    ],
)
def test_training_curves_name_what_is_wrong(curves, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_training(curves)


@pytest.mark.parametrize("log", [True, False])
def test_histograms_are_shares_of_their_own_pairs(scores, log):
    genuine, impostor = scores
    ax = plots.plot_scores(genuine, impostor, {"FPR 1e-2": 0.25}, log=log)
    filled: list[Any] = [patch for patch in ax.patches if patch.get_fill()]
    assert [patch.get_data().values.sum() for patch in filled] == pytest.approx([1, 1])
    assert filled[0].get_hatch() != filled[1].get_hatch()
    assert ax.lines[0].get_xdata()[0] == 0.25
    assert ax.get_yscale() == ("log" if log else "linear")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["genuine pairs", "impostor pairs", "FPR 1e-2"]


def test_one_pair_is_visible_on_the_log_axis(scores):
    genuine, impostor = scores
    ax = plots.plot_scores(genuine, impostor, [0.1, 0.2])
    assert ax.get_ylim()[0] < 1 / len(impostor)
    assert len(ax.lines) == 2


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")]])
def test_histograms_refuse_empty_and_nan(bad):
    with pytest.raises(ValueError, match="impostor scores must be finite"):
        plots.plot_scores([0.5], bad)


def test_methods_show_mean_interval_and_every_seed_from_top_to_bottom():
    rows = {"alone": plots.MethodScores((80.0, 84.0), 81.0, 83.0)}
    more = {
        "kd": plots.MethodScores((90.0,), 88.0, 91.0),
        "sp": plots.MethodScores((70.0, 71.0, 75.0), 69.0, 76.0),
    }
    ax = plots.plot_methods([rows, more], reference="alone", xlabel="TPR")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["alone", "kd", "sp"]
    assert ax.get_ylim() == (2.5, -0.5)
    lines = ax.get_lines()
    for place, scores in enumerate([*rows.values(), *more.values()]):
        interval, seeds, mean = lines[3 * place : 3 * place + 3]
        assert list(interval.get_xdata()) == [scores.low, scores.high]
        assert list(seeds.get_xdata()) == list(scores.seeds)
        assert list(mean.get_xdata()) == [np.mean(scores.seeds)]
        assert {*interval.get_ydata(), *seeds.get_ydata(), *mean.get_ydata()} == {place}
    assert list(lines[9].get_xdata()) == [82.0, 82.0]  # the reference
    assert list(lines[10].get_ydata()) == [0.5, 0.5]  # between the groups


@pytest.mark.parametrize(
    ("groups", "reference", "message"),
    [
        ([], None, "one or more methods"),
        ([{"a": plots.MethodScores((), 0.0, 1.0)}], None, "one or more seeds"),
        ([{"a": plots.MethodScores((1.0,), 0.0, 1.0)}], "b", "none of the methods"),
    ],
)
def test_methods_name_what_is_wrong(groups, reference, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_methods(groups, reference=reference)


def test_slider_counts_every_step(scores):
    genuine, impostor = (torch.from_numpy(side) for side in scores)
    steps = [-2.0, 0.1, 0.3, 2.0]
    slider = plots.threshold_slider(genuine, impostor, steps, start=1)
    for text, threshold in zip(slider.texts, steps, strict=True):
        accepted = [int((side >= threshold).sum()) for side in (genuine, impostor)]
        assert f"accepts {accepted[0]:,} of 500 genuine" in text
        assert f"and {accepted[1]:,} of 4,000 impostor" in text
        assert f"TPR {accepted[0] / 500:.3f}" in text
    assert len(set(slider.pictures)) == 4


def test_slider_html_is_self_contained_and_has_words_for_every_picture(scores):
    slider = plots.threshold_slider(*scores, thresholds=[0.1, 0.2, 0.3])
    page = slider._repr_html_()
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    assert len(images) == page.count("<img") == 3
    assert [alt for _, alt in images] == list(slider.texts)
    assert re.findall(r'data-step="(\d)"( hidden)?', page) == [
        ("0", " hidden"),
        ("1", ""),
        ("2", " hidden"),
    ]
    assert 'type="range" min="0" max="2" value="1"' in page
    assert "http" not in page
    assert "<script" not in page
    assert base64.b64decode(images[1][0]) == slider._repr_png_()


def test_slider_pictures_do_not_change_from_run_to_run_and_stay_small(scores):
    first, second = (
        plots.threshold_slider(*scores, thresholds=[0.1, 0.2]).pictures for _ in range(2)
    )
    assert first == second
    for picture in first:
        assert struct.unpack(">II", picture[16:24]) == (576, 306)
        assert len(picture) < 20_000
    assert len(repr(plots.threshold_slider(*scores, thresholds=[0.1, 0.2]))) < 200


@pytest.mark.parametrize(
    ("steps", "start", "message"),
    [
        ([], None, "one or more"),
        ([0.2, 0.1], None, "rising"),
        ([0.1, 0.2], 2, r"start must be in 0\.\.1"),
    ],
)
def test_slider_names_what_is_wrong(scores, steps, start, message):
    with pytest.raises(ValueError, match=message):
        plots.threshold_slider(*scores, thresholds=steps, start=start)
