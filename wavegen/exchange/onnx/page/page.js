// The page: what is dropped becomes a mel, and the model makes sound of it, chunk by chunk.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { faultOf, LiveMel, logMel } from "./mel.js";
import { listen } from "./microphone.js";
import { readNpy, readNpz } from "./npz.js";
import { columns, Stream } from "./stream.js";

const CHUNK_FRAMES = 50;
const MICROPHONE = "Microphone";
const at = (id) => document.getElementById(id);
const say = (text) => (at("status").textContent = text);

ort.env.logLevel = "error";
const about = await (await fetch("model.json")).json();
const session = await ort.InferenceSession.create("voice.onnx").catch((error) => {
  say(`The model cannot be loaded: ${error.message}`);
  throw error;
});
const rate = about.mel.sample_rate_hz;

/** Decode a recording to mono samples at the model's sample rate. */
async function decoded(buffer) {
  const context = new OfflineAudioContext(1, 1, rate);
  const sound = await context.decodeAudioData(buffer).catch(() => {
    throw new Error("The browser cannot decode this file; drop a recording, an .npz or a .npy file.");
  });
  const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
  return channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

/** A WAV file of 16 bits. */
function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (offset, word) => [...word].forEach((letter, i) => view.setUint8(offset + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  [[16, 16], [24, rate], [28, 2 * rate], [40, 2 * samples.length]].forEach(([offset, n]) => view.setUint32(offset, n, true));
  [[20, 1], [22, 1], [32, 2], [34, 16]].forEach(([offset, n]) => view.setUint16(offset, n, true));
  text(36, "data");
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.round(Math.min(Math.max(x, -1), 1) * 32767), true));
  return new Blob([view], { type: "audio/wav" });
}

/** Draw a mel, low frequencies at the bottom, dark where it is loud. */
function draw(canvas, { frames, values }) {
  const rows = values.length / frames;
  [canvas.width, canvas.height] = [frames, rows];
  const context = canvas.getContext("2d");
  const image = context.createImageData(frames, rows);
  const [low, high] = values.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
  values.forEach((value, i) => {
    const pixel = (rows - 1 - Math.floor(i / frames)) * frames + (i % frames);
    const shade = 255 * (1 - (value - low) / (high - low || 1));
    image.data.set([shade, shade, shade, 255], 4 * pixel);
  });
  context.putImageData(image, 0, 0);
}

/** Plays chunks of samples one after another, each as soon as it comes. */
class Player {
  constructor(context) {
    Object.assign(this, { context, chunks: [], next: 0, firstMs: null, started: performance.now() });
  }

  add(chunk) {
    if (chunk.length === 0) return;
    this.firstMs ??= performance.now() - this.started;
    this.chunks.push(chunk);
    const node = new AudioBufferSourceNode(this.context, { buffer: this.context.createBuffer(1, chunk.length, rate) });
    node.buffer.copyToChannel(chunk, 0);
    node.connect(this.context.destination);
    this.next = Math.max(this.next, this.context.currentTime);
    node.start(this.next);
    this.next += chunk.length / rate;
  }

  get samples() {
    return joined(this.chunks);
  }
}

function joined(chunks) {
  const all = new Float32Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  chunks.reduce((at, chunk) => (all.set(chunk, at), at + chunk.length), 0);
  return all;
}

const newStream = () => new Stream(ort, session, about, BigInt(at("seed").value || 0));
const pause = () => new Promise((resolve) => setTimeout(resolve)); // lets the page draw

/** Show what was given, samples or null, and what was made of its mel. */
function show(name, given, mel, player) {
  const [took, { samples, firstMs }] = [(performance.now() - player.started) / 1000, player];
  const seconds = samples.length / rate;
  draw(at("mel-given"), mel);
  draw(at("mel-made"), logMel(samples, about.mel));
  at("given").hidden = !given;
  if (given) at("given").src = URL.createObjectURL(wav(given));
  at("made").src = URL.createObjectURL(wav(samples));
  at("results").hidden = false;
  const speed = name === MICROPHONE ? "" : `${(seconds / took).toFixed(1)} × real time, `;
  say(`${name}: ${seconds.toFixed(2)} s of sound, ${speed}first sound after ${firstMs.toFixed(0)} ms`);
  window.latest = { given, samples, firstMs, took }; // for whoever looks into the page from its console
}

async function melOf(file, buffer) {
  if (file.name.endsWith(".npz")) return readNpz(buffer, about.mel);
  return file.name.endsWith(".npy") ? readNpy(buffer) : null;
}

async function resynthesise(file) {
  say(`Reading ${file.name} …`);
  at("results").hidden = true;
  const buffer = await file.arrayBuffer();
  const read = await melOf(file, buffer);
  const given = read ? null : await decoded(buffer);
  const mel = read ?? logMel(given, about.mel);
  const fault = faultOf(mel, about);
  if (fault) throw new Error(fault);

  const player = new Player(new AudioContext({ sampleRate: rate }));
  const stream = newStream();
  for (let from = 0; from < mel.frames; from += CHUNK_FRAMES) {
    player.add(await stream.step(columns(mel, from, Math.min(from + CHUNK_FRAMES, mel.frames))));
    await pause();
  }
  player.add(await stream.flush());
  show(file.name, given, mel, player);
}

/** Resynthesise what the microphone hears until the returned function is called. */
async function live() {
  const context = new AudioContext({ sampleRate: rate });
  const [mels, stream, blocks] = [new LiveMel(about.mel), newStream(), []];
  let running = true;
  const stop = await listen(context, (block) => blocks.push(block));
  const player = new Player(context);
  say("Listening …");
  const ended = (async () => {
    let used = 0;
    while (running || used < blocks.length) {
      const mel = mels.next(joined(blocks.slice(used)));
      used = blocks.length;
      if (mel.frames) player.add(await stream.step(mel)); // all that came while the last chunk was computed
      await pause();
    }
    player.add(await stream.flush());
    const given = joined(blocks);
    show(MICROPHONE, given, logMel(given, about.mel), player);
  })();
  return () => {
    stop();
    running = false;
    return ended;
  };
}

const failed = (error) => say(error.message);
let stopLive = null;
at("microphone").addEventListener("click", async () => {
  at("microphone").disabled = true;
  try {
    if (stopLive) await stopLive();
    stopLive = stopLive ? null : await live();
  } catch (error) {
    stopLive = null;
    failed(error);
  }
  at("microphone").textContent = stopLive ? "Stop" : "Microphone";
  at("microphone").disabled = false;
});
at("microphone").hidden = !about.streaming.causal;
at("no-microphone").hidden = about.streaming.causal;

const take = (files) => files[0] && resynthesise(files[0]).catch(failed);
at("file").addEventListener("change", ({ target }) => {
  take([...target.files]);
  target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files);
});
at("about").textContent = `${rate} Hz, ${about.mel.n_mels} mel bins. ${about.source}. Licence: ${about.licence || "not stated"}.`;
say("Ready.");
