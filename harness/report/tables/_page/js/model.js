// Recompute the numbers of a filtered table. Independent of the page.

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

// Identify a row across data sets: its adapter and encoder.
function way(cell) {
  return JSON.stringify([cell.adapter, cell.encoder]);
}

// Whether a row is the reference of the table in its other formats.
function isPreset(cell) {
  return cell.adapter === BOARD.reference && cell.encoder === "none" && !cell.kinds.includes("baseline");
}

function matches(cell, section, filter) {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const name = [cell.adapter, cell.encoder, section.backbone, section.dataset].join(" ").toLowerCase();
  if (!words.every((word) => name.includes(word))) return false;
  if (filter.hidden.has("hole") && meanOf(cell, BOARD.headline) === null) return false;
  if (cell.kinds.some((kind) => filter.hidden.has(kind))) return false;
  const parts = { adapter: cell.adapter, encoder: cell.encoder, backbone: section.backbone, dataset: section.dataset };
  return Object.entries(filter.without).every(([part, names]) => !names.has(parts[part]));
}

// Holm's correction (1979), as in the other formats: p by index -> adjusted p by index.
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

// The gain of a row over another in percent of the other's mean; only the headline metric has an interval and p. None
// where the other's mean may be 0, as in the other formats.
function gain(section, cell, other, metric) {
  const [mean, base] = [meanOf(cell, metric), meanOf(other, metric)];
  if (cell === other || mean === null || !base) return null;
  const preliminary = (other.marks ?? []).includes("rising");
  const point = { against: other, percent: 100 * (mean / base - 1), low: null, high: null, p: null, preliminary };
  const at = section.pairs?.cells.indexOf(cell.index) ?? -1;
  const to = section.pairs?.cells.indexOf(other.index) ?? -1;
  if (metric !== BOARD.headline || at < 0 || to < 0) return point;
  const [low, high, p] = [section.pairs.low[at][to], section.pairs.high[at][to], section.pairs.p[at][to]];
  return low === null || high === null ? null : { ...point, low, high, p };
}

// Adjusted p-values of all other rows against one row.
function family(section, cells, other, metric) {
  const raw = new Map();
  const to = section.pairs?.cells.indexOf(other.index) ?? -1;
  for (const cell of metric === BOARD.headline && to >= 0 ? cells : []) {
    const at = section.pairs.cells.indexOf(cell.index);
    if (cell !== other && at >= 0) raw.set(cell.index, section.pairs.p[at][to]);
  }
  return holm(raw);
}

// Adjusted p-values of all pairs of rows, by "a b" with the places a < b; null for other metrics than the headline.
function pairs(section, cells, metric) {
  if (metric !== BOARD.headline || !section.pairs) return null;
  const places = cells.map((cell) => section.pairs.cells.indexOf(cell.index));
  const raw = new Map();
  places.forEach((i, a) => places.slice(0, a).forEach((j, b) => raw.set(`${b} ${a}`, section.pairs.p[i][j])));
  return holm(raw);
}

// Those of all pairs with one row, by the index of the other row.
function among(adjusted, scored, reference) {
  const at = scored.indexOf(reference);
  if (!adjusted || at < 0) return new Map();
  const p = (k) => adjusted.get(`${Math.min(at, k)} ${Math.max(at, k)}`);
  return new Map([...scored.keys()].filter((k) => k !== at).map((k) => [scored[k].index, p(k)]));
}

// As in the other formats: maximal sets of rows that do not differ, grown from uncovered pairs, farthest first (Gramm et
// al. 2008). differs: a function of a pair a < b.
function letters(n, differs) {
  const alike = [...Array(n).keys()].map((a) => [...Array(n).keys()].map((b) => a !== b && !differs(Math.min(a, b), Math.max(a, b))));
  const covered = alike.map(() => new Set());
  const groups = [];
  const add = (rows) => {
    rows.forEach((row) => rows.forEach((other) => covered[row].add(other)));
    groups.push(rows);
  };
  for (let a = 0; a < n; a += 1) {
    for (let b = n - 1; b > a; b -= 1) {
      if (!alike[a][b] || covered[a].has(b)) continue;
      const rows = [a, b];
      for (let c = 0; c < n; c += 1) if (c !== a && c !== b && rows.every((row) => alike[row][c])) rows.push(c);
      add(rows.sort((x, y) => x - y));
    }
    if (!covered[a].size) add([a]);
  }
  const before = (x, y) => x.reduce((difference, row, k) => difference || row - (y[k] ?? -1), 0) || x.length - y.length;
  groups.sort(before);
  const letter = (place) => String.fromCharCode(97 + (place % 26)) + "'".repeat(Math.floor(place / 26));
  const texts = Array(n).fill("");
  groups.forEach((rows, place) => rows.forEach((row) => { texts[row] += letter(place); }));
  return texts;
}

// Rank, mark and compare the rows of a section that pass a filter.
function compare(section, filter) {
  const metric = filter.metric;
  const cells = section.rows.map((k) => BOARD.cells[k]).filter((cell) => matches(cell, section, filter));
  const scored = cells.filter((cell) => meanOf(cell, metric) !== null);
  scored.sort((a, b) => meanOf(b, metric) - meanOf(a, metric) || section.rows.indexOf(a.index) - section.rows.indexOf(b.index));
  const all = section.rows.map((k) => BOARD.cells[k]);
  const reference = all.find((cell) => way(cell) === filter.reference && meanOf(cell, metric) !== null) ?? null;
  const best = scored[0] ?? null;
  const adjusted = pairs(section, scored, metric);
  // The table's own reference is chosen beforehand and has a family of tests. A reader may choose another one by its
  // scores, and the data choose the best row: both are compared by the tests of all pairs.
  const own = reference && isPreset(reference);
  const fromReference = !reference ? new Map() : own ? family(section, scored, reference, metric) : among(adjusted, scored, reference);
  const differs = (a, b) => {
    const other = own && scored[a] === reference ? scored[b] : own && scored[b] === reference ? scored[a] : null;
    const toReference = other ? fromReference.get(other.index) ?? 1 : 1;
    return adjusted.get(`${a} ${b}`) < BOARD.alpha || toReference < BOARD.alpha;
  };
  const groups = adjusted ? letters(scored.length, differs) : [];
  const ties = (cell) => adjusted !== null && cell !== best && !differs(0, scored.indexOf(cell));
  const rows = cells.map((cell) => {
    const mean = meanOf(cell, metric);
    if (mean === null) return { cell, rank: null, marks: ["hole"], gain: null, rival: null, group: "" };
    const rank = 1 + scored.filter((other) => meanOf(other, metric) > mean).length;
    const rival = scored.find((other) => other !== cell && !other.kinds.includes("baseline"));
    const overReference = reference ? gain(section, cell, reference, metric) : null;
    if (overReference) overReference.p = fromReference.get(cell.index) ?? null;
    const marks = [];
    if (rank <= 2) marks.push(rank === 1 ? "best" : "second");
    if (ties(cell)) marks.push("tied");
    marks.push(...(cell.marks ?? []));
    if ((fromReference.get(cell.index) ?? 1) < BOARD.alpha) marks.push("differs");
    const group = groups[scored.indexOf(cell)] ?? "";
    const overRival = rival ? gain(section, cell, rival, metric) : null;
    return { cell, rank, marks, gain: overReference, rival: overRival, group };
  });
  const place = (row) => (row.rank === null ? Infinity : row.rank);
  rows.sort((a, b) => place(a) - place(b) || section.rows.indexOf(a.cell.index) - section.rows.indexOf(b.cell.index));
  return { section, rows, reference, metric };
}

const CHOICES = 1000; // candidate sets of common rows kept, the largest

// Choose data sets and rows such that every row has a result on every data set: the choice with the most cells, then
// with the most data sets.
function common(available) {
  let shared = new Map();
  for (const present of available.values()) {
    const candidates = [[...present], ...[...shared.values()].map((other) => other.filter((one) => present.has(one)))];
    for (const ways of candidates.filter((one) => one.length >= 2)) shared.set(JSON.stringify(ways.sort()), ways);
    shared = new Map([...shared].sort((a, b) => b[1].length - a[1].length).slice(0, CHOICES));
  }
  let best = { datasets: [], ways: [] };
  const ahead = (a, b) => a.datasets.length * a.ways.length - b.datasets.length * b.ways.length || a.datasets.length - b.datasets.length;
  for (const [, ways] of [...shared].sort((a, b) => (a[0] < b[0] ? -1 : 1))) {
    const datasets = [...available].filter(([, present]) => ways.every((one) => present.has(one))).map(([name]) => name).sort();
    if (datasets.length >= 2 && ahead({ datasets, ways }, best) > 0) best = { datasets, ways };
  }
  return best;
}

// Mean rank, win rate and mean gain over the data sets of a backbone, for rows with a result on each of them.
function across(backbone, filter) {
  const views = BOARD.sections.filter((section) => section.backbone === backbone).map((section) => compare(section, filter));
  const ranked = (view) => view.rows.filter((row) => row.rank !== null);
  const { datasets, ways } = common(new Map(views.map((view) => [view.section.dataset, new Set(ranked(view).map((row) => way(row.cell)))])));
  const counted = datasets.map((name) => views.find((view) => view.section.dataset === name));
  const rows = ways.map((one) => {
    const matching = counted.map((view) => view.rows.find((row) => way(row.cell) === one));
    const gains = matching.map((row) => row.gain?.percent ?? null);
    const means = matching.map((row) => meanOf(row.cell, filter.metric));
    return { cell: matching[0].cell, means, gain: gains.includes(null) ? null : mean(gains) };
  });
  for (const row of rows) {
    row.ranks = datasets.map((_, k) => {
      const better = rows.filter((other) => other.means[k] > row.means[k]).length;
      const equal = rows.filter((other) => other.means[k] === row.means[k]).length;
      return 1 + better + (equal - 1) / 2;
    });
    row.rank = mean(row.ranks);
    row.wins = (rows.length - row.rank) / (rows.length - 1);
  }
  rows.sort((a, b) => a.rank - b.rank || (way(a.cell) < way(b.cell) ? -1 : 1));
  const everyone = new Map(views.flatMap(ranked).map((row) => [way(row.cell), row.cell]));
  const lacking = [...everyone].filter(([one]) => !ways.includes(one)).map(([, cell]) => safe(nameOf(cell)));
  const aside = views.map((view) => view.section.dataset).filter((name) => !datasets.includes(name)).map((name) => `data set ${safe(name)}`);
  return { backbone, datasets, rows, left: [...aside, ...lacking] };
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// Rows on the Pareto front; cost and quality are functions of a row.
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
