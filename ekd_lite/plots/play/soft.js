// Logits in thousandths, from little-endian 16-bit numbers in base 64.
function readLogits(words) {
  const bytes = Uint8Array.from(atob(words), letter => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 2 }, (_, k) => view.getInt16(2 * k, true) / 1000);
}

function logSoftmax(logits, T) {
  const top = Math.max(...logits);
  const total = Math.log(logits.reduce((sum, z) => sum + Math.exp((z - top) / T), 0));
  return logits.map(z => (z - top) / T - total);
}

// Beliefs of both nets at a temperature, their perplexities, KD's loss and the length of its gradient.
function distilBelief(student, teacher, T) {
  const logP = logSoftmax(student, T),
    logQ = logSoftmax(teacher, T);
  const p = logP.map(Math.exp),
    q = logQ.map(Math.exp);
  const entropy = (belief, log) => -belief.reduce((sum, x, k) => sum + x * log[k], 0);
  return {
    p,
    q,
    betweenP: Math.exp(entropy(p, logP)),
    betweenQ: Math.exp(entropy(q, logQ)),
    loss: T ** 2 * q.reduce((sum, x, k) => sum + x * (logQ[k] - logP[k]), 0),
    pull: T * Math.sqrt(q.reduce((sum, x, k) => sum + (p[k] - x) ** 2, 0)),
  };
}

start("soft", (root, { pictures, portraits, people, likely, teacher, student, temperatures, start: t0 }) => {
  const logits = [student, teacher].map(rows => rows.map(readLogits)),
    count = logits[0][0].length;
  const T = slider(
    "temperature",
    "temperature T",
    { min: 0, max: temperatures.length - 1, step: 1, value: t0, show: k => temperatures[k], say: String },
    update,
  );
  const which = chooser(
    "picture",
    "picture",
    pictures.map((_, k) => [k, `picture ${k + 1}, of person ${people[k]}`]),
    0,
    update,
  );
  const table = facts(
    {
      q: "teacher: true person",
      p: "student: true person",
      betweenQ: "teacher: hesitates between",
      betweenP: "student: hesitates between",
      loss: "loss of KD, T² KL",
      pull: "length of its gradient",
    },
    "pairs",
  );
  const verdict = element("p", { class: "verdict", "aria-live": "polite" });
  const row = 38,
    rows = likely[0].length + 1;
  const view = picture(
    "A picture, the person on it and the people whom the teacher thinks likeliest; on a logarithmic axis " +
      "the probability that teacher and student give to each.",
    30 + row * rows + 26,
    draw,
  );
  let now;
  root.append(
    view.box,
    element("div", { class: "controls" }, T.box, pictures.length > 1 ? which.box : ""),
    table.box,
    verdict,
  );
  update();

  function short(x) {
    return x >= 0.001 ? x.toFixed(3) : x.toExponential(1).replace("-", "−");
  }

  function update() {
    const k = Number(which.value),
      own = people[k];
    now = { k, ...distilBelief(logits[0][k], logits[1][k], T.value) };
    table.tell({
      q: [now.q[own], short(now.q[own])],
      p: [now.p[own], short(now.p[own])],
      betweenQ: [now.betweenQ, `${now.betweenQ.toFixed(now.betweenQ < 10 ? 2 : 0)} people`],
      betweenP: [now.betweenP, `${now.betweenP.toFixed(now.betweenP < 10 ? 2 : 0)} people`],
      loss: [now.loss, now.loss.toPrecision(4)],
      pull: [now.pull, now.pull.toPrecision(4)],
    });
    verdict.textContent =
      now.betweenQ < 1.1
        ? "The teacher is certain: its soft label is hardly more than the label."
        : now.betweenQ > 0.8 * count
          ? "The teacher hesitates between nearly everybody: what is left are small differences of equal weight."
          : "The teacher says whom the picture resembles, and how much.";
    view.redraw();
  }

  function draw(width) {
    const few = likely[now.k],
      left = 150,
      least = 1e-6,
      parts = [];
    const x = scale(Math.log10(least), 0, left + 8, width - 12),
      at = v => x(Math.log10(Math.max(least, v)));
    const data = one => ({ href: `data:image/jpeg;base64,${one}` });
    parts.push(element("image", { ...data(pictures[now.k]), x: 0, y: 30, width: 84, height: 84 }));
    parts.push(text(42, 130, "the picture"));
    for (let power = -6; power <= 0; power += 2) {
      const words = power === 0 ? "1" : `1e−${-power}`;
      parts.push(
        line(x(power), 24, x(power), 30 + row * rows, { "stroke-opacity": 0.15 }),
        text(x(power), 44 + row * rows, words),
      );
    }
    parts.push(text(0, 14, "● teacher", { "text-anchor": "start", style: "fill:var(--teacher)" }));
    parts.push(text(78, 14, "◆ student", { "text-anchor": "start", style: "fill:var(--student)" }));
    parts.push(text(width - 12, 14, "probability", { "text-anchor": "end" }));
    const sum = list => few.reduce((rest, person) => rest - list[person], 1);
    [...few, -1].forEach((person, k) => {
      const y = 30 + row * k + row / 2,
        [q, p] =
          person < 0 ? [Math.max(0, sum(now.q)), Math.max(0, sum(now.p))] : [now.q[person], now.p[person]];
      if (person >= 0)
        parts.push(
          element("image", { ...data(portraits[person]), x: left - 44, y: y - 17, width: 34, height: 34 }),
        );
      else
        parts.push(
          text(left - 8, y - 2, "everybody", { "text-anchor": "end", "font-size": 11 }),
          text(left - 8, y + 11, "else", { "text-anchor": "end", "font-size": 11 }),
        );
      if (k === 0)
        parts.push(
          element("rect", {
            x: left - 46,
            y: y - 19,
            width: 38,
            height: 38,
            fill: "none",
            stroke: "currentColor",
            "stroke-width": 2,
          }),
        );
      parts.push(line(x(-6), y, x(0), y, { "stroke-opacity": 0.15 }));
      parts.push(line(at(p), y, at(q), y, { style: "stroke:var(--loss)", "stroke-width": 3 }));
      parts.push(element("circle", { cx: at(q), cy: y, r: 6, style: "fill:var(--teacher)" }));
      const s = at(p);
      parts.push(
        element("path", {
          d: `M${s - 6} ${y}L${s} ${y - 6}L${s + 6} ${y}L${s} ${y + 6}Z`,
          style: "fill:var(--student)",
        }),
      );
    });
    return parts;
  }
});
