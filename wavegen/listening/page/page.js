"use strict";
// Starts the page: data, views, colour scheme, keyboard shortcuts.

{
  const node = document.getElementById("data");
  const data = JSON.parse(node.textContent);
  node.remove(); // from now on, the document has names only where a view shows them
  takeSoundsInside();

  const main = document.getElementById("main");
  const nav = document.getElementById("views");
  const views = {};
  let view = null;

  /** Set the heading and the window's title. */
  function head(isBlind) {
    const title = isBlind ? "Listening test" : data.title;
    document.title = document.getElementById("title").textContent = title;
    const facts = [count(data.clips.length, "clip"), count(data.systems.length - 1, "system")];
    if (data.systems[0].toLowerCase() !== "reference") facts.push(`reference: ${data.systems[0]}`);
    document.getElementById("subtitle").textContent = isBlind ? "" : facts.join(" · ");
    nav.hidden = isBlind;
  }

  function show() {
    if (views.blind?.running) {
      if (location.hash !== "#blind") location.replace("#blind"); // the back button does not leave a test
      return;
    }
    const name = location.hash === "#blind" ? "blind" : "compare";
    if (view !== views[name] || !view) {
      Deck.heard?.pause();
      views[name] ??= name === "blind" ? new BlindView(data, { started: () => head(true), ended: () => head(false) }) : new CompareView(data);
      view = views[name];
      main.replaceChildren(view.element);
    }
    nav.querySelectorAll("a").forEach((link) => {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
  }

  // ---- light and dark

  const theme = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";
  const showTheme = () => {
    theme.replaceChildren(icon(isDark() ? "light" : "dark"));
    theme.title = isDark() ? "Light colours" : "Dark colours";
    theme.setAttribute("aria-label", theme.title);
  };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  prefersDark.addEventListener("change", showTheme);

  // ---- keyboard shortcuts

  const keys = document.getElementById("keys");
  document.getElementById("help").addEventListener("click", () => keys.showModal());

  const seek = (by) => {
    const { deck } = view.transport;
    return deck.seek(deck.position + by);
  };
  const setSelectionEnd = (end) => {
    const { deck } = view.transport;
    const region = [...(deck.region ?? [0, deck.duration])];
    region[end] = deck.position;
    return region[0] < region[1] ? deck.setRepeat(true, region) : undefined;
  };
  const actions = {
    " ": () => view.transport.deck.toggle(),
    ArrowLeft: (event) => seek(event.shiftKey ? -0.05 : -0.5),
    ArrowRight: (event) => seek(event.shiftKey ? 0.05 : 0.5),
    ArrowUp: () => view.step(-1),
    ArrowDown: () => view.step(1),
    "[": () => setSelectionEnd(0),
    "]": () => setSelectionEnd(1),
    r: () => view.transport.deck.setRepeat(!view.transport.deck.repeat, null),
    m: () => view.toggleMatch(),
  };
  /** Whether the focused element uses the key itself. */
  const isTaken = (target, key) =>
    target.closest("input[type=text], input[type=number], select, textarea, dialog") ||
    (key === " " && target.closest("button, summary, input[type=checkbox]")) ||
    (key.startsWith("Arrow") && target.closest("input[type=range], .scroller"));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || isTaken(event.target, event.key)) return;
    if (event.key === "?") return void keys.showModal();
    if (!view.transport) return;
    const action = /^[1-9]$/.test(event.key) ? () => view.choose(Number(event.key) - 1) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    view.transport.try(action(event));
  });

  addEventListener("hashchange", show);
  addEventListener("beforeunload", (event) => {
    if (views.blind?.running || views.blind?.unsaved) event.preventDefault();
  });
  showTheme();
  head(false);
  show();
}
