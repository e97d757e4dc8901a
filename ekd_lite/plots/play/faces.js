// Pairs i < j, row by row, as Python's triu_indices has them.
function pairsOf(people) {
  const pairs = [];
  people.forEach((one, i) =>
    people.slice(i + 1).forEach((other, k) => pairs.push({ i, j: i + 1 + k, same: one === other })),
  );
  return pairs;
}

// How many genuine and impostor pairs lie in each of the four fields of two nets' decisions.
function fourFields(pairs, teacher, student, teacherAt, studentAt) {
  const fields = { both: [0, 0], teacher: [0, 0], student: [0, 0], neither: [0, 0] };
  pairs.forEach((pair, k) => {
    const t = teacher[k] > teacherAt,
      s = student[k] > studentAt;
    fields[t ? (s ? "both" : "teacher") : s ? "student" : "neither"][pair.same ? 0 : 1] += 1;
  });
  return fields;
}

start("faces", (root, { pictures, people, nets, cosines, thresholds, tprs, fprs, total }) => {
  const pairs = pairsOf(people),
    n = people.length,
    genuine = pairs.filter(p => p.same).length;
  const middle = Math.floor(fprs.length / 2);
  const title = k =>
    `person ${"ABCDEFGH"[people[k]]}, picture ${people.slice(0, k + 1).filter(p => p === people[k]).length}`;
  const find = (i, j) => pairs.findIndex(p => p.i === Math.min(i, j) && p.j === Math.max(i, j));
  const differs = (k, level, net) =>
    cosines[0][k] > thresholds[0][level] !== cosines[net][k] > thresholds[net][level];
  const startAt = Math.max(
    0,
    pairs.findIndex((p, k) => p.same && differs(k, middle, 1)),
  );
  const faces = people.map((_, k) => [k, title(k)]);
  const one = chooser("first", "first face", faces, pairs[startAt].i, update);
  const two = chooser("second", "second face", faces, pairs[startAt].j, update);
  const level = slider(
    "level",
    "false-positive rate",
    { min: 0, max: fprs.length - 1, step: 1, value: middle, show: k => k, say: k => fprs[k] },
    update,
  );
  const net = chooser(
    "net",
    "student",
    nets.slice(1).map((name, k) => [k + 1, name]),
    1,
    update,
  );
  const all = total.toLocaleString("en");
  const table = facts(
    {
      teacherTpr: "teacher: TPR of these",
      studentTpr: "student: TPR of these",
      wholeTeacher: `teacher: TPR of all ${all}`,
      wholeStudent: `student: TPR of all ${all}`,
      onlyTeacher: "only teacher accepts",
      onlyStudent: "only student accepts",
    },
    "pairs",
  );
  const verdict = element("p", { class: "verdict", "aria-live": "polite" });
  const image = (k, x, y, size, more = {}) =>
    element("image", {
      href: `data:image/jpeg;base64,${pictures[k]}`,
      x,
      y,
      width: size,
      height: size,
      ...more,
    });
  const view = picture(
    "A table of all pairs of the twelve pictures: which of the two nets accepts each, critical pairs filled. " +
      "Beside it the two chosen faces and where their cosine lies among each net's threshold.",
    width => plan(width).height,
    draw,
  );
  view.box.addEventListener("click", event => {
    const cell = event.target.closest("[data-pair]");
    if (!cell) return;
    one.set(pairs[cell.dataset.pair].i);
    two.set(pairs[cell.dataset.pair].j);
    update();
  });
  root.append(
    view.box,
    element("div", { class: "controls" }, level.box, net.box, one.box, two.box),
    table.box,
    verdict,
  );
  let now;
  update();

  function update() {
    const s = Number(net.value),
      f = fprs[level.value];
    const at = [thresholds[0][level.value], thresholds[s][level.value]];
    const fields = fourFields(pairs, cosines[0], cosines[s], ...at);
    const [i, j] = [Number(one.value), Number(two.value)];
    now = { s, at, fields, i, j, pair: i === j ? -1 : find(i, j) };
    const rate = list => [list / genuine, `${list} of ${genuine}`];
    table.tell({
      teacherTpr: rate(fields.both[0] + fields.teacher[0]),
      studentTpr: rate(fields.both[0] + fields.student[0]),
      wholeTeacher: [tprs[0][level.value], tprs[0][level.value].toFixed(3)],
      wholeStudent: [tprs[s][level.value], tprs[s][level.value].toFixed(3)],
      onlyTeacher: [fields.teacher[0], `${fields.teacher[0]} right, ${fields.teacher[1]} wrong`],
      onlyStudent: [fields.student[0], `${fields.student[0]} right, ${fields.student[1]} wrong`],
    });
    if (now.pair < 0) verdict.textContent = "One and the same picture: choose two.";
    else {
      const { same } = pairs[now.pair],
        t = cosines[0][now.pair] > at[0],
        u = cosines[s][now.pair] > at[1];
      const word = ok => (ok === same ? "rightly" : "wrongly");
      verdict.textContent =
        `${same ? "One person" : "Two people"}, at FPR ${f}: ` +
        (t === u
          ? `both nets ${t ? "accept" : "refuse"}, ${word(t)}. The pair does not tell them apart.`
          : `the teacher ${t ? "accepts" : "refuses"} ${word(t)}, the student ${u ? "accepts" : "refuses"} ${word(u)}. A critical pair.`);
    }
    view.redraw();
  }

  function plan(width) {
    const wide = width > 560,
      cell = Math.floor((wide ? width * 0.6 : width) / (n + 1.2)),
      side = cell * (n + 1);
    const y = wide ? 10 : side + 24,
      below = y + 96 + 40 + 60 * nets.length - 10;
    return {
      cell,
      side,
      x: wide ? side + 34 : 0,
      y,
      room: wide ? width - side - 34 : width,
      height: Math.max(side + 8, below),
    };
  }

  function draw(width) {
    const { cell, side, x: left, y: top, room } = plan(width),
      parts = [];
    for (let k = 0; k < n; k++)
      parts.push(image(k, cell * (k + 1), 0, cell - 1), image(k, 0, cell * (k + 1), cell - 1));
    pairs.forEach(({ i, j, same }, k) => {
      const t = cosines[0][k] > now.at[0],
        u = cosines[now.s][k] > now.at[1];
      const x = cell * (j + 1),
        y = cell * (i + 1),
        half = cell / 2 - 0.5,
        size = cell * 0.26;
      const box = element("g", { "data-pair": k, style: "cursor:pointer" });
      box.append(
        element("rect", {
          x,
          y,
          width: cell - 1,
          height: cell - 1,
          stroke: "currentColor",
          "stroke-opacity": same ? 0.9 : 0.15,
          style: t !== u ? "fill:var(--loss)" : "fill:transparent",
          "fill-opacity": 0.75,
          "stroke-width": same ? 1.3 : 1,
        }),
      );
      const cx = x + half,
        cy = y + half;
      if (t && u) box.append(element("circle", { cx, cy, r: size, fill: "currentColor" }));
      if (t && !u)
        box.append(
          element("path", {
            d: `M${cx - size} ${cy + size}H${cx + size}L${cx} ${cy - size}Z`,
            fill: "currentColor",
          }),
        );
      if (!t && u)
        box.append(
          element("path", {
            d: `M${cx - size} ${cy - size}H${cx + size}L${cx} ${cy + size}Z`,
            fill: "currentColor",
          }),
        );
      if (!t && !u)
        box.append(element("circle", { cx, cy, r: 1.2, fill: "currentColor", "fill-opacity": 0.5 }));
      if (k === now.pair)
        box.append(
          element("rect", {
            x: x - 1.5,
            y: y - 1.5,
            width: cell + 2,
            height: cell + 2,
            fill: "none",
            stroke: "currentColor",
            "stroke-width": 3,
          }),
        );
      parts.push(box);
    });
    // The key stands in the empty corner below the diagonal.
    const key = [
      ["●", "both accept"],
      ["▲", "only teacher"],
      ["▼", "only student"],
      ["·", "neither"],
      ["□", "one person"],
    ];
    key.forEach(([sign, words], k) => {
      const y = side - (key.length - k) * 17 + 10;
      if (k === 1 || k === 2)
        parts.push(
          element("rect", {
            x: cell + 5,
            y: y - 12,
            width: 16,
            height: 16,
            style: "fill:var(--loss)",
            "fill-opacity": 0.75,
          }),
        );
      parts.push(text(cell + 13, y, sign), text(cell + 28, y, words, { "text-anchor": "start" }));
    });
    // The two faces, and a line for every net.
    const face = Math.min(96, (room - 20) / 2),
      from = left + (room - 2 * face - 12) / 2;
    if (now.pair >= 0)
      parts.push(
        element("rect", {
          x: from - 4,
          y: top - 4,
          width: 2 * face + 20,
          height: face + 8,
          rx: 5,
          fill: "none",
          style: `stroke:var(${pairs[now.pair].same ? "--teacher" : "--loss"})`,
          "stroke-width": 2.5,
          "stroke-dasharray": pairs[now.pair].same ? "none" : "6 4",
        }),
      );
    parts.push(image(now.i, from, top, face), image(now.j, from + face + 12, top, face));
    const x = scale(-0.3, 1, left + 6, left + room - 10);
    nets.forEach((name, k) => {
      const y = top + face + 40 + 60 * k,
        at = thresholds[k][level.value],
        cosine = now.pair < 0 ? 1 : cosines[k][now.pair],
        passes = cosine > at;
      const hue = k === 0 ? "--teacher" : "--student",
        weight = k === 0 || k === now.s ? 600 : 400;
      parts.push(
        text(left + 6, y - 12, name, {
          "text-anchor": "start",
          "font-weight": weight,
          style: `fill:var(${hue})`,
        }),
      );
      parts.push(
        text(
          left + room - 10,
          y + 24,
          `${minus(cosine, 2)} ${passes ? ">" : "≤"} ${minus(at, 2)}: ${passes ? "accepts" : "refuses"}`,
          { "text-anchor": "end", "font-weight": weight },
        ),
      );
      parts.push(line(x(-0.3), y, x(1), y, { "stroke-opacity": 0.4 }));
      parts.push(
        element("rect", {
          x: x(at),
          y: y - 5,
          width: x(1) - x(at),
          height: 10,
          style: `fill:var(${hue})`,
          "fill-opacity": 0.25,
        }),
      );
      parts.push(line(x(at), y - 9, x(at), y + 9, { "stroke-width": 2 }));
      parts.push(
        element("circle", {
          cx: x(Math.max(-0.3, cosine)),
          cy: y,
          r: 6,
          style: `fill:var(${hue})`,
          "fill-opacity": passes ? 1 : 0.2,
          stroke: "currentColor",
        }),
      );
    });
    return parts;
  }
});
