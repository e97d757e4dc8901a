"""Every distillation loss once more, straight from its equation: loops, float64, no torch.

Slow on purpose, and written without looking at the library's code: a wrong axis, a forgotten
factor or a broadcast that should not happen cannot be in both.
"""

import itertools
import math

import numpy as np

NEAR_ONE = 1 - 1e-6  # documented: cosines are kept this far from the infinite slope of arccos


def unit(row):
    length = math.sqrt(sum(float(v) ** 2 for v in row))
    return [0.0 for _ in row] if length <= 1e-6 else [float(v) / length for v in row]


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def mean_square(first, second):
    rows = zip(first, second, strict=True)
    return mean((a - b) ** 2 for x, y in rows for a, b in zip(x, y, strict=True))


def huber(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def log_softmax(z):
    top = max(z)
    total = top + math.log(sum(math.exp(v - top) for v in z))
    return [v - total for v in z]


def kd(student, teacher, temperature=4.0):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        log_s = log_softmax([v / temperature for v in s])
        log_t = log_softmax([v / temperature for v in t])
        total += sum(math.exp(b) * (b - a) for a, b in zip(log_s, log_t, strict=True))
    return temperature**2 * total / len(student) if len(student) else 0.0


def fitnet(student, teacher, normalize=False, weight=None):
    if weight is not None:
        student = [[dot(row, w) for w in weight] for row in student]
    if normalize:
        student, teacher = [unit(r) for r in student], [unit(r) for r in teacher]
    return mean_square(student, teacher)


def soft_rank(similarity, thresholds, temperature):
    total = 0.0
    for threshold in thresholds:
        z = min(max((similarity - threshold) / temperature, -50), 50)
        total += 1 / (1 + math.exp(-z))
    return total


class EKD:
    """The official loss (METHODS 1.2), and the corrected one as its docstring describes it."""

    def __init__(self, exponents=(1, 2, 3, 4, 5, 6), topk=2000, momentum=0.01, corrected=False):
        self.exponents, self.topk, self.momentum = exponents, topk, momentum
        self.corrected = corrected
        self.batches = {m: [] for m in exponents}  # (student, teacher) quantile of every batch

    def threshold(self, level, net):
        average, weight = 0.0, 0.0
        for values in self.batches[level]:
            average = (1 - self.momentum) * average + self.momentum * values[net]
            weight = (1 - self.momentum) * weight + self.momentum
        return average / weight if self.corrected else average

    def __call__(self, student, teacher, labels):
        s, t = [unit(r) for r in student], [unit(r) for r in teacher]
        pairs = list(itertools.combinations(range(len(s)), 2))
        genuine = [(dot(s[i], s[j]), dot(t[i], t[j])) for i, j in pairs if labels[i] == labels[j]]
        impostor = [(dot(s[i], s[j]), dot(t[i], t[j])) for i, j in pairs if labels[i] != labels[j]]
        by_student = sorted((a for a, _ in impostor), reverse=True)
        by_teacher = sorted((b for _, b in impostor), reverse=True)
        for m in self.exponents:
            k = len(impostor) // 10**m
            if impostor and (k > 0 or not self.corrected):
                self.batches[m].append((by_student[k], by_teacher[k]))
        levels = [m for m in self.exponents if self.batches[m]]
        self.student_thresholds = [self.threshold(m, 0) for m in levels]
        self.teacher_thresholds = [self.threshold(m, 1) for m in levels]
        hardest = sorted(impostor, reverse=True)[: self.topk]
        self.positive = mean(self.gap(*pair) ** 2 for pair in genuine)
        self.negative = mean(self.gap(*pair) ** 2 for pair in hardest)
        return 0.02 * self.positive + 0.01 * self.negative

    def gap(self, a, b):
        student_rank = soft_rank(a, self.student_thresholds, 0.01)
        return student_rank - soft_rank(b, self.teacher_thresholds, 0.01)


def darkrank(student, teacher, alpha=3.0, beta=3.0, length=3, soft=False):
    s, t = [unit(r) for r in student], [unit(r) for r in teacher]
    losses = []
    for i in range(len(s)):
        others = sorted((j for j in range(len(s)) if j != i), key=lambda j: distance(t[i], t[j]))
        others = others[:length]
        if not others:
            continue
        score_s = [-alpha * distance(s[i], s[j]) ** beta for j in others]
        score_t = [-alpha * distance(t[i], t[j]) ** beta for j in others]
        if soft:
            loss = 0.0
            for order in itertools.permutations(range(len(others))):
                log_s = log_likelihood([score_s[r] for r in order])
                log_t = log_likelihood([score_t[r] for r in order])
                loss += math.exp(log_t) * (log_t - log_s)
        else:
            loss = -log_likelihood(score_s)
        losses.append(loss)
    return mean(losses)


def log_likelihood(scores):
    """Plackett-Luce: pick the first among all, the second among the rest, and so on."""
    total = 0.0
    for r in range(len(scores)):
        total += scores[r] - math.log(sum(math.exp(v) for v in scores[r:]))
    return total


def sp(student, teacher, row_normalize=False):
    s, t = [unit(r) for r in student], [unit(r) for r in teacher]
    if row_normalize:
        s, t = student, teacher
    gram_s = [[dot(a, b) for b in s] for a in s]
    gram_t = [[dot(a, b) for b in t] for a in t]
    if row_normalize:
        gram_s, gram_t = [unit(r) for r in gram_s], [unit(r) for r in gram_t]
    return mean_square(gram_s, gram_t)


def cckd(student, teacher, gamma=0.4, order=2):
    s, t = [unit(r) for r in student], [unit(r) for r in teacher]

    def kernel(c):
        terms = [(2 * gamma * c) ** p / math.factorial(p) for p in range(order + 1)]
        return math.exp(-2 * gamma) * sum(terms)

    n = range(len(s))
    return mean((kernel(dot(s[i], s[j])) - kernel(dot(t[i], t[j]))) ** 2 for i in n for j in n)


def rkd_distance(student, teacher):
    n = range(len(student))
    ds = [[distance(student[i], student[j]) for j in n] for i in n]
    dt = [[distance(teacher[i], teacher[j]) for j in n] for i in n]
    scale_s = mean(v for row in ds for v in row if v > 0) or 1.0
    scale_t = mean(v for row in dt for v in row if v > 0) or 1.0
    return mean(huber(ds[i][j] / scale_s - dt[i][j] / scale_t) for i in n for j in n)


def rkd_angle(student, teacher):
    student, teacher = np.asarray(student, dtype=float), np.asarray(teacher, dtype=float)
    n = range(len(student))
    total = 0.0
    for i in n:
        es = [unit(student[j] - student[i]) for j in n]
        et = [unit(teacher[j] - teacher[i]) for j in n]
        total += sum(huber(dot(es[j], es[k]) - dot(et[j], et[k])) for j in n for k in n)
    return total / max(len(student), 1) ** 3


def shrinkteanet(student, teacher, variant="squared"):
    cosines = [dot(unit(s), unit(t)) for s, t in zip(student, teacher, strict=True)]
    form = {
        "squared": lambda c: (1 - c) ** 2,
        "cosine": lambda c: 1 - c,
        "chord": lambda c: 2 * (1 - c),
    }[variant]
    return mean(form(c) for c in cosines)


def triplet(student, teacher, labels, kind="cosine", min_margin=0.2, max_margin=0.5):
    s, t = [unit(r) for r in student], [unit(r) for r in teacher]

    def d(a, b):
        c = dot(a, b)
        return 2 - 2 * c if kind == "l2" else math.acos(min(max(c, -NEAR_ONE), NEAR_ONE))

    triplets = []
    n = range(len(s))
    for a, p in itertools.permutations(n, 2):
        others = [j for j in n if labels[j] != labels[a]]
        if labels[a] != labels[p] or not others:
            continue
        farther = [j for j in others if dot(s[a], s[j]) < dot(s[a], s[p])]
        if farther:
            triplets.append((a, p, max(farther, key=lambda j: dot(s[a], s[j]))))
        else:
            triplets.append((a, p, min(others, key=lambda j: dot(s[a], s[j]))))
    gaps = [max(d(t[a], t[q]) - d(t[a], t[p]), 0.0) for a, p, q in triplets]
    widest = max(gaps, default=0.0) or 1.0
    margins = [min_margin + (max_margin - min_margin) * g / widest for g in gaps]
    return mean(
        max(0.0, d(s[a], s[p]) - d(s[a], s[q]) + m)
        for (a, p, q), m in zip(triplets, margins, strict=True)
    )


def margin(student, teacher, labels, prototypes, scale=64.0, min_margin=0.2, max_margin=0.5):
    w = [unit(r) for r in prototypes]
    s, t = [unit(r) for r in student], [unit(r) for r in teacher]
    cosines = [dot(row, w[y]) for row, y in zip(t, labels, strict=True)]
    widest = max(cosines, default=0.0)
    losses = []
    for row, y, c in zip(s, labels, cosines, strict=True):
        share = max(c, 0.0) / widest if widest > 0 else 0.0
        m = min_margin + (max_margin - min_margin) * share
        z = [scale * dot(row, v) for v in w]
        z[y] = scale * arcface(dot(row, w[y]), m)
        losses.append(-log_softmax(z)[y])
    return mean(losses)


def arcface(cosine, m):
    """cos(theta + m) up to theta = pi - m, and cos(theta) - m sin(m) from there on."""
    theta = math.acos(min(max(cosine, -NEAR_ONE), NEAR_ONE))
    return math.cos(theta + m) if cosine > -math.cos(m) else cosine - m * math.sin(m)


def ddl_divergence(wanted, given):
    """KL between histograms of Gaussian bumps on 1000 nodes."""
    nodes, heights = np.arange(1000) / 1000, []
    for scores in (wanted, given):
        bumps = sum(np.exp(-((score - nodes) ** 2) / (2 * 0.1**2)) for score in scores)
        heights.append(bumps / bumps.sum() + 1e-9)
    return float((heights[0] * np.log(heights[0] / heights[1])).sum())


def ddl(student, teacher, labels):
    sides = []
    for net in (teacher, student):
        rows = [unit(r) for r in net]
        genuine = [
            dot(rows[i], rows[j])
            for i, j in itertools.combinations(range(len(rows)), 2)
            if labels[i] == labels[j]
        ]
        others = [
            [dot(a, b) for b, other in zip(rows, labels, strict=True) if other != own]
            for a, own in zip(rows, labels, strict=True)
        ]
        if not genuine or not all(others):
            return 0.0
        sides.append(([g for g in genuine if g > 0], [max(row) for row in others]))
    (g_t, i_t), (g_s, i_s) = sides
    total = 0.02 * ddl_divergence(i_t, i_s)
    if g_t and g_s:
        total += 0.1 * ddl_divergence(g_t, g_s)
    return total + 0.5 * sum(mean(i) - mean(g) for i in (i_t, i_s) for g in (g_t, g_s) if g)


def pwr(student, teacher, beta=1.0, variant="exponential"):
    s, t = [unit(r) for r in student], [unit(r) for r in teacher]
    pairs = list(itertools.combinations(range(len(s)), 2))
    ds = [distance(s[i], s[j]) for i, j in pairs]
    dt = [distance(t[i], t[j]) for i, j in pairs]
    losses = []
    for u, v in itertools.permutations(range(len(pairs)), 2):
        if dt[u] > dt[v]:
            wrong = (dt[u] - dt[v]) - (ds[u] - ds[v])
            losses.append(
                {
                    "exponential": lambda x: max(math.exp(beta * x) - 1, 0.0),
                    "hinge": lambda x: max(x, 0.0),
                    "ranknet": lambda x, u=u, v=v: math.log1p(math.exp(-beta * (ds[u] - ds[v]))),
                }[variant](wrong)
            )
    return mean(losses)


class FineEKD:
    """The batch against itself and the last images; thresholds from all impostors so far."""

    def __init__(
        self,
        memory=0,
        fprs=(0.5, 0.25, 0.1),
        hard_fpr=0.5,
        temperature=0.1,
        decay=0.98,
        own=True,
        targets="ranks",
        threshold=None,
    ):
        self.size, self.fprs, self.hard_fpr = memory, fprs, hard_fpr
        self.targets, self.accept = targets, threshold
        self.temperature, self.decay, self.own = temperature, decay, own
        self.memory = []  # (student's row, teacher's row, label), the oldest first
        self.batches = []  # impostor pairs (student's cosine, teacher's cosine) of every batch

    def threshold(self, fpr, net, bins=4000):
        """The lowest edge of a bin with at most that share of the weight in the bins above it."""
        weighted = []
        for age, pairs in enumerate(reversed(self.batches)):
            weight = self.decay**age if net == 0 else 1.0
            for pair in pairs:
                weighted.append((min(max(int((pair[net] + 1) * bins / 2), 0), bins - 1), weight))
        allowed = fpr * sum(weight for _, weight in weighted) * (1 + 1e-9)
        if allowed < 1:
            return None
        edges = [0, *sorted({b + 1 for b, _ in weighted})]  # the edges where the sum changes
        for edge in edges:
            if sum(weight for b, weight in weighted if b >= edge) <= allowed:
                return edge * 2 / bins - 1
        raise AssertionError

    def both(self, fprs):
        found = [(self.threshold(f, 0 if self.own else 1), self.threshold(f, 1)) for f in fprs]
        return [pair for pair in found if None not in pair]

    def __call__(self, student, teacher, labels):
        s, t = [unit(r) for r in student], [unit(r) for r in teacher]
        batch = [*zip(s, t, labels, strict=True)]
        genuine, impostor = [], []
        for i in range(len(s)):
            for j, (in_student, in_teacher, label) in enumerate(batch + self.memory):
                pair = dot(s[i], in_student), dot(t[i], in_teacher)
                is_one = label == labels[i]
                if self.targets == "decisions":
                    is_one = pair[1] >= self.accept
                if j != i:
                    (genuine if is_one else impostor).append(pair)
        self.batches.append(impostor)
        self.memory = (self.memory + batch)[-self.size :] if self.size else []
        self.thresholds = self.both(self.fprs)
        hard = [
            (a, b)
            for at_student, at_teacher in self.both([self.hard_fpr])
            for a, b in impostor
            if a > at_student or (b > at_teacher and self.targets in ("ranks", "cosines"))
        ]
        gaps = [
            [self.gap(a, b, is_one) for a, b in pairs]
            for pairs, is_one in ((genuine, True), (hard, False))
        ]
        positive, negative = (mean(gap**2 for gap in row) for row in gaps)
        self.stats = {
            "positive_loss": positive,
            "negative_loss": negative,
            "critical_share": mean(abs(gap) > 0.5 for gap in gaps[0] + gaps[1]),
        }
        return 0.02 * positive + 0.01 * negative

    def gap(self, a, b, is_one=False):
        if self.targets == "cosines":
            return a - b
        of_student, of_teacher = zip(*self.thresholds, strict=True) if self.thresholds else ((), ())
        rank = soft_rank(a, of_student, self.temperature)
        if self.targets in ("decisions", "labels"):
            return rank - is_one * len(of_student)
        return rank - soft_rank(b, of_teacher, self.temperature)


class Contrastive(FineEKD):
    """What decisions miss the student's own threshold by, and the root of it as a gap."""

    def __init__(self, threshold, fpr=0.25, **options):
        super().__init__(fprs=(fpr,), targets="decisions", threshold=threshold, **options)

    def gap(self, a, b, is_one=False):
        if not self.thresholds:
            return 0.0
        at = self.thresholds[0][0]
        missed = at - a if is_one else a - at
        return missed**0.5 if missed > 0 else 0.0


def batch_hard(student, teacher, accept, margin=0.2):
    s, t = [unit(r) for r in student], [unit(r) for r in teacher]
    missing = []
    for i in range(len(s)):
        others = [j for j in range(len(s)) if j != i]
        accepted = [dot(s[i], s[j]) for j in others if dot(t[i], t[j]) >= accept]
        rejected = [dot(s[i], s[j]) for j in others if dot(t[i], t[j]) < accept]
        if accepted and rejected:
            missing.append(max(0.0, margin + max(rejected) - min(accepted)))
    return mean(missing)


class GalleryEKD(FineEKD):
    """The batch against all rows of its people and against those drawn, with levels added on."""

    def __init__(self, rows, labels, *, extrapolated=4, **options):
        super().__init__(**options)
        self.rows, self.labels = [unit(row) for row in rows], labels
        self.extrapolated = extrapolated

    def __call__(self, student, teacher, labels, drawn=()):
        s, t = [unit(r) for r in student], [unit(r) for r in teacher]
        genuine, impostor = [], []
        for i in range(len(s)):
            pairs = [(dot(s[i], row), dot(t[i], row)) for row in self.rows]
            genuine += [p for p, y in zip(pairs, self.labels, strict=True) if y == labels[i]]
            impostor += [pairs[j] for j in drawn if self.labels[j] != labels[i]]
        self.batches.append(impostor)
        self.thresholds = self.both(self.fprs)
        hard = [
            (a, b)
            for at_student, at_teacher in self.both([self.hard_fpr])
            for a, b in impostor
            if a > at_student or b > at_teacher
        ]
        known = self.thresholds
        if len(known) >= 2:
            (a0, b0), (a1, b1) = known[-2:]
            ks = range(1, self.extrapolated + 1)
            self.thresholds = known + [(a1 + k * (a1 - a0), b1 + k * (b1 - b0)) for k in ks]
        positive, negative = (mean(self.gap(*p) ** 2 for p in pairs) for pairs in (genuine, hard))
        return 0.02 * positive + 0.01 * negative
