"use strict";
// Helpers for elements and text that all other scripts use.

/** A new element; properties `on…` are event listeners, `text` is plain text, booleans are bare attributes. */
function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else if (typeof value === "boolean") node.toggleAttribute(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  play: "M7 4.5v15l12.5-7.5z",
  pause: "M6 4.5h4.2v15H6zM13.8 4.5H18v15h-4.2z",
  repeat: "M17 2.5 21.5 7 17 11.5V8H7.5A2.5 2.5 0 0 0 5 10.5V12H3v-1.5A4.5 4.5 0 0 1 7.5 6H17zM7 21.5 2.5 17 7 12.5V16h9.5a2.5 2.5 0 0 0 2.5-2.5V12h2v1.5a4.5 4.5 0 0 1-4.5 4.5H7z",
  light: "M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10zM11 1h2v3.5h-2zM11 19.5h2V23h-2zM1 11h3.5v2H1zM19.5 11H23v2h-3.5zM4.2 5.6l1.4-1.4 2.5 2.5-1.4 1.4zM15.9 17.3l1.4-1.4 2.5 2.5-1.4 1.4zM5.6 19.8l-1.4-1.4 2.5-2.5 1.4 1.4zM17.3 8.1l-1.4-1.4 2.5-2.5 1.4 1.4z",
  dark: "M20.5 14.6A9 9 0 0 1 9.4 3.5a9 9 0 1 0 11.1 11.1z",
};

/** An SVG of `path` in a box of `width` by `height`. */
function drawing(path, width, height, properties = {}) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-hidden", "true");
  for (const [name, value] of Object.entries(properties)) svg.setAttribute(name, value);
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

const icon = (name) => drawing(ICONS[name], 24, 24, { class: "icon" });

/** Seconds in the format 0:03.4. */
function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return `${Math.floor(tenths / 600)}:${rest}`;
}

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Announce a message to screen readers. */
function speak(message) {
  document.getElementById("spoken").textContent = message;
}

const gain = (decibels) => 10 ** (decibels / 20);
