// Axes, scales and frames for all figures. Figures are drawn at the width of their box.

let figures = 0;

// An empty drawing with a title. `about` is its description for screen readers.
function frame(box, title, about, height) {
  const id = `f${(figures += 1)}`;
  const width = Math.max(260, box.clientWidth || 600);
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-labelledby": `${id}t ${id}d` },
    svg("title", { id: `${id}t` }, title),
    svg("desc", { id: `${id}d` }, about),
  );
  return { drawing, width, height };
}

function linear([low, high], [from, to]) {
  return (x) => from + ((x - low) / (high - low || 1)) * (to - from);
}

function logarithmic([low, high], ends) {
  const inner = linear([Math.log(low), Math.log(high)], ends);
  return (x) => inner(Math.log(x));
}

// About `wanted` round numbers in a range.
function ticks([low, high], wanted = 5) {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const marks = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-12; k += 1) marks.push(Number((k * step).toPrecision(10)));
  return marks;
}

function logTicks([low, high]) {
  if (high / low < 8) return ticks([low, high], 4);
  const marks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
    for (const m of [1, 2, 5]) if (m * 10 ** power >= low && m * 10 ** power <= high) marks.push(Number((m * 10 ** power).toPrecision(3)));
  return marks.length > 7 ? marks.filter((x) => /^10*$/.test(String(x).replace(/^0\.0*/, ""))) : marks;
}

function padded([low, high], share = 0.06) {
  const margin = (high - low || Math.abs(high) || 1) * share;
  return [low - margin, high + margin];
}

function span(values) {
  return [Math.min(...values), Math.max(...values)];
}

function text(x, y, words, attributes = {}) {
  return svg("text", { x: x.toFixed(1), y: y.toFixed(1), ...attributes }, words);
}

function axisX(drawing, at, marks, y, top, show = String) {
  drawing.append(
    ...marks.flatMap((mark) => [
      svg("path", { class: "rule", d: `M${at(mark).toFixed(1)} ${top}V${y}` }),
      text(at(mark), y + 15, show(mark), { class: "tick", "text-anchor": "middle" }),
    ]),
  );
}

function axisY(drawing, at, marks, x, right, show = String) {
  drawing.append(
    ...marks.flatMap((mark) => [
      svg("path", { class: "rule", d: `M${x} ${at(mark).toFixed(1)}H${right}` }),
      text(x - 6, at(mark) + 4, show(mark), { class: "tick", "text-anchor": "end" }),
    ]),
  );
}

function line(points) {
  return points.map(([x, y], k) => `${k ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

// A staircase: the value holds until the next point.
function stairs(points) {
  return points.map(([x, y], k) => (k ? `H${x.toFixed(1)}V${y.toFixed(1)}` : `M${x.toFixed(1)} ${y.toFixed(1)}`)).join("");
}

function score(unit) {
  return unit === null || unit === undefined ? null : unit / BOARD.scale;
}

function card(title, note, ...content) {
  return el("figure", { class: "card" }, el("figcaption", {}, el("b", {}, title), note && el("span", { class: "note" }, note)), ...content);
}
