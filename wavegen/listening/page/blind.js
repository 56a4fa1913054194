"use strict";
// The blind view: sets up a test, runs its trials and shows its results. While a test runs, nothing in the document
// names a system: the comparison view is removed, and sounds have letters in random order.

/** A generator of numbers from 0 to 1 that depend only on the seed (Mulberry32). */
function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A copy in random order (Fisher and Yates). */
function shuffled(list, random) {
  const result = [...list];
  for (let last = result.length - 1; last > 0; last -= 1) {
    const index = Math.floor(random() * (last + 1));
    [result[last], result[index]] = [result[index], result[last]];
  }
  return result;
}

/** A deck of some sounds of a clip, all cut to the shortest so that durations do not reveal the systems. */
function blindDeck(data, clip, places, matched, process = null) {
  const sounds = places.map((place) => data.clips[clip].sounds[place]);
  return new Deck({
    duration: Math.min(...sounds.map((sound) => sound.durationS)),
    gains: sounds.map((sound) => (matched ? gain(sound.gainDb) : 1)),
    load: async (context) => {
      const all = await soundsOf(context, clip, data.soundFiles?.[clip]);
      const buffers = places.map((place) => all[place]);
      const shortest = Math.min(...buffers.map((buffer) => buffer.length));
      const cut = buffers.map((buffer) => fitted(buffer, shortest));
      return process ? process(cut) : cut;
    },
  });
}

class BlindView {
  constructor(data, { started, ended }) {
    Object.assign(this, { data, started, ended });
    this.element = element("div", { class: "blind" });
    this.setUp();
  }

  get running() {
    return Boolean(this.test);
  }

  setUp() {
    this.test = null;
    const { data } = this;
    const ready = data.systems.length > 1 && data.clips.length > 0;
    this.element.replaceChildren(
      element(
        "section",
        { class: "panel set-up" },
        element("h2", { text: "Blind test" }),
        element("p", {
          class: "lead",
          text: "Names and pictures are hidden, and the order is random. You can save the results as a file. Use headphones in a quiet room.",
        }),
        element(
          "div",
          { class: "common" },
          field("Your name or initials (optional)", element("input", { type: "text", id: "listener", maxlength: 60, autocomplete: "off" })),
          element("label", { class: "switch" }, element("input", { type: "checkbox", id: "matched", checked: true }), "Match loudness"),
        ),
        element("div", { class: "kinds" }, ready ? this.ratingForm() : null, ready ? this.abxForm() : null),
        ready ? null : element("p", { text: "A blind test needs at least one clip and two systems." }),
      ),
    );
  }

  ratingForm() {
    const { data } = this;
    const clips = number("clips", Math.min(data.clips.length, 10), 1, data.clips.length);
    const anchor = element("input", { type: "checkbox", id: "anchor" });
    const start = () => this.begin((options) => new RatingTest(data, { ...options, clips: value(clips), anchor: anchor.checked }));
    return kind(
      "Rating",
      "Rate every system from 0 to 100 against the reference, which is also hidden among them (after ITU-R BS.1534, MUSHRA).",
      start,
      field("Clips", clips),
      element("label", { class: "switch" }, anchor, "Include an anchor (the reference, low-passed at 3.5 kHz)"),
    );
  }

  abxForm() {
    const { data } = this;
    const options = () => data.systems.map((name, index) => element("option", { value: index, text: name }));
    const first = element("select", { id: "first" }, ...options());
    const second = element("select", { id: "second" }, ...options());
    second.value = 1;
    const trials = number("trials", 16, 1, 200);
    const start = () => {
      second.setCustomValidity(first.value === second.value ? "Choose two different systems" : "");
      if (!second.reportValidity()) return;
      this.begin((common) => new AbxTest(data, { ...common, pair: [Number(first.value), Number(second.value)], trials: value(trials) }));
    };
    return kind(
      "ABX",
      "Can you tell two systems apart? X is one of them; decide which. Guessing is right half of the time.",
      start,
      element("div", { class: "pair" }, field("First system", first), field("Second system", second)),
      field("Trials", trials),
    );
  }

  begin(make) {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0];
    const listener = document.getElementById("listener").value.trim();
    const matched = document.getElementById("matched").checked;
    this.about = {
      format: "wavegen-ratings", version: 1, page: { id: this.data.id, title: this.data.title }, listener, seed,
      started: new Date().toISOString(), loudness_matched: matched, reference: this.data.systems[0],
    };
    try {
      this.test = make({ seed, matched, finished: () => this.finish() });
    } catch (error) {
      speak(error.message);
      window.alert(error.message);
      return;
    }
    this.started();
    this.element.replaceChildren(
      element(
        "section",
        { class: "panel test" },
        this.test.element,
        element("button", { type: "button", class: "quiet", onclick: () => this.giveUp(), text: "Stop the test" }),
      ),
    );
    this.test.focus();
  }

  giveUp() {
    const done = this.test.results().trials.length;
    const consequence = done ? `You can save the answers so far (${done}).` : "There are no answers to save yet.";
    if (!window.confirm(`Stop the test? ${consequence}`)) return;
    if (done) this.finish();
    else {
      Deck.heard?.pause();
      this.setUp();
      this.ended();
    }
  }

  /** Show the results, with the systems' names. */
  finish() {
    Deck.heard?.pause();
    const { test } = this;
    const results = { ...this.about, finished: new Date().toISOString(), complete: test.complete, ...test.results() };
    this.test = null;
    this.unsaved = true;
    const save = element("button", { type: "button", class: "button", text: "Save the results", onclick: () => this.save(results) });
    this.element.replaceChildren(
      element(
        "section",
        { class: "panel results" },
        element("h2", { tabindex: -1, text: "Results" }),
        ...test.summary(),
        element(
          "p",
          { class: "lead" },
          "The file contains your answers, the systems' names and the random seed. ",
          element("code", { text: "wavegen-evaluate --ratings FILES" }),
          " summarises the files of many listeners.",
        ),
        element("div", { class: "actions" }, save, element("button", { type: "button", class: "quiet", text: "New test", onclick: () => this.setUp() })),
      ),
    );
    this.ended();
    this.element.querySelector("h2").focus();
  }

  save(results) {
    this.unsaved = false;
    const listener = results.listener.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
    const name = ["ratings", results.kind, results.page.id, listener, results.seed.toString(16)].filter(Boolean).join("-");
    const url = URL.createObjectURL(new Blob([`${JSON.stringify(results, null, 1)}\n`], { type: "application/json" }));
    element("a", { href: url, download: `${name}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    speak("Saved");
  }

  // Actions of the keyboard shortcuts.

  get transport() {
    return this.test?.transport;
  }

  choose(index) {
    this.test?.choose(index);
  }

  step() {}

  toggleMatch() {}
}

const value = (input) => Math.min(Math.max(Math.round(Number(input.value)) || 1, Number(input.min)), Number(input.max));

function number(id, initial, min, max) {
  return element("input", { type: "number", id, value: initial, min, max, inputmode: "numeric" });
}

function field(label, input) {
  return element("label", { class: "field" }, element("span", { text: label }), input);
}

function kind(name, about, start, ...fields) {
  const heading = `kind-${name.toLowerCase()}`;
  return element(
    "form",
    { "aria-labelledby": heading, onsubmit: (event) => (event.preventDefault(), start()) },
    element("h3", { id: heading, text: name }),
    element("p", { text: about }),
    ...fields,
    element("button", { type: "submit", class: "button", text: name === "ABX" ? "Start ABX" : "Start rating" }),
  );
}

/** Buttons for sounds without names; `names` are their labels. */
function letterButtons(names, pick) {
  return names.map((name, place) =>
    element(
      "button",
      { type: "button", class: "pick letter", "aria-pressed": "false", onclick: () => pick(place) },
      element("kbd", { text: place + 1, "aria-hidden": "true" }),
      element("span", { class: "name", text: name }),
    ),
  );
}
