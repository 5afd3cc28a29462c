// The page of one row: numbers, commands to reproduce it, figures, configuration, runs and search.

function rowPage(cell) {
  const sections = BOARD.sections.filter((section) => section.rows.includes(cell.index));
  const page = el("article", { class: "row-page" });
  const content = [
    el("p", { class: "back" }, el("a", { href: `#s${BOARD.sections.indexOf(sections[0]) + 1}` }, "← ", safe(sections[0].title))),
    el("h1", { id: "row-title", tabindex: "-1" }, bdi(nameOf(cell)), " ", ...tagsOf(cell)),
    el("p", { class: "under" }, bdi(cell.dataset), " × ", cell.backbone === "none" ? "no backbone" : bdi(cell.backbone), cell.encoder === "none" ? "" : [" × ", bdi(cell.encoder)].map((x) => x)),
  ];
  if (cell.state !== "done") content.push(el("p", { class: "warning" }, el("b", {}, cell.state), cell.reason ? `: ${cell.reason}` : "."));
  content.push(standing(cell, sections), commands(cell));
  page.append(...content.flat());
  byId("row").replaceChildren(page);
  document.title = `${safe(nameOf(cell))} · ${safe(sections[0].title)}`;
  page.append(...rowFigures(page, cell), chosen(cell), ...tables(cell));
}

function fact(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, ...[value].flat()));
}

const UNIT_SHOWN = new Set(["MB", "Wh"]); // units printed after a number on a row's page

// Numbers of a row: its rank in each of its sections, and every column.
function standing(cell, sections) {
  const places = sections.flatMap((section) => {
    const row = compare(section, unfiltered()).rows.find((one) => one.cell === cell);
    if (row.rank === null) return [];
    const ranked = section.rows.filter((k) => meanOf(BOARD.cells[k], BOARD.headline) !== null).length;
    const place = fact(sections.length > 1 ? `rank in ${safe(section.title)}` : "rank", [`${row.rank} of ${ranked} `, ...symbolsOf(row)]);
    const tests = section.tests[cell.index] ?? [];
    const more = [["effect size", tests[0], 2, "Paired standardized difference from the reference: mean over standard deviation of the users' differences (Cohen's d_z)."], ["detectable %", tests[1], 1, "Smallest true gain over the reference that the test detects with 80 % power, in percent."]]
      .filter(([, value]) => numeric(value))
      .map(([name, value, digits, tip]) => fact(el("span", { tabindex: "0", class: "help", "data-tip": tip }, name), value.toFixed(digits)));
    const first = section.first[cell.index];
    if (numeric(first)) more.unshift(fact(el("span", { tabindex: "0", class: "help", "data-tip": "Share of resamples in which the row ranks first in the section." }, "first"), `${(100 * first).toFixed(1)} %`));
    const group = row.group ? [fact(el("span", { tabindex: "0", class: "help", "data-tip": "Rows of the section that share a letter do not differ significantly." }, "group"), row.group)] : [];
    return row.gain ? [place, ...group, fact(`gain over ${safe(nameOf(row.gain.against))}`, [...gainText(row.gain, row.marks.includes("differs")).filter(Boolean), " %"]), ...more] : [place, ...group, ...more];
  });
  const values = BOARD.columns.flatMap((column) => {
    const value = valueOf(cell, column.key);
    if (value === null) return [];
    const shown = showOf(column, cell);
    const name = el("span", { tabindex: "0", class: "help", "data-tip": tipOf(column) }, column.title);
    const unit = column.kind === "number" && UNIT_SHOWN.has(column.unit) ? ` ${column.unit}` : "";
    return [fact(name, [...(shown instanceof Node ? shown.childNodes : [shown]), unit])];
  });
  return el("section", { class: "panel", "aria-label": "Numbers" }, el("dl", { class: "facts wider" }, ...places, ...values));
}

function commands(cell) {
  const word = cell.cell.join("/");
  const quoted = /^[\w./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
  const lines = [`harness reproduce ${quoted}`];
  if (!cell.kinds.includes("baseline")) lines.push(`harness export ${quoted} --output model`);
  return el("section", { class: "panel command", "aria-label": "Reproduce" }, el("h2", {}, "Reproduce this row"), ...lines.map(commandLine));
}

function commandLine(command) {
  const copy = el("button", { type: "button", class: "quiet", "aria-label": `Copy: ${safe(command)}` }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(copy.parentElement.firstChild);
      copy.textContent = "Selected";
    }
  });
  return el("p", {}, el("code", {}, safe(command)), " ", copy);
}

function rowFigures(page, cell) {
  const grid = el("div", { class: "figures" });
  page.append(grid);
  const half = { clientWidth: half_width(grid) };
  const drawings = [
    cell.search && searchChart(half, cell),
    curvesChart(half, cell),
    importanceChart(half, cell),
    budgetChart(half, cell),
    spectrumChart(half, cell),
  ];
  grid.append(...drawings.filter(Boolean));
  const wide = cell.search && parallel({ clientWidth: grid.clientWidth - 34 }, cell);
  if (wide) {
    wide.classList.add("broad");
    grid.append(wide);
  }
  grid.remove();
  return grid.childElementCount ? [grid] : [];
}

// Inner width of a figure in a layout of two columns or one.
function half_width(grid) {
  return grid.clientWidth >= 900 ? (grid.clientWidth - 16) / 2 - 34 : grid.clientWidth - 34;
}

function chosen(cell) {
  const searched = new Set(cell.searched ?? cell.search?.axes ?? []);
  const parts = [["Chosen by the search", true], ["Fixed", false]].flatMap(([title, wanted]) => {
    const params = Object.entries(cell.params ?? {}).filter(([name]) => searched.has(name) === wanted);
    const facts = params.map(([name, value]) => fact(bdi(name), plain(value)));
    return params.length ? [el("h3", {}, title), el("dl", { class: "facts wider" }, ...facts)] : [];
  });
  return parts.length ? el("section", { class: "panel" }, el("h2", {}, "Configuration"), ...parts) : el("span");
}

function tables(cell) {
  const panels = [];
  if (cell.runs?.id.length) panels.push(el("section", { class: "panel" }, el("h2", {}, "Confirmed runs"), trialTable("Confirmed runs", cell.runs, "seed", [])));
  const parts = BOARD.sections.find((section) => section.rows.includes(cell.index)).slices.filter((part) => part.scores.some(([index]) => index === cell.index));
  if (parts.length) panels.push(el("section", { class: "panel" }, el("h2", {}, "Parts of the test"), partsTable(cell, parts)));
  if (cell.search?.id.length) {
    const axes = cell.search.axes.map((name, j) => ({ key: `x:${name}`, title: safe(name), value: (row) => sortable(row.point[j]) ?? null, show: (row) => plain(row.point[j]) }));
    const { all, id } = cell.search;
    const left = all ? [el("p", { class: "under" }, `The best ${id.length} of ${all.number.length} trials. All of them, with curves and parameters, are in trials.parquet beside the report and, without curves, in the table as JSON (harness leaderboard --format json).`)] : [];
    panels.push(el("section", { class: "panel" }, el("h2", {}, "Search history"), ...left, trialTable("Search history", cell.search, "number", axes)));
  }
  return panels;
}

function partsTable(cell, parts) {
  const rows = parts.map((part, k) => ({ k, part, numbers: part.scores.find(([index]) => index === cell.index).slice(1) }));
  const columns = [
    { key: "k", title: "dimension", left: true, first: "ascending", value: (row) => row.k, show: (row) => row.part.dimension },
    { key: "name", title: "part", left: true, head: true, first: "ascending", value: (row) => row.part.name, show: (row) => row.part.name },
    { key: "users", title: "users", value: (row) => row.part.users, show: (row) => row.part.users.toLocaleString("en-US") },
    { key: "score", title: BOARD.headline, tip: "With its 95 % interval. Higher is better.", value: (row) => row.numbers[0], show: (row) => [row.numbers[0].toFixed(4), " ", el("span", { class: "range" }, range(row.numbers[1], row.numbers[2]))] },
    { key: "gain", title: `vs ${BOARD.reference} %`, tip: "Gain over the reference on the part, paired by user; not tested. Higher is better.", value: (row) => row.numbers[3], show: (row) => (row.numbers[3] === null ? DASH : [signed(row.numbers[3]), " ", el("span", { class: "range" }, `[${signed(row.numbers[4])}, ${signed(row.numbers[5])}]`)]) },
  ];
  return grid("Parts of the test", null, columns, rows, { key: "k", direction: "ascending" });
}

function trialTable(label, trials, number, axes) {
  const rows = trials.id.map((id, k) => ({ k, id, number: trials[number][k], point: trials.points?.[k] ?? [], reason: trials.reasons?.[k] ?? "" }));
  const top = Math.max(...trials.best.map((value, k) => (trials.status[k] === "d" ? value : -1)));
  const columns = [
    { key: "number", title: number === "seed" ? "seed" : "trial", first: "ascending", head: true, value: (row) => row.number, show: (row) => [row.number, number !== "seed" && trials.best[row.k] === top && trials.status[row.k] === "d" ? el("abbr", { title: "best finished trial" }, " ★") : null] },
    { key: "status", title: "status", left: true, first: "ascending", tip: "done, pruned (stopped early by the study's pruner), failed or running", value: (row) => trials.status[row.k], show: (row) => [STATUS[trials.status[row.k]], row.reason && el("span", { class: "reason" }, ` ${row.reason}`)] },
    { key: "best", title: `valid ${BOARD.headline}`, tip: "Best validation score over epochs. Higher is better.", value: (row) => trials.best[row.k], show: (row) => (trials.best[row.k] === null ? DASH : score(trials.best[row.k]).toFixed(4)) },
    { key: "at", title: "best epoch", tip: "Epoch of the best validation score, from 1.", value: (row) => trials.at[row.k], show: (row) => ((trials.at[row.k] ?? -1) < 0 || !trials.epochs[row.k] ? DASH : trials.at[row.k] + 1) },
    { key: "epochs", title: "epochs", value: (row) => trials.epochs[row.k], show: (row) => trials.epochs[row.k] ?? DASH },
    { key: "seconds", title: "time", tip: "Wall-clock time of the trial.", value: (row) => trials.seconds[row.k], show: (row) => seconds(trials.seconds[row.k]) },
    ...axes,
    { key: "id", title: "trial id", tip: "Id in the ledger, and value of the MLflow tag harness.trial.", left: true, first: "ascending", value: (row) => row.id, show: (row) => runLink(row.id) },
  ];
  return grid(label, null, columns, rows, { key: "number", direction: "ascending" });
}

function runLink(id) {
  const shown = el("code", { title: safe(id) }, short(safe(id), 12));
  const home = BOARD.tracking;
  return home ? el("a", { href: `${home}?searchFilter=${encodeURIComponent(`tags.\`harness.trial\` = '${id}'`)}`, rel: "noreferrer", target: "_blank" }, shown) : shown;
}
