// What the numbers of a narrowed table are. Nothing here touches the page.

const BOARD = JSON.parse(byId("board").textContent);
const COLUMN = Object.fromEntries(BOARD.columns.map((column, k) => [column.key, k]));
BOARD.cells.forEach((cell, k) => {
  cell.index = k;
  [cell.dataset, cell.encoder, cell.backbone, cell.adapter] = cell.cell;
});

function valueOf(cell, key) {
  return cell.v[COLUMN[key]] ?? null;
}

function meanOf(cell, metric) {
  return valueOf(cell, `m:${metric}`)?.[0] ?? null;
}

// What stands for a row in every data set: its adapter and encoder.
function way(cell) {
  return JSON.stringify([cell.adapter, cell.encoder]);
}

function matches(cell, section, filter) {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const name = [cell.adapter, cell.encoder, section.backbone, section.dataset].join(" ").toLowerCase();
  if (!words.every((word) => name.includes(word))) return false;
  if (filter.hidden.has("hole") && meanOf(cell, BOARD.headline) === null) return false;
  if (cell.kinds.some((kind) => filter.hidden.has(kind))) return false;
  const own = { adapter: cell.adapter, encoder: cell.encoder, backbone: section.backbone, dataset: section.dataset };
  return Object.entries(filter.without).every(([part, names]) => !names.has(own[part]));
}

// Holm 1979, as the table's other formats have it: p by index -> adjusted p by index.
function holm(p) {
  const order = [...p.keys()].sort((a, b) => p.get(a) - p.get(b));
  const adjusted = new Map();
  let most = 0;
  order.forEach((key, k) => {
    most = Math.max(most, p.get(key) * (order.length - k));
    adjusted.set(key, Math.min(most, 1));
  });
  return adjusted;
}

// How one row compares with another in percent of the other's mean; the interval and p are of the headline metric.
function gain(section, cell, other, metric) {
  const [mean, base] = [meanOf(cell, metric), meanOf(other, metric)];
  if (cell === other || mean === null || !base) return null;
  const found = { against: other, percent: 100 * (mean / base - 1), low: null, high: null, p: null };
  const at = section.pairs?.cells.indexOf(cell.index) ?? -1;
  const to = section.pairs?.cells.indexOf(other.index) ?? -1;
  if (metric !== BOARD.headline || at < 0 || to < 0) return found;
  const [low, high, p] = [section.pairs.low[at][to], section.pairs.high[at][to], section.pairs.p[at][to]];
  return { ...found, low, high, p };
}

// Adjusted p-values of all rows but one against that one.
function family(section, cells, other, metric) {
  const raw = new Map();
  for (const cell of cells) {
    const found = gain(section, cell, other, metric);
    if (found && found.p !== null) raw.set(cell.index, found.p);
  }
  return holm(raw);
}

// The rows of a section that a filter leaves, ranked, marked and compared among themselves.
function compare(section, filter) {
  const metric = filter.metric;
  const cells = section.rows.map((k) => BOARD.cells[k]).filter((cell) => matches(cell, section, filter));
  const scored = cells.filter((cell) => meanOf(cell, metric) !== null);
  scored.sort((a, b) => meanOf(b, metric) - meanOf(a, metric) || section.rows.indexOf(a.index) - section.rows.indexOf(b.index));
  const all = section.rows.map((k) => BOARD.cells[k]);
  const reference = all.find((cell) => way(cell) === filter.reference && meanOf(cell, metric) !== null) ?? null;
  const best = scored[0] ?? null;
  const fromBest = best ? family(section, scored, best, metric) : new Map();
  const fromReference = reference ? family(section, scored, reference, metric) : new Map();
  const rows = cells.map((cell) => {
    const mean = meanOf(cell, metric);
    if (mean === null) return { cell, rank: null, marks: [], gain: null, rival: null };
    const rank = 1 + scored.filter((other) => meanOf(other, metric) > mean).length;
    const rival = scored.find((other) => other !== cell && !other.kinds.includes("baseline"));
    const own = reference ? gain(section, cell, reference, metric) : null;
    if (own) own.p = fromReference.get(cell.index) ?? null;
    const marks = [];
    if (rank <= 2) marks.push(rank === 1 ? "best" : "second");
    if ((fromBest.get(cell.index) ?? 0) >= BOARD.alpha) marks.push("tied");
    if (cell.short) marks.push("short");
    if (own && own.p !== null && own.p < BOARD.alpha) marks.push("differs");
    return { cell, rank, marks, gain: own, rival: rival ? gain(section, cell, rival, metric) : null };
  });
  const place = (row) => (row.rank === null ? Infinity : row.rank);
  rows.sort((a, b) => place(a) - place(b) || section.rows.indexOf(a.cell.index) - section.rows.indexOf(b.cell.index));
  return { section, rows, reference, metric };
}

// Average rank and win rate of the ways that have a result in every shown data set of a backbone; the rest by name.
function across(backbone, filter) {
  const views = BOARD.sections
    .filter((section) => section.backbone === backbone)
    .map((section) => compare(section, filter))
    .filter((view) => view.rows.some((row) => row.rank !== null));
  const means = new Map();
  for (const [k, view] of views.entries())
    for (const row of view.rows) {
      const known = means.get(way(row.cell)) ?? { cell: row.cell, means: views.map(() => null), gains: [] };
      known.means[k] = meanOf(row.cell, filter.metric);
      if (row.gain) known.gains.push(row.gain.percent);
      means.set(way(row.cell), known);
    }
  const whole = [...means.values()].filter((row) => row.means.every((mean) => mean !== null));
  const lacking = [...means.values()].filter((row) => !whole.includes(row));
  for (const row of whole) {
    row.ranks = views.map((_, k) => {
      const better = whole.filter((other) => other.means[k] > row.means[k]).length;
      const equal = whole.filter((other) => other.means[k] === row.means[k]).length;
      return 1 + better + (equal - 1) / 2;
    });
    row.rank = mean(row.ranks);
    row.wins = whole.length > 1 ? mean(row.ranks.map((rank) => (whole.length - rank) / (whole.length - 1))) : null;
    row.gain = row.gains.length === views.length ? mean(row.gains) : null;
  }
  whole.sort((a, b) => a.rank - b.rank);
  return { backbone, datasets: views.map((view) => view.section.dataset), rows: whole, lacking };
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// Rows that no other beats in quality at less or equal cost; cost and quality are functions of a row.
function front(rows, cost, quality) {
  return rows.filter((row) =>
    !rows.some((other) => {
      const [x, y] = [cost(other) - cost(row), quality(other) - quality(row)];
      return x <= 0 && y >= 0 && (x < 0 || y > 0);
    }),
  );
}

// The best score so far after each trial; null before the first score.
function soFar(values) {
  let best = null;
  return values.map((value) => (best = value !== null && (best === null || value > best) ? value : best));
}
