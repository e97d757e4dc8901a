// What an angle is worth to its own prototype, and minus the slope of that.
function target(head, m, theta) {
  if (head === "CosFace") return [Math.cos(theta) - m, Math.sin(theta)];
  if (head === "ArcFace")
    return theta + m < Math.PI
      ? [Math.cos(theta + m), Math.sin(theta + m)]
      : [Math.cos(theta) - m * Math.sin(m), Math.sin(theta)];
  return [Math.cos(theta), Math.sin(theta)];
}

// Softmax against people - 1 others at right angles: their logits are 0.
function marginLoss(head, s, m, people, theta) {
  const [worth, slope] = target(head, m, theta),
    logit = s * worth,
    rivals = Math.log(people - 1);
  const surplus = rivals - logit;
  const loss = surplus > 30 ? surplus + Math.log1p(Math.exp(-surplus)) : Math.log1p(Math.exp(surplus));
  return { logit, p: Math.exp(-loss), loss, pull: (s * slope) / (1 + Math.exp(-surplus)) };
}

// The largest angle at which the right person has probability 1/2, or NaN if none has.
function demand(head, s, m, people) {
  const worth = Math.log(people - 1) / s + (head === "CosFace" ? m : 0);
  const angle = Math.acos(worth) - (head === "ArcFace" ? m : 0);
  return worth <= 1 && angle >= 0 ? angle : NaN;
}

start("margin", (root, { heads, people, start: [h0, s0, m0, c0, angle0] }) => {
  const degrees = radians => (radians * 180) / Math.PI,
    radians = angle => (angle * Math.PI) / 180;
  const head = chooser(
    "head",
    "head",
    heads.map(name => [name, name]),
    h0,
    update,
  );
  const s = slider("scale", "scale s", { min: 1, max: 96, step: 1, value: s0, say: String }, update);
  const m = slider("margin", "margin m", { min: 0, max: 0.8, step: 0.01, value: m0 }, update);
  const c = slider(
    "people",
    "people C",
    {
      min: 0,
      max: people.length - 1,
      step: 1,
      value: c0,
      show: k => people[k],
      say: x => x.toLocaleString("en"),
    },
    update,
  );
  const angle = slider(
    "angle",
    "angle θ to its own prototype",
    { min: 0, max: 180, step: 1, value: angle0, say: x => `${x.toFixed(0)}°` },
    update,
  );
  const table = facts({
    logit: "own logit s ψ(θ)",
    p: "probability p",
    loss: "loss −log p",
    pull: "pull dL/dθ",
    demand: "demanded angle θ*",
    needed: "logit needed, log(C−1)",
  });
  const verdict = element("p", { class: "verdict", "aria-live": "polite" });
  const view = picture(
    "Left, an image's direction on a half circle: its prototype at 0 degrees, the others at 90, the " +
      "demanded angle as a sector. Right, the pull against the angle for this head and for the plain cosine.",
    218,
    draw,
  );
  root.append(
    view.box,
    element("div", { class: "controls" }, angle.box, head.box, m.box, s.box, c.box),
    table.box,
    verdict,
  );
  drag(view.box, (x, y) => {
    const across = x < dial.x + dial.r + 12,
      turn = degrees(Math.atan2(dial.y - y, x - dial.x));
    const to = across
      ? turn < -90
        ? 180
        : Math.max(0, turn)
      : ((x - dial.x - dial.r - dial.gap) / dial.wide) * 180;
    angle.set(Math.max(0, Math.min(180, to)));
    update();
  });
  let now, dial;
  update();

  function update() {
    const given = [head.value, s.value, m.value, c.value];
    now = {
      ...marginLoss(...given, radians(angle.value)),
      demand: demand(...given),
      plain: demand("NormFace", s.value, 0, c.value),
    };
    const none = Number.isNaN(now.demand),
      needed = Math.log(c.value - 1);
    table.tell({
      logit: [now.logit, minus(now.logit, 2)],
      p: [now.p, now.p > 0.0005 ? now.p.toFixed(4) : now.p.toExponential(1).replace("-", "−")],
      loss: [now.loss, now.loss.toFixed(now.loss < 0.01 ? 5 : 3)],
      pull: [now.pull, now.pull.toFixed(now.pull < 0.1 ? 5 : 2)],
      demand: [degrees(now.demand), none ? "none" : `${degrees(now.demand).toFixed(1)}°`],
      needed: [needed, needed.toFixed(2)],
    });
    const share = now.pull / s.value;
    verdict.textContent = none
      ? "No angle is good enough: even on its prototype the right person stays below one half. The scale is too small, or the margin too large."
      : radians(angle.value) <= now.demand
        ? `Within the demanded angle: the right person has more than one half${share < 0.02 ? ", and the pull has died" : ""}.`
        : `Outside of the demanded angle: the image is turned towards its prototype${radians(angle.value) <= now.plain ? ", where the plain cosine would be content" : ""}.`;
    view.redraw();
  }

  function draw(width) {
    const narrow = width < 480,
      r = narrow ? 78 : 118,
      gap = narrow ? 54 : 84;
    dial = { x: r + 18, y: 168, r, gap, wide: width - 2 * r - 18 - gap - 26 };
    const at = (turn, length = r) => [dial.x + length * Math.cos(turn), dial.y - length * Math.sin(turn)];
    const theta = radians(angle.value),
      parts = [];
    const arc = (from, to, length) => path(grid(from, to, 40).map(turn => at(turn, length)));
    if (now.demand > 0)
      parts.push(
        element("path", {
          d: `${arc(0, now.demand, r)}L${dial.x} ${dial.y}Z`,
          style: "fill:var(--student)",
          "fill-opacity": 0.28,
        }),
      );
    parts.push(
      element("path", { d: arc(0, Math.PI, r), fill: "none", stroke: "currentColor", "stroke-opacity": 0.5 }),
    );
    parts.push(line(...at(0), ...at(Math.PI), { "stroke-opacity": 0.3 }));
    parts.push(line(...at(0, 0), ...at(0), { style: "stroke:var(--student)", "stroke-width": 3 }));
    parts.push(
      line(...at(Math.PI / 2, 0), ...at(Math.PI / 2), { "stroke-width": 1.4, "stroke-dasharray": "5 4" }),
    );
    parts.push(text(...at(Math.PI / 2, r + 9), "the others"));
    parts.push(
      text(dial.x + r + 4, dial.y + 16, "own", { style: "fill:var(--student)", "text-anchor": "end" }),
    );
    if (head.value === "ArcFace" && m.value > 0 && theta + m.value <= Math.PI) {
      parts.push(
        element("path", {
          d: arc(theta, theta + m.value, r * 0.62),
          fill: "none",
          style: "stroke:var(--loss)",
          "stroke-width": 3,
        }),
      );
      parts.push(
        line(...at(0, 0), ...at(theta + m.value, r * 0.98), {
          style: "stroke:var(--loss)",
          "stroke-dasharray": "3 3",
          "stroke-width": 1.5,
        }),
      );
      parts.push(text(...at(theta + m.value / 2, r * 0.74), "m", { style: "fill:var(--loss)", dy: 4 }));
    }
    parts.push(line(...at(0, 0), ...at(theta), { style: "stroke:var(--teacher)", "stroke-width": 3.5 }));
    const [cx, cy] = at(theta);
    parts.push(
      element("circle", {
        cx,
        cy,
        r: 7,
        style: "fill:var(--teacher)",
        stroke: "currentColor",
        "stroke-width": 1.5,
      }),
    );
    parts.push(
      text(
        dial.x,
        dial.y + 36,
        now.demand > 0 ? `demanded: θ* = ${degrees(now.demand).toFixed(1)}°` : "nothing is enough",
      ),
    );
    // The pull, as a share of the scale.
    const left = dial.x + r + gap,
      x = scale(0, 180, left, left + dial.wide),
      y = scale(0, 1.05, dial.y, 22);
    const curve = (name, margin) =>
      path(
        grid(0, 180, 240).map(t => [
          x(t),
          y(marginLoss(name, s.value, margin, c.value, radians(t)).pull / s.value),
        ]),
      );
    parts.push(line(x(0), y(0), x(180), y(0)), line(x(0), y(0), x(0), y(1), { "stroke-opacity": 0.5 }));
    if (now.demand > 0)
      parts.push(
        element("rect", {
          x: x(0),
          y: y(1),
          width: x(degrees(now.demand)) - x(0),
          height: y(0) - y(1),
          style: "fill:var(--student)",
          "fill-opacity": 0.14,
        }),
      );
    for (const t of narrow ? [0, 90, 180] : [0, 30, 60, 90, 120, 150, 180])
      parts.push(text(x(t), y(0) + 16, `${t}°`));
    for (const share of [0, 1])
      parts.push(text(x(0) - 5, y(share) + 4, String(share), { "text-anchor": "end" }));
    parts.push(text(x(0) - 5, y(0.5) + 4, narrow ? "pull" : "pull / s", { "text-anchor": "end" }));
    parts.push(text(x(90), y(0) + 36, "angle θ"));
    parts.push(
      element("path", {
        d: curve("NormFace", 0),
        fill: "none",
        stroke: "currentColor",
        "stroke-opacity": 0.55,
        "stroke-width": 1.6,
        "stroke-dasharray": "5 4",
      }),
    );
    parts.push(
      element("path", {
        d: curve(head.value, m.value),
        fill: "none",
        style: "stroke:var(--loss)",
        "stroke-width": 2.4,
      }),
    );
    parts.push(
      line(x(angle.value), y(0), x(angle.value), y(1), { "stroke-dasharray": "2 3", "stroke-opacity": 0.7 }),
    );
    parts.push(
      element("circle", {
        cx: x(angle.value),
        cy: y(now.pull / s.value),
        r: 5,
        style: "fill:var(--teacher)",
        stroke: "currentColor",
      }),
    );
    return parts;
  }
});
