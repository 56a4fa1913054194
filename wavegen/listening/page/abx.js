"use strict";
// ABX test: A and B are the two systems, in random order for each trial, and X is one of them.

class AbxTest {
  constructor(data, { seed, matched, finished, pair, trials }) {
    Object.assign(this, { data, matched, finished, pair });
    const placesIn = (clip) => pair.map((system) => clip.sounds.findIndex((sound) => sound.system === system));
    const usable = data.clips.map((_, index) => index).filter((index) => !placesIn(data.clips[index]).includes(-1));
    if (!usable.length) throw new Error("No clip has both systems");
    const random = randomFrom(seed);
    const clips = [];
    while (clips.length < trials) clips.push(...shuffled(usable, random));
    this.trials = clips.slice(0, trials).map((clip) => {
      const places = placesIn(data.clips[clip]);
      const order = random() < 0.5 ? [0, 1] : [1, 0];
      return { clip, systems: order.map((side) => pair[side]), places: order.map((side) => places[side]), x: random() < 0.5 ? 0 : 1 };
    });
    this.answers = [];
    this.element = element("div", { class: "abx" });
    this.show();
  }

  get complete() {
    return this.answers.length === this.trials.length;
  }

  show() {
    const number = this.answers.length;
    const { clip, places, x } = this.trials[number];
    this.deck = blindDeck(this.data, clip, [...places, places[x]], this.matched);
    this.transport = new Transport(this.deck, "Player");
    this.since = performance.now();
    const buttons = letterButtons(["A", "B", "X"], (place) => this.pick(place));
    const answer = (which, text) => element("button", { type: "button", class: "button", text, onclick: () => this.answer(which) });
    this.deck.addEventListener("change", () =>
      buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === this.deck.chosen))),
    );
    this.deck.choose(0);
    this.element.replaceChildren(
      element("h2", { tabindex: -1, text: `Trial ${number + 1} of ${this.trials.length}` }),
      element("progress", { max: this.trials.length, value: number, "aria-label": "Trials done" }),
      element("p", { class: "lead", text: "Listen to A, B and X as often as you like, then decide whether X is A or B." }),
      this.transport.element,
      element("div", { class: "letters" }, ...buttons),
      element("div", { class: "actions" }, answer(0, "X is A"), answer(1, "X is B")),
    );
  }

  focus() {
    this.element.querySelector("h2").focus();
  }

  choose(place) {
    if (place < 3) this.deck.choose(place);
  }

  pick(place) {
    if (this.deck.chosen === place && this.deck.playing) return this.deck.pause();
    this.deck.choose(place);
    return this.transport.try(this.deck.play());
  }

  answer(which) {
    this.deck.pause();
    this.answers.push({ which, seconds: Math.round((performance.now() - this.since) / 100) / 10 });
    if (this.complete) return this.finished();
    this.show();
    return this.focus();
  }

  results() {
    const { systems } = this.data;
    const letters = ["a", "b"];
    return {
      kind: "abx",
      systems: this.pair.map((system) => systems[system]),
      trials: this.answers.map(({ which, seconds }, index) => {
        const trial = this.trials[index];
        const [a, b] = trial.systems.map((system) => systems[system]);
        return { clip: this.data.clips[trial.clip].name, a, b, x: letters[trial.x], answer: letters[which], seconds };
      }),
    };
  }

  summary() {
    const { systems, trials } = this.results();
    const right = trials.filter(({ x, answer }) => x === answer).length;
    const chance = chanceOfAtLeast(right, trials.length);
    const verdict = chance < 0.05 ? "You can tell them apart." : "This does not show that you can tell them apart.";
    return [
      element("p", { class: "outcome", text: `${right} of ${trials.length} right` }),
      element("p", { text: `${systems[0]} against ${systems[1]}. The probability of at least as many right answers by guessing is ${probability(chance)}. ${verdict}` }),
    ];
  }
}

/** Probability of at least `right` right answers in `trials` by guessing (one-sided exact binomial test). */
function chanceOfAtLeast(right, trials) {
  let [sum, term] = [0, 2 ** -trials];
  for (let k = 0; k <= trials; k += 1) {
    if (k >= right) sum += term;
    term *= (trials - k) / (k + 1);
  }
  return Math.min(sum, 1);
}

const probability = (p) => (p < 0.001 ? "less than 0.001" : p.toFixed(3));
