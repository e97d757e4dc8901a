// The rows of a regime that have a number at a level, the best first.
function ranked(rows, regime, level) {
  return rows
    .filter(([where, , , values]) => where === regime && values[level])
    .map(([, method, setting, values]) => ({
      method,
      setting,
      mean: values[level][0],
      low: values[level][1],
      high: values[level][2],
    }))
    .sort((one, other) => other.mean - one.mean);
}

start("study", (root, { rows, levels, start: [method0, reference0], unit }) => {
  const regimes = [...new Set(rows.map(r => r[0]))],
    methods = [...new Set(rows.map(r => r[1]))];
  const named = list => list.map(name => [name, name]);
  const regime = chooser("regime", "regime", named(regimes), regimes[0], update);
  const level = chooser(
    "level",
    "level",
    levels.map((name, k) => [k, name]),
    0,
    update,
  );
  const method = chooser("method", "method", named(methods), method0, update);
  const reference = chooser("reference", "compared with", named(methods), reference0, update);
  const table = facts(
    { mean: "mean", rank: "place", interval: "interval", difference: "difference of the means" },
    "pairs",
  );
  const verdict = element("p", { class: "verdict", "aria-live": "polite" });
  const most = Math.max(...regimes.flatMap(r => levels.map((_, k) => ranked(rows, r, k).length)));
  const view = picture(
    "One line for each method, the best first: its mean as a dot and its interval as a bar; a dashed line " +
      "marks the method that it is compared with.",
    26 + 22 * most + 30,
    draw,
  );
  view.box.addEventListener("click", event => {
    const chosen = event.target.closest("[data-method]");
    if (chosen) {
      method.set(chosen.dataset.method);
      update();
    }
  });
  let now;
  root.append(
    view.box,
    element("div", { class: "controls" }, regime.box, level.box, method.box, reference.box),
    table.box,
    verdict,
  );
  update();

  function update() {
    const list = ranked(rows, regime.value, Number(level.value));
    const mine = list.find(r => r.method === method.value),
      other = list.find(r => r.method === reference.value);
    now = { list, mine, other };
    const number = x => `${minus(x, 2)} ${unit}`,
      gap = mine && other ? mine.mean - other.mean : NaN;
    table.tell({
      mean: [mine ? mine.mean : NaN, mine ? number(mine.mean) : "none"],
      interval: [
        mine ? mine.high - mine.low : NaN,
        mine ? `${minus(mine.low, 2)} to ${minus(mine.high, 2)}` : "none",
      ],
      rank: [
        mine ? list.indexOf(mine) + 1 : NaN,
        mine ? `${list.indexOf(mine) + 1} of ${list.length}` : "none",
      ],
      difference: [gap, Number.isNaN(gap) ? "none" : (gap > 0 ? "+" : "") + minus(gap, 2)],
    });
    const within = mine
      ? list.filter(r => r !== mine && r.low <= mine.mean && mine.mean <= r.high).length
      : 0;
    verdict.textContent = !mine
      ? `${method.value} was not measured here.`
      : `${method.value}${mine.setting && mine.setting !== method.value ? ` (${mine.setting})` : ""}: ` +
        `its mean lies within the intervals of ${within} of the ${list.length - 1} others.`;
    view.redraw();
  }

  function draw(width) {
    const { list, mine, other } = now,
      parts = [];
    if (!list.length) return [text(width / 2, 40, "nothing was measured here")];
    const left = Math.min(190, width * 0.4),
      ends = [Math.min(...list.map(r => r.low)), Math.max(...list.map(r => r.high))];
    const spare = 0.04 * (ends[1] - ends[0] || 1),
      x = scale(ends[0] - spare, ends[1] + spare, left, width - 12);
    const bottom = 26 + 22 * list.length,
      ticks = (ends[1] - ends[0]) / (width < 480 ? 3 : 5);
    const unitStep = 10 ** Math.floor(Math.log10(ticks || 1)),
      step = [1, 2, 5, 10].map(k => k * unitStep).find(k => k >= ticks) || 1;
    for (let v = Math.ceil(ends[0] / step) * step; v <= ends[1] + 1e-9; v += step) {
      parts.push(line(x(v), 20, x(v), bottom, { "stroke-opacity": 0.15 }));
      parts.push(text(x(v), bottom + 16, minus(v, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))));
    }
    parts.push(text(width - 12, 12, `${levels[level.value]}, ${unit}`, { "text-anchor": "end" }));
    if (mine)
      parts.push(
        element("rect", {
          x: x(mine.low),
          y: 20,
          width: x(mine.high) - x(mine.low),
          height: bottom - 20,
          style: "fill:var(--loss)",
          "fill-opacity": 0.13,
        }),
      );
    if (other)
      parts.push(
        line(x(other.mean), 20, x(other.mean), bottom, {
          style: "stroke:var(--teacher)",
          "stroke-width": 2,
          "stroke-dasharray": "6 4",
        }),
      );
    list.forEach((one, k) => {
      const y = 26 + 22 * k + 11,
        hue = one === mine ? "var(--loss)" : one === other ? "var(--teacher)" : "currentColor";
      const line0 = element("g", { "data-method": one.method, style: "cursor:pointer" });
      const most = Math.floor(left / 7),
        words = one.method.length > most ? `${one.method.slice(0, most - 1)}…` : one.method;
      line0.append(
        text(left - 8, y + 4, words, {
          "text-anchor": "end",
          "font-weight": one === mine ? 700 : 400,
          style: `fill:${hue}`,
        }),
      );
      line0.append(
        line(x(one.low), y, x(one.high), y, {
          style: `stroke:${hue}`,
          "stroke-width": one === mine ? 4 : 2,
          "stroke-opacity": one === mine || one === other ? 1 : 0.55,
        }),
      );
      line0.append(
        element("circle", { cx: x(one.mean), cy: y, r: one === mine ? 6 : 4, style: `fill:${hue}` }),
      );
      line0.append(element("rect", { x: 0, y: y - 11, width, height: 22, fill: "transparent" }));
      parts.push(line0);
    });
    return parts;
  }
});
