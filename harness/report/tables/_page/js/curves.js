// Figures of one row: search, validation curves, importance of hyper-parameters, spectrum of its item table.

const STATUS = { d: "done", p: "pruned", f: "failed", r: "running" };

// The trials of a search with their scores; the other facts of long searches are embedded for their best trials only.
function everyTrial(search) {
  return search.all ?? search;
}

// A sentence about the trials of a search that are not drawn, or "".
function undrawn(search) {
  return search.all ? `; best ${search.id.length} of ${search.all.number.length} trials` : "";
}

function searchChart(box, cell) {
  const search = everyTrial(cell.search);
  const values = search.best.map(score);
  const scores = values.filter((value) => value !== null);
  if (!scores.length) return null;
  const best = soFar(values);
  const top = best.at(-1);
  const about = `Best validation ${BOARD.headline} ${top.toFixed(4)} at trial ${values.indexOf(top)} of ${values.length}`;
  const { drawing, width, height } = frame(box, "Search", about, 260);
  const domain = padded(span(scores));
  const atX = linear([0, Math.max(1, values.length - 1)], [52, width - 14]);
  const atY = linear(domain, [height - 40, 10]);
  axisX(drawing, atX, ticks([0, Math.max(1, values.length - 1)], 6).filter(Number.isInteger), height - 36, 10);
  axisY(drawing, atY, ticks(domain, 5), 52, width - 14, (v) => v.toFixed(3).replace(/^0/, ""));
  drawing.append(svg("path", { class: "ahead", d: stairs(best.flatMap((v, k) => (v === null ? [] : [[atX(k), atY(v)]]))) }));
  values.forEach((value, k) => {
    const status = search.status[k];
    const words = `trial ${search.number[k]}: ${value === null ? "no score" : value.toFixed(4)}, ${STATUS[status]}`;
    const [x, y] = [atX(k), value === null ? height - 40 : atY(value)];
    const shape = status === "d" ? svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 4, class: "trial" }) : svg("path", { d: cross(x, y), class: `trial ${status === "f" ? "failed" : "pruned"}` });
    shape.dataset.tip = words;
    drawing.append(shape);
  });
  drawing.append(text((52 + width) / 2, height - 4, "trial", { class: "axis", "text-anchor": "middle" }));
  return card("Search", `validation ${BOARD.headline} of each trial; line: best so far; ×: pruned, at its best epoch; × at the bottom: failed`, drawing);
}

function cross(x, y, r = 3.5) {
  return `M${(x - r).toFixed(1)} ${(y - r).toFixed(1)}l${2 * r} ${2 * r}M${(x - r).toFixed(1)} ${(y + r).toFixed(1)}l${2 * r} ${-2 * r}`;
}

function pointsOf([values, epochs]) {
  return values.flatMap((value, k) => (value === null ? [] : [[epochs ? epochs[k] : k, score(value)]]));
}

function curvesChart(box, cell) {
  const searched = (cell.search?.curves ?? []).map(pointsOf).filter((curve) => curve.length);
  const seeds = (cell.runs?.curves ?? []).map(pointsOf).filter((curve) => curve.length);
  const all = [...searched, ...seeds].flat();
  if (!all.some(([epoch]) => epoch > 0)) return null;
  const ends = seeds.map((curve, k) => `seed ${cell.runs.seed[k]} ${Math.max(...curve.map(([, v]) => v)).toFixed(4)}`);
  const { drawing, width, height } = frame(box, "Validation curves", `Best of ${ends.join(", ") || "no seed yet"}`, 260);
  const domainX = [0, Math.max(...all.map(([epoch]) => epoch))];
  const domainY = padded(span(all.map(([, value]) => value)), 0.04);
  const atX = linear(domainX, [52, width - 14]);
  const atY = linear(domainY, [height - 40, 10]);
  axisX(drawing, (epoch) => atX(epoch - 1), ticks([1, domainX[1] + 1], 6).filter((x) => Number.isInteger(x) && x >= 1), height - 36, 10);
  axisY(drawing, atY, ticks(domainY, 5), 52, width - 14, (v) => v.toFixed(3).replace(/^0/, ""));
  const draw = (curve) => line(curve.map(([epoch, value]) => [atX(epoch), atY(value)]));
  drawing.append(...searched.map((curve) => svg("path", { class: "behind", d: draw(curve) })));
  seeds.forEach((curve, k) => {
    const top = curve.reduce((a, b) => (b[1] > a[1] ? b : a));
    const dot = svg("circle", { cx: atX(top[0]).toFixed(1), cy: atY(top[1]).toFixed(1), r: 4, class: "trial", "data-tip": `seed ${cell.runs.seed[k]}: best ${top[1].toFixed(4)} at epoch ${top[0] + 1}` });
    drawing.append(svg("path", { class: "ahead", d: draw(curve) }), dot);
  });
  drawing.append(text((52 + width) / 2, height - 4, "epoch", { class: "axis", "text-anchor": "middle" }));
  return card("Validation curves", `${BOARD.headline} by epoch; blue: confirmed seeds, dot: best epoch; grey: search trials${cell.search ? undrawn(cell.search) : ""}`, drawing);
}

function importanceChart(box, cell) {
  const items = cell.importance ?? [];
  if (!items.length) return null;
  const about = items.map(([name, share, chance]) => `${safe(name)} ${(100 * share).toFixed(0)} %, by chance up to ${(100 * chance).toFixed(0)} %`).join("; ");
  const { drawing, width, height } = frame(box, "Importance of hyper-parameters", about, 34 + 26 * items.length);
  const left = Math.min(190, width * 0.42);
  const at = linear([0, 1], [left, width - 54]);
  axisX(drawing, at, [0, 0.25, 0.5, 0.75, 1], height - 22, 4, (x) => `${100 * x}`);
  items.forEach(([name, share, chance, direction], k) => {
    const y = 16 + 26 * k;
    const way = direction === null ? "" : direction > 0 ? " ↗" : " ↘";
    const words = `${safe(name)}: explains ${(100 * share).toFixed(0)} % on its own; 5 % of shuffles reach ${(100 * chance).toFixed(0)} %${direction === null ? "" : `; rank correlation ${signed(direction, 2)}`}`;
    drawing.append(
      svg(
        "g",
        { "data-tip": words, class: share > chance ? "share sure" : "share" },
        svg("rect", { class: "hit", x: 0, y: y - 12, width, height: 24 }),
        text(left - 10, y + 4, short(safe(name), Math.floor(left / 7)), { class: "name", "text-anchor": "end" }),
        svg("rect", { class: "amount", x: left, y: y - 7, width: Math.max(1, at(share) - left).toFixed(1), height: 14 }),
        svg("path", { class: "chance", d: `M${at(chance).toFixed(1)} ${y - 10}V${y + 10}` }),
        text(width - 4, y + 4, `${(100 * share).toFixed(0)} %${way}`, { class: "figure-number", "text-anchor": "end" }),
      ),
    );
  });
  return card(
    "Importance",
    "share of the variance of validation scores that a hyper-parameter explains on its own, without interactions (epsilon squared over terciles), %; vertical line: reached by 5 % of shuffles; arrow: sign of the rank correlation",
    drawing,
  );
}

// Estimated results of the search with fewer trials.
function budgetChart(box, cell) {
  const budgets = (cell.budgets ?? []).filter(([, observed, expected]) => observed !== null || expected !== null);
  if (budgets.length < 2) return null;
  const about = budgets.map(([k, observed, expected]) => `${k} trials: ${[observed, expected].map((v) => (v === null ? "unknown" : v.toFixed(4))).join(", expected ")}`).join("; ");
  const { drawing, width, height } = frame(box, "Smaller budgets", about, 260);
  const atX = logarithmic([1, budgets.at(-1)[0]], [60, width - 22]);
  const domain = padded(span(budgets.flatMap(([, ...numbers]) => numbers).filter(numeric)));
  const atY = linear(domain, [height - 40, 10]);
  axisX(drawing, atX, budgets.map(([k]) => k), height - 36, 10);
  axisY(drawing, atY, ticks(domain, 5), 52, width - 14, (v) => v.toFixed(3).replace(/^0/, ""));
  const expected = budgets.filter(([, , value]) => value !== null);
  drawing.append(svg("path", { class: "ahead", d: line(expected.map(([k, , value]) => [atX(k), atY(value)])) }));
  for (const [k, observed, mid, low, high] of budgets) {
    const x = atX(k).toFixed(1);
    if (low !== null) drawing.append(svg("path", { class: "whisker", d: `M${x} ${atY(low).toFixed(1)}V${atY(high).toFixed(1)}` }));
    if (mid !== null) drawing.append(svg("circle", { class: "trial", cx: x, cy: atY(mid).toFixed(1), r: 3.5, "data-tip": `any ${k} trials: expected ${mid.toFixed(4)}${low === null ? "" : `, 95 % interval ${low.toFixed(4)} to ${high.toFixed(4)}`}` }));
    if (observed !== null) drawing.append(svg("path", { class: "trial pruned", d: cross(atX(k), atY(observed)), "data-tip": `the first ${k} trials: ${observed.toFixed(4)}` }));
  }
  drawing.append(text((52 + width) / 2, height - 4, "trials", { class: "axis", "text-anchor": "middle" }));
  return card("Smaller budgets", `validation ${BOARD.headline}; line: expected best of any k trials; ×: best of the first k`, drawing);
}

// An axis per hyper-parameter and one for the score; a line per trial, the best one thick.
function parallel(box, cell) {
  const { search } = cell;
  const kept = search.best.map((_, k) => k).filter((k) => search.best[k] !== null);
  if (!search.axes.length || kept.length < 2) return null;
  const axes = search.axes.map((name, j) => axisOf(safe(name), kept.map((k) => search.points[k][j])));
  axes.push(axisOf(`valid ${BOARD.headline}`, kept.map((k) => score(search.best[k]))));
  const top = kept.reduce((a, b) => (search.best[b] > search.best[a] ? b : a));
  const chosen = axes.map((axis) => `${axis.name} ${plain(axis.values[kept.indexOf(top)])}`).join(", ");
  const least = 104 * axes.length;
  const { drawing, width, height } = frame({ clientWidth: Math.max(box.clientWidth, least) }, "Trials by parameter", `Best trial: ${chosen}`, 300);
  const at = linear([0, axes.length - 1], [64, width - 76]);
  const ordered = [...kept].sort((a, b) => search.best[a] - search.best[b]);
  const scores = ordered.map((k) => search.best[k]);
  ordered.forEach((k, place) => {
    const points = axes.map((axis, j) => [at(j), axis.at(kept.indexOf(k))]);
    const strength = scores.length > 1 ? place / (scores.length - 1) : 1;
    const words = `trial ${search.number[k]}: ${axes.map((axis) => `${axis.name} ${plain(axis.values[kept.indexOf(k)])}`).join(", ")}`;
    drawing.append(svg("path", { class: k === top ? "thread top" : "thread", d: line(points), "stroke-opacity": (k === top ? 1 : 0.15 + 0.55 * strength).toFixed(2), "data-tip": words }));
  });
  axes.forEach((axis, j) => {
    drawing.append(svg("path", { class: "pole", d: `M${at(j).toFixed(1)} 34V268` }));
    drawing.append(text(at(j), j % 2 ? 14 : 26, short(axis.name, 20), { class: "name", "text-anchor": "middle" }));
    drawing.append(...axis.marks.map(([y, words]) => text(at(j) + 5, y + 4, short(words, 12), { class: "tick" })));
  });
  return card("Trials by parameter", `a line per trial, more opaque is better; thick: the best${undrawn(search)}`, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Trials by parameter" }, drawing));
}

function axisOf(name, values) {
  const [bottom, top] = [264, 40];
  const numbers = values.filter(numeric);
  if (numbers.length === values.length && new Set(values).size > 1) {
    const domain = span(numbers);
    const logged = domain[0] > 0 && domain[1] / domain[0] > 30;
    const at = (logged ? logarithmic : linear)(domain, [bottom, top]);
    const ends = domain.map((value) => [at(value), plain(value)]);
    return { name, values, at: (k) => at(values[k]), marks: ends };
  }
  const words = [...new Set(values.map(plain))].sort();
  const at = linear([-0.5, words.length - 0.5], [bottom, top]);
  return { name, values, at: (k) => at(words.indexOf(plain(values[k]))), marks: words.map((word, k) => [at(k), word]) };
}

// Singular values divided by the largest, on a logarithmic scale: after training and, if recorded, before.
function spectrumChart(box, cell) {
  const { spectrum } = cell;
  if (!spectrum?.after?.length) return null;
  const lines = [["before", spectrum.before], ["after", spectrum.after]].filter(([, values]) => values?.length);
  const floor = 1e-4;
  const longest = Math.max(...lines.map(([, values]) => values.length));
  const about = lines.map(([name, values]) => `${name} training, the median of ${values.length} singular values is ${values[Math.floor(values.length / 2)].toPrecision(2)} of the largest`).join("; ");
  const { drawing, width, height } = frame(box, "Spectrum of the item table", about, 260);
  const low = Math.max(floor, Math.min(...lines.flatMap(([, values]) => values.filter((v) => v > 0)), 1) / 1.2);
  const atX = linear([1, Math.max(2, longest)], [52, width - 54]);
  const atY = logarithmic([low, 1.1], [height - 40, 10]);
  axisX(drawing, atX, ticks([1, longest], 6).filter((x) => Number.isInteger(x) && x >= 1), height - 36, 10);
  axisY(drawing, atY, logTicks([low, 1.1]), 52, width - 54, (v) => String(v));
  lines.forEach(([name, values]) => {
    const points = values.map((v, k) => [atX(k + 1), atY(Math.max(v, low))]);
    drawing.append(svg("path", { class: name === "after" ? "ahead" : "before", d: line(points) }));
    const [x, y] = points.at(-1);
    drawing.append(text(x + 6, y + 4, name, { class: "name" }));
  });
  drawing.append(text(width / 2, height - 4, "component", { class: "axis", "text-anchor": "middle" }));
  return card("Spectrum", `singular values of the centred item table, divided by the largest, log scale${lines.length > 1 ? "; dashed: before training" : ""}`, drawing);
}
