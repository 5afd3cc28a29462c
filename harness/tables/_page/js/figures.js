// Figures of a section: gains over the reference, quality against cost, searches side by side, spectra.

function forest(box, view) {
  const rows = view.rows.filter((row) => row.gain);
  if (!rows.length) return null;
  const reference = safe(nameOf(view.reference));
  const height = 52 + 24 * rows.length;
  const about = rows.map((row) => `${safe(nameOf(row.cell))} ${gainWords(row.gain)}`).join("; ");
  const { drawing, width } = frame(box, `Gain in ${view.metric} over ${reference}, percent`, about, height);
  const [left, right] = [Math.min(170, width * 0.36), width > 520 ? width - 158 : width - 14];
  const trained = rows.filter((row) => !row.cell.kinds.includes("baseline"));
  const ends = (trained.length ? trained : rows).flatMap((row) => [row.gain.low ?? row.gain.percent, row.gain.high ?? row.gain.percent]);
  const domain = padded(span([...ends, 0]));
  const at = linear(domain, [left, right]);
  const inside = (x) => Math.min(Math.max(at(x), left), right);
  inside.exact = at;
  axisX(drawing, at, ticks(domain, width > 520 ? 6 : 4), height - 34, 6, (x) => `${x > 0 ? "+" : ""}${x}`);
  drawing.append(svg("path", { class: "zero", d: `M${at(0).toFixed(1)} 2V${height - 34}` }));
  rows.forEach((row, k) => drawing.append(forestRow(row, 18 + 24 * k, inside, left, width, right)));
  drawing.append(text((left + right) / 2, height - 4, `gain over ${short(reference, 24)}, %`, { class: "axis", "text-anchor": "middle" }));
  return card("Gains", `over ${reference}, paired 95 % intervals; filled: differs after Holm; a triangle: off the scale`, drawing);
}

function gainWords(found) {
  return `${signed(found.percent)} %` + (found.low === null ? "" : `, 95 % interval ${signed(found.low)} to ${signed(found.high)}`);
}

function forestRow(row, y, inside, left, width, right) {
  const sure = row.marks.includes("differs");
  const { percent, low, high } = row.gain;
  const off = Math.abs(inside(percent) - inside.exact(percent)) > 1; // a baseline may lie off the scale
  const [x, tip] = [inside(percent), inside.exact(percent) < left ? -1 : 1];
  const words = `${safe(nameOf(row.cell))}: ${gainWords(row.gain)}${row.gain.p === null ? "" : `, adjusted p ${row.gain.p.toPrecision(2)}`}`;
  return svg(
    "a",
    { href: route(row.cell), class: sure ? "point sure" : "point", "data-tip": words, "aria-label": words },
    svg("rect", { class: "hit", x: 0, y: y - 12, width, height: 24 }),
    text(left - 10, y + 4, short(safe(nameOf(row.cell)), Math.floor(left / 6.6)), { class: "name", "text-anchor": "end" }),
    low !== null && !off && svg("path", { class: "interval", d: `M${inside(low).toFixed(1)} ${y}H${inside(high).toFixed(1)}` }),
    off
      ? svg("path", { class: "beyond", d: `M${(x + 2 * tip).toFixed(1)} ${y}l${-7 * tip} -5v10z` })
      : svg("circle", { cx: x.toFixed(1), cy: y, r: 4.5 }),
    right < width - 60 && text(width - 4, y + 4, `${signed(percent)}${low === null ? "" : ` [${signed(low)}, ${signed(high)}]`}${sure ? " *" : ""}`, { class: "figure-number", "text-anchor": "end" }),
  );
}

const COSTS = {
  parameters: ["trained parameters", count],
  train_seconds: ["training time of a run", seconds],
  search_seconds: ["search time", seconds],
};

function qualityCost(box, view, cost, choose) {
  const chosen = el(
    "select",
    { name: "cost", "aria-label": "Cost to draw against", onchange: (event) => choose(event.target.value) },
    ...Object.entries(COSTS).map(([key, [title]]) => el("option", { value: key, selected: key === cost }, title)),
  );
  const x = (row) => valueOf(row.cell, cost);
  const rows = view.rows.filter((row) => row.rank !== null && x(row) > 0);
  if (!rows.length) return null;
  const y = (row) => meanOf(row.cell, view.metric);
  const best = new Set(front(rows, x, y));
  const about = [...best].map((row) => `${safe(nameOf(row.cell))} ${COSTS[cost][1](x(row))}, ${y(row).toFixed(4)}`).join("; ");
  const { drawing, width, height } = frame(box, `${view.metric} against ${COSTS[cost][0]}`, `On the front: ${about}`, 320);
  const domainX = span(rows.map(x));
  const wide = domainX[0] === domainX[1] ? [domainX[0] / 2, domainX[1] * 2] : [domainX[0] / 1.15, domainX[1] * 1.35];
  const domainY = padded(span(rows.flatMap((row) => valueOf(row.cell, `m:${view.metric}`))));
  const atX = logarithmic(wide, [56, width - 12]);
  const atY = linear(domainY, [height - 44, 10]);
  axisX(drawing, atX, logTicks(wide), height - 40, 10, COSTS[cost][1]);
  axisY(drawing, atY, ticks(domainY, 5), 56, width - 12, (v) => v.toFixed(3).replace(/^0/, ""));
  const path = [...best].sort((a, b) => x(a) - x(b)).map((row) => [atX(x(row)), atY(y(row))]);
  if (path.length > 1) drawing.append(svg("path", { class: "front", d: stairs(path) }));
  drawing.append(...rows.map((row) => {
    const [, low, high] = valueOf(row.cell, `m:${view.metric}`);
    return svg("path", { class: "whisker", d: `M${atX(x(row)).toFixed(1)} ${atY(low).toFixed(1)}V${atY(high).toFixed(1)}` });
  }));
  drawing.append(text((56 + width) / 2, height - 6, `${COSTS[cost][0]}, log scale (left is cheaper)`, { class: "axis", "text-anchor": "middle" }));
  drawing.append(...labelled(rows, best, (row) => [atX(x(row)), atY(y(row))], (row) => `${safe(nameOf(row.cell))}: ${y(row).toFixed(4)}, ${COSTS[cost][1](x(row))}`, width));
  return card("Quality and cost", "on the line: no row is both cheaper and better; hollow: dominated", el("label", { class: "inline" }, "Cost ", chosen), drawing);
}

// Points with their names where there is room; those on the front first.
function labelled(rows, best, place, words, width) {
  const taken = rows.map((row) => { const [x, y] = place(row); return [x - 6, y - 6, x + 6, y + 6]; });
  const free = (a) => !taken.some((b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]);
  const inOrder = [...rows].sort((a, b) => best.has(b) - best.has(a));
  return inOrder.map((row) => {
    const [x, y] = place(row);
    const name = short(safe(nameOf(row.cell)), 22);
    const long = 6.4 * name.length;
    const spots = [[x + 9, y + 4, "start"], [x - 9, y + 4, "end"], [x, y - 10, "middle"], [x, y + 18, "middle"]];
    const boxes = spots.map(([sx, sy, anchor]) => {
      const from = anchor === "start" ? sx : anchor === "end" ? sx - long : sx - long / 2;
      return [from, sy - 10, from + long, sy + 2];
    });
    const spot = boxes.findIndex((a) => a[0] > 50 && a[2] < width && a[1] > 2 && free(a));
    if (spot >= 0) taken.push(boxes[spot]);
    return svg(
      "a",
      { href: route(row.cell), class: best.has(row) ? "point sure" : "point", "data-tip": words(row), "aria-label": words(row) },
      svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 5 }),
      spot >= 0 && text(spots[spot][0], spots[spot][1], name, { class: "name", "text-anchor": spots[spot][2] }),
    );
  });
}

// The search of every row as a small chart of its own, all on the same axes, the others behind it in grey.
function searches(box, view) {
  const cells = view.rows.map((row) => row.cell).filter((cell) => cell.search?.best.some((value) => value !== null));
  const lines = cells.map((cell) => soFar(cell.search.best.map(score)));
  const long = Math.max(0, ...cells.map((cell) => cell.search.best.length));
  if (long < 2) return null;
  const all = lines.flat().filter((value) => value !== null);
  const domain = padded(span(all));
  const small = cells.map((cell, k) => smallSearch(cell, lines, k, domain, long));
  return card(
    "Searches",
    `best validation ${BOARD.headline} so far after each trial, all on one scale from ${domain[0].toFixed(3)} to ${domain[1].toFixed(3)}; grey: the other rows`,
    el("div", { class: "multiples" }, ...small),
  );
}

function smallSearch(cell, lines, own, domain, long) {
  const [width, height] = [150, 84];
  const atX = linear([0, long - 1], [4, width - 4]);
  const atY = linear(domain, [height - 4, 4]);
  const path = (values) => stairs(values.flatMap((value, k) => (value === null ? [] : [[atX(k), atY(value)]])));
  const last = lines[own].at(-1);
  const words = `${safe(nameOf(cell))}: best ${last.toFixed(4)} after ${lines[own].length} trials`;
  return el(
    "a",
    { href: route(cell), class: "small", "data-tip": words },
    el("span", { class: "small-name" }, named(short(nameOf(cell), 24))),
    svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words },
      ...lines.filter((_, k) => k !== own).map((values) => svg("path", { class: "behind", d: path(values) })),
      svg("path", { class: "ahead", d: path(lines[own]) }),
    ),
    el("span", { class: "small-value" }, last.toFixed(4)),
  );
}
