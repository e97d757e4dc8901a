"""What students hand in for measuring and models: loops, numpy, plain Python.

Written from the definitions alone, so that the checks are held against something of another make.
"""

import math

import numpy as np


def tpr_at_fpr(scores, is_genuine, fpr, bug=""):
    genuine = [float(s) for s, g in zip(scores, is_genuine, strict=True) if g]
    impostor = [float(s) for s, g in zip(scores, is_genuine, strict=True) if not g]
    if bug == "threshold from genuine scores":
        pile = genuine
    elif bug == "threshold from all scores":
        pile = genuine + impostor
    else:
        pile = impostor
    if bug == "scores read as distances":
        candidates = [t for t in pile if sum(s <= t for s in pile) <= fpr * len(pile)]
        top = max(candidates, default=-math.inf)
        # Everything below the first impostor that must not pass.
        above = min((s for s in pile if s > top), default=math.inf)
        return sum(g < above for g in genuine) / len(genuine)
    pile = sorted(pile, reverse=True)
    k = int(fpr * len(pile))
    if bug == "number of false accepts rounded":
        k = int(fpr * len(pile) + 0.5)
    if bug == "threshold above the kth impostor":
        k -= 1
    if k == len(pile):
        return 1.0
    cut = pile[k]
    if bug == "threshold instead of rate":
        return cut
    if bug == "interpolated threshold":
        cut = np.quantile(np.array(impostor), 1 - fpr)
        return np.mean(np.array(genuine) >= cut)
    hits = 0
    for g in genuine:
        if g > cut or (bug == "threshold accepts one impostor more" and g == cut):
            hits += 1
    # An impostor's score as threshold lets it through; the bug shows where no genuine score ties.
    if bug == "threshold accepts one impostor more":
        return hits / len(genuine)
    rate = hits / len(genuine)
    if bug == "precision for recall":
        return hits / (hits + sum(s > cut for s in impostor))
    return {"miss rate": 1 - rate, "percent for a share": 100 * rate}.get(bug, rate)


def best_accuracy(scores, is_genuine, bug=""):
    scores, flags = np.asarray(scores), np.asarray(is_genuine)
    tries = [*scores.tolist(), math.inf]
    if bug in ("refusing every pair left out", "score equal to the threshold refused"):
        tries.pop()
    if bug.startswith("threshold fixed"):
        tries = [0.5 if bug.endswith("half") else 0.0]
    best, where = -1.0, None
    for t in tries:
        accepted = scores > t if bug == "score equal to the threshold refused" else scores >= t
        right = np.mean(accepted == flags)
        if bug == "equal weight for both kinds":
            right = (accepted[flags].mean() + (~accepted[~flags]).mean()) / 2
        if right > best:
            best, where = right, t
    return where if bug == "best threshold for accuracy" else best


def equal_error_rate(scores, is_genuine, bug=""):
    flags = [bool(flag) for flag in is_genuine]
    order = sorted(zip(map(float, scores), flags, strict=True), key=lambda pair: -pair[0])
    genuine, impostor = sum(flags), len(flags) - sum(flags)
    points = [(0.0, 1.0, math.inf)]
    for n, (score, _) in enumerate(order, 1):
        if bug == "equal scores one by one" or n == len(order) or order[n][0] != score:
            hits = sum(flag for _, flag in order[:n])
            points.append(((n - hits) / impostor, 1 - hits / genuine, score))
    fpr, fnr, score = min(points, key=lambda point: abs(point[0] - point[1]))
    if bug == "smallest mean of the two":
        fpr, fnr, _ = min(points, key=lambda point: point[0] + point[1])
    if bug == "smallest share of wrong decisions":
        return min(a * impostor + b * genuine for a, b, _ in points) / len(flags)
    rate = (fpr + fnr) / 2
    return {
        "threshold for rate": score,
        "right decisions for wrong ones": 1 - rate,
        "percent for a share": 100 * rate,
        "FPR alone": fpr,
        "miss rate alone": fnr,
        "sum for mean": 2 * rate,
    }.get(bug, rate)


def bootstrap(embeddings, labels, drawn, fpr, bug=""):
    x = np.asarray(embeddings)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    labels, drawn = np.asarray(labels), np.asarray(drawn).tolist()
    if bug == "identities drawn twice count once":
        drawn = sorted(set(drawn))
    if bug == "images drawn instead of identities":
        copies = [(0, row) for row in drawn]
    else:
        copies = [(n, row) for n, who in enumerate(drawn) for row in np.flatnonzero(labels == who)]
    genuine, impostor = [], []
    for a, (one, i) in enumerate(copies):
        for other, j in copies[a + 1 :]:
            score = float(x[i] @ x[j])
            if bug == "copies compared as impostors":
                (genuine if one == other else impostor).append(score)
            elif bug in ("copies compared as genuine", "images drawn instead of identities"):
                (genuine if labels[i] == labels[j] else impostor).append(score)
            elif one == other:
                genuine.append(score)
            elif labels[i] != labels[j]:
                impostor.append(score)
    if not genuine or not impostor:
        return math.nan
    cut = sorted(impostor, reverse=True)[int(fpr * len(impostor) + 1e-9)]
    return sum(g > cut for g in genuine) / len(genuine)


def paired_interval(first, second, confidence, bug=""):
    a, b = np.asarray(first), np.asarray(second)
    if bug == "order reversed":
        a, b = b, a
    if bug == "resamples sorted first":
        a, b = np.sort(a), np.sort(b)
    low, high = 50 * (1 - confidence), 50 * (1 + confidence)
    if bug == "whole tail on both sides":
        low, high = 100 * (1 - confidence), 100 * confidence
    if bug == "two intervals subtracted":
        return (
            np.percentile(a, low) - np.percentile(b, high),
            np.percentile(a, high) - np.percentile(b, low),
        )
    d = a - b
    if bug in ("standard error of the mean", "two standard deviations"):
        spread = np.std(d, ddof=1) / (np.sqrt(len(d)) if bug.startswith("standard") else 1)
        return [np.mean(d) - 1.96 * spread, np.mean(d) + 1.96 * spread]
    return np.percentile(d, [low, high])


def similarity_transform(source, target, bug=""):
    p, q = np.asarray(source), np.asarray(target)
    if bug == "inverse direction":
        p, q = q, p
    if bug == "only the first two points":
        p, q = p[:2], q[:2]
    # x' = a x - b y + c, y' = b x + a y + d as one linear least-squares problem.
    rows, right = [], []
    for (x, y), (u, v) in zip(p, q, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        right += [u, v]
    if bug == "points not centred":
        linear_only = [row[:2] for row in rows]
        a, b = np.linalg.lstsq(np.array(linear_only), np.array(right), rcond=None)[0]
    else:
        a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    if bug == "scale left out":
        a, b = a / math.hypot(a, b), b / math.hypot(a, b)
    if bug == "rotation the wrong way":
        b = -b
    (mx, my), (ux, uy) = p.mean(0), q.mean(0)
    c, d = ux - (a * mx - b * my), uy - (b * mx + a * my)
    if bug == "shift without the rotation":
        c, d = ux - mx, uy - my
    return np.array([[a, -b, c], [b, a, d]])


def pack(label, key, image, bug=""):
    key_bytes = (0 if bug == "key forgotten" else key).to_bytes(8, "little")
    zero = bytes(8)
    if bug == "key and zero exchanged":
        key_bytes, zero = zero, key_bytes
    if bug == "key of four bytes":
        key_bytes, zero = key_bytes[:4], zero[:4]
    if bug == "zero after the key left out":
        zero = b""
    word = np.int32(int(label)) if bug == "label as a whole number" else np.float32(label)
    flag, number = bytes(4), word.tobytes()
    if bug == "flag and label exchanged":
        flag, number = number, flag
    payload = bytearray(flag + number + key_bytes + zero)
    payload += image
    padding = bytes((-len(payload)) % 4)
    length = len(payload) + {
        "length with the padding": len(padding),
        "length of the image": -24,
        "length with magic and itself": 8,
    }.get(bug, 0)
    if bug == "not padded":
        padding = b""
    if bug == "four zeros where none is needed":
        padding = bytes(4 - len(payload) % 4)
    magic = b"" if bug == "magic number left out" else bytes.fromhex("0a23d7ce")
    return magic + length.to_bytes(4, "little") + payload + padding


def conv_macs(cin, cout, k, stride, pad, groups, h, w, bug=""):
    if bug == "padding left out":
        pad = 0
    if bug == "groups left out":
        groups = 1
    total = 0
    for top in range(-pad, h + pad - k + 1, stride):
        for left in range(-pad, w + pad - k + 1, stride):
            assert top >= -pad and left >= -pad
            total += cout * (cin // groups) * k * k
    if bug == "places of the input":
        total = h * w * cout * (cin // groups) * k**2
    if bug == "parameters for macs":
        total = cout * cin // groups * k**2
    return {"operations for macs": 2 * total, "kernel not squared": total // k}.get(bug, total)


def learning_rate(step, steps, warmup_steps, peak, bug=""):
    if warmup_steps and step < warmup_steps and bug != "no warm up":
        return peak * (step if bug == "warm up from zero" else step + 1) / warmup_steps
    p = (step - warmup_steps) / (steps - warmup_steps)
    if bug == "no warm up":
        p = max(p, 0)
    if bug == "cosine over all steps":
        p = step / steps
    if bug == "straight line down":
        return peak - peak * p
    if bug == "quarter of a cosine":
        return peak * np.cos(np.pi * p / 2)
    if bug == "cosine not lifted":
        return peak * np.cos(np.pi * p)
    if bug == "degrees in the cosine":
        return peak * (1 + np.cos(180 * p)) / 2
    return peak * (1 + np.cos(np.pi * p)) / 2


WRONG = {
    tpr_at_fpr: [
        "threshold from genuine scores",
        "threshold from all scores",
        "threshold accepts one impostor more",
        "threshold above the kth impostor",
        "scores read as distances",
        "miss rate",
        "percent for a share",
        "threshold instead of rate",
        "interpolated threshold",
        "number of false accepts rounded",
        "precision for recall",
    ],
    best_accuracy: [
        "threshold fixed at one half",
        "threshold fixed at zero",
        "best threshold for accuracy",
        "equal weight for both kinds",
        "refusing every pair left out",
        "score equal to the threshold refused",
    ],
    equal_error_rate: [
        "threshold for rate",
        "right decisions for wrong ones",
        "percent for a share",
        "FPR alone",
        "miss rate alone",
        "sum for mean",
        "smallest mean of the two",
        "smallest share of wrong decisions",
        "equal scores one by one",
    ],
    bootstrap: [
        "images drawn instead of identities",
        "identities drawn twice count once",
        "copies compared as impostors",
        "copies compared as genuine",
    ],
    paired_interval: [
        "order reversed",
        "resamples sorted first",
        "whole tail on both sides",
        "two intervals subtracted",
        "standard error of the mean",
        "two standard deviations",
    ],
    similarity_transform: [
        "inverse direction",
        "only the first two points",
        "points not centred",
        "scale left out",
        "rotation the wrong way",
        "shift without the rotation",
    ],
    pack: [
        "key forgotten",
        "key and zero exchanged",
        "flag and label exchanged",
        "label as a whole number",
        "key of four bytes",
        "zero after the key left out",
        "not padded",
        "four zeros where none is needed",
        "length with the padding",
        "length of the image",
        "length with magic and itself",
        "magic number left out",
    ],
    conv_macs: [
        "padding left out",
        "groups left out",
        "places of the input",
        "parameters for macs",
        "operations for macs",
        "kernel not squared",
    ],
    learning_rate: [
        "warm up from zero",
        "no warm up",
        "cosine over all steps",
        "straight line down",
        "quarter of a cosine",
        "cosine not lifted",
        "degrees in the cosine",
    ],
}
