// Soft rank, its slope and the count of thresholds passed; the argument is cut as in the library.
function softRank(score, thresholds, tau) {
  let rank = 0,
    slope = 0,
    count = 0;
  for (const threshold of thresholds) {
    const e = Math.exp(-Math.max(-50, Math.min(50, (score - threshold) / tau)));
    rank += 1 / (1 + e);
    slope += e / (1 + e) ** 2 / tau;
    count += score > threshold;
  }
  return { rank, slope, count };
}

// One pair under EKD: both ranks, the squared difference, and minus its derivative.
function comparePair(a, b, tau, student, teacher) {
  const s = softRank(a, student, tau),
    t = softRank(b, teacher, tau),
    gap = s.rank - t.rank;
  return { s, t, loss: gap ** 2, force: -2 * gap * s.slope };
}

start("ekd", (root, { student, teacher, fprs, temperatures, start: [a0, b0, t0] }) => {
  const levels = student.length,
    low = -0.2,
    high = 1;
  const place = { min: low, max: high, step: 0.005, say: x => minus(x, 3) };
  const a = slider("student", "student's cosine", { ...place, value: a0 }, update);
  const b = slider("teacher", "teacher's cosine", { ...place, value: b0 }, update);
  const tau = slider(
    "temperature",
    "temperature τ",
    { min: 0, max: temperatures.length - 1, step: 1, value: t0, show: k => temperatures[k], say: String },
    update,
  );
  const table = facts({
    teacherCount: "teacher passes",
    studentCount: "student passes",
    loss: "loss (Rˢ−Rᵀ)²",
    teacherRank: "its soft rank Rᵀ",
    studentRank: "its soft rank Rˢ",
    force: "force −dL/da",
  });
  const verdict = element("p", { class: "verdict", "aria-live": "polite" });
  const still = (name, x, y, t) =>
    element(
      "button",
      {
        type: "button",
        click: () => {
          a.set(x);
          b.set(y);
          tau.set(t);
          update();
        },
      },
      name,
    );
  const ten = temperatures.indexOf(0.1),
    hundredth = temperatures.indexOf(0.01);
  const between = k => (student[k] + student[k + 1]) / 2;
  const buttons = element(
    "div",
    { class: "buttons" },
    still("far below: blind", (low + student[0]) / 2, high - 0.1, hundredth),
    still("the same, τ = 0.1", (low + student[0]) / 2, high - 0.1, ten),
    still("at a threshold", student[1], high - 0.1, hundredth),
    levels > 3 && still("agreed: free", between(2), (teacher[2] + teacher[3]) / 2, hundredth),
  );
  const view = picture(
    "Two axes of cosines, the teacher's above the student's, each with its thresholds and " +
      "the pair's place; below, the student's soft rank and the force against the student's cosine.",
    372,
    draw,
  );
  drag(view.box, (x, y, first) => {
    if (first) moved = y < 62 ? b : a;
    const at = scale(left, view.width - 8, low, high)(x);
    moved.set(Math.max(low, Math.min(high, at)));
    update();
  });
  const left = 56;
  let moved = a,
    now;
  root.append(
    view.box,
    element("div", { class: "controls" }, a.box, b.box, tau.box),
    buttons,
    table.box,
    verdict,
  );
  update();

  function update() {
    now = comparePair(a.value, b.value, tau.value, student, teacher);
    table.tell({
      teacherCount: [now.t.count, `${now.t.count} of ${levels}`],
      studentCount: [now.s.count, `${now.s.count} of ${levels}`],
      teacherRank: [now.t.rank, now.t.rank.toFixed(3)],
      studentRank: [now.s.rank, now.s.rank.toFixed(3)],
      loss: [now.loss, now.loss.toFixed(now.loss < 0.01 ? 5 : 3)],
      force: [now.force, minus(now.force, Math.abs(now.force) < 0.1 ? 5 : 2)],
    });
    const apart = Math.abs(now.s.count - now.t.count);
    const dispute =
      apart === 0
        ? "Both nets decide alike at every level."
        : `The nets decide differently at ${apart} ${apart === 1 ? "level" : "levels"}.`;
    const pull =
      Math.abs(now.force) < 0.01
        ? apart && now.loss > 0.01
          ? " Nothing pulls: no threshold is within reach of the student's cosine."
          : " Nothing pulls: the soft ranks agree, and the pair is free to stay where it is."
        : ` The loss pulls the student's cosine ${now.force > 0 ? "up" : "down"}${Math.abs(now.force) < 1 ? ", faintly" : ""}.`;
    verdict.textContent = dispute + pull;
    view.redraw();
  }

  function draw(width) {
    const x = scale(low, high, left, width - 8),
      rank = scale(0, levels, 252, 152);
    const bend = f => Math.asinh(f),
      most = Math.asinh((2 * levels * 1.2) / (4 * tau.value));
    const push = scale(-most, most, 352, 286);
    const parts = [];
    for (const [y, name, at, score, hue] of [
      [38, "teacher", teacher, b.value, "--teacher"],
      [96, "student", student, a.value, "--student"],
    ]) {
      const edges = [low, ...at, high];
      parts.push(
        text(0, y + 5, name, { "text-anchor": "start", "font-weight": 600, style: `fill:var(${hue})` }),
      );
      for (let k = 0; k <= levels; k++) {
        const wide = x(edges[k + 1]) - x(edges[k]);
        if (wide <= 0) continue;
        parts.push(
          element("rect", {
            x: x(edges[k]),
            y: y - 11,
            width: wide,
            height: 22,
            style: `fill:var(${hue})`,
            "fill-opacity": 0.08 + (0.32 * k) / levels,
          }),
        );
        if (wide > 12)
          parts.push(text((x(edges[k]) + x(edges[k + 1])) / 2, y + 4, String(k), { "fill-opacity": 0.85 }));
      }
      parts.push(text(left, y - 18, "FPR", { "text-anchor": "start", "font-size": 10, "fill-opacity": 0.8 }));
      let last = -Infinity;
      at.forEach((threshold, k) => {
        parts.push(line(x(threshold), y - 14, x(threshold), y + 11, { "stroke-width": 1.2 }));
        const power = Math.log10(Number(fprs[k]));
        if (x(threshold) - last < 29) return;
        last = x(threshold);
        const words = Number.isInteger(power) ? `1e${power}`.replace("-", "−") : fprs[k];
        parts.push(text(x(threshold), y - 18, words, { "font-size": 10, "fill-opacity": 0.8 }));
      });
      parts.push(
        element("circle", {
          cx: x(score),
          cy: y,
          r: 8,
          style: `fill:var(${hue})`,
          stroke: "currentColor",
          "stroke-width": 2,
        }),
      );
    }
    // The force, as an arrow at the student's place.
    const length = 46 * Math.min(1, bend(Math.abs(now.force)) / most) * Math.sign(now.force),
      tip = x(a.value) + length;
    if (Math.abs(length) > 2) {
      const side = Math.sign(length);
      parts.push(line(x(a.value), 118, tip, 118, { style: "stroke:var(--loss)", "stroke-width": 3.5 }));
      parts.push(
        element("path", { d: `M${tip + 8 * side} 118L${tip - side} 112V124Z`, style: "fill:var(--loss)" }),
      );
    }
    // Ranks against the student's cosine.
    const axis = grid(low, high, 360);
    parts.push(
      line(left, 252, width - 8, 252, { "stroke-opacity": 0.5 }),
      line(left, 152, left, 252, { "stroke-opacity": 0.5 }),
    );
    for (let k = 0; k <= levels; k += levels > 3 ? 2 : 1)
      parts.push(text(left - 6, rank(k) + 4, String(k), { "text-anchor": "end" }));
    parts.push(text(0, 206, "rank", { "text-anchor": "start" }));
    const steps = [[x(low), rank(0)]];
    [...student].sort((p, q) => p - q).forEach((t, k) => steps.push([x(t), rank(k)], [x(t), rank(k + 1)]));
    parts.push(
      element("path", {
        d: path([...steps, [x(high), rank(levels)]]),
        fill: "none",
        stroke: "currentColor",
        "stroke-opacity": 0.3,
        "stroke-width": 3,
      }),
    );
    parts.push(
      element("path", {
        d: path(axis.map(s => [x(s), rank(softRank(s, student, tau.value).rank)])),
        fill: "none",
        style: "stroke:var(--student)",
        "stroke-width": 2.2,
      }),
    );
    parts.push(
      line(left, rank(now.t.rank), width - 8, rank(now.t.rank), {
        style: "stroke:var(--teacher)",
        "stroke-width": 2,
        "stroke-dasharray": "7 4",
      }),
    );
    parts.push(
      text(left + 5, rank(now.t.rank) - 6, "teacher's rank Rᵀ", {
        "text-anchor": "start",
        style: "fill:var(--teacher)",
      }),
    );
    parts.push(
      line(x(a.value), rank(now.s.rank), x(a.value), rank(now.t.rank), {
        style: "stroke:var(--loss)",
        "stroke-width": 4,
      }),
    );
    // Force against the student's cosine, on an axis that bends as asinh.
    parts.push(line(left, push(0), width - 8, push(0), { "stroke-opacity": 0.5 }));
    parts.push(text(0, push(0) + 4, "force", { "text-anchor": "start" }));
    parts.push(
      text(left - 6, 292, "+", { "text-anchor": "end" }),
      text(left - 6, 354, "−", { "text-anchor": "end" }),
    );
    parts.push(
      element("path", {
        d: path(
          axis.map(s => [x(s), push(bend(comparePair(s, b.value, tau.value, student, teacher).force))]),
        ),
        fill: "none",
        style: "stroke:var(--loss)",
        "stroke-width": 2,
      }),
    );
    parts.push(line(x(a.value), 108, x(a.value), 352, { "stroke-dasharray": "2 3", "stroke-opacity": 0.7 }));
    parts.push(
      element("circle", { cx: x(a.value), cy: rank(now.s.rank), r: 4.5, style: "fill:var(--student)" }),
    );
    parts.push(
      element("circle", { cx: x(a.value), cy: push(bend(now.force)), r: 4.5, style: "fill:var(--loss)" }),
    );
    for (const s of [0, 0.5, 1])
      parts.push(text(x(s), 370, s.toFixed(1), s === 1 ? { "text-anchor": "end" } : {}));
    if (width > 480) parts.push(text(x(0.25), 370, "student's cosine"));
    return parts;
  }
});
