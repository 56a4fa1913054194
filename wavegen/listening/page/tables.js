"use strict";
// Tables of scores whose columns sort, and the words and marks that go with a metric.

const ARROWS = { higher: "↑", lower: "↓" };
const DIRECTIONS = { higher: "higher is better", lower: "lower is better" };

const arrow = (metric) => ARROWS[metric.better] ?? "→ 0";
const direction = (metric) => DIRECTIONS[metric.better] ?? "nearer to zero is better";
const meaning = (metric) => [metric.unit, metric.range, direction(metric), metric.source].filter(Boolean);

/** What a column sorts by: the score, or its distance from zero where that is what counts. */
function rank(metric, value) {
  if (value == null) return null;
  return metric.better in ARROWS ? value : Math.abs(value);
}

/** A function that writes the numbers of one column alike, with three digits that mean something (of 1, three after it). */
function writer(values) {
  const known = values.filter((value) => value != null && value !== 0);
  const largest = Math.max(...known.map(Math.abs), 0);
  const digits = largest ? Math.min(Math.max(2 - Math.floor(Math.log10(0.9999 * largest)), 0), 6) : 0;
  return (value) => (value == null ? "–" : value.toFixed(digits).replace("-", "−"));
}

/** Which of `values` are the best; none where there is nothing to compare. */
function bestOf(metric, values) {
  const known = values.filter((value) => value != null);
  if (new Set(known).size < 2) return new Set();
  const ranks = known.map((value) => rank(metric, value));
  const best = metric.better === "higher" ? Math.max(...ranks) : Math.min(...ranks);
  return new Set(values.flatMap((value, index) => (rank(metric, value) === best ? [index] : [])));
}

/**
 * A table whose headings are buttons that sort.
 *
 * @param columns [{label, title, order, largestFirst}]: order(row) is the number to sort by, and null goes last in
 *   both directions; largestFirst is how the first click sorts
 * @param rows anything; cells(row) gives the td and th elements
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
      fill([...rows].sort((one, other) => compare(order(one), order(other), way === "descending")));
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

function compare(one, other, largestFirst) {
  if (one == null || other == null) return (one == null) - (other == null);
  return largestFirst ? other - one : one - other;
}

/** Heading of a metric's column, which sorts the best first. */
function metricColumn(metric, score) {
  return {
    label: [metric.label, " ", element("span", { class: "arrow", text: arrow(metric) })],
    title: meaning(metric).join("\n"),
    order: (row) => rank(metric, score(row)),
    largestFirst: metric.better === "higher",
    numeric: true,
  };
}

/** The heading of a system's row; long names break. */
function systemHead(name) {
  return element("th", { scope: "row" }, element("span", { class: "system", text: name }));
}

/** A cell with a score; the best of its column is marked for eyes, and said for ears. */
function scoreCell(text, isBest, detail = null) {
  return element(
    "td",
    { class: isBest ? "number best" : "number" },
    element("span", { class: "value", text }),
    isBest ? element("span", { class: "spoken", text: " (best)" }) : null,
    detail && element("span", { class: "detail", text: detail }),
  );
}
