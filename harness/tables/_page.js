"use strict";
function key(cell) {
  if (!("value" in cell.dataset)) return null;
  const number = Number(cell.dataset.value);
  return Number.isNaN(number) || cell.dataset.value === "" ? cell.dataset.value : number;
}
function order(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}
// Rows without a value stay last whichever way the others go.
function sort(head) {
  const index = head.cellIndex;
  const body = head.closest("table").tBodies[0];
  const first = index > 2 ? "descending" : "ascending";
  const flip = { ascending: "descending", descending: "ascending" };
  const direction = flip[head.getAttribute("aria-sort")] ?? first;
  for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...body.rows].map((row) => [key(row.cells[index]), row]);
  rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * order(a, b)));
  body.append(...rows.map(([, row]) => row));
}
function show(metric) {
  for (const cell of document.querySelectorAll("[data-metric]"))
    cell.hidden = metric !== "" && cell.dataset.metric !== metric;
}
for (const button of document.querySelectorAll("thead button"))
  button.addEventListener("click", () => sort(button.closest("th")));
const metric = document.getElementById("metric");
metric.addEventListener("change", () => {
  show(metric.value);
  const heads = document.querySelectorAll("thead [data-metric]");
  for (const head of heads)
    if (head.dataset.metric === metric.value) {
      head.setAttribute("aria-sort", "none");
      sort(head);
    }
});
show(metric.value); // a reloaded page keeps the choice its form had
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement.style;
  const dark = root.colorScheme ? root.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.colorScheme = dark ? "light" : "dark";
});
