// The leaderboard of a section: its columns, and the text of a row in each.

const SYMBOLS = BOARD.symbols;
const MEANINGS = { ...BOARD.meanings, best: "best mean of the shown rows", differs: `differs from the reference (adjusted p < ${BOARD.alpha})` };
const BETTER = { high: "higher is better", low: "lower is better", none: "no direction is better" };

function route(cell) {
  return "#row/" + cell.cell.map(encodeURIComponent).join("/");
}

function nameOf(cell) {
  return cell.encoder === "none" ? cell.adapter : `${cell.adapter} · ${cell.encoder}`;
}

function adapterName(cell) {
  return cell.adapter + (cell.kinds.includes("baseline") ? " (baseline)" : "");
}

// A number that links to its row's page; only the row's name is a tab stop.
function link(cell, text, attributes = {}) {
  return el("a", { href: route(cell), tabindex: "-1", class: "number", ...attributes }, text);
}

function scale(values, width, pad = 4) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return (x) => pad + (width - 2 * pad) * Math.min(Math.max(high > low ? (x - low) / (high - low) : 0.5, 0), 1);
}

// A small drawing of an interval; its numbers are printed beside it.
function bar(at, [mid, low, high], mark, off) {
  return svg(
    "svg",
    { class: off ? "bar off" : "bar", viewBox: "0 0 132 12", width: 132, height: 12, "aria-hidden": "true" },
    svg("path", { class: "track", d: "M0 6H132" }),
    mark !== null && svg("path", { class: "mark", d: `M${mark.toFixed(1)} 0V12` }),
    low !== null && svg("path", { class: "interval", d: `M${at(low).toFixed(1)} 6H${at(high).toFixed(1)}` }),
    svg("circle", { cx: at(mid).toFixed(1), cy: 6, r: 3 }),
  );
}

function symbolsOf(row) {
  return row.marks
    .filter((mark) => mark !== "differs" && SYMBOLS[mark])
    .map((mark) => el("abbr", { title: MEANINGS[mark], class: `sign ${mark}` }, SYMBOLS[mark]));
}

function tagsOf(cell) {
  return cell.kinds.filter((kind) => kind !== "baseline").map((kind) => el("span", { class: "tag" }, kind));
}

function tipOf(column) {
  return `${column.help}. ${column.unit ? `Unit: ${column.unit}. ` : ""}${BETTER[column.better][0].toUpperCase()}${BETTER[column.better].slice(1)}.`;
}

function showOf(column, cell) {
  const value = valueOf(cell, column.key);
  if (value === null) return DASH;
  switch (column.kind) {
    case "score": return link(cell, [value[0].toFixed(4), " ", el("span", { class: "range" }, range(value[1], value[2]))]);
    case "seconds": return link(cell, seconds(value));
    case "count": return link(cell, count(value));
    case "share": return link(cell, `${(100 * value).toPrecision(3)} %`);
    case "trials": return link(cell, `${value[0]}/${value[1]}/${value[2]} of ${value[3]}`);
    case "seeds": return link(cell, `${value[0]}/${value[1]}`);
    case "word": return link(cell, safe(value));
    default: return link(cell, fixed(value, column.digits));
  }
}

function sortable(value) {
  return Array.isArray(value) ? value[0] : value;
}

function gainText(gain, star) {
  const interval = gain.low === null ? "" : ` [${signed(gain.low)}, ${signed(gain.high)}]`;
  const early = `preliminary: ${safe(nameOf(gain.against))} is still improving at its last epoch`;
  return [signed(gain.percent), el("span", { class: "range" }, interval), star ? el("abbr", { title: MEANINGS.differs }, SYMBOLS.differs) : null, gain.preliminary ? el("abbr", { title: early }, SYMBOLS.rising) : null];
}

// Columns of one view; `filter.groups` selects the shown groups.
function leaderColumns(view, filter) {
  const { metric } = view;
  const key = `m:${metric}`;
  const trained = view.rows.filter((row) => row.rank !== null && !row.cell.kinds.includes("baseline"));
  const spanned = trained.length ? trained : view.rows.filter((row) => row.rank !== null);
  const ends = spanned.flatMap((row) => valueOf(row.cell, key));
  const at = scale(ends, 132);
  const mark = view.reference ? at(meanOf(view.reference, metric)) : null;
  const ranking = BOARD.columns[COLUMN[key]];
  const reference = view.reference ? nameOf(view.reference) : "the reference";
  const fixedColumns = [
    { key: "rank", title: "#", tip: `Rank among the shown rows, by mean test ${metric}.`, first: "ascending", value: (row) => row.rank, show: (row) => row.rank ?? DASH },
    {
      key: "adapter", title: "adapter", tip: "Method that turns text embeddings into item embeddings.", first: "ascending", left: true, head: true,
      value: (row) => row.cell.adapter,
      show: (row) => [
        el("a", { href: route(row.cell) }, bdi(adapterName(row.cell))), " ", ...symbolsOf(row), ...tagsOf(row.cell),
        row.cell.encoder !== "none" && el("small", { class: "encoder" }, bdi(row.cell.encoder)),
      ],
    },
    { key: "encoder", title: "encoder", tip: "Model that embedded the items' texts; –: no text.", first: "ascending", left: true, wide: true, value: (row) => (row.cell.encoder === "none" ? null : row.cell.encoder), show: (row) => (row.cell.encoder === "none" ? DASH : bdi(row.cell.encoder)) },
    {
      key, title: metric, tip: tipOf(ranking), left: true,
      value: (row) => meanOf(row.cell, metric),
      show: (row) => {
        if (row.rank === null) return [el("span", { class: "state" }, row.cell.state), " ", el("span", { class: "reason" }, row.cell.reason ?? "")];
        const value = valueOf(row.cell, key);
        return [link(row.cell, [el("span", { class: "mean" }, value[0].toFixed(4)), " ", el("span", { class: "range" }, range(value[1], value[2]))]), bar(at, value, mark, value[0] < Math.min(...ends) || value[0] > Math.max(...ends))];
      },
    },
    {
      key: "gain", title: `vs ${short(safe(reference), 18)} %`, tip: `Gain in test ${metric} over ${safe(reference)}, with paired 95 % interval; *: adjusted p < ${BOARD.alpha}. Unit: percent. Higher is better.`,
      value: (row) => row.gain?.percent ?? null,
      show: (row) => (row.gain ? link(row.cell, gainText(row.gain, row.marks.includes("differs"))) : row.marks.includes("differs") ? [DASH, el("abbr", { title: MEANINGS.differs }, SYMBOLS.differs)] : DASH),
    },
    {
      key: "p", title: "p", tip: `p-value of the paired t test against ${safe(reference)}, Holm-adjusted over the shown rows; against another reference than ${BOARD.reference}, over all their pairs. Lower is stronger evidence.`, first: "ascending",
      value: (row) => row.gain?.p ?? null,
      show: (row) => (numeric(row.gain?.p) ? (row.gain.p < 0.001 ? "<.001" : row.gain.p.toFixed(3).replace(/^0/, "")) : DASH),
    },
    {
      key: "group", title: "group", left: true, first: "ascending",
      tip: `Rows that share a letter do not differ significantly: paired tests of all pairs of shown rows or, from ${BOARD.reference}, of all rows against it; each family Holm-adjusted.`,
      value: (row) => row.group || null,
      show: (row) => row.group || DASH,
    },
    {
      key: "rival", title: "vs best other %", tip: `Gain in test ${metric} over the best other shown row that is not a baseline. Unit: percent. Higher is better.`,
      value: (row) => row.rival?.percent ?? null,
      show: (row) => (row.rival ? link(row.cell, gainText(row.rival, false)) : DASH),
    },
  ];
  const quality = filter.groups.has("quality");
  const first = fixedColumns.filter((column) => quality || !["p", "group", "rival"].includes(column.key));
  const rest = BOARD.columns
    .filter((column) => filter.groups.has(column.group) && column.key !== key)
    .map((column) => ({ key: column.key, title: column.title, tip: tipOf(column), first: column.better === "low" ? "ascending" : "descending", value: (row) => sortable(valueOf(row.cell, column.key)), show: (row) => showOf(column, row.cell) }));
  return [...first, ...rest];
}

function leaderboard(view, filter, sorted) {
  const reference = view.reference ? safe(nameOf(view.reference)) : null;
  const caption =
    `Mean and 95 % interval` +
    (reference ? `; dotted line: ${reference}` : "") +
    `; hollow dot: off the scale. ` +
    (view.metric === BOARD.headline ? "" : `Intervals and tests of gains are available only for ${BOARD.headline}. `) +
    "Click a column header to sort.";
  return grid(`Leaderboard ${view.section.title}`, caption, leaderColumns(view, filter), view.rows, sorted);
}

// `whole`: the comparison of the unfiltered table, null for a filtered one; only `whole` has intervals.
function acrossTable(view, sorted, whole) {
  const methods = new Map((whole?.methods ?? []).map((one) => [JSON.stringify(one.way), one]));
  const valueIn = (row, key) => methods.get(way(row.cell))?.[key] ?? null;
  const between = (row, key, show) => {
    const interval = valueIn(row, key);
    return interval && interval[1] !== null && el("span", { class: "range" }, ` [${show(interval[1])}, ${show(interval[2])}]`);
  };
  const percent = (x) => (100 * x).toFixed(0);
  // null where the reference may be 0, as in the other formats, which draw it anew
  const gainOf = (row) => (whole ? (valueIn(row, "gain")?.[0] ?? null) : row.gain);
  const ratings = [
    { key: "elo", title: "Elo", tip: "Bradley-Terry rating from wins on data sets, mean 1000. Higher is better.", value: (row) => valueIn(row, "elo")?.[0] ?? null, show: (row) => [valueIn(row, "elo")[0].toFixed(0), between(row, "elo", (x) => x.toFixed(0))] },
    { key: "group", title: "group", left: true, first: "ascending", tip: "Rows that share a letter are within the critical difference of mean ranks.", value: (row) => valueIn(row, "group"), show: (row) => valueIn(row, "group") },
  ];
  const columns = [
    { key: "rank", title: "mean rank", tip: "Rank among the compared rows, mean over data sets (ties share). Lower is better.", first: "ascending", value: (row) => row.rank, show: (row) => [row.rank.toFixed(2), between(row, "rank", (x) => x.toFixed(1))] },
    { key: "adapter", title: "adapter", tip: "Method that turns text embeddings into item embeddings.", first: "ascending", left: true, head: true, value: (row) => row.cell.adapter, show: (row) => [bdi(adapterName(row.cell)), " ", ...tagsOf(row.cell), row.cell.encoder !== "none" && el("small", { class: "encoder" }, bdi(row.cell.encoder))] },
    { key: "encoder", title: "encoder", tip: "Model that embedded the items' texts.", first: "ascending", left: true, wide: true, value: (row) => (row.cell.encoder === "none" ? null : row.cell.encoder), show: (row) => (row.cell.encoder === "none" ? DASH : bdi(row.cell.encoder)) },
    { key: "wins", title: "win rate %", tip: "Share of the other rows beaten, mean over data sets. Unit: percent. Higher is better.", value: (row) => row.wins, show: (row) => [percent(row.wins), between(row, "wins", percent)] },
    { key: "gain", title: "mean gain %", tip: "Gain over the reference row, mean over data sets. Unit: percent. Higher is better.", value: gainOf, show: (row) => (gainOf(row) === null ? DASH : [signed(gainOf(row)), between(row, "gain", signed)]) },
    ...(whole?.methods.some((one) => one.elo) ? ratings : []),
    ...view.datasets.map((name, k) => ({ key: `rank:${k}`, title: `# ${short(safe(name), 18)}`, tip: `Rank on ${safe(name)}. Lower is better.`, first: "ascending", value: (row) => row.ranks[k], show: (row) => (Number.isInteger(row.ranks[k]) ? row.ranks[k] : row.ranks[k].toFixed(1)) })),
  ];
  return grid(`Across data sets, ${safe(view.backbone)}`, null, columns, view.rows, sorted);
}
