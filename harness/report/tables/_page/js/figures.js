// Figures of a section: gains over the reference, quality against cost, critical difference, searches, parts of the test.

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
  return card("Gains", `over ${reference}, paired 95 % intervals; filled: differs after Holm; triangle: off the scale`, drawing);
}

function gainWords(gain) {
  return `${signed(gain.percent)} %` + (gain.low === null ? "" : `, 95 % interval ${signed(gain.low)} to ${signed(gain.high)}`);
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

const UNITS = { seconds, count, number: (value) => fixed(value, value < 10 ? 2 : 0) };

function costsOf() {
  return BOARD.columns.filter((column) => column.group === "cost");
}

function qualityCost(box, view, cost, choose) {
  const columns = costsOf();
  const chosen = el(
    "select",
    { name: "cost", "aria-label": "Cost on the horizontal axis", onchange: (event) => choose(event.target.value) },
    ...columns.map((column) => el("option", { value: column.key, selected: column.key === cost }, column.help)),
  );
  const column = columns.find((one) => one.key === cost);
  const x = (row) => valueOf(row.cell, cost);
  const rows = view.rows.filter((row) => row.rank !== null && column && x(row) !== null);
  if (!rows.length) return null;
  const drawing = frontChart(box, view, rows, x, column);
  return card("Quality and cost", "line: Pareto front, no row is both cheaper and better; hollow: dominated", el("label", { class: "inline" }, "Cost ", chosen), drawing);
}

function frontChart(box, view, rows, x, column) {
  const shown = UNITS[column.kind];
  const y = (row) => meanOf(row.cell, view.metric);
  const best = new Set(front(rows, x, y));
  const words = (row) => `${safe(nameOf(row.cell))}: ${y(row).toFixed(4)}, ${shown(x(row))}`;
  const { drawing, width, height } = frame(box, `${view.metric} against ${column.help}`, `On the Pareto front: ${[...best].map(words).join("; ")}`, 320);
  const costs = rows.map(x).filter((value) => value > 0);
  const free = costs.length < rows.length ? 32 : 0; // space for zero cost, which has no logarithm
  const [least, most] = costs.length ? span(costs) : [1, 1];
  const domainX = least === most ? [least / 2, most * 2] : [least / 1.15, most * 1.35];
  const domainY = padded(span(rows.flatMap((row) => valueOf(row.cell, `m:${view.metric}`))));
  const inner = logarithmic(domainX, [56 + free, width - 12]);
  const atX = (value) => (value > 0 ? inner(value) : 66);
  const atY = linear(domainY, [height - 44, 10]);
  axisX(drawing, atX, [...(free ? [0] : []), ...(costs.length ? logTicks(domainX) : [])], height - 40, 10, (v) => (v ? shown(v) : "0"));
  axisY(drawing, atY, ticks(domainY, 5), 56, width - 12, (v) => v.toFixed(3).replace(/^0/, ""));
  const place = (row) => [atX(x(row)), atY(y(row))];
  const path = [...best].sort((a, b) => x(a) - x(b)).map(place);
  if (path.length > 1) drawing.append(svg("path", { class: "front", d: stairs(path) }));
  drawing.append(...rows.map((row) => {
    const [, low, high] = valueOf(row.cell, `m:${view.metric}`);
    return svg("path", { class: "whisker", d: `M${place(row)[0].toFixed(1)} ${atY(low).toFixed(1)}V${atY(high).toFixed(1)}` });
  }));
  drawing.append(text((56 + width) / 2, height - 6, `${short(column.help, 44)}, log scale (left is cheaper)`, { class: "axis", "text-anchor": "middle" }));
  drawing.append(...labelled(rows, best, place, words, width));
  return drawing;
}

// Points with their names where space allows, those on the front first.
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

// Mean ranks over data sets on a line; bars join rows within the critical difference (Demšar 2006, figure 1).
function criticalDifference(box, whole) {
  const rows = whole.methods.map(({ way: [adapter, encoder], rank, group }) => ({ name: safe(encoder === "none" ? adapter : `${adapter} · ${encoder}`), rank: rank[0], group }));
  const joined = [...new Set(rows.flatMap((row) => [...row.group.matchAll(/[a-z]'*/g)].map(String)))]
    .map((letter) => rows.filter((row) => [...row.group.matchAll(/[a-z]'*/g)].map(String).includes(letter)).map((row) => row.rank))
    .filter((ranks) => ranks.length > 1);
  const half = Math.ceil(rows.length / 2);
  const [top, step] = [52, 19];
  const about = rows.map((row) => `${row.name} ${row.rank.toFixed(2)}`).join("; ");
  const { drawing, width, height } = frame(box, `Critical difference ${whole.critical_difference.toFixed(2)}`, about, top + 10 * joined.length + step * half + 24);
  const side = Math.min(190, width * 0.3);
  const at = linear([1, Math.max(2, rows.length)], [side, width - side]);
  drawing.append(svg("path", { class: "pole", d: `M${side} ${top}H${width - side}` }));
  axisX(drawing, at, [...rows.keys()].map((k) => k + 1).filter((k) => rows.length < 16 || k % 5 === 1), top - 18, top - 12);
  drawing.append(svg("path", { class: "ahead", d: `M${at(1)} 14H${at(1 + whole.critical_difference).toFixed(1)}` }), text(at(1 + whole.critical_difference) + 6, 18, `critical difference ${whole.critical_difference.toFixed(2)}`, { class: "tick" }));
  joined.forEach((ranks, k) => drawing.append(svg("path", { class: "clique", d: `M${(at(Math.min(...ranks)) - 3).toFixed(1)} ${top + 8 + 10 * k}H${(at(Math.max(...ranks)) + 3).toFixed(1)}` })));
  rows.forEach((row, k) => {
    const left = k < half;
    const y = top + 10 * joined.length + step * (left ? k + 1 : rows.length - k);
    const edge = left ? side - 6 : width - side + 6;
    drawing.append(svg("path", { class: "pole", d: `M${at(row.rank).toFixed(1)} ${top}V${y}H${edge}` }));
    drawing.append(text(left ? edge - 4 : edge + 4, y + 4, `${short(row.name, Math.floor(side / 7.5))} ${row.rank.toFixed(2)}`, { class: "name", "text-anchor": left ? "end" : "start" }));
  });
  return card("Critical difference", "mean ranks; thick bars join rows within the critical difference (Nemenyi, 5 %)", drawing);
}

// A small chart of every search, all with the same axes; the other searches are drawn in grey.
function searches(box, view) {
  const cells = view.rows.map((row) => row.cell).filter((cell) => cell.search?.best.some((value) => value !== null));
  const lines = cells.map((cell) => soFar(everyTrial(cell.search).best.map(score)));
  const long = Math.max(0, ...lines.map((values) => values.length));
  if (long < 2) return null;
  const all = lines.flat().filter((value) => value !== null);
  const domain = padded(span(all));
  const small = cells.map((cell, k) => smallSearch(cell, lines, k, domain, long));
  return card(
    "Searches",
    `best validation ${BOARD.headline} so far after each trial, same scale from ${domain[0].toFixed(3)} to ${domain[1].toFixed(3)}; grey: the other rows`,
    el("div", { class: "multiples" }, ...small),
  );
}

function smallSearch(cell, lines, index, domain, long) {
  const [width, height] = [150, 84];
  const atX = linear([0, long - 1], [4, width - 4]);
  const atY = linear(domain, [height - 4, 4]);
  const path = (values) => stairs(values.flatMap((value, k) => (value === null ? [] : [[atX(k), atY(value)]])));
  const last = lines[index].at(-1);
  const words = `${safe(nameOf(cell))}: best ${last.toFixed(4)} after ${lines[index].length} trials`;
  return el(
    "a",
    { href: route(cell), class: "small", "data-tip": words },
    el("span", { class: "small-name" }, bdi(short(nameOf(cell), 24))),
    svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words },
      ...lines.filter((_, k) => k !== index).map((values) => svg("path", { class: "behind", d: path(values) })),
      svg("path", { class: "ahead", d: path(lines[index]) }),
    ),
    el("span", { class: "small-value" }, last.toFixed(4)),
  );
}

const opened = new Set(); // sections with expanded parts of the test

// Scores of the shown rows on parts of the test, one dimension at a time.
function slices(view, dimension, choose, sorted) {
  const parts = view.section.slices ?? [];
  const dimensions = [...new Set(parts.map((part) => part.dimension))];
  if (!dimensions.length) return null;
  const current = dimensions.includes(dimension) ? dimension : dimensions[0];
  const chosen = el(
    "select",
    { name: "dimension", "aria-label": "Dimension of the parts of the test", onchange: (event) => choose(event.target.value) },
    ...dimensions.map((one) => el("option", { value: one, selected: one === current }, one)),
  );
  const rows = view.rows.filter((row) => row.rank !== null);
  const columns = parts.filter((part) => part.dimension === current).map((part) => {
    const scores = new Map(part.scores.map(([cell, ...numbers]) => [cell, numbers]));
    const mean = (row) => scores.get(row.cell.index)?.[0] ?? null;
    return {
      key: part.name, title: `${part.name} (${part.users.toLocaleString("en-US")})`, value: mean,
      tip: `Test ${BOARD.headline} on this part (${part.users} users), with 95 % interval; below, the gain over ${BOARD.reference}. Higher is better.`,
      show: (row) => (mean(row) === null ? DASH : sliceWords(scores.get(row.cell.index))),
    };
  });
  const head = { key: "adapter", title: "adapter", first: "ascending", left: true, head: true, value: (row) => row.cell.adapter, show: (row) => el("a", { href: route(row.cell) }, bdi(nameOf(row.cell))) };
  const rank = { key: "rank", title: "#", first: "ascending", value: (row) => row.rank, show: (row) => row.rank };
  const table = grid(`Parts of the test, ${view.section.title}`, null, [rank, head, ...columns], rows, sorted);
  const note = `test ${BOARD.headline} by part, number of users in brackets, gain over ${BOARD.reference} below; not tested`;
  const folded = el("details", { class: "parts", open: opened.has(view.section) }, el("summary", {}, el("b", {}, "Parts of the test"), el("span", { class: "note" }, note)), el("label", { class: "inline" }, "Divide by ", chosen), table);
  folded.addEventListener("toggle", () => (folded.open ? opened.add(view.section) : opened.delete(view.section)));
  return el("figure", { class: "card" }, folded);
}

function sliceWords([mean, low, high, gain, from, to]) {
  const second = gain === null ? null : el("span", { class: "range block" }, `${signed(gain)} % [${signed(from)}, ${signed(to)}]`);
  return [mean.toFixed(4), " ", el("span", { class: "range" }, range(low, high)), second];
}
