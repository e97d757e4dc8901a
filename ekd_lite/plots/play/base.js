"use strict";

// Call build(root, numbers) once for every widget of this name that does not run yet. Some programs
// keep every output in a shadow tree, where the document does not look.
function start(name, build) {
  const trees = [document, ...[...document.querySelectorAll("*")].map(e => e.shadowRoot).filter(Boolean)];
  const wanted = `.ekd-play[data-play="${name}"]:not([data-on])`;
  for (const root of trees.flatMap(tree => [...tree.querySelectorAll(wanted)])) {
    root.dataset.on = "";
    root.querySelector(".still").hidden = true;
    build(root, JSON.parse(root.dataset.numbers));
  }
}

// An element with attributes and children; a function among the attributes hears its event.
function element(tag, attributes = {}, ...children) {
  const made = SHAPES.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
const SHAPES = new Set(["svg", "g", "path", "line", "circle", "rect", "text", "image"]);

// A labelled slider; `show` turns its position into what is meant, `say` that into words.
function slider(name, label, { min, max, step, value, show = x => x, say = x => x.toFixed(2) }, change) {
  const words = element("b", { class: "value" }); // an output would take the label from the input
  const input = element("input", {
    type: "range",
    name,
    min,
    max,
    step,
    value,
    autocomplete: "off",
    input: () => {
      tell();
      change();
    },
  });
  const tell = () => {
    words.textContent = say(show(Number(input.value)));
    input.setAttribute("aria-valuetext", words.textContent);
  };
  tell();
  return {
    box: element("label", {}, element("span", {}, label, words), input),
    get value() {
      return show(Number(input.value));
    },
    set(position) {
      input.value = position;
      tell();
    },
  };
}

// A list to choose from; `choices` are [value, words].
function chooser(name, label, choices, value, change) {
  const select = element(
    "select",
    { name, autocomplete: "off", input: change },
    ...choices.map(([key, words]) => element("option", { value: key, selected: key === value }, words)),
  );
  return {
    box: element("label", {}, element("span", {}, label), select),
    get value() {
      return select.value;
    },
    set(value) {
      select.value = value;
    },
  };
}

// Named numbers; tell({name: [number, words]}) writes the words and keeps the whole number.
function facts(names, kind = "") {
  const outputs = {};
  const box = element("div", { class: `facts ${kind}` });
  for (const [name, label] of Object.entries(names)) {
    outputs[name] = element("output", { "data-fact": name });
    box.append(element("div", {}, element("span", {}, label), outputs[name]));
  }
  return {
    box,
    tell(values) {
      for (const [name, [number, words]] of Object.entries(values)) {
        outputs[name].textContent = words;
        outputs[name].dataset.value = number;
      }
    },
  };
}

// A picture that is drawn anew when its width or what it shows changes; letters keep their size.
// The height is a number or a function of the width.
function picture(label, height, draw) {
  const svg = element("svg", { role: "img", "aria-label": label });
  let width = 640;
  const redraw = () => {
    svg.setAttribute("viewBox", `0 0 ${width} ${height instanceof Function ? height(width) : height}`);
    svg.replaceChildren(...draw(width, height));
  };
  new ResizeObserver(([entry]) => {
    const wide = Math.max(280, Math.min(680, Math.round(entry.contentRect.width)));
    if (wide !== width) {
      width = wide;
      redraw();
    }
  }).observe(svg);
  return {
    box: svg,
    redraw,
    get width() {
      return width;
    },
  };
}

// Where a pointer on a picture is pressed or drawn along: at(x, y) in the units of the picture.
function drag(svg, at) {
  const tell = event => {
    const box = svg.getBoundingClientRect(),
      view = svg.viewBox.baseVal;
    at(
      ((event.clientX - box.left) / box.width) * view.width,
      ((event.clientY - box.top) / box.height) * view.height,
      event.type === "pointerdown",
    );
  };
  svg.addEventListener("pointerdown", event => {
    svg.setPointerCapture(event.pointerId);
    tell(event);
  });
  svg.addEventListener("pointermove", event => {
    if (event.buttons) tell(event);
  });
}

function scale(from, to, left, right) {
  return x => left + ((x - from) / (to - from)) * (right - left);
}
function path(points) {
  return "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
}
function line(x1, y1, x2, y2, more = {}) {
  return element("line", { x1, y1, x2, y2, stroke: "currentColor", ...more });
}
function text(x, y, words, more = {}) {
  return element("text", { x, y, "text-anchor": "middle", ...more }, words);
}
function grid(from, to, count) {
  return Array.from({ length: count + 1 }, (_, k) => from + ((to - from) * k) / count);
}
function minus(number, digits) {
  return number
    .toFixed(digits)
    .replace(/^-(?=0\.?0*$)/, "")
    .replace("-", "−");
}
