// Entry point: draw the page, follow the address, remember the colour scheme.

const filter = unfiltered();
const orders = new Map();
let cost = "parameters";
let dimension = "popularity";
let drawn = 0; // window width at the last drawing

function orderOf(key) {
  if (!orders.has(key)) orders.set(key, { key: "rank", direction: "ascending" });
  return orders.get(key);
}

function draw() {
  const shown = [];
  BOARD.sections.forEach((section, k) => {
    const view = compare(section, filter);
    const place = byId(`s${k + 1}`);
    place.hidden = !view.rows.length;
    if (!view.rows.length) return;
    shown.push(view);
    place.querySelector(".table").replaceChildren(leaderboard(view, filter, orderOf(k)));
    sectionFigures(place.querySelector(".figures"), view);
  });
  drawAcross();
  const whole = BOARD.sections.reduce((sum, section) => sum + section.rows.length, 0);
  const rows = shown.reduce((sum, view) => sum + view.rows.length, 0);
  byId("status").textContent = rows === whole ? `${whole} row${whole === 1 ? "" : "s"} in ${BOARD.sections.length} table${BOARD.sections.length === 1 ? "" : "s"}` : `${rows} of ${whole} rows: ranks, marks, gains, Holm's correction and figures cover only these`;
}

function sectionFigures(place, view) {
  place.replaceChildren();
  const width = { clientWidth: half_width(place) };
  const choose = (key) => {
    cost = key;
    draw();
  };
  const drawings = [forest(width, view), qualityCost(width, view, cost, choose)].filter(Boolean);
  const wide = searches(width, view);
  if (wide) {
    wide.classList.add("broad");
    drawings.push(wide);
  }
  const cut = slices(view, dimension, (name) => { dimension = name; draw(); }, orderOf(`slices of ${view.section.title}`));
  if (cut) {
    cut.classList.add("broad");
    drawings.push(cut);
  }
  place.append(...drawings);
}

function drawAcross() {
  const place = byId("across");
  const backbones = [...new Set(BOARD.sections.map((section) => section.backbone))];
  const views = backbones.map((backbone) => across(backbone, filter)).filter((view) => view.datasets.length > 1);
  place.hidden = !views.length;
  place.querySelector(".tables").replaceChildren(...views.map(acrossPart));
}

function acrossPart(view) {
  const whole = isWhole(filter) ? BOARD.across.find((one) => one.backbone === view.backbone) : null;
  const left = whole ? whole.left_out.map(safe) : view.left;
  return el(
    "div",
    {},
    el("h3", {}, bdi(view.backbone)),
    acrossTable(view, orderOf(view.backbone), whole),
    whole?.critical_difference && criticalDifference({ clientWidth: Math.min(900, byId("boards").clientWidth - 80) }, whole),
    left.length > 0 && el("p", { class: "under" }, `Not compared, for lack of common results: ${left.join("; ")}.`),
    whole?.too_few && el("p", { class: "under" }, whole.too_few),
  );
}

const TITLE = document.title;

function cellAt(hash) {
  const parts = hash.slice("#row/".length).split("/");
  try {
    const names = parts.map(decodeURIComponent);
    return BOARD.cells.find((cell) => cell.cell.every((name, k) => name === names[k]));
  } catch {
    return undefined; // a malformed address
  }
}

function follow() {
  const cell = location.hash.startsWith("#row/") ? cellAt(location.hash) : undefined;
  byId("whole").hidden = Boolean(cell);
  byId("row").hidden = !cell;
  if (cell) {
    rowPage(cell);
    window.scrollTo(0, 0);
    byId("row-title").focus({ preventScroll: true });
    return;
  }
  byId("row").replaceChildren();
  document.title = TITLE;
  if (drawn !== window.innerWidth) redraw();
  const target = location.hash.length > 1 ? byId(location.hash.slice(1)) : null;
  if (target) target.scrollIntoView();
}

function redraw() {
  drawn = window.innerWidth;
  draw();
}

function theme() {
  const root = document.documentElement;
  const button = byId("theme");
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const update = () => button.setAttribute("aria-pressed", String(dark()));
  try {
    const stored = localStorage.getItem("harness-theme");
    if (stored === "dark" || stored === "light") root.dataset.theme = stored;
  } catch {
    // the browser has no storage for files: the choice lasts for this visit
  }
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    update();
    try {
      localStorage.setItem("harness-theme", root.dataset.theme);
    } catch {
      // as above
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
  button.hidden = false;
  update();
}

let waiting = 0;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => window.innerWidth !== drawn && (byId("whole").hidden ? follow() : redraw()), 150);
});
window.addEventListener("hashchange", follow);
document.documentElement.classList.add("live");
theme();
tooltips();
foldAway();
controls(filter, draw);
follow();
