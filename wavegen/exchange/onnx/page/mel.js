// Samples to mels, as wavegen.mel computes them; see MelSpec there for the definition.

const hzToMel = {
  htk: (hz) => 2595 * Math.log10(1 + hz / 700),
  slaney: (hz) => (hz < 1000 ? (hz * 3) / 200 : 15 + (27 * Math.log(hz / 1000)) / Math.log(6.4)),
};
const melToHz = {
  htk: (mel) => 700 * (10 ** (mel / 2595) - 1),
  slaney: (mel) => (mel < 15 ? (mel * 200) / 3 : 1000 * Math.exp((Math.log(6.4) * (mel - 15)) / 27)),
};

/** Triangular filters: for each mel bin the first FFT bin that it reads, and its weights from there on. */
function filterbank(spec) {
  const [low, high] = [spec.f_min_hz, spec.f_max_hz].map(hzToMel[spec.scale]);
  const corner = (i) => melToHz[spec.scale](low + ((high - low) * i) / (spec.n_mels + 1));
  const hzPerBin = spec.sample_rate_hz / spec.n_fft;
  return Array.from({ length: spec.n_mels }, (_, m) => {
    const [left, peak, right] = [corner(m), corner(m + 1), corner(m + 2)];
    const area = spec.norm === "slaney" ? 2 / (right - left) : 1;
    const first = Math.max(0, Math.ceil(left / hzPerBin));
    const last = Math.min(Math.floor(spec.n_fft / 2), Math.floor(right / hzPerBin));
    const weights = [];
    for (let bin = first; bin <= last; bin++) {
      const hz = bin * hzPerBin;
      weights.push(area * Math.max(0, Math.min((hz - left) / (peak - left), (right - hz) / (right - peak))));
    }
    return { first, weights };
  });
}

/** Periodic Hann window of n_fft samples: win_length of them, zeros evenly around. */
function hann(spec) {
  const left = Math.floor((spec.n_fft - spec.win_length) / 2);
  const window = new Float64Array(spec.n_fft);
  for (let i = 0; i < spec.win_length; i++) {
    window[left + i] = 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / spec.win_length);
  }
  if (spec.stft_normalized) {
    const norm = Math.sqrt(window.reduce((sum, value) => sum + value * value, 0));
    return window.map((value) => value / norm);
  }
  return window;
}

/** Discrete Fourier transform of complex numbers: halves while the length is even, and the sum as it is defined. */
function fourier(real, imaginary) {
  const size = real.length;
  const outReal = new Float64Array(size);
  const outImaginary = new Float64Array(size);
  if (size % 2) {
    for (let k = 0; k < size; k++) {
      for (let n = 0; n < size; n++) {
        const angle = (-2 * Math.PI * ((k * n) % size)) / size;
        outReal[k] += real[n] * Math.cos(angle) - imaginary[n] * Math.sin(angle);
        outImaginary[k] += real[n] * Math.sin(angle) + imaginary[n] * Math.cos(angle);
      }
    }
    return [outReal, outImaginary];
  }
  const half = size / 2;
  const every2nd = (values, from) => Float64Array.from({ length: half }, (_, i) => values[2 * i + from]);
  const [evenReal, evenImaginary] = fourier(every2nd(real, 0), every2nd(imaginary, 0));
  const [oddReal, oddImaginary] = fourier(every2nd(real, 1), every2nd(imaginary, 1));
  for (let k = 0; k < half; k++) {
    const cosine = Math.cos((-2 * Math.PI * k) / size);
    const sine = Math.sin((-2 * Math.PI * k) / size);
    const turnedReal = cosine * oddReal[k] - sine * oddImaginary[k];
    const turnedImaginary = cosine * oddImaginary[k] + sine * oddReal[k];
    outReal[k] = evenReal[k] + turnedReal;
    outImaginary[k] = evenImaginary[k] + turnedImaginary;
    outReal[k + half] = evenReal[k] - turnedReal;
    outImaginary[k + half] = evenImaginary[k] - turnedImaginary;
  }
  return [outReal, outImaginary];
}

/** Samples of padding before the signal, and as many after it. */
export const leftPadding = (spec) => Math.floor((spec.center ? spec.n_fft : spec.n_fft - spec.hop_length) / 2);

/** Computes mels of one definition: `frames(first, count, sample)` reads the samples of a frame by their index. */
function framer(spec) {
  const window = hann(spec);
  const filters = filterbank(spec);
  const gain = spec.gain / (spec.log === "log10" ? Math.LN10 : 1);
  const silence = new Float64Array(spec.n_fft);
  return (first, count, sample) => {
    const values = new Float32Array(spec.n_mels * count);
    for (let frame = 0; frame < count; frame++) {
      const start = (first + frame) * spec.hop_length - leftPadding(spec);
      const [real, imaginary] = fourier(window.map((weight, i) => weight * sample(start + i)), silence);
      const magnitude = (bin) => Math.sqrt(real[bin] ** 2 + imaginary[bin] ** 2 + spec.magnitude_eps);
      filters.forEach(({ first, weights }, m) => {
        const linear = weights.reduce((sum, weight, i) => sum + weight * magnitude(first + i), 0);
        let value = gain * Math.log(Math.max(linear, spec.floor)) + spec.bias;
        if (spec.clip) value = Math.min(Math.max(value, spec.clip[0]), spec.clip[1]);
        if (spec.mean) value = (value - spec.mean[m]) / spec.std[m];
        values[m * count + frame] = value;
      });
    }
    return { frames: count, values };
  };
}

/** A mel `{ frames, values }` of samples: a Float32Array [n_mels, frames], bin by bin. */
export function logMel(samples, spec) {
  const padding = leftPadding(spec);
  const frames = Math.floor((samples.length + 2 * padding - spec.n_fft) / spec.hop_length) + 1;
  if (samples.length <= padding || frames < 1) throw new Error("The recording is too short for a frame.");
  const last = samples.length - 1;
  return framer(spec)(0, frames, (i) => samples[last - Math.abs(last - Math.abs(i))]);
}

/** The mel of samples that arrive in blocks: the frames that `logMel` finds in all of them, but for the last ones. */
export class LiveMel {
  constructor(spec) {
    Object.assign(this, { spec, framesOf: framer(spec) });
    this.samples = new Float32Array(0); // those that are still read
    this.first = 0; // index of the first of them
    this.done = 0; // frames that were returned
  }

  /** Take the next samples, and return the mel of the frames that are complete. */
  next(block) {
    const { spec, done } = this;
    const samples = new Float32Array(this.samples.length + block.length);
    samples.set(this.samples);
    samples.set(block, this.samples.length);
    const padding = leftPadding(spec);
    const heard = this.first + samples.length;
    const ready = Math.floor((heard + padding - spec.n_fft) / spec.hop_length) + 1;
    const frames = heard > padding ? Math.max(0, ready - done) : 0;
    const mel = this.framesOf(done, frames, (i) => samples[Math.abs(i) - this.first]);
    this.done += frames;
    const kept = Math.max(this.first, this.done * spec.hop_length - padding);
    this.samples = samples.slice(Math.min(kept, heard) - this.first);
    this.first = Math.min(kept, heard);
    return mel;
  }
}

/** Why a mel `{ frames, values }` cannot be one of this model, in a sentence; null if it can. */
export function faultOf({ frames, values }, { mel: spec, ln_limits: [lowest, highest, quietest] }) {
  if (frames < 1 || values.length !== spec.n_mels * frames) return `The mel is not [${spec.n_mels}, frames].`;
  if (!values.every(Number.isFinite)) return "The mel has NaN or infinite values.";
  const gain = spec.gain / (spec.log === "log10" ? Math.LN10 : 1);
  let [low, high, smallest, largest] = [Infinity, -Infinity, Infinity, -Infinity];
  values.forEach((value, i) => {
    const m = Math.floor(i / frames);
    const ln = ((spec.mean ? value * spec.std[m] + spec.mean[m] : value) - spec.bias) / gain;
    [low, high] = [Math.min(low, ln), Math.max(high, ln)];
    [smallest, largest] = [Math.min(smallest, value), Math.max(largest, value)];
  });
  const scaled = !spec.clip && !spec.mean && smallest >= 0 && largest <= 1;
  if (!scaled && high <= highest && low >= lowest && low <= quietest) return null;
  return `The mel goes from ${smallest.toPrecision(3)} to ${largest.toPrecision(3)}, which no mel of this model does.`;
}
