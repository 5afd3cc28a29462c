// The page of one row: what it is, how it came about, and how to get it back.

function rowPage(cell) {
  const sections = BOARD.sections.filter((section) => section.rows.includes(cell.index));
  const page = el("article", { class: "row-page" });
  const content = [
    el("p", { class: "back" }, el("a", { href: `#s${BOARD.sections.indexOf(sections[0]) + 1}` }, "← ", safe(sections[0].title))),
    el("h1", { id: "row-title", tabindex: "-1" }, named(nameOf(cell)), " ", ...tagsOf(cell)),
    el("p", { class: "under" }, named(cell.dataset), " × ", cell.backbone === "none" ? "no backbone" : named(cell.backbone), cell.encoder === "none" ? "" : [" × ", named(cell.encoder)].map((x) => x)),
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

const WORDED = new Set(["MB", "Wh"]); // that a number of a row's page has behind it

// Its numbers: place in each section it stands in, and every column.
function standing(cell, sections) {
  const places = sections.flatMap((section) => {
    const row = compare(section, unfiltered()).rows.find((one) => one.cell === cell);
    if (row.rank === null) return [];
    const ranked = section.rows.filter((k) => meanOf(BOARD.cells[k], BOARD.headline) !== null).length;
    const place = fact(sections.length > 1 ? `rank in ${safe(section.title)}` : "rank", [`${row.rank} of ${ranked} `, ...symbolsOf(row)]);
    const tests = section.tests[cell.index] ?? [];
    const more = [["effect size", tests[0], 2, "Paired standardised difference from the reference: mean over standard deviation of users' differences (Cohen's d_z)."], ["detectable %", tests[1], 1, "Smallest true gain over the reference that a test of this size finds in four of five cases, in percent."]]
      .filter(([, value]) => numeric(value))
      .map(([name, value, digits, tip]) => fact(el("span", { tabindex: "0", class: "help", "data-tip": tip }, name), value.toFixed(digits)));
    const first = section.first[cell.index];
    if (numeric(first)) more.unshift(fact(el("span", { tabindex: "0", class: "help", "data-tip": "Share of resamples of users and seeds in which the row ranks first among all rows of the section." }, "first"), `${(100 * first).toFixed(1)} %`));
    const group = row.group ? [fact(el("span", { tabindex: "0", class: "help", "data-tip": "Rows of the section that share a letter cannot be told apart." }, "group"), row.group)] : [];
    return row.gain ? [place, ...group, fact(`gain over ${safe(nameOf(row.gain.against))}`, [...gainText(row.gain, row.marks.includes("differs")).filter(Boolean), " %"]), ...more] : [place, ...group, ...more];
  });
  const values = BOARD.columns.flatMap((column) => {
    const value = valueOf(cell, column.key);
    if (value === null) return [];
    const shown = showOf(column, cell);
    const name = el("span", { tabindex: "0", class: "help", "data-tip": tipOf(column) }, column.title);
    const unit = column.kind === "number" && WORDED.has(column.unit) ? ` ${column.unit}` : "";
    return [fact(name, [...(shown instanceof Node ? shown.childNodes : [shown]), unit])];
  });
  return el("section", { class: "panel", "aria-label": "Numbers" }, el("dl", { class: "facts wider" }, ...places, ...values));
}

function commands(cell) {
  const word = cell.cell.join("/");
  const quoted = /^[\w./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
  const lines = [`harness reproduce ${quoted}`];
  if (!cell.kinds.includes("baseline")) lines.push(`harness export ${quoted} --output model`);
  return el("section", { class: "panel command", "aria-label": "Reproduce" }, el("h2", {}, "Get this row back"), ...lines.map(commandLine));
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
  const found = [
    cell.search && searchChart(half, cell),
    curvesChart(half, cell),
    importanceChart(half, cell),
    budgetChart(half, cell),
    spectrumChart(half, cell),
  ];
  grid.append(...found.filter(Boolean));
  const wide = cell.search && parallel({ clientWidth: grid.clientWidth - 34 }, cell);
  if (wide) {
    wide.classList.add("broad");
    grid.append(wide);
  }
  grid.remove();
  return grid.childElementCount ? [grid] : [];
}

// The inner width of one of two columns, or of the only one.
function half_width(grid) {
  return grid.clientWidth >= 900 ? (grid.clientWidth - 16) / 2 - 34 : grid.clientWidth - 34;
}

function chosen(cell) {
  const searched = new Set(cell.searched ?? cell.search?.axes ?? []);
  const parts = [["Chosen by the search", true], ["Fixed", false]].flatMap(([title, own]) => {
    const found = Object.entries(cell.params ?? {}).filter(([name]) => searched.has(name) === own);
    const facts = found.map(([name, value]) => fact(named(name), plain(value)));
    return found.length ? [el("h3", {}, title), el("dl", { class: "facts wider" }, ...facts)] : [];
  });
  return parts.length ? el("section", { class: "panel" }, el("h2", {}, "Configuration"), ...parts) : el("span");
}

function tables(cell) {
  const found = [];
  if (cell.runs?.id.length) found.push(el("section", { class: "panel" }, el("h2", {}, "Confirmed runs"), trialTable("Confirmed runs", cell.runs, "seed", [])));
  const parts = BOARD.sections.find((section) => section.rows.includes(cell.index)).slices.filter((part) => part.scores.some(([index]) => index === cell.index));
  if (parts.length) found.push(el("section", { class: "panel" }, el("h2", {}, "Parts of the test"), partsTable(cell, parts)));
  if (cell.search?.id.length) {
    const axes = cell.search.axes.map((name, j) => ({ key: `x:${name}`, title: safe(name), value: (row) => sortable(row.point[j]) ?? null, show: (row) => plain(row.point[j]) }));
    found.push(el("section", { class: "panel" }, el("h2", {}, "Search history"), trialTable("Search history", cell.search, "number", axes)));
  }
  return found;
}

function partsTable(cell, parts) {
  const rows = parts.map((part, k) => ({ k, part, numbers: part.scores.find(([index]) => index === cell.index).slice(1) }));
  const columns = [
    { key: "k", title: "cut by", left: true, first: "ascending", value: (row) => row.k, show: (row) => row.part.dimension },
    { key: "name", title: "part", left: true, head: true, first: "ascending", value: (row) => row.part.name, show: (row) => row.part.name },
    { key: "users", title: "users", value: (row) => row.part.users, show: (row) => row.part.users.toLocaleString("en-US") },
    { key: "score", title: BOARD.headline, tip: "With its 95 % interval. Higher is better.", value: (row) => row.numbers[0], show: (row) => [row.numbers[0].toFixed(4), " ", el("span", { class: "range" }, range(row.numbers[1], row.numbers[2]))] },
    { key: "gain", title: `vs ${BOARD.reference} %`, tip: "Gain over the reference on the part, paired by user; no test is made. Higher is better.", value: (row) => row.numbers[3], show: (row) => (row.numbers[3] === null ? DASH : [signed(row.numbers[3]), " ", el("span", { class: "range" }, `[${signed(row.numbers[4])}, ${signed(row.numbers[5])}]`)]) },
  ];
  return grid("Parts of the test", null, columns, rows, { key: "k", direction: "ascending" });
}

function trialTable(label, own, number, axes) {
  const rows = own.id.map((id, k) => ({ k, id, number: own[number][k], point: own.points?.[k] ?? [], reason: own.reasons?.[k] ?? "" }));
  const top = Math.max(...own.best.map((value, k) => (own.status[k] === "d" ? value : -1)));
  const columns = [
    { key: "number", title: number === "seed" ? "seed" : "trial", first: "ascending", head: true, value: (row) => row.number, show: (row) => [row.number, number !== "seed" && own.best[row.k] === top && own.status[row.k] === "d" ? el("abbr", { title: "the best finished trial" }, " ★") : null] },
    { key: "status", title: "status", left: true, first: "ascending", tip: "done, pruned (stopped early by the study's pruner), failed or still running", value: (row) => own.status[row.k], show: (row) => [STATUS[own.status[row.k]], row.reason && el("span", { class: "reason" }, ` ${row.reason}`)] },
    { key: "best", title: `valid ${BOARD.headline}`, tip: "Best validation score over its epochs. Higher is better.", value: (row) => own.best[row.k], show: (row) => (own.best[row.k] === null ? DASH : score(own.best[row.k]).toFixed(4)) },
    { key: "at", title: "best epoch", tip: "Epoch of that score, from 1.", value: (row) => own.at[row.k], show: (row) => ((own.at[row.k] ?? -1) < 0 || !own.epochs[row.k] ? DASH : own.at[row.k] + 1) },
    { key: "epochs", title: "epochs", value: (row) => own.epochs[row.k], show: (row) => own.epochs[row.k] ?? DASH },
    { key: "seconds", title: "time", tip: "Wall-clock time of the trial.", value: (row) => own.seconds[row.k], show: (row) => seconds(own.seconds[row.k]) },
    ...axes,
    { key: "id", title: "trial id", tip: "Its id in the ledger; MLflow has it as the tag harness.trial.", left: true, first: "ascending", value: (row) => row.id, show: (row) => runLink(row.id) },
  ];
  return grid(label, null, columns, rows, { key: "number", direction: "ascending" });
}

function runLink(id) {
  const shown = el("code", { title: safe(id) }, short(safe(id), 12));
  const home = BOARD.tracking;
  return home ? el("a", { href: `${home}?searchFilter=${encodeURIComponent(`tags.\`harness.trial\` = '${id}'`)}`, rel: "noreferrer", target: "_blank" }, shown) : shown;
}
