"""What students hand in for the methods after EKD: loops over images, one thing wrong."""

import torch

from tests.coursework.loss_answers import off, unit


def adadistill(student, teacher, centres, labels, bug=""):
    s, t = unit(student), teacher if bug == "vectors not normalised" else unit(teacher)
    moved, seen = centres.clone(), {}
    for i, y in enumerate(labels.tolist()):
        w = (moved if bug == "one image after the other" else centres)[y]
        direction = unit(teacher)[i]
        kappa = torch.dot(s[i], direction)
        judged = s[i] if bug == "typical by the student" else direction
        typical = torch.dot(w, judged) / torch.sqrt((w**2).sum())
        if bug != "negative weights kept":
            kappa, typical = max(kappa, 0 * kappa), max(typical, 0 * typical)
        alpha = {
            "plain weight": kappa,
            "only how typical the image is": typical,
            "weights exchanged": 1 - kappa * typical,
        }.get(bug, kappa * typical)
        new = alpha * w + (1 - alpha) * t[i]
        if bug in ("one image after the other", "last image wins"):
            moved[y] = new
        else:
            seen.setdefault(y, []).append(new)
    for y, rows in seen.items():
        moved[y] = sum(rows) / (1 if bug == "sum of the updates" else len(rows))
    return unit(moved) if bug == "centres made unit again" else moved


def dkd(student_logits, teacher_logits, labels, target_weight, others_weight, temperature, bug=""):
    s, t = student_logits, off(teacher_logits, bug)
    if bug == "divergence the other way round":
        s, t = t, s
    if bug == "weights exchanged":
        target_weight, others_weight = others_weight, target_weight
    if bug == "target's part missing":
        target_weight = 0
    total = 0
    for i, y in enumerate(labels.tolist()):
        q, p = torch.log_softmax(s[i] / temperature, 0), torch.log_softmax(t[i] / temperature, 0)
        rest = [j for j in range(len(q)) if j != y]
        q_rest, p_rest = torch.logsumexp(q[rest], 0), torch.logsumexp(p[rest], 0)
        binary = torch.exp(p[y]) * (p[y] - q[y]) + torch.exp(p_rest) * (p_rest - q_rest)
        q_in, p_in = q[rest] - q_rest, p[rest] - p_rest
        if bug == "others not made a distribution":
            q_in, p_in = q[rest], p[rest]
        if bug == "target still among the others":
            q_in, p_in = q, p
        if bug == "target's logit made zero":
            q_in, p_in = (
                torch.log_softmax(torch.where(torch.arange(len(q)) == y, 0.0, x / temperature), 0)
                for x in (s[i], t[i])
            )
        inside = (torch.exp(p_in) * (p_in - q_in)).sum()
        if bug == "mass of the others left in":
            inside = inside * torch.exp(p_rest)
        total = total + target_weight * binary + others_weight * inside
    if bug != "sum over the batch":
        total = total / len(s)
    return total if bug == "squared temperature missing" else total * temperature**2


def qud(student, teacher, queue, temperature, bug=""):
    t = off(teacher, bug)
    if bug != "vectors not normalised":
        student, t = unit(student), unit(t)
    if bug == "batch put into the queue first":
        queue = torch.cat([t, queue])[: len(queue)]
    tau = {"temperature left out": 1, "temperature multiplied": 1 / temperature}.get(
        bug, temperature
    )
    losses = []
    for i in range(len(student)):
        others = [j for j in range(len(t)) if j != i]
        wrong = t[others] if bug == "batch in place of the queue" else queue.detach()
        right = torch.exp((student[i] * t[i]).sum() / tau)
        wrongs = [torch.exp((student[i] * row).sum() / tau) for row in wrong]
        below = sum(wrongs) + (0 if bug == "own teacher row not among the choices" else right)
        if bug == "last choice taken for the right one":
            right = wrongs[-1]
        losses.append(-torch.log(right / below))
    return sum(losses) if bug == "sum over the batch" else torch.stack(losses).mean()


WRONG = {
    adadistill: [
        "weights exchanged",
        "plain weight",
        "only how typical the image is",
        "typical by the student",
        "negative weights kept",
        "vectors not normalised",
        "centres made unit again",
        "last image wins",
        "one image after the other",
        "sum of the updates",
    ],
    dkd: [
        "squared temperature missing",
        "mass of the others left in",
        "others not made a distribution",
        "target still among the others",
        "target's logit made zero",
        "weights exchanged",
        "target's part missing",
        "divergence the other way round",
        "sum over the batch",
        "missing detach",
    ],
    qud: [
        "vectors not normalised",
        "own teacher row not among the choices",
        "batch put into the queue first",
        "batch in place of the queue",
        "last choice taken for the right one",
        "temperature left out",
        "temperature multiplied",
        "sum over the batch",
        "missing detach",
    ],
}
