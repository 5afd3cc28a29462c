// Filters of the tables, and their controls.

const PARTS = { dataset: "data set", backbone: "backbone", encoder: "encoder", adapter: "adapter" };
const KINDS = { baseline: "baselines", ensemble: "ensembles", ablation: "ablations", control: "controls", hole: "rows without results" };

function unfiltered() {
  const reference = BOARD.cells.find(isPreset);
  return {
    text: "",
    without: { dataset: new Set(), backbone: new Set(), encoder: new Set(), adapter: new Set() },
    hidden: new Set(),
    metric: BOARD.headline,
    reference: reference ? way(reference) : "",
    groups: new Set(BOARD.shown),
  };
}

// Whether a filter changes nothing.
function isWhole(filter) {
  const dropped = Object.values(filter.without).some((names) => names.size);
  const whole = unfiltered();
  return !dropped && !filter.text.trim() && !filter.hidden.size && filter.metric === whole.metric && filter.reference === whole.reference;
}

function namesOf(part) {
  const names = part === "dataset" || part === "backbone" ? BOARD.sections.map((s) => s[part]) : BOARD.cells.map((c) => c[part]);
  return [...new Set(names)].sort();
}

function controls(filter, changed) {
  const box = byId("controls");
  const search = el("input", { type: "search", id: "text", placeholder: "svd minilm …", "aria-label": "Show rows whose names contain", autocomplete: "off", value: filter.text });
  search.addEventListener("input", () => {
    filter.text = search.value;
    changed();
  });
  const select = (label, key, options) =>
    el("label", { class: "inline" }, `${label} `, el("select", { id: key, onchange: (event) => { filter[key] = event.target.value; changed(); } }, ...options.map(([value, words]) => el("option", { value, selected: value === filter[key] }, words))));
  const ways = new Map(BOARD.cells.filter((cell) => meanOf(cell, BOARD.headline) !== null).map((cell) => [way(cell), short(safe(nameOf(cell)), 40)]));
  if (!ways.has(filter.reference)) ways.set(filter.reference, DASH);  // no row, or one without results
  const picks = Object.keys(PARTS).filter((part) => namesOf(part).length > 1).map((part) => pick(part, filter, changed));
  box.replaceChildren(
    el("div", { class: "line" }, el("label", { class: "inline grow" }, "Find ", search), select("Metric", "metric", BOARD.metrics.map((name) => [name, name])), select("Reference", "reference", [...ways])),
    el("div", { class: "line" }, ...picks, hiding(filter, changed), groups(filter, changed), el("button", { type: "button", id: "save", class: "quiet", onclick: () => save(filter) }, "Save as CSV"), el("button", { type: "button", id: "reset", class: "quiet", onclick: () => reset(filter, changed) }, "Show all")),
    el("p", { id: "status", role: "status" }),
  );
  box.hidden = false;
}

function reset(filter, changed) {
  Object.assign(filter, unfiltered(), { groups: filter.groups });
  controls(filter, changed);
  changed();
  byId("reset").focus();
}

function folded(title, id, ...content) {
  return el("details", { class: "pick", id }, el("summary", {}, title), el("fieldset", {}, el("legend", { class: "unseen" }, id.replace("pick-", "")), ...content));
}

function box(name, checked, change, shown) {
  return el("label", {}, el("input", { type: "checkbox", name, checked, onchange: (event) => change(event.target.checked) }), " ", shown);
}

function pick(part, filter, changed) {
  const names = namesOf(part);
  const dropped = filter.without[part];
  const title = el("span");
  const update = () => (title.textContent = `${PARTS[part]}s ${dropped.size ? `${names.length - dropped.size} of ${names.length}` : "all"}`);
  const boxes = names.map((name) =>
    box(name, !dropped.has(name), (on) => { (on ? dropped.delete(name) : dropped.add(name)); update(); changed(); }, name === "none" ? DASH : bdi(name)),
  );
  const all = (on) => {
    names.forEach((name) => (on ? dropped.delete(name) : dropped.add(name)));
    boxes.forEach((one) => (one.firstChild.checked = on));
    update();
    changed();
  };
  const quick = el("p", { class: "quick" }, ...[["all", true], ["none", false]].map(([word, on]) => el("button", { type: "button", class: "quiet", onclick: () => all(on) }, word)));
  update();
  return folded(title, `pick-${part}`, quick, ...boxes);
}

function hiding(filter, changed) {
  const present = new Set(BOARD.cells.flatMap((cell) => [...cell.kinds, meanOf(cell, BOARD.headline) === null ? "hole" : ""]));
  const boxes = Object.keys(KINDS).filter((kind) => present.has(kind)).map((kind) =>
    box(`hide-${kind}`, filter.hidden.has(kind), (on) => { (on ? filter.hidden.add(kind) : filter.hidden.delete(kind)); changed(); }, `hide ${KINDS[kind]}`),
  );
  return boxes.length ? folded("hide", "pick-hide", ...boxes) : null;
}

function groups(filter, changed) {
  const present = new Set(BOARD.columns.map((column) => column.group));
  const boxes = Object.entries(BOARD.groups).filter(([key]) => present.has(key)).map(([key, title]) =>
    box(`group-${key}`, filter.groups.has(key), (on) => { (on ? filter.groups.add(key) : filter.groups.delete(key)); changed(); }, title),
  );
  return folded("columns", "pick-groups", ...boxes);
}

// Download the shown rows with their ranks and comparisons.
function save(filter) {
  const views = BOARD.sections.map((section) => compare(section, filter));
  const heads = ["dataset", "backbone", "adapter", "encoder", "state", "rank", "group", ...BOARD.metrics.flatMap((name) => [name, `${name}_low`, `${name}_high`])];
  const gains = ["gain_percent", "gain_low", "gain_high", "gain_p", "reference"];
  const lines = views.flatMap(({ section, rows }) =>
    rows.map(({ cell, rank, group, gain }) => [
      section.dataset, section.backbone, cell.adapter, cell.encoder, cell.state, rank, group,
      ...BOARD.metrics.flatMap((name) => valueOf(cell, `m:${name}`) ?? [null, null, null]),
      ...(gain ? [gain.percent, gain.low, gain.high, gain.p, nameOf(gain.against)] : gains.map(() => null)),
    ]),
  );
  const text = [[...heads, ...gains], ...lines].map((line) => line.map(field).join(",")).join("\n");
  const address = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" }));
  el("a", { href: address, download: "leaderboard.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// Text that would start a formula in a spreadsheet gets a leading quote, as in the CSV format.
function field(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const guarded = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}

// Close open menus on Escape or a click elsewhere.
function foldAway() {
  const close = (except) => document.querySelectorAll("details.pick[open]").forEach((one) => one !== except && (one.open = false));
  document.addEventListener("click", (event) => close(event.target.closest("details.pick")));
  document.addEventListener("keydown", (event) => {
    const open = document.querySelector("details.pick[open]");
    if (event.key !== "Escape" || !open) return;
    close(null);
    open.querySelector("summary").focus();
  });
}
