"""What students hand in for the losses: loops over pairs, the mean taken at the wrong place."""

import math
from typing import Any

import torch


def off(x, bug):
    """The teacher's side, detached unless that is the bug."""
    return x if bug == "missing detach" else x.detach()


def unit(x):
    return x / torch.sqrt((x**2).sum(dim=1, keepdim=True))


def kd(student_logits, teacher_logits, temperature, bug=""):
    s, t = student_logits, off(teacher_logits, bug)
    if bug == "divergence the other way round":
        s, t = t, s
    if bug == "temperature multiplied":
        temperature = 1 / temperature
    dim = 0 if bug == "softmax over the batch" else 1
    p = torch.exp(t / temperature) / torch.exp(t / temperature).sum(dim, keepdim=True)
    softened = s if bug == "only the teacher softened" else s / temperature
    q = torch.exp(softened) / torch.exp(softened).sum(dim, keepdim=True)
    if bug == "temperature multiplied":
        temperature = 1 / temperature
    terms = -p * q.log() if bug == "cross entropy for divergence" else p * (p / q).log()
    loss = 0
    for row in terms:
        for term in row:
            loss = loss + term
    if bug != "sum over the batch":
        loss = loss / (terms.numel() if bug == "mean over all entries" else len(terms))
    power = {"squared temperature missing": 0, "temperature not squared": 1}.get(bug, 2)
    return loss * temperature**power


def fitnet(student, teacher, bug=""):
    t = off(teacher, bug)
    if bug == "directions only":
        student, t = unit(student), unit(t)
    rows = [(a - b).abs() if bug == "absolute difference" else (a - b) ** 2
            for a, b in zip(student, t, strict=True)]  # fmt: skip
    if bug == "sum over everything":
        return sum(row.sum() for row in rows)
    if bug == "mean over images only":
        return sum(row.sum() for row in rows) / len(rows)
    loss = sum(row.mean() for row in rows) / len(rows)
    return {"root taken": torch.sqrt(loss), "factor one half": loss / 2}.get(bug, loss)


def shrinkteanet(student, teacher, bug=""):
    t = off(teacher, bug)
    if bug != "vectors not normalised":
        student, t = unit(student), unit(t)
    cosines = torch.diag(student @ t.T)
    if bug == "not squared":
        return torch.mean(1 - cosines)
    if bug == "squared chord":
        return ((student - t) ** 2).sum() / len(t)
    if bug == "square of the mean":
        return (1 - cosines.mean()) ** 2
    if bug == "square of the cosine":
        return 1 - (cosines**2).mean()
    total = ((1 - cosines) ** 2).sum()
    return total if bug == "sum over the batch" else total / len(t)


def rkd(student, teacher, bug=""):
    t = off(teacher, bug)
    if bug == "embeddings normalised first":
        student, t = unit(student), unit(t)

    def table(x):
        rows = {}
        for i in range(len(x)):
            for j in range(len(x)):
                if i != j:
                    squared = ((x[i] - x[j]) ** 2).sum()
                    rows[i, j] = squared if bug == "squared distances" else squared.sqrt()
        return rows

    mine, theirs = table(student), table(t)
    n = len(t)
    count = n * n if bug == "mean with the diagonal" else n * n - n
    my_mean, their_mean = sum(mine.values()) / count, sum(theirs.values()) / count
    if bug == "one mean for both":
        my_mean = their_mean
    if bug == "distances not normalised":
        my_mean = their_mean = 1
    if bug == "mean distance without gradient":
        my_mean = my_mean.item()
    total = 0
    for pair in mine:
        gap = mine[pair] / my_mean - theirs[pair] / their_mean
        if bug == "squares instead of huber":
            total = total + gap**2
        elif bug == "absolute difference":
            total = total + gap.abs()
        else:
            total = total + (gap**2 / 2 if gap.abs() < 1 else gap.abs() - 0.5)
    return total / (n * n - n if bug == "mean over different pairs only" else n * n)


def gram(x):
    return torch.stack([torch.stack([(a * b).sum() for b in x]) for a in x])


def sp(student, teacher, bug=""):
    t = off(teacher, bug)
    if bug not in ("embeddings not normalised", "rows of the matrix normalised"):
        student, t = unit(student), unit(t)
    mine, theirs = gram(student), gram(t)
    if bug == "rows of the matrix normalised":
        mine, theirs = unit(mine), unit(theirs)
    total, n = ((mine - theirs) ** 2).sum(), len(t)
    if bug == "root taken":
        return total.sqrt() / n**2
    return total / {
        "sum over all pairs": 1,
        "divided by the batch once": n,
        "diagonal left out": n * n - n,
    }.get(bug, n**2)


def cckd(student, teacher, gamma, order, bug=""):
    t = off(teacher, bug)
    if bug != "embeddings not normalised":
        student, t = unit(student), unit(t)
    if bug == "exact kernel":
        kernels = [torch.exp(-gamma * torch.cdist(x, x) ** 2) for x in (student, t)]
        return ((kernels[0] - kernels[1]) ** 2).mean()
    last = order - 1 if bug == "last power missing" else order
    total: Any = 0
    for p in range(1, last + 1):
        factor = (2 * gamma) ** p / (1 if bug == "factorial missing" else math.factorial(p))
        total = total + factor * (gram(student) ** p - gram(t) ** p)
    if bug != "leading factor missing":
        total = total * math.e ** (-2 * gamma)
    return (total**2).sum() / (1 if bug == "sum over all pairs" else len(t) ** 2)


def darkrank(student, teacher, alpha, beta, length, bug=""):
    guide = student.detach() if bug == "order of the student" else off(teacher, bug)
    guide = unit(guide)
    s = student if bug == "embeddings not normalised" else unit(student)
    loss = 0
    for i in range(len(s)):
        others = [j for j in range(len(s)) if j != i]
        others.sort(key=lambda j: float(((guide[i] - guide[j]) ** 2).sum()))
        if bug == "farthest first":
            others.reverse()
        score = [-alpha * torch.dist(s[i], s[j]) ** beta for j in others[:length]]
        if bug == "sign of the distance":
            score = [-x for x in score]
        for r in range(1 if bug == "first place only" else len(score)):
            first = 0 if bug == "all in every denominator" else r
            rest = sum(torch.exp(x) for x in score[first:])
            loss = loss - torch.log(torch.exp(score[r]) / rest)
    # The order is a list of whole numbers: no gradient can reach the teacher through it.
    loss = -loss if bug == "likelihood without the minus" else loss
    return loss if bug == "sum over the batch" else loss / len(s)


def triplet(student, teacher, triplets, min_margin, max_margin, bug=""):
    def angle(x, i, j):
        c = (x[i] * x[j]).sum() / (x[i].norm() * x[j].norm())
        return 1 - c if bug == "cosines for angles" else torch.acos(c)

    t = student.detach() if bug == "margin from the student" else off(teacher, bug)
    deltas = [angle(t, a, n) - angle(t, a, p) for a, p, n in triplets.tolist()]
    if bug != "negative gaps kept":
        deltas = [torch.clamp(d, min=0) for d in deltas]
    top = 1.0 if bug == "gap not divided by its maximum" else max(1e-9, *deltas)
    losses = []
    for (a, p, n), delta in zip(triplets.tolist(), deltas, strict=True):
        m = min_margin + (max_margin - min_margin) * delta / top
        m = {"always the smallest margin": min_margin, "always the largest margin": max_margin}.get(
            bug, m
        )
        sign = -1 if bug == "positive and negative exchanged" else 1
        value = sign * (angle(student, a, p) - angle(student, a, n)) + m
        losses.append(value if bug == "nothing cut at zero" else value.clamp(min=0))
    if bug == "mean over the violated only":
        losses = [x for x in losses if x > 0]
    return sum(losses) / (1 if bug == "sum over the triplets" else len(losses))


def margin(student, teacher, prototypes, labels, scale, min_margin, max_margin, bug=""):
    w = unit(off(prototypes, bug))
    s = unit(student)
    t = unit(student.detach() if bug == "margin from the student" else off(teacher, bug))
    typical = [(t[i] * w[y]).sum() for i, y in enumerate(labels)]
    typical = [torch.clamp(c, min=0) for c in typical]
    top = 1.0 if bug == "cosine not divided by its maximum" else max(1e-9, *typical)
    loss = 0
    for i, y in enumerate(labels.tolist()):
        m = min_margin + (max_margin - min_margin) * typical[i] / top
        m = {
            "always the smallest margin": min_margin,
            "always the largest margin": max_margin,
            "no margin at all": 0.0,
            "typical images get less": min_margin + max_margin - m,
        }.get(bug, m)
        logits = [scale * (s[i] * w[j]).sum() for j in range(len(w))]
        cosine = (s[i] * w[y]).sum()
        target = torch.cos(torch.acos(cosine) + m)
        if bug == "margin taken from the cosine":
            target = cosine - m
        logits[y] = scale * target
        loss = loss - logits[y] + torch.logsumexp(torch.stack(logits), 0)
    return loss / len(s)


WRONG = {
    kd: [
        "squared temperature missing",
        "temperature not squared",
        "divergence the other way round",
        "temperature multiplied",
        "mean over all entries",
        "sum over the batch",
        "cross entropy for divergence",
        "only the teacher softened",
        "softmax over the batch",
        "missing detach",
    ],
    fitnet: [
        "sum over everything",
        "mean over images only",
        "directions only",
        "absolute difference",
        "root taken",
        "factor one half",
        "missing detach",
    ],
    shrinkteanet: [
        "vectors not normalised",
        "not squared",
        "squared chord",
        "square of the mean",
        "square of the cosine",
        "sum over the batch",
        "missing detach",
    ],
    rkd: [
        "embeddings normalised first",
        "squared distances",
        "mean with the diagonal",
        "one mean for both",
        "distances not normalised",
        "mean distance without gradient",
        "squares instead of huber",
        "absolute difference",
        "mean over different pairs only",
        "missing detach",
    ],
    sp: [
        "embeddings not normalised",
        "rows of the matrix normalised",
        "root taken",
        "sum over all pairs",
        "divided by the batch once",
        "diagonal left out",
        "missing detach",
    ],
    cckd: [
        "embeddings not normalised",
        "exact kernel",
        "last power missing",
        "factorial missing",
        "leading factor missing",
        "sum over all pairs",
        "missing detach",
    ],
    darkrank: [
        "order of the student",
        "embeddings not normalised",
        "farthest first",
        "sign of the distance",
        "first place only",
        "all in every denominator",
        "likelihood without the minus",
        "sum over the batch",
    ],
    triplet: [
        "cosines for angles",
        "margin from the student",
        "negative gaps kept",
        "gap not divided by its maximum",
        "always the smallest margin",
        "always the largest margin",
        "positive and negative exchanged",
        "nothing cut at zero",
        "mean over the violated only",
        "sum over the triplets",
        "missing detach",
    ],
    margin: [
        "margin from the student",
        "cosine not divided by its maximum",
        "always the smallest margin",
        "always the largest margin",
        "no margin at all",
        "typical images get less",
        "margin taken from the cosine",
        "missing detach",
    ],
}
