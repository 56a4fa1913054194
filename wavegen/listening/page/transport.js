"use strict";
// The controls of a deck: play, position, time and repeat.

class Transport {
  /** @param moved called with the position in seconds whenever it changes */
  constructor(deck, label, moved = () => {}) {
    this.deck = deck;
    this.moved = moved;
    this.play = element("button", { type: "button", class: "play", onclick: () => this.try(deck.toggle()) });
    this.seek = element("input", {
      type: "range", class: "seek", min: 0, max: deck.duration, step: 0.01, value: 0, "aria-label": "Position",
      oninput: () => this.try(deck.seek(Number(this.seek.value))),
    });
    this.time = element("span", { class: "time" });
    this.repeat = element(
      "button",
      { type: "button", class: "tool", title: "Repeat (r)", onclick: () => this.try(deck.setRepeat(!deck.repeat, null)) },
      icon("repeat"),
    );
    this.fault = element("p", { class: "fault", role: "alert", hidden: true });
    this.element = element(
      "div",
      { class: "transport", role: "group", "aria-label": label },
      this.play,
      element("div", { class: "track" }, this.seek, element("div", { class: "selection" })),
      this.time,
      this.repeat,
      this.fault,
    );
    deck.addEventListener("change", () => this.show());
    this.show();
  }

  /** Wait for an action of the deck, and show a message if the sounds cannot be loaded. */
  async try(action) {
    try {
      await action;
      this.fault.hidden = true;
    } catch (error) {
      this.fault.textContent = `Cannot play: ${error.message}`;
      this.fault.hidden = false;
    }
  }

  show() {
    const { deck } = this;
    if (this.shown !== deck.playing) {
      this.shown = deck.playing;
      this.play.replaceChildren(icon(deck.playing ? "pause" : "play"));
      this.play.setAttribute("aria-label", deck.playing ? "Pause" : "Play");
    }
    this.repeat.setAttribute("aria-pressed", String(deck.repeat));
    this.repeat.setAttribute("aria-label", deck.region ? "Repeat the selection" : "Repeat");
    this.element.toggleAttribute("data-selection", Boolean(deck.region));
    const [start, end] = deck.loopRange;
    this.element.style.setProperty("--from", start / deck.duration);
    this.element.style.setProperty("--to", end / deck.duration);
    this.move();
  }

  move() {
    const { deck } = this;
    const position = deck.position;
    this.seek.value = position;
    this.seek.style.setProperty("--at", position / deck.duration);
    this.seek.setAttribute("aria-valuetext", `${position.toFixed(1)} of ${deck.duration.toFixed(1)} seconds`);
    this.time.textContent = `${clock(position)} / ${clock(deck.duration)}`;
    this.moved(position);
    cancelAnimationFrame(this.frame);
    if (deck.playing) this.frame = requestAnimationFrame(() => this.move());
  }
}
