"use strict";
// Sortable tables of scores, and the texts and marks of a metric.

const ARROWS = { higher: "↑", lower: "↓" };
const DIRECTIONS = { higher: "higher is better", lower: "lower is better" };

const arrow = (metric) => ARROWS[metric.better] ?? "→ 0";
const direction = (metric) => DIRECTIONS[metric.better] ?? "closer to zero is better";
const meaning = (metric) => [metric.unit, metric.range, direction(metric), metric.source].filter(Boolean);

/** The value that a column sorts by: the score, or its distance from zero if zero is best. */
function rank(metric, value) {
  if (value == null) return null;
  return metric.better in ARROWS ? value : Math.abs(value);
}

/** A function that formats the numbers of a column with the same decimals: three significant digits of the largest. */
function writer(values) {
  const known = values.filter((value) => value != null && value !== 0);
  const largest = Math.max(...known.map(Math.abs), 0);
  const digits = largest ? Math.min(Math.max(2 - Math.floor(Math.log10(0.9999 * largest)), 0), 6) : 0;
  return (value) => (value == null ? "–" : value.toFixed(digits).replace("-", "−"));
}

/** Indices of the best of `values`; none if all are equal. */
function bestOf(metric, values) {
  const known = values.filter((value) => value != null);
  if (new Set(known).size < 2) return new Set();
  const ranks = known.map((value) => rank(metric, value));
  const best = metric.better === "higher" ? Math.max(...ranks) : Math.min(...ranks);
  return new Set(values.flatMap((value, index) => (rank(metric, value) === best ? [index] : [])));
}

/**
 * A table with sort buttons as headings.
 *
 * @param columns [{label, title, order, largestFirst}]: order(row) is the number to sort by, and null is last in both
 *   directions; largestFirst is the direction of the first click
 * @param rows any values; cells(row) returns the td and th elements
 */
function sortableTable({ caption, columns, rows, cells }) {
  const body = element("tbody");
  const heads = columns.map(({ label, title, order, largestFirst, numeric }) => {
    const button = element("button", { type: "button", title: title ?? "" }, ...[label].flat());
    const head = element("th", { scope: "col", class: numeric ? "number" : "" }, button);
    button.addEventListener("click", () => {
      const ways = largestFirst ? ["descending", "ascending"] : ["ascending", "descending"];
      const way = head.getAttribute("aria-sort") === ways[0] ? ways[1] : ways[0];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way);
      fill([...rows].sort((a, b) => compare(order(a), order(b), way === "descending")));
      speak(`Sorted by ${button.textContent}, ${way}`);
    });
    return head;
  });
  const fill = (sorted) => body.replaceChildren(...sorted.map((row) => element("tr", {}, ...cells(row))));
  fill(rows);
  const table = element(
    "table",
    {},
    element("caption", { class: "spoken", text: caption }),
    element("thead", {}, element("tr", {}, ...heads)),
    body,
  );
  return element("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": caption }, table);
}

function compare(a, b, largestFirst) {
  if (a == null || b == null) return (a == null) - (b == null);
  return largestFirst ? b - a : a - b;
}

/** The column of a metric; its first click sorts the best first. */
function metricColumn(metric, score) {
  return {
    label: [metric.label, " ", element("span", { class: "arrow", text: arrow(metric) })],
    title: meaning(metric).join("\n"),
    order: (row) => rank(metric, score(row)),
    largestFirst: metric.better === "higher",
    numeric: true,
  };
}

/** The heading of a system's row; long names wrap. */
function systemHead(name) {
  return element("th", { scope: "row" }, element("span", { class: "system", text: name }));
}

/** A cell with a score; the best of its column is highlighted, and announced by screen readers. */
function scoreCell(text, isBest, ...details) {
  return element(
    "td",
    { class: isBest ? "number best" : "number" },
    element("span", { class: "value", text }),
    isBest ? element("span", { class: "spoken", text: " (best)" }) : null,
    ...details.map((detail) => element("span", { class: "detail", text: detail })),
  );
}
