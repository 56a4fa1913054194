"use strict";
// Rating test after ITU-R BS.1534-3 (MUSHRA): the reference is given, and also hidden among the systems; an anchor is
// optional.

const ANCHOR_HZ = 3500; // the low anchor of BS.1534-3
const GRADES = ["Bad", "Poor", "Fair", "Good", "Excellent"];

class RatingTest {
  constructor(data, { seed, matched, finished, clips, anchor }) {
    Object.assign(this, { data, matched, finished });
    const usable = data.clips.map((_, index) => index).filter((index) => this.isUsable(data.clips[index]));
    if (!usable.length) throw new Error("No clip has both the reference and another system");
    const random = randomFrom(seed);
    this.trials = shuffled(usable, random).slice(0, clips).map((clip) => {
      const places = data.clips[clip].sounds.map((_, place) => place);
      return { clip, places, order: shuffled(anchor ? [...places, ANCHOR] : places, random) };
    });
    this.done = [];
    this.element = element("div", { class: "rating" });
    this.show();
  }

  isUsable(clip) {
    return clip.sounds.length > 1 && clip.sounds[0].system === 0;
  }

  get complete() {
    return this.done.length === this.trials.length;
  }

  show() {
    const number = this.done.length;
    const { clip, places, order } = this.trials[number];
    const letters = order.map((_, place) => String.fromCharCode(65 + place));
    this.deck = this.deckOf(clip, places, order);
    this.transport = new Transport(this.deck, "Player");
    this.ratings = order.map(() => null);
    this.since = performance.now();
    const buttons = letterButtons(["Reference", ...letters], (place) => this.pick(place));
    this.deck.addEventListener("change", () =>
      buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === this.deck.chosen))),
    );
    this.deck.choose(0);
    this.fault = element("p", { class: "fault", role: "alert", hidden: true });
    const last = number + 1 === this.trials.length;
    this.element.replaceChildren(
      element("h2", { tabindex: -1, text: `Clip ${number + 1} of ${this.trials.length}` }),
      element("progress", { max: this.trials.length, value: number, "aria-label": "Clips done" }),
      element("p", {
        class: "lead",
        text: "How close is each sound to the reference? 100 means no difference; one of them is the reference itself.",
      }),
      this.transport.element,
      element("div", { class: "open" }, buttons[0]),
      element("div", { class: "grades", "aria-hidden": "true" }, ...GRADES.map((text) => element("span", { text }))),
      ...letters.map((letter, place) => this.row(letter, place, buttons[place + 1])),
      this.fault,
      element("div", { class: "actions" }, element("button", { type: "button", class: "button", text: last ? "Finish" : "Next clip", onclick: () => this.next() })),
    );
  }

  deckOf(clip, places, order) {
    const sources = [0, ...order.map((place) => (place === ANCHOR ? 0 : place))];
    return blindDeck(this.data, clip, sources, this.matched, async (buffers) => {
      const anchor = order.indexOf(ANCHOR);
      if (anchor >= 0) buffers[anchor + 1] = await lowPassed(buffers[0], ANCHOR_HZ);
      return buffers;
    });
  }

  row(letter, place, button) {
    const shown = element("output", { text: "–" });
    const slider = element("input", {
      type: "range", min: 0, max: 100, step: 1, value: 50, class: "unrated", "aria-label": `Rating of ${letter}`, "aria-valuetext": "not rated",
      onpointerdown: () => this.deck.choose(place + 1), // hear the sound that is being rated
      oninput: () => {
        this.deck.choose(place + 1);
        rate();
      },
      onchange: () => rate(),
      onpointerup: () => rate(), // a click that leaves it in the middle is a rating too
    });
    const rate = () => {
      this.ratings[place] = Number(slider.value);
      shown.textContent = slider.value;
      slider.classList.remove("unrated");
      slider.style.setProperty("--at", slider.value / 100);
      slider.setAttribute("aria-valuetext", `${slider.value}, ${GRADES[Math.min(Math.floor(slider.value / 20), 4)]}`);
    };
    slider.style.setProperty("--at", 0.5);
    return element("div", { class: "row" }, button, slider, shown);
  }

  focus() {
    this.element.querySelector("h2").focus();
  }

  choose(place) {
    if (place < this.deck.gains.length) this.deck.choose(place);
  }

  pick(place) {
    if (this.deck.chosen === place && this.deck.playing) return this.deck.pause();
    this.deck.choose(place);
    return this.transport.try(this.deck.play());
  }

  next() {
    const missing = this.ratings.flatMap((rating, place) => (rating === null ? [String.fromCharCode(65 + place)] : []));
    if (missing.length) {
      this.fault.textContent = `Not rated yet: ${missing.join(", ")}`;
      this.fault.hidden = false;
      return;
    }
    this.deck.pause();
    this.done.push({ ratings: this.ratings, seconds: Math.round((performance.now() - this.since) / 100) / 10 });
    if (this.complete) this.finished();
    else {
      this.show();
      this.focus();
    }
  }

  results() {
    const { data } = this;
    const named = (clip, place) => {
      if (place === ANCHOR) return { role: "anchor", system: `anchor ${ANCHOR_HZ / 1000} kHz` };
      return { role: place === 0 ? "reference" : "system", system: data.systems[data.clips[clip].sounds[place].system] };
    };
    return {
      kind: "rating",
      systems: data.systems.slice(1),
      trials: this.done.map(({ ratings, seconds }, index) => {
        const { clip, order } = this.trials[index];
        return {
          clip: data.clips[clip].name,
          ratings: order.map((place, at) => ({ ...named(clip, place), rating: ratings[at] })),
          seconds,
        };
      }),
    };
  }

  summary() {
    const all = this.results().trials.flatMap(({ ratings }) => ratings);
    const means = [...new Set(all.map(({ system, role }) => JSON.stringify([role, system])))].map((key) => {
      const [role, system] = JSON.parse(key);
      const own = all.filter((item) => item.role === role && item.system === system).map(({ rating }) => rating);
      return { name: role === "reference" ? `${system} (hidden reference)` : system, mean: own.reduce((sum, rating) => sum + rating, 0) / own.length };
    });
    means.sort((a, b) => b.mean - a.mean);
    const bar = ({ name, mean }) =>
      element("div", {}, element("dt", { text: name }), element("dd", {}, element("meter", { min: 0, max: 100, value: mean }), element("span", { text: mean.toFixed(1) })));
    return [
      element("p", { text: `Your mean ratings over ${count(this.done.length, "clip")}:` }),
      element("dl", { class: "means" }, ...means.map(bar)),
    ];
  }
}

const ANCHOR = -1;
