"use strict";
// Sounds that play in step, of which one is heard. All of them start at the same sample and run on silently, so that
// changing from one to another is a crossfade and nothing moves.

const FADE_S = 0.003; // time constant: inaudible as a gap, long enough not to click
const LEAD_S = 0.02; // so that all sources have been told before the sample at which they start

class Deck extends EventTarget {
  /**
   * @param duration in seconds, known before anything is decoded
   * @param load AudioContext -> promise of the AudioBuffers, alike in length
   * @param gains factors, one for each sound
   * @param context gives the AudioContext
   */
  constructor({ duration, load, gains, context = audioContext }) {
    super();
    Object.assign(this, { duration, load, gains, context });
    this.chosen = 0;
    this.offset = 0; // where it stands, or stood when it last started
    this.run = null; // {sources, faders, startsAt} while it plays
    this.region = null; // [start, end] in seconds
    this.repeat = false;
    this.wanted = 0; // grows with each order, so that one which waited for decoding can tell that it is outdated
  }

  get playing() {
    return this.run !== null;
  }

  /** In seconds. */
  get position() {
    if (!this.run) return this.offset;
    const reached = this.offset + Math.max(0, this.context().currentTime - this.run.startsAt);
    const [start, end] = this.turn;
    if (this.repeat && reached >= end) return start + ((reached - start) % (end - start));
    return Math.min(reached, this.duration);
  }

  /** Where repeating goes back from, and to. */
  get turn() {
    return this.region ?? [0, this.duration];
  }

  async play() {
    if (this.run) return;
    if (Deck.heard !== this) Deck.heard?.pause();
    Deck.heard = this;
    const wanted = ++this.wanted;
    const context = this.context();
    if (context instanceof AudioContext && context.state !== "running") await context.resume();
    const buffers = await this.load(context);
    if (wanted === this.wanted) this.start(buffers);
  }

  start(buffers) {
    if (!buffers.length) return;
    const context = this.context();
    const [first, last] = this.turn;
    if (this.repeat && (this.offset < first || this.offset >= last)) this.offset = first;
    if (this.offset >= this.duration - 0.01) this.offset = 0;
    const startsAt = context.currentTime + LEAD_S;
    const faders = buffers.map((_, index) => new GainNode(context, { gain: this.factor(index) }));
    const sources = buffers.map((buffer, index) => {
      const settings = { buffer, loop: this.repeat, loopStart: first, loopEnd: last };
      const source = new AudioBufferSourceNode(context, settings);
      source.connect(faders[index]).connect(context.destination);
      source.start(startsAt, this.offset);
      return source;
    });
    const run = { sources, faders, startsAt };
    sources[0].onended = () => {
      if (this.run === run) this.stop(0);
    };
    this.run = run;
    this.changed();
  }

  /** Fade out and stay at `offset`. */
  stop(offset) {
    this.wanted += 1;
    if (!this.run) return;
    const { sources, faders } = this.run;
    const now = this.context().currentTime;
    this.run = null;
    this.offset = offset;
    faders.forEach((fader) => fader.gain.setTargetAtTime(0, now, FADE_S));
    sources.forEach((source) => source.stop(Math.max(now, 0) + 10 * FADE_S));
    this.changed();
  }

  pause() {
    this.stop(this.position);
  }

  toggle() {
    return this.run ? this.pause() : this.play();
  }

  /** Go to `seconds`, and play on if it was playing. */
  seek(seconds) {
    const played = this.playing;
    if (played) this.pause();
    this.offset = Math.min(Math.max(seconds, 0), this.duration);
    if (this.region && (this.offset < this.region[0] || this.offset >= this.region[1])) this.region = null;
    this.changed();
    return played ? this.play() : undefined;
  }

  /** Hear sound `index` from here on. */
  choose(index) {
    this.chosen = index;
    this.fade();
    this.changed();
  }

  setGains(gains) {
    this.gains = gains;
    this.fade();
  }

  /** Repeat `region`, or all of it when null, or nothing. */
  setRepeat(repeat, region = this.region) {
    const played = this.playing;
    if (played) this.pause();
    this.repeat = repeat;
    this.region = region && region[1] - region[0] >= 0.05 ? region : null;
    this.changed();
    return played ? this.play() : undefined;
  }

  factor(index) {
    return index === this.chosen ? this.gains[index] : 0;
  }

  fade() {
    const now = this.run && this.context().currentTime;
    this.run?.faders.forEach((fader, index) => fader.gain.setTargetAtTime(this.factor(index), now, FADE_S));
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}

Deck.heard = null;
