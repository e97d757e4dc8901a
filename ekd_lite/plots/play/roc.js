// The points of the ROC from the top score down; pairs of equal score are accepted together.
function rocPoints(genuine, impostor) {
  const scores = [...new Set([...genuine, ...impostor])].sort((p, q) => q - p);
  return [Infinity, ...scores].map(threshold => {
    const tp = genuine.filter(s => s >= threshold).length,
      fp = impostor.filter(s => s >= threshold).length;
    return { threshold, tp, fp };
  });
}

start("roc", (root, { genuine, impostor, threshold }) => {
  const points = rocPoints(genuine, impostor),
    all = [...genuine, ...impostor];
  const low = Math.floor(Math.min(...all) * 10 - 1) / 10,
    high = Math.ceil(Math.max(...all) * 10 + 0.5) / 10;
  const at = slider(
    "threshold",
    "threshold τ (accept if score ≥ τ)",
    { min: low, max: high, step: 0.01, value: threshold, say: x => minus(x, 2) },
    update,
  );
  const table = facts({ tpr: "TPR", fpr: "FPR", accuracy: "decided right" });
  const verdict = element("p", { class: "verdict", "aria-live": "polite" });
  const next = way => () => {
    const scores = [low, ...points.slice(1).map(p => p.threshold), high].sort((p, q) => p - q);
    const beyond = scores.filter(s => (way > 0 ? s > at.value + 1e-9 : s < at.value - 1e-9));
    if (beyond.length) {
      at.set(way > 0 ? beyond[0] : beyond[beyond.length - 1]);
      update();
    }
  };
  const buttons = element(
    "div",
    { class: "buttons" },
    element("button", { type: "button", click: next(-1) }, "down to the next score"),
    element("button", { type: "button", click: next(1) }, "up to the next score"),
  );
  const view = picture(
    "A line of scores, genuine pairs as filled circles above it and impostor pairs as crosses " +
      "below it, cut by a threshold; under it the ROC as a staircase with the point of this threshold.",
    350,
    draw,
  );
  const left = 64;
  drag(view.box, (x, y, first) => {
    if (first) inside = y < 120;
    if (!inside) return;
    at.set(Math.max(low, Math.min(high, scale(left, view.width - 12, low, high)(x))));
    update();
  });
  let now,
    inside = true;
  root.append(view.box, element("div", { class: "controls" }, at.box), buttons, table.box, verdict);
  update();

  function update() {
    const tau = at.value;
    const tp = genuine.filter(s => s >= tau).length,
      fp = impostor.filter(s => s >= tau).length;
    now = { tau, tp, fp };
    const right = tp + impostor.length - fp;
    table.tell({
      tpr: [tp / genuine.length, `${tp} of ${genuine.length} = ${(tp / genuine.length).toFixed(3)}`],
      fpr: [fp / impostor.length, `${fp} of ${impostor.length} = ${(fp / impostor.length).toFixed(3)}`],
      accuracy: [right / all.length, `${right} of ${all.length}`],
    });
    const count = (n, kind) => `${n} ${kind} pair${n === 1 ? "" : "s"}`;
    verdict.textContent =
      `Accepted: ${count(tp, "genuine")} (right) and ${count(fp, "impostor")} (wrong). ` +
      `Refused: ${count(genuine.length - tp, "genuine")} (wrong) and ${count(impostor.length - fp, "impostor")} (right).`;
    view.redraw();
  }

  function draw(width) {
    const x = scale(low, high, left, width - 12),
      parts = [];
    // The scores.
    parts.push(
      element("rect", {
        x: x(now.tau),
        y: 18,
        width: Math.max(0, width - 12 - x(now.tau)),
        height: 80,
        style: "fill:var(--loss)",
        "fill-opacity": 0.12,
      }),
    );
    parts.push(line(left, 58, width - 12, 58));
    for (let s = Math.ceil(low * 5) / 5; s <= high + 1e-9; s += 0.2) {
      parts.push(line(x(s), 55, x(s), 61), text(x(s), 116, minus(s, 1), { "fill-opacity": 0.8 }));
    }
    const lift = side => side.map((s, k) => side.slice(0, k).filter(o => Math.abs(x(o) - x(s)) < 13).length);
    lift(genuine).forEach((up, k) =>
      parts.push(
        element("circle", {
          cx: x(genuine[k]),
          cy: 44 - 13 * up,
          r: 6,
          style: "fill:var(--teacher)",
          "fill-opacity": genuine[k] >= now.tau ? 1 : 0.25,
          stroke: "currentColor",
          "stroke-width": 1,
        }),
      ),
    );
    lift(impostor).forEach((up, k) => {
      const cx = x(impostor[k]),
        cy = 74 + 13 * up;
      parts.push(
        element("path", {
          d: `M${cx - 5} ${cy - 5}L${cx + 5} ${cy + 5}M${cx - 5} ${cy + 5}L${cx + 5} ${cy - 5}`,
          style: "stroke:var(--loss)",
          "stroke-width": impostor[k] >= now.tau ? 3.5 : 1.6,
          fill: "none",
        }),
      );
    });
    parts.push(text(0, 46, "genuine", { "text-anchor": "start", style: "fill:var(--teacher)" }));
    parts.push(text(0, 80, "impostor", { "text-anchor": "start", style: "fill:var(--loss)" }));
    parts.push(line(x(now.tau), 12, x(now.tau), 104, { "stroke-width": 2.5 }));
    const end = x(now.tau) > width - 70;
    parts.push(
      text(x(now.tau) + (end ? -6 : 6), 14, end ? "accept" : "accept →", {
        "text-anchor": end ? "end" : "start",
      }),
    );
    // The staircase, as wide as it is high.
    const side = 176,
      from = Math.max(44, (width - 300) / 2),
      u = scale(0, 1, from, from + 260),
      v = scale(0, 1, 316, 316 - side);
    for (let k = 0; k <= impostor.length; k++)
      parts.push(
        line(u(k / impostor.length), 316, u(k / impostor.length), 316 - side, { "stroke-opacity": 0.13 }),
      );
    for (let k = 0; k <= genuine.length; k++)
      parts.push(line(u(0), v(k / genuine.length), u(1), v(k / genuine.length), { "stroke-opacity": 0.13 }));
    parts.push(line(u(0), v(0), u(1), v(0)), line(u(0), v(0), u(0), v(1)));
    const corners = points.map(p => [u(p.fp / impostor.length), v(p.tp / genuine.length)]);
    const climbed = points
      .filter(p => p.threshold >= now.tau)
      .map(p => [u(p.fp / impostor.length), v(p.tp / genuine.length)]);
    parts.push(
      element("path", {
        d: path(corners),
        fill: "none",
        stroke: "currentColor",
        "stroke-opacity": 0.3,
        "stroke-width": 2.5,
      }),
    );
    if (climbed.length > 1)
      parts.push(
        element("path", {
          d: path(climbed),
          fill: "none",
          style: "stroke:var(--student)",
          "stroke-width": 3.5,
        }),
      );
    parts.push(
      element("circle", {
        cx: u(now.fp / impostor.length),
        cy: v(now.tp / genuine.length),
        r: 6.5,
        style: "fill:var(--student)",
        stroke: "currentColor",
        "stroke-width": 1.5,
      }),
    );
    for (const [share, words] of [
      [0, "0"],
      [1, "1"],
    ])
      parts.push(text(u(share), 331, words), text(u(0) - 6, v(share) + 4, words, { "text-anchor": "end" }));
    parts.push(text(u(0.5), 333, "FPR: impostor pairs accepted"));
    parts.push(text(u(0) - 8, v(0.5) + 4, "TPR", { "text-anchor": "end" }));
    return parts;
  }
});
