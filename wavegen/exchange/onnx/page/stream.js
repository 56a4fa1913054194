// A mel in chunks to samples, with a model that was exported as a stream: reader.py's Stream in JavaScript.

/** Columns `from` to `to` of a mel `{ frames, values }`. */
export function columns({ frames, values }, from, to) {
  const part = new Float32Array((values.length / frames || 0) * (to - from));
  for (let row = 0; row * frames < values.length; row++) {
    part.set(values.subarray(row * frames + from, row * frames + to), row * (to - from));
  }
  return { frames: to - from, values: part };
}

/** The columns of one mel, then those of another with as many bins. */
function joined(first, second, bins) {
  const frames = first.frames + second.frames;
  const values = new Float32Array(bins * frames);
  for (let row = 0; row < bins; row++) {
    values.set(first.values.subarray(row * first.frames, (row + 1) * first.frames), row * frames);
    values.set(second.values.subarray(row * second.frames, (row + 1) * second.frames), row * frames + first.frames);
  }
  return { frames, values };
}

export class Stream {
  /** `ort` is onnxruntime-web, `session` a session of the model, `about` the page's model.json, `seed` a BigInt. */
  constructor(ort, session, about, seed) {
    Object.assign(this, { ort, session, about });
    this.seed = new ort.Tensor("int64", BigInt64Array.of(BigInt.asIntN(64, seed)), [1]);
    this.mel = { frames: 0, values: new Float32Array(0) }; // the frames of the next window
    this.begin = 0; // index of the first of them
    this.done = 0; // frames whose samples have been returned
    this.state = Object.entries(about.streaming.state).map(([name, [type, shape]]) => {
      const size = shape.reduce((product, count) => product * count, 1);
      return [name, new ort.Tensor(type, type === "float64" ? new Float64Array(size) : new Float32Array(size), shape)];
    });
  }

  /** Take the next frames, and return the samples that are ready. */
  async step(mel) {
    this.mel = joined(this.mel, mel, this.about.mel.n_mels);
    return this.advance(this.about.streaming.right);
  }

  /** The samples that waited for frames which will not come. */
  flush() {
    return this.advance(0);
  }

  async advance(right) {
    const { ort, about, mel, begin } = this;
    const { again } = about.streaming;
    const hop = about.mel.hop_length;
    const end = begin + mel.frames;
    if (end - right <= this.done) return new Float32Array(0);
    const outputs = await this.session.run({
      mel: new ort.Tensor("float32", mel.values, [1, about.mel.n_mels, mel.frames]),
      seed: this.seed,
      first_sample: new ort.Tensor("int64", BigInt64Array.of(BigInt(begin * hop)), [1]),
      ...Object.fromEntries(this.state.map(([name, past]) => [`past_${name}`, past])),
    });
    const all = outputs.samples.data;
    const samples = all.slice(all.length - (end - this.done) * hop, all.length - right * hop);
    this.done = end - right;
    if (mel.frames > again) {
      this.state = this.state.map(([name]) => [name, outputs[`next_${name}`]]);
      this.mel = columns(mel, mel.frames - again, mel.frames);
      this.begin = end - again;
    }
    return samples;
  }
}
