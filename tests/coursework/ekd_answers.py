"""What students hand in for EKD: loops over pairs and thresholds."""

import math
from typing import Any

import torch


def cosine(a, b):
    return (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()


def impostor_thresholds(embeddings, labels, fprs, bug=""):
    n = len(labels)
    pile = []
    for i in range(n):
        for j in range(n if bug == "diagonal counted" else i):
            is_genuine = bool(labels[i] == labels[j])
            wanted = {
                "thresholds from genuine scores": is_genuine,
                "thresholds from all pairs": True,
                "diagonal counted": True,
            }.get(bug, not is_genuine)
            if wanted and bug == "embeddings not normalised":
                pile.append(float((embeddings[i] * embeddings[j]).sum()))
            elif wanted:
                pile.append(float(cosine(embeddings[i], embeddings[j])))
    pile.sort(reverse=bug != "lowest instead of highest")
    shift = 1 if bug == "one place too high" else 0
    return [pile[math.floor(len(pile) * fpr + 1e-9) - shift] for fpr in fprs]


def soft_rank(similarity, thresholds, temperature, bug=""):
    ranks = []
    for a in similarity:
        rank: Any = 0
        for t in thresholds:
            z = (t - a) if bug == "sign of the difference" else (a - t)
            if bug == "temperature multiplied":
                z = z * temperature
            elif bug != "temperature left out":
                z = z / temperature
            if bug == "hard count":
                rank = rank + (1.0 if a > t else 0.0)
            else:
                rank = rank + (z if bug == "no sigmoid" else (1 + torch.tanh(z / 2)) / 2)
        rank = torch.as_tensor(rank)
        ranks.append(rank / len(thresholds) if bug == "mean for sum" else rank)
    return torch.stack(ranks)


def ekd(student, teacher, labels, student_thresholds, teacher_thresholds, tau, topk, bug=""):
    t = teacher if bug == "missing detach" else teacher.detach()
    s_thr, t_thr = student_thresholds, teacher_thresholds
    if bug == "one set of thresholds":
        s_thr = t_thr
    if bug == "thresholds exchanged":
        s_thr, t_thr = t_thr, s_thr
    genuine, impostor = [], []
    n = len(labels)
    for i in range(n):
        for j in range(n):
            if j < i or (j == i and bug != "diagonal pairs counted"):
                continue
            if bug == "embeddings not normalised":
                a, b = student[i] @ student[j], t[i] @ t[j]
            else:
                a, b = cosine(student[i], student[j]), cosine(t[i], t[j])
            if bug == "temperature multiplied":
                ra, rb = torch.sigmoid((a - s_thr) * tau), torch.sigmoid((b - t_thr) * tau)
            else:
                ra, rb = torch.sigmoid((a - s_thr) / tau), torch.sigmoid((b - t_thr) / tau)
            if bug == "sign of the difference":
                rb = torch.sigmoid((t_thr - b) / tau)
            if bug == "hard ranks":
                ra, rb = (a > s_thr).double(), (b > t_thr).double()
            gap = (ra.sum() - rb.sum()) ** 2
            if bug == "every threshold by itself":
                gap = ((ra - rb) ** 2).sum()
            if bug == "ranks averaged over thresholds":
                gap = (ra.mean() - rb.mean()) ** 2
            if bug == "absolute difference":
                gap = (ra.sum() - rb.sum()).abs()
            if bug == "cosines compared instead of ranks":
                gap = (a - b) ** 2
            key = {"hardest by the teacher": float(b), "easiest impostors": -float(a)}.get(
                bug, float(a)
            )
            (genuine if labels[i] == labels[j] else impostor).append((key, gap))
    impostor.sort(key=lambda pair: -pair[0])
    if bug == "every pair twice":
        impostor = [pair for pair in impostor for _ in range(2)]
    if bug != "all impostors":
        impostor = impostor[:topk]
    sides = []
    for side in (genuine, impostor):
        total = sum(gap for _, gap in side)
        sides.append(total if bug == "sums for means" else total / max(1, len(side)))
    if bug == "weights exchanged":
        sides.reverse()
    return 0.02 * sides[0] + 0.01 * sides[1]


def decisions(student, teacher, levels, hard, threshold, temperature, bug=""):
    accepted, rejected = [], []
    for i in range(len(student)):
        for j in range(i if bug == "diagonal pairs counted" else i + 1, len(student)):
            measure = torch.dot if bug == "embeddings not normalised" else cosine
            a, b = measure(student[i], student[j]), float(measure(teacher[i], teacher[j]))
            z = (a - levels) * (temperature if bug == "temperature multiplied" else 1 / temperature)
            rank = ((1 + torch.tanh(z / 2)) / 2).sum()
            is_one = (float(a) if bug == "student decides" else b) >= threshold
            target = len(levels) if is_one else 0
            if bug == "one for all levels":
                target = int(is_one)
            if bug == "teacher's rank for its decision":
                target = len(levels) / (1 + math.exp(-(b - threshold) / temperature))
            gap = rank - target
            cost = gap.abs() if bug == "absolute difference" else gap * gap
            if is_one:
                accepted.append(cost)
            elif bug == "all rejected pairs" or (b if bug == "hard by the teacher" else a) > hard:
                rejected.append(cost)
    sides = [
        sum(side) / (1 if bug == "sums for means" else max(1, len(side)))
        for side in (accepted, rejected)
    ]
    if bug == "weights exchanged":
        sides.reverse()
    return 0.02 * sides[0] + 0.01 * sides[1]


def gallery(student, teacher, labels, rows, row_labels, s_levels, t_levels, tau, bug=""):
    if bug != "missing detach":
        teacher, rows = teacher.detach(), rows.detach()
    if bug == "pairs of the batch":
        rows, row_labels = teacher, labels
    if bug == "one set of levels":
        s_levels = t_levels
    sides: tuple[list[Any], list[Any]] = ([], [])
    for i, mine in enumerate(labels.tolist()):
        for j, theirs in enumerate(row_labels.tolist()):
            measure = torch.dot if bug == "vectors not normalised" else cosine
            a, b = measure(student[i], rows[j]), measure(teacher[i], rows[j])
            ra, rb = torch.sigmoid((a - s_levels) / tau), torch.sigmoid((b - t_levels) / tau)
            gap = (ra.sum() - rb.sum()) ** 2
            if bug == "every level by itself":
                gap = ((ra - rb) ** 2).sum()
            if bug == "absolute difference":
                gap = (ra.sum() - rb.sum()).abs()
            hard = [bool(a > min(s_levels)), bool(b > min(t_levels))]
            takes_part = {
                "hard for the student alone": hard[0],
                "hard for both nets": all(hard),
                "all impostors": True,
            }.get(bug, any(hard))
            if mine == theirs or takes_part:
                sides[int(mine != theirs)].append(gap)
    means = [sum(s) / (1 if bug == "sums for means" else max(1, len(s))) for s in sides]
    if bug == "weights exchanged":
        means.reverse()
    return 0.02 * means[0] + 0.01 * means[1]


WRONG = {
    impostor_thresholds: [
        "thresholds from genuine scores",
        "thresholds from all pairs",
        "diagonal counted",
        "embeddings not normalised",
        "lowest instead of highest",
        "one place too high",
    ],
    soft_rank: [
        "sign of the difference",
        "temperature multiplied",
        "temperature left out",
        "hard count",
        "no sigmoid",
        "mean for sum",
    ],
    ekd: [
        "missing detach",
        "one set of thresholds",
        "thresholds exchanged",
        "diagonal pairs counted",
        "embeddings not normalised",
        "temperature multiplied",
        "sign of the difference",
        "hard ranks",
        "every threshold by itself",
        "ranks averaged over thresholds",
        "absolute difference",
        "cosines compared instead of ranks",
        "hardest by the teacher",
        "easiest impostors",
        "every pair twice",
        "all impostors",
        "sums for means",
        "weights exchanged",
    ],
    decisions: [
        "one for all levels",
        "teacher's rank for its decision",
        "student decides",
        "all rejected pairs",
        "hard by the teacher",
        "weights exchanged",
        "diagonal pairs counted",
        "temperature multiplied",
        "absolute difference",
        "sums for means",
        "embeddings not normalised",
    ],
    gallery: [
        "missing detach",
        "pairs of the batch",
        "one set of levels",
        "hard for the student alone",
        "hard for both nets",
        "all impostors",
        "weights exchanged",
        "every level by itself",
        "absolute difference",
        "sums for means",
        "vectors not normalised",
    ],
}
