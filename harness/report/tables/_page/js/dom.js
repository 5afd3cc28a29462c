"use strict";
// Create elements and format values. Text is only inserted as text nodes, so no name can become markup.

const DASH = "–";
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

// Make a name safe to display: line breaks become blanks, control and direction characters U+FFFD.
function safe(text) {
  return String(text).replace(/\s/g, " ").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "\ufffd");
}

function bdi(text) {
  return el("bdi", {}, safe(text));
}

function fixed(value, digits) {
  return value === null || value === undefined
    ? DASH
    : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function signed(value, digits = 1) {
  return (value < 0 ? "-" : "+") + Math.abs(value).toFixed(digits);
}

function range(low, high, digits = 4) {
  if (low === null || high === null) return DASH;  // of one test user
  return `[${low.toFixed(digits)}, ${high.toFixed(digits)}]`;
}

function seconds(value) {
  if (value === null || value === undefined) return DASH;
  const [unit, size] = value >= 3600 ? ["h", 3600] : value >= 60 ? ["min", 60] : ["s", 1];
  return `${(value / size).toFixed(1)} ${unit}`;
}

function count(value) {
  if (value === null || value === undefined) return DASH;
  const [unit, size] = [["G", 1e9], ["M", 1e6], ["k", 1e3]].find(([, s]) => value >= s) ?? ["", 1];
  return unit ? `${(value / size).toFixed(1)}${unit}` : String(value);
}

// Format a hyper-parameter of any type.
function plain(value) {
  if (value === null || value === undefined) return DASH;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
  return safe(typeof value === "object" ? JSON.stringify(value) : value);
}

function short(text, length) {
  const characters = [...text];
  return characters.length > length ? characters.slice(0, length - 1).join("") + "…" : text;
}

function numeric(value) {
  return typeof value === "number" && Number.isFinite(value);
}

// One tooltip for the page: elements with data-tip show it on hover and on focus.
function tooltips() {
  const tip = byId("tip");
  let owner = null;
  function hide() {
    tip.hidden = true;
    owner?.removeAttribute("aria-describedby");
    owner = null;
  }
  function show(event) {
    const target = event.target.closest?.("[data-tip]");
    if (!target || target === owner) return;
    owner?.removeAttribute("aria-describedby");
    owner = target;
    owner.setAttribute("aria-describedby", "tip");
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    place();
  }
  function place() {
    const box = owner.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left), document.documentElement.clientWidth - tip.offsetWidth - 8);
    const below = box.bottom + 6 + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? box.bottom + 6 : Math.max(4, box.top - tip.offsetHeight - 6)}px`;
  }
  function leave(event) {
    if (owner && !owner.contains(event.relatedTarget)) hide();
  }
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("mouseout", leave);
  document.addEventListener("focusout", leave);
  function follow() {
    if (owner) owner.contains(document.activeElement) ? place() : hide();
  }
  document.addEventListener("scroll", follow, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
