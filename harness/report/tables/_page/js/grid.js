// Tables sortable by every column: a column's header is a button, aria-sort gives the order.

// columns: {key, title, tip, value(row), show(row) -> node or text, left, first: "ascending" | "descending", head}.
function grid(label, caption, columns, rows, sorted) {
  const body = el("tbody");
  const heads = columns.map((column) => headOf(column));
  const table = el(
    "table",
    {},
    caption && el("caption", {}, el("span", {}, caption)),
    el("thead", {}, el("tr", {}, ...heads)),
    body,
  );
  function headOf(column) {
    const title = el("button", { type: "button", "data-tip": column.tip }, column.title);
    title.addEventListener("click", () => turn(column));
    return el("th", { scope: "col", class: column.left ? "left" : null, "data-key": column.key, "aria-sort": "none" }, title);
  }
  function turn(column) {
    const flip = { ascending: "descending", descending: "ascending" };
    const same = sorted.key === column.key;
    sorted.direction = same ? flip[sorted.direction] : (column.first ?? "descending");
    sorted.key = column.key;
    draw();
  }
  function draw() {
    const column = columns.find((one) => one.key === sorted.key) ?? columns[0];
    const sign = sorted.direction === "ascending" ? 1 : -1;
    const keyed = rows.map((row) => [column.value(row), row]);
    keyed.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * order(a, b)));
    body.replaceChildren(...keyed.map(([, row]) => lineOf(row)));
    columns.forEach((one, k) => heads[k].setAttribute("aria-sort", one === column ? sorted.direction : "none"));
  }
  function lineOf(row) {
    const cells = columns.map((column) => {
      const shown = [column.show(row)].flat();
      const style = { class: [column.left ? "left" : "", column.wide ? "wide" : ""].join(" ").trim() || null };
      return column.head ? el("th", { scope: "row", ...style }, ...shown) : el("td", style, ...shown);
    });
    return el("tr", { class: (row.marks ?? []).join(" ") || null }, ...cells);
  }
  draw();
  const box = el("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, table);
  return box;
}

function order(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}
