"""Every metric takes tensors, numpy arrays and lists, and names in one line what it refuses."""

import inspect
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from ekd_lite import evaluate
from ekd_lite.evaluate.ijb_files import TemplateMedia, TemplatePairs

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(12).repeat_interleave(4)
ROWS = torch.randn(12, 8, generator=GENERATOR).repeat_interleave(4, 0)
ROWS = ROWS + torch.randn(48, 8, generator=GENERATOR)
SAME = torch.arange(48) % 2 == 0
FOLDS = torch.arange(48) // 24
TEMPLATES, MEDIA = torch.arange(48) // 2, torch.arange(48) % 3
FIRST, SECOND = torch.triu_indices(24, 24, 1)
SCORES = torch.rand(48, generator=GENERATOR)

# name -> (function, its arrays by name); "groups" is names, and may be a list of strings.
CALLS = {
    "tpr_at_fpr": (
        lambda a: evaluate.tpr_at_fpr(a["scores"], a["flags"], a["fprs"]),
        {"scores": SCORES, "flags": SAME, "fprs": torch.tensor([0.1, 0.5])},
    ),
    "tpr_at_fpr nearest": (
        lambda a: evaluate.tpr_at_fpr(a["scores"], a["flags"], [0.1], convention="nearest"),
        {"scores": SCORES, "flags": SAME},
    ),
    "roc": (lambda a: evaluate.roc(a["scores"], a["flags"]), {"scores": SCORES, "flags": SAME}),
    "count_pairs": (lambda a: evaluate.count_pairs(a["labels"]), {"labels": LABELS}),
    "all_pairs_tpr_at_fpr": (
        lambda a: evaluate.all_pairs_tpr_at_fpr(a["rows"], a["labels"], a["fprs"]),
        {"rows": ROWS, "labels": LABELS, "fprs": torch.tensor([0.1, 0.5])},
    ),
    "bootstrap_tpr_at_fpr": (
        lambda a: evaluate.bootstrap_tpr_at_fpr(a["rows"], a["labels"], [0.1], num_resamples=5),
        {"rows": ROWS, "labels": LABELS},
    ),
    "all_pairs_tpr_at_fpr by person": (
        lambda a: evaluate.all_pairs_tpr_at_fpr(a["rows"], a["labels"], a["fprs"], by="person"),
        {"rows": ROWS, "labels": LABELS, "fprs": torch.tensor([0.1, 0.5])},
    ),
    "bootstrap_tpr_at_fpr by person": (
        lambda a: evaluate.bootstrap_tpr_at_fpr(
            a["rows"], a["labels"], [0.1], num_resamples=5, by="person"
        ),
        {"rows": ROWS, "labels": LABELS},
    ),
    "holm": (lambda a: evaluate.holm(a["p"]), {"p": SCORES / 2}),
    "bootstrap_pair_list": (
        lambda a: evaluate.bootstrap_pair_list(
            a["scores"], a["flags"], [0.2], people=(a["left"], a["right"]), num_resamples=20
        ),
        {
            "scores": SCORES, "flags": SAME, "left": LABELS,
            "right": torch.where(SAME, LABELS, LABELS + 100),
        },
    ),
    "group_rates": (
        lambda a: evaluate.group_rates(a["rows"], a["labels"], a["groups"], [0.1]),
        {"rows": ROWS, "labels": LABELS, "groups": LABELS % 2},
    ),
    "identification_rate": (
        lambda a: evaluate.identification_rate(
            a["rows"], a["labels"], a["gallery"], a["enrolled"], ranks=a["ranks"], fpirs=[0.1]
        ),
        {
            "rows": ROWS, "labels": LABELS, "gallery": ROWS[:40:4], "enrolled": LABELS[:40:4],
            "ranks": torch.tensor([1, 3]),
        },
    ),
    "megaface_rates": (
        lambda a: evaluate.megaface_rates(a["rows"], a["labels"], a["distractors"], fpr=0.1),
        {"rows": ROWS, "labels": LABELS, "distractors": ROWS.flip(1)},
    ),
    "refine": (
        lambda a: evaluate.refine(
            a["rows"], a["labels"], a["noisy"], a["distractors"], a["noisy too"]
        ),
        {
            "rows": ROWS, "labels": LABELS, "noisy": torch.arange(48) % 4 == 0,
            "distractors": ROWS.flip(1), "noisy too": SAME,
        },
    ),
    "verification_accuracy": (
        lambda a: evaluate.verification_accuracy(
            a["rows"], a["right"], a["flags"], folds=a["folds"],
            mirrored=(a["mirrored"], a["right"]), fprs=[0.1],
        ),
        {
            "rows": ROWS, "right": ROWS.roll(1, 0), "flags": SAME, "folds": FOLDS,
            "mirrored": ROWS.flip(1),
        },
    ),
    "ijb_tpr_at_fpr": (
        lambda a: evaluate.ijb_tpr_at_fpr(
            a["rows"],
            TemplateMedia([], a["templates"], a["media"]),
            TemplatePairs(a["first"], a["second"], a["flags"]),
            [0.1],
            mirrored=a["mirrored"],
            detector_scores=a["scores"],
        ),
        {
            "rows": ROWS, "templates": TEMPLATES, "media": MEDIA, "first": FIRST,
            "second": SECOND, "flags": FIRST // 2 == SECOND // 2, "mirrored": ROWS.flip(1),
            "scores": SCORES,
        },
    ),
    "intrinsic_dimension": (
        lambda a: evaluate.intrinsic_dimension(a["rows"], method="line", discard=0.1),
        {"rows": ROWS},
    ),
    "relation_agreement": (
        lambda a: evaluate.relation_agreement(a["rows"], a["other"], a["labels"], num_resamples=5),
        {"rows": ROWS, "other": ROWS.flip(1), "labels": LABELS},
    ),
}  # fmt: skip
# Those that take no arrays: they read files, hold results, or run a net over a set of faces.
OTHERS = {
    *("VERIFICATION_SETS", "UndefinedMetricWarning", "BootstrapResult", "GroupRates"),
    *("IdentificationResult", "MegaFaceResult", "VerificationResult", "paired_difference"),
    *("best_of", "difference_p_value", "over_runs"),
    *("read_attributes", "read_face_landmarks", "read_template_media", "read_template_pairs"),
    *("read_template_subjects", "embed"),
}
KINDS = {
    "numpy": lambda x: x.numpy().copy(),
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(x.tolist()),
    "list of arrays": lambda x: list(x.numpy()),
    "list of tensors": list,
    "read-only": lambda x: np.frombuffer(x.numpy().tobytes(), x.numpy().dtype).reshape(x.shape),
    "reversed": lambda x: x.numpy()[::-1].copy()[::-1],
    "in columns": lambda x: np.asfortranarray(x.numpy()),
    "big-endian": lambda x: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
    "gradient": lambda x: x.clone().requires_grad_() if x.is_floating_point() else x,
}


def numbers(result):
    """All numbers of a result, as one list."""
    if isinstance(result, torch.Tensor):
        return result.double().nan_to_num(-9).flatten().tolist()
    if isinstance(result, (tuple, list)):
        return [x for part in result for x in numbers(part)]
    if isinstance(result, (int, float)):
        return [float(result)]
    if isinstance(result, dict):
        return [x for part in result.values() for x in numbers(part)]
    return [x for part in vars(result).values() if not isinstance(part, str) for x in numbers(part)]


def call(name, **changed):
    function, arrays = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", evaluate.UndefinedMetricWarning)
        result = function({**arrays, **changed})
    if name == "group_rates":
        result = [x for key, x in vars(result).items() if key != "groups"]
    return numbers(result)


def test_the_whole_public_surface_is_tried():
    functions = {n for n in evaluate.__all__ if inspect.isfunction(getattr(evaluate, n))}
    assert functions <= {name.split()[0] for name in CALLS} | OTHERS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
def test_tensors_arrays_and_lists_give_the_same_numbers(name, kind):
    _, arrays = CALLS[name]
    assert call(name, **{key: KINDS[kind](x) for key, x in arrays.items()}) == call(name)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.uint64, np.float64, np.float32])
def test_labels_of_any_whole_numbers_give_the_same(name, dtype):
    _, arrays = CALLS[name]
    whole = {k: x for k, x in arrays.items() if x.dtype == torch.int64}
    whole.pop("folds", None)
    changed = {key: x.numpy().astype(dtype) for key, x in whole.items()}
    assert call(name, **changed) == call(name)


ROWS_OF = [(n, key) for n, (_, arrays) in CALLS.items() for key in arrays if arrays[key].ndim == 2]
WHOLE = ("labels", "enrolled", "templates", "media", "first", "second", "ranks")
LABELS_OF = [(n, key) for n, (_, arrays) in CALLS.items() for key in arrays if key in WHOLE]


@pytest.mark.parametrize(("name", "key"), ROWS_OF)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["tensor", "numpy", "list"])
def test_rows_that_are_no_numbers_give_one_error(name, key, bad, kind):
    rows = CALLS[name][1][key].clone()
    rows[5, 2] = bad
    with pytest.raises(ValueError, match=r"NaN|infinit"):
        call(name, **{key: rows if kind == "tensor" else KINDS[kind](rows)})


@pytest.mark.parametrize(("name", "key"), ROWS_OF)
def test_rows_that_are_no_embeddings_give_one_error(name, key):
    rows = CALLS[name][1][key]
    for bad, message in (
        (rows.to(torch.complex64), "real numbers|complex"),
        (rows.numpy().astype(np.complex128), "real numbers|complex"),
        ([[1.0, 2.0], [3.0]], "Tensor"),
        ("embeddings.npy", "Tensor"),
        (None, "Tensor|mirrored"),
        (rows[:, 0], r"\(\w+, D\)|\(\d+, D\)|got \(\d+,\)"),
        (rows[:, :0], "D"),
        ([["a"] * 8] * 48, "Tensor"),
    ):
        if bad is None and key == "mirrored":
            continue  # left out
        with pytest.raises(ValueError, match=message):
            call(name, **{key: bad})


@pytest.mark.parametrize(("name", "key"), LABELS_OF)
def test_labels_that_are_not_whole_are_not_cut(name, key):
    labels = CALLS[name][1][key]
    for bad, message in (
        (labels + 0.5, "whole numbers, got .* at 0"),
        ((labels + 0.5).numpy(), "whole numbers"),
        ((labels + 0.5).tolist(), "whole numbers"),
        (torch.full(labels.shape, torch.nan), "whole numbers, got nan"),
        ([f"person {k}" for k in labels.tolist()], "Tensor"),
        (labels.to(torch.complex64), "real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            call(name, **{key: bad})


@pytest.mark.parametrize("name", [n for n, (_, arrays) in CALLS.items() if "flags" in arrays])
def test_flags_are_true_and_false(name):
    flags = CALLS[name][1]["flags"]
    assert call(name, flags=flags.numpy().astype(np.float32)) == call(name)
    for bad in (flags.long() + 1, flags * 0.5, [None] * len(flags), ["yes"] * len(flags)):
        with pytest.raises(ValueError, match=r"boolean|Tensor"):
            call(name, flags=bad)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_give_one_error(bad):
    for name in ("tpr_at_fpr", "tpr_at_fpr nearest", "roc", "ijb_tpr_at_fpr"):
        scores = SCORES.clone()
        scores[3] = bad
        for kind in ("numpy", "list"):
            with pytest.raises(ValueError, match=r"NaN|infinit"):
                call(name, scores=KINDS[kind](scores))
        with pytest.raises(ValueError, match="real numbers"):
            call(name, scores=SCORES.to(torch.complex64))


def test_levels_of_any_form():
    rows, labels = ROWS, LABELS
    expected = evaluate.all_pairs_tpr_at_fpr(rows, labels, [0.1]).tolist()
    fprs: Any
    bad: Any
    for fprs in (0.1, (0.1,), np.array([0.1]), np.float32(0.1), [np.float32(0.1)], {0.1: "a"},
                 torch.tensor(0.1), iter([0.1]), np.array(0.1)):  # fmt: skip
        assert evaluate.all_pairs_tpr_at_fpr(rows, labels, fprs).tolist() == expected
    for bad in ("0.1", ["0.1"], [np.nan], np.nan, [], 0, 1.5, None, [0.1 + 0j]):
        with pytest.raises(ValueError, match="fprs"):
            evaluate.all_pairs_tpr_at_fpr(rows, labels, bad)


def test_what_else_is_no_table_of_numbers():
    masked = np.ma.masked_array(ROWS.numpy(), ROWS.numpy() > 2)
    for rows in (masked, ROWS.to_sparse(), ROWS.to(torch.float8_e4m3fn)):
        with pytest.raises(ValueError, match=r"masked entries|dense Tensor"):
            call("all_pairs_tpr_at_fpr", rows=rows)
    assert call("all_pairs_tpr_at_fpr", rows=np.ma.masked_array(ROWS.numpy())) == call(
        "all_pairs_tpr_at_fpr"
    )


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([None] * 48, "image 0 has no group"),
        (["a"] * 47 + [None], "image 47 has no group"),
        (np.full(48, np.nan), "image 0 has no group"),
        ([1, "a"] * 24, "all be text or all be numbers"),
        (np.zeros((48, 2)), "all be text or all be numbers"),
        (["a"] * 47, "expected 48 groups, one an image, got 47"),
    ],
)
def test_a_group_that_is_missing_is_no_group(groups, message):
    with pytest.raises(ValueError, match=message):
        call("group_rates", groups=groups)


def test_options_of_other_kinds():
    bad: Any
    for bad in (0, -1, 2.5, "3", None):
        with pytest.raises(ValueError, match="a whole num_resamples >= 1"):
            evaluate.bootstrap_tpr_at_fpr(ROWS, LABELS, 0.1, num_resamples=bad)
        with pytest.raises(ValueError, match="a whole num_resamples >= 1"):
            evaluate.bootstrap_pair_list(SCORES, SAME, 0.1, num_resamples=bad)
    for bad in (None, "3", 0, [1, 1.5]):
        with pytest.raises(ValueError, match="ranks"):
            evaluate.identification_rate(ROWS, LABELS, ROWS[::4], LABELS[::4], ranks=bad)
    for bad in (ROWS, (ROWS,), (ROWS, ROWS, ROWS)):
        with pytest.raises(ValueError, match="mirrored must be two tables"):
            evaluate.verification_accuracy(ROWS, ROWS, SAME, folds=2, mirrored=bad)


@pytest.mark.filterwarnings("ignore::ekd_lite.evaluate.UndefinedMetricWarning")
def test_results_of_other_draws_are_no_pair():
    def made(labels=LABELS, **options):
        return evaluate.bootstrap_tpr_at_fpr(ROWS, labels, 0.1, num_resamples=3, **options)

    assert evaluate.paired_difference(made(), made())[0].tolist() == [0]
    for other in (made(seed=1), made(labels=LABELS.clamp(max=9))):
        with pytest.raises(ValueError, match="other labels or another seed"):
            evaluate.paired_difference(made(), other)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_tensors_count_as_any_whole_numbers(name, dtype):
    """Torch neither compares nor sorts them."""
    whole = {k: x for k, x in CALLS[name][1].items() if x.dtype == torch.int64}
    assert call(name, **{key: x.to(dtype) for key, x in whole.items()}) == call(name)


@pytest.mark.parametrize("name", [name for name in CALLS if "scores" in CALLS[name][1]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint16, torch.uint8])
def test_scores_of_every_type_are_compared_as_the_numbers_they_are(name, dtype):
    scores = (250 * SCORES).round()  # all types hold these
    assert call(name, scores=scores.to(dtype)) == call(name, scores=scores)


@pytest.mark.parametrize("name", ROWS_OF)
def test_a_tensor_without_numbers_is_refused(name):
    with pytest.raises(ValueError, match="of ordinary numbers, got meta"):
        call(name[0], **{name[1]: CALLS[name[0]][1][name[1]].to("meta")})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"seed": bad}, "a whole seed >= 0") for bad in (-1, 1.5, "a", None)),
        *(({"confidence": bad}, "0 < confidence < 1") for bad in (0, 1, 95, math.nan, "a", None)),
    ],
)
def test_every_interval_asks_for_its_options(options, message):
    made = evaluate.bootstrap_tpr_at_fpr(ROWS, LABELS, 0.1, num_resamples=3)
    calls = [
        lambda: evaluate.bootstrap_tpr_at_fpr(ROWS, LABELS, 0.1, num_resamples=3, **options),
        lambda: evaluate.bootstrap_pair_list(SCORES, SAME, 0.1, num_resamples=3, **options),
        lambda: evaluate.relation_agreement(ROWS, ROWS, LABELS, num_resamples=3, **options),
        lambda: evaluate.over_runs([made, made], **options),
    ]
    if "confidence" in options:
        calls.append(lambda: evaluate.paired_difference(made, made, **options))
        calls.append(lambda: evaluate.best_of([made], **options))
    for ask in calls:
        with pytest.raises(ValueError, match=message):
            ask()


@pytest.mark.parametrize("bad", [-1, math.nan, "10", None])
def test_a_number_of_false_accepts_is_a_number(bad):
    with pytest.raises(ValueError, match="min_false_accepts >= 0"):
        evaluate.bootstrap_tpr_at_fpr(ROWS, LABELS, 0.1, min_false_accepts=bad)
    with pytest.raises(ValueError, match="min_false_accepts >= 0"):
        evaluate.group_rates(ROWS, LABELS, [0] * 48, 0.1, min_false_accepts=bad)


def test_one_level_is_one_level():
    two: Any = [0.1, 0.2]
    number: Any = 3
    with pytest.raises(ValueError, match=r"far_target must be one rate in \(0, 1\]"):
        evaluate.verification_accuracy(ROWS, ROWS, SAME, folds=2, far_target=two)
    with pytest.raises(ValueError, match=r"fpr must be one rate in \(0, 1\]"):
        evaluate.megaface_rates(ROWS, LABELS, ROWS, fpr=two)
    with pytest.raises(ValueError, match="unknown set 3; known: lfw"):
        evaluate.verification_accuracy(ROWS, ROWS, SAME, folds=2, name=number)


@pytest.mark.parametrize("bad", [None, "a", 1, [1], [ROWS]])
def test_differences_are_of_results(bad):
    made = evaluate.bootstrap_tpr_at_fpr(ROWS, LABELS, 0.1, num_resamples=3)
    single: Any = made
    for ask in (
        lambda: evaluate.over_runs(bad),
        lambda: evaluate.best_of(bad),
        lambda: evaluate.difference_p_value(made, bad),
        lambda: evaluate.best_of(single),
    ):
        with pytest.raises(ValueError, match="expected results of bootstrap_tpr_at_fpr"):
            ask()


def test_lists_of_pairs_and_groups_of_other_shapes():
    labels: Any = LABELS
    text: Any = "a"
    with pytest.raises(ValueError, match="of one pair or more"):
        evaluate.bootstrap_pair_list([], [], 0.1)
    with pytest.raises(ValueError, match="people must be two lists"):
        evaluate.bootstrap_pair_list(SCORES, SAME, 0.1, people=labels)
    for bad in (None, 3, "a" * 48, dict.fromkeys(range(48), 1)):
        with pytest.raises(ValueError, match="groups must be a list of names or numbers"):
            call("group_rates", groups=bad)
    with pytest.raises(ValueError, match=r"discard must lie in \[0, 1\), got 'a'"):
        evaluate.intrinsic_dimension(ROWS, discard=text)
    with pytest.raises(ValueError, match="a whole seed >= 0"):
        evaluate.refine(ROWS, LABELS, SAME, ROWS, SAME, seed=text)
