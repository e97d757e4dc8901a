"""What students hand in for the heads: loops over images and identities."""

import math

import torch


def lengths_off(x):
    return torch.stack([row / sum(v * v for v in row) ** 0.5 for row in x])


def cosine_logits(embeddings, prototypes, scale, bug=""):
    e, p = embeddings, prototypes
    if bug not in ("nothing normalised", "embeddings not normalised"):
        e = lengths_off(e)
    if bug not in ("nothing normalised", "prototypes not normalised"):
        p = lengths_off(p)
    rows = []
    for i in range(len(e)):
        rows.append(torch.stack([torch.dot(e[i], p[j]) for j in range(len(p))]))
    cosines = torch.stack(rows)
    if bug == "scale missing":
        return cosines
    if bug == "divided by the scale":
        return cosines / scale
    return cosines * scale


def arcface(embeddings, prototypes, labels, scale, margin, bug=""):
    if bug == "margin in degrees":
        margin = margin * math.pi / 180
    if bug == "margin turned into degrees":
        margin = margin * 180 / math.pi
    e, p = embeddings, prototypes
    if bug != "vectors not normalised":
        e, p = lengths_off(e), lengths_off(p)
    rows = []
    for i in range(len(e)):
        row = []
        for j in range(len(p)):
            c = (e[i] * p[j]).sum()
            is_own = int(labels[i]) == j
            if bug == "margin on every class":
                is_own = True
            if bug == "margin on the wrong classes":
                is_own = not is_own
            if bug == "margin on all labels of the batch":
                is_own = j in labels.tolist()
            if is_own:
                c = turned(c, margin, bug)
            row.append(c * (1 if bug == "scale left out" else scale))
        rows.append(torch.stack(row))
    logits = torch.stack(rows)
    if bug == "loss instead of logits":
        return torch.nn.CrossEntropyLoss()(logits, labels)
    return logits


def turned(c, margin, bug):
    c = c if bug == "vectors not normalised" else c.clamp(-0.999999, 0.999999)
    if bug == "margin on the cosine":
        return c - margin
    if bug == "second term missing":
        return c * math.cos(margin)
    if bug == "margin without gradient":
        with torch.no_grad():
            more = torch.cos(torch.acos(c) + margin) - c
        return c + more
    if bug == "margin only where it is near" and c <= 0:
        return c
    if bug == "vectors not normalised":  # by formula, as acos would be NaN
        c = c.clamp(-0.999999, 0.999999) if c > -math.cos(margin) else c
        if c <= -math.cos(margin):
            return c - margin * math.sin(margin)
    theta = torch.acos(c)
    if bug == "angle made smaller":
        return torch.cos(theta - margin)
    if bug == "margin as a factor":
        return torch.cos(theta * margin)
    return torch.cos(theta + margin)


def cosface(embeddings, prototypes, labels, scale, margin, bug=""):
    logits = cosine_logits(embeddings, prototypes, 1.0)
    out = []
    for i, row in enumerate(logits):
        m = torch.zeros(len(row), dtype=row.dtype)
        m[labels[i]] = margin
        if bug == "margin on every class":
            m[:] = margin
        if bug == "margin on the wrong classes":
            m = margin - m
        if bug == "margin added":
            m = -m
        if bug == "margin after the scale":
            m = m / scale
        if bug == "scale left out":
            scale = 1.0
        out.append((row - m) * scale)
    if bug == "loss instead of logits":
        return torch.nn.functional.cross_entropy(torch.stack(out), labels)
    if bug == "margin on the angle":
        return arcface(embeddings, prototypes, labels, scale, margin)
    return torch.stack(out)


WRONG = {
    cosine_logits: [
        "nothing normalised",
        "embeddings not normalised",
        "prototypes not normalised",
        "scale missing",
        "divided by the scale",
    ],
    arcface: [
        "margin in degrees",
        "margin turned into degrees",
        "margin on every class",
        "margin on the wrong classes",
        "margin on all labels of the batch",
        "margin on the cosine",
        "second term missing",
        "margin without gradient",
        "margin only where it is near",
        "angle made smaller",
        "margin as a factor",
        "scale left out",
        "loss instead of logits",
        "vectors not normalised",
    ],
    cosface: [
        "margin on every class",
        "margin on the wrong classes",
        "margin added",
        "margin after the scale",
        "margin on the angle",
        "scale left out",
        "loss instead of logits",
    ],
}
