"use strict";
// The comparison view: a summary, and for each clip its systems side by side with pictures and scores.

const NEAR_PX = 800; // pictures are drawn when their clip comes this close to the visible part of the page
const DRAG_PX = 6; // a pointer that moves further selects a section instead of clicking

class CompareView {
  constructor(data) {
    this.data = data;
    this.cards = data.clips.map((clip, index) => new ClipCard(data, clip, index, () => this.activate(index)));
    this.order = [...this.cards];
    this.active = this.cards[0];
    this.list = element("div", { class: "clips" }, ...this.cards.map((card) => card.element));
    this.element = element("div", { class: "compare" }, this.summary(), this.toolbar(), this.list);
    const watcher = new IntersectionObserver(
      (entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
        watcher.unobserve(target);
        this.cards.find((card) => card.element === target).draw();
      }),
      { rootMargin: `${NEAR_PX}px` },
    );
    this.cards.forEach((card) => watcher.observe(card.element));
    this.active?.element.classList.add("active");
  }

  summary() {
    const { data } = this;
    const rows = data.systems.map((_, system) => system).filter((system) => Object.keys(data.summary[system]).length);
    const column = (key, part) => rows.map((system) => data.summary[system][key]?.[part] ?? null);
    const written = data.metrics.map(({ key }) => writer(column(key, "mean")));
    const best = data.metrics.map((metric) => bestOf(metric, ofSystems(rows, column(metric.key, "mean"))));
    const cells = (system) => [
      systemHead(data.systems[system]),
      ...data.metrics.map(({ key }, index) => {
        const score = data.summary[system][key];
        if (score?.mean == null) return scoreCell("–", false);
        const write = written[index];
        const few = score.count < data.clips.length ? `${score.count} of ${data.clips.length}` : "";
        const ends = (low, high) => (low == null ? "" : `${write(low)} … ${write(high)}`);
        const details = [[ends(score.low, score.high), few].filter(Boolean).join(" · ")];
        const { difference, difference_low: low, difference_high: high } = score;
        if (difference != null) details.push(`Δ ${write(difference)}${low == null ? "" : ` (${ends(low, high)})`}`);
        return scoreCell(write(score.mean), best[index].has(rows.indexOf(system)), ...details.filter(Boolean));
      }),
    ];
    const hasIntervals = data.summary.some((scores) => Object.values(scores).some(({ low }) => low != null));
    const differs = data.summary.some((scores) => Object.values(scores).some(({ difference }) => difference != null));
    const table = sortableTable({
      caption: "Mean scores of each system",
      columns: [
        { label: "System", order: (system) => system, largestFirst: false },
        ...data.metrics.map((metric) => metricColumn(metric, (system) => data.summary[system][metric.key]?.mean)),
      ],
      rows,
      cells,
    });
    return element(
      "section",
      { class: "panel summary", "aria-labelledby": "summary-heading" },
      element("h2", { id: "summary-heading", text: "Summary" }),
      element("p", {
        class: "lead",
        text: `Means over ${count(data.clips.length, "clip")}${hasIntervals ? " with 95 % intervals" : ", too few for intervals"}; the best value of each column is highlighted.`,
      }),
      differs ? element("p", { class: "lead", text: `Δ is the difference to ${data.systems[0]}, the recordings, on the same clips.` }) : null,
      rows.length ? table : element("p", { text: "There are no scores." }),
      this.legend(),
      data.notes.length ? element("ul", { class: "notes" }, ...data.notes.map((text) => element("li", { text }))) : null,
    );
  }

  legend() {
    const rows = this.data.metrics.map((metric) =>
      element(
        "div",
        {},
        element("dt", { text: `${metric.label} ${arrow(metric)}` }),
        element("dd", { text: meaning(metric).join(" · ") }),
      ),
    );
    return element("details", {}, element("summary", { text: "What the columns mean" }), element("dl", {}, ...rows));
  }

  toolbar() {
    const { data } = this;
    this.match = element("input", { type: "checkbox", onchange: () => this.cards.forEach((c) => c.match(this.match.checked)) });
    const options = [["given", "original order"], ["name", "name"], ...data.metrics.map(({ key, label }) => [key, `worst ${label}`])];
    const choice = (list) => list.map(([value, text]) => element("option", { value, text }));
    this.by = element("select", { onchange: () => this.reorder() }, ...choice(options));
    this.bySystem = element("select", { onchange: () => this.reorder() }, ...choice(data.systems.map((name, i) => [i, name]).slice(1)));
    return element(
      "div",
      { class: "toolbar" },
      element("h2", { text: "Clips" }),
      element("label", {}, "Sort by ", this.by),
      element("label", { class: "by-system", hidden: true }, "of ", this.bySystem),
      element("label", { class: "switch", title: "Play every system at the loudness of the reference (m)" }, this.match, "Match loudness"),
    );
  }

  reorder() {
    const metric = this.data.metrics.find(({ key }) => key === this.by.value);
    this.bySystem.parentElement.hidden = !metric;
    const score = (card) => (metric ? rank(metric, card.clip.scores[this.bySystem.value]?.[metric.key]) : card.index);
    this.order = [...this.cards].sort((a, b) => compare(score(a), score(b), metric && metric.better !== "higher"));
    if (this.by.value === "name") this.order.sort((a, b) => a.clip.name.localeCompare(b.clip.name, undefined, { numeric: true }));
    this.list.replaceChildren(...this.order.map((card) => card.element));
  }

  activate(index) {
    if (this.active === this.cards[index]) return;
    this.active?.element.classList.remove("active");
    this.active = this.cards[index];
    this.active.element.classList.add("active");
  }

  // Actions of the keyboard shortcuts.

  get transport() {
    return this.active?.transport;
  }

  choose(index) {
    this.active?.choose(index);
  }

  step(by) {
    const next = this.order[this.order.indexOf(this.active) + by];
    if (!next) return;
    const { playing } = this.active.deck;
    this.activate(next.index);
    next.element.scrollIntoView({ block: "nearest" });
    speak(`Clip ${next.index + 1}, ${next.clip.name}`);
    if (playing) next.transport.try(next.deck.play());
  }

  toggleMatch() {
    this.match.click();
  }
}

/** One clip: its player, a lane for each system, and its scores. */
class ClipCard {
  constructor(data, clip, index, activate) {
    Object.assign(this, { data, clip, index });
    this.deck = new Deck({
      duration: clip.durationS,
      gains: clip.sounds.map(() => 1),
      load: async (context) => {
        const buffers = await soundsOf(context, index, data.soundFiles?.[index]);
        const longest = Math.max(...buffers.map((buffer) => buffer.length));
        return buffers.map((buffer) => fitted(buffer, longest));
      },
    });
    this.lanes = clip.sounds.map((sound, place) => this.lane(sound, place));
    this.transport = new Transport(this.deck, `Player of ${clip.name}`, (at) => {
      this.element?.style.setProperty("--at", clip.durationS ? at / clip.durationS : 0);
    });
    this.element = element(
      "article",
      { class: "panel clip", "aria-label": `Clip ${index + 1}: ${clip.name}`, onpointerdown: activate, onfocusin: activate },
      element("header", {}, element("span", { class: "index", text: index + 1 }), element("h3", { text: clip.name }), this.transport.element),
      element("div", { class: "lanes" }, ...this.lanes.map(({ element: node }) => node)),
      this.picture(),
      this.scores(),
      ...clip.notes.map((text) => element("p", { class: "note", text })),
    );
    this.deck.addEventListener("change", () => this.show());
    this.show();
  }

  /** What a network has found in the clip, drawn over its time. */
  picture() {
    const { picture, pictureText } = this.clip;
    return picture ? element("img", { src: `data:image/png;base64,${picture}`, alt: pictureText, class: "found", decoding: "async" }) : null;
  }

  lane(sound, place) {
    const name = this.data.systems[sound.system];
    const pick = element(
      "button",
      { type: "button", class: "pick", onclick: () => this.pick(place) },
      element("kbd", { text: place + 1, "aria-hidden": "true" }),
      element("span", { class: "name", title: name, text: name }),
      element("span", { class: "facts", text: `${sound.rateHz / 1000} kHz · ${sound.durationS.toFixed(2)} s` }),
    );
    const pictures = element("div", { class: "pictures" });
    this.seekable(pictures, place);
    return { sound, name, pick, pictures, element: element("div", { class: "lane" }, pick, pictures) };
  }

  /** Play this system, or pause it if it is playing. */
  pick(place) {
    if (this.deck.chosen === place && this.deck.playing) return this.deck.pause();
    this.deck.choose(place);
    return this.transport.try(this.deck.play());
  }

  choose(place) {
    if (place < this.lanes.length) this.deck.choose(place);
  }

  match(on) {
    this.deck.setGains(this.clip.sounds.map((sound) => (on ? gain(sound.gainDb) : 1)));
  }

  show() {
    this.lanes.forEach(({ pick, element: lane }, place) => {
      pick.setAttribute("aria-pressed", String(this.deck.chosen === place));
      lane.classList.toggle("chosen", this.deck.chosen === place);
    });
    const [start, end] = this.deck.loopRange;
    this.element.classList.toggle("playing", this.deck.playing);
    this.element.classList.toggle("selection", Boolean(this.deck.region));
    this.element.style.setProperty("--from", start / this.deck.duration);
    this.element.style.setProperty("--to", end / this.deck.duration);
  }

  /** Seek on a click; on a drag, select a section and repeat it. */
  seekable(pictures, place) {
    const second = (event) => {
      const { left, width } = pictures.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - left) / width, 0), 1) * this.deck.duration;
    };
    let from = null;
    pictures.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = { x: event.clientX, at: second(event) };
      pictures.setPointerCapture(event.pointerId);
    });
    pictures.addEventListener("pointermove", (event) => {
      if (!from || Math.abs(event.clientX - from.x) < DRAG_PX) return;
      const ends = [from.at, second(event)].sort((a, b) => a - b);
      this.element.style.setProperty("--from", ends[0] / this.deck.duration);
      this.element.style.setProperty("--to", ends[1] / this.deck.duration);
      this.element.classList.add("selection");
    });
    pictures.addEventListener("pointercancel", () => {
      from = null; // the browser scrolls instead
      this.show();
    });
    pictures.addEventListener("pointerup", (event) => {
      if (!from) return;
      const ends = [from.at, second(event)].sort((a, b) => a - b);
      const dragged = Math.abs(event.clientX - from.x) >= DRAG_PX;
      from = null;
      this.deck.choose(place);
      this.transport.try(dragged ? this.deck.setRepeat(true, ends) : this.deck.seek(ends[0]));
    });
  }

  /** Add the pictures. */
  draw() {
    const heights = this.clip.sounds.flatMap(({ outline }) => [...bytesOf(outline)].map((byte) => Math.abs((byte << 24) >> 24)));
    // One scale for all outlines. It ignores the highest 1 %, so that a few clicks do not flatten the speech.
    const peak = Math.max(8, heights.sort((a, b) => a - b)[Math.floor(0.99 * heights.length)]);
    const image = (base64, alt, kind) =>
      element("img", { src: `data:image/png;base64,${base64}`, alt, class: kind, draggable: "false", decoding: "async" });
    this.lanes.forEach(({ sound, name, pictures }) => {
      const spectrum = element("div", { class: "spectrum" }, image(sound.picture, `Spectrogram of ${name}`, "level"), ...this.ticks());
      pictures.append(
        drawing(outlinePath(bytesOf(sound.outline), peak), 240, 2 * peak, { class: "wave", preserveAspectRatio: "none" }),
        spectrum,
        sound.difference
          ? element("div", { class: "spectrum" }, image(sound.difference, `${name} minus ${this.data.systems[0]}`, "difference"))
          : colourScales(this.data),
        element("div", { class: "selection", "aria-hidden": "true" }),
        element("div", { class: "playhead", "aria-hidden": "true" }),
      );
    });
  }

  ticks() {
    return this.clip.ticks.map(([hertz, height]) =>
      element("span", { class: "tick", style: `bottom:min(${(100 * height).toFixed(1)}%, 100% - 8px)`, "aria-hidden": "true", text: hertz >= 1000 ? `${hertz / 1000}k` : hertz }),
    );
  }

  scores() {
    const { data, clip } = this;
    const rows = data.systems.map((_, system) => system).filter((system) => Object.keys(clip.scores[system]).length);
    if (!rows.length) return null;
    const column = (key) => rows.map((system) => clip.scores[system][key] ?? null);
    const written = data.metrics.map(({ key }) => writer(column(key)));
    const best = data.metrics.map((metric) => bestOf(metric, ofSystems(rows, column(metric.key))));
    return sortableTable({
      caption: `Scores of ${clip.name}`,
      columns: [
        { label: "System", order: (system) => system, largestFirst: false },
        ...data.metrics.map((metric) => metricColumn(metric, (system) => clip.scores[system][metric.key])),
      ],
      rows,
      cells: (system) => [
        systemHead(data.systems[system]),
        ...data.metrics.map(({ key }, index) =>
          scoreCell(written[index](clip.scores[system][key]), best[index].has(rows.indexOf(system))),
        ),
      ],
    });
  }
}

/** The values of the rows without that of the reference, which cannot be the best. */
const ofSystems = (rows, values) => values.map((value, index) => (rows[index] === 0 ? null : value));

/** SVG path along the highest samples and back along the lowest; `bytes` are int8, all lowest samples first. */
function outlinePath(bytes, peak) {
  const columns = bytes.length / 2;
  const point = (index, column) => `${column},${(peak - ((bytes[index] << 24) >> 24)).toFixed(0)}`;
  const highs = Array.from({ length: columns }, (_, column) => point(columns + column, column));
  const lows = Array.from({ length: columns }, (_, column) => point(column, column)).reverse();
  return `M${[...highs, ...lows].join("L")}Z`;
}

/** The colour scales of the pictures; shown in the place of the reference's own difference. */
function colourScales(data) {
  const scale = (colours, low, high, name) =>
    element(
      "div",
      { class: "scale" },
      element("span", { class: "what", text: name }),
      element("span", { class: "ramp", style: `background-image:linear-gradient(90deg,${colours.join(",")})` }),
      element("span", { class: "ends" }, element("span", { text: low }), element("span", { text: high })),
    );
  const colour = ([red, green, blue, alpha = 255]) => `rgb(${red} ${green} ${blue} / ${(alpha / 255).toFixed(3)})`;
  return element(
    "div",
    { class: "scales" },
    scale(data.levelColours.map(colour), `−${data.levelRangeDb} dB`, "loudest", "Level"),
    scale(data.differenceColours.map(colour), `−${data.differenceRangeDb} dB`, `+${data.differenceRangeDb} dB`, "Difference from the reference"),
  );
}
