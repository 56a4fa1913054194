// A mel in chunks to samples, with a model that was exported as a stream: reader.py's Stream in JavaScript.
// The seed stays 0: onnxruntime-web takes no input that has a default.

/** Columns `from` to `to` of a mel `{ frames, values }`. */
function columns({ frames, values }, from, to) {
  const part = new Float32Array((values.length / frames || 0) * (to - from));
  for (let row = 0; row * frames < values.length; row++) {
    part.set(values.subarray(row * frames + from, row * frames + to), row * (to - from));
  }
  return part;
}

export class Stream {
  /** `ort` is onnxruntime-web, `session` a session of the model, `about` the page's model.json, `mel` the whole mel. */
  constructor(ort, session, about, mel) {
    Object.assign(this, { ort, session, about, mel });
    this.begin = 0; // the frame with which the next window begins, and to which the state belongs
    this.done = 0; // frames whose samples have been returned
    this.state = Object.entries(about.streaming.state).map(([name, [type, shape]]) => {
      const size = shape.reduce((product, count) => product * count, 1);
      return [name, new ort.Tensor(type, type === "float64" ? new Float64Array(size) : new Float32Array(size), shape)];
    });
  }

  /** The samples of the frames up to `ready`, which becomes `done`. */
  async advance(ready) {
    const { ort, begin, mel, about } = this;
    const { known, left, right } = about.streaming;
    const hop = about.mel.hop_length;
    const end = Math.min(ready + right, mel.frames);
    const tensor = (from, to) => new ort.Tensor("float32", columns(mel, from, to), [1, about.mel.n_mels, to - from]);
    const inputs = {
      mel: tensor(begin, end),
      first_sample: new ort.Tensor("int64", BigInt64Array.of(BigInt(begin * hop)), [1]),
      ...Object.fromEntries(this.state),
    };
    if (known) inputs.mel_before = tensor(Math.max(0, begin - known), begin);
    const outputs = await this.session.run(inputs);
    const samples = outputs.samples.data.slice((this.done - begin) * hop, (ready - begin) * hop);
    const next = Math.max(begin, ready - left);
    if (next > begin) this.state = this.state.map(([name]) => [name, this.row(outputs[`next_${name}`], next - begin - 1)]);
    [this.begin, this.done] = [next, ready];
    return samples;
  }

  /** Row `index` of a tensor as one with a single row. */
  row({ type, data, dims }, index) {
    const size = data.length / dims[0];
    return new this.ort.Tensor(type, data.slice(index * size, (index + 1) * size), [1, ...dims.slice(1)]);
  }
}
