"use strict";
// Plays several sounds in step and makes one of them audible. All start at the same sample and run on silently, so that
// switching is a crossfade at an unchanged position.

const FADE_S = 0.003; // time constant: too short to hear as a gap, long enough to avoid clicks
const LEAD_S = 0.02; // delay of the start, so that all sources are scheduled before it

class Deck extends EventTarget {
  /**
   * @param duration duration in seconds, known before anything is decoded
   * @param load AudioContext -> promise of the AudioBuffers, all of the same length
   * @param gains linear gain of each sound
   * @param context function that returns the AudioContext
   */
  constructor({ duration, load, gains, context = audioContext }) {
    super();
    Object.assign(this, { duration, load, gains, context });
    this.chosen = 0;
    this.offset = 0; // position in seconds while paused; while playing, where playing started
    this.run = null; // {sources, faders, startsAt} while playing
    this.region = null; // [start, end] in seconds
    this.repeat = false;
    this.request = 0; // counts plays and stops; a play that waited for decoding is dropped if another came since
  }

  get playing() {
    return this.run !== null;
  }

  /** Position in seconds. */
  get position() {
    if (!this.run) return this.offset;
    const reached = this.offset + Math.max(0, this.context().currentTime - this.run.startsAt);
    const [start, end] = this.loopRange;
    if (this.repeat && reached >= end) return start + ((reached - start) % (end - start));
    return Math.min(reached, this.duration);
  }

  /** Start and end of the section that repeats, in seconds. */
  get loopRange() {
    return this.region ?? [0, this.duration];
  }

  async play() {
    if (this.run) return;
    if (Deck.heard !== this) Deck.heard?.pause();
    Deck.heard = this;
    const request = ++this.request;
    const context = this.context();
    if (context instanceof AudioContext && context.state !== "running") await context.resume();
    const buffers = await this.load(context);
    if (request === this.request) this.start(buffers);
  }

  start(buffers) {
    if (!buffers.length) return;
    const context = this.context();
    const [first, last] = this.loopRange;
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
    this.request += 1;
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

  /** Go to `seconds`; if playing, play on from there. */
  seek(seconds) {
    const wasPlaying = this.playing;
    if (wasPlaying) this.pause();
    this.offset = Math.min(Math.max(seconds, 0), this.duration);
    if (this.region && (this.offset < this.region[0] || this.offset >= this.region[1])) this.region = null;
    this.changed();
    return wasPlaying ? this.play() : undefined;
  }

  /** Make sound `index` the audible one. */
  choose(index) {
    this.chosen = index;
    this.fade();
    this.changed();
  }

  setGains(gains) {
    this.gains = gains;
    this.fade();
  }

  /** Repeat `region`, or everything if it is null; or stop repeating. */
  setRepeat(repeat, region = this.region) {
    const wasPlaying = this.playing;
    if (wasPlaying) this.pause();
    this.repeat = repeat;
    this.region = region && region[1] - region[0] >= 0.05 ? region : null;
    this.changed();
    return wasPlaying ? this.play() : undefined;
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
