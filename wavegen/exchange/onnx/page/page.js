// The page: what is dropped becomes a mel, and the model makes sound of it, chunk by chunk.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { faultOf, logMel, readNpy } from "./mel.js";
import { Stream } from "./stream.js";

const CHUNK_FRAMES = 50;
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
    throw new Error("The browser cannot decode this file; drop a recording or a .npy file.");
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

/** Compute the samples of a mel; each chunk is played when it is ready. */
async function spoken(mel, onFirst) {
  const stream = new Stream(ort, session, about, mel);
  const samples = new Float32Array(mel.frames * about.mel.hop_length);
  const player = new AudioContext({ sampleRate: rate });
  let [filled, next] = [0, 0];
  while (stream.done < mel.frames) {
    const chunk = await stream.advance(Math.min(stream.done + CHUNK_FRAMES, mel.frames));
    samples.set(chunk, filled);
    if (filled === 0) onFirst();
    filled += chunk.length;
    const node = new AudioBufferSourceNode(player, { buffer: player.createBuffer(1, chunk.length, rate) });
    node.buffer.copyToChannel(chunk, 0);
    node.connect(player.destination);
    next = Math.max(next, player.currentTime);
    node.start(next);
    next += chunk.length / rate;
    await new Promise((resolve) => setTimeout(resolve)); // lets the page draw
  }
  return samples;
}

async function resynthesise(file) {
  say(`Reading ${file.name} …`);
  at("results").hidden = true;
  const buffer = await file.arrayBuffer();
  const isMel = file.name.endsWith(".npy");
  const given = isMel ? null : await decoded(buffer);
  const mel = isMel ? readNpy(buffer) : logMel(given, about.mel);
  const fault = faultOf(mel, about);
  if (fault) throw new Error(fault);

  const started = performance.now();
  let firstMs = 0;
  const samples = await spoken(mel, () => (firstMs = performance.now() - started));
  const seconds = samples.length / rate;
  const took = (performance.now() - started) / 1000;

  draw(at("mel-given"), mel);
  draw(at("mel-made"), logMel(samples, about.mel));
  at("given").hidden = isMel;
  if (given) at("given").src = URL.createObjectURL(wav(given));
  at("made").src = URL.createObjectURL(wav(samples));
  at("results").hidden = false;
  say(
    `${file.name}: ${seconds.toFixed(2)} s of sound, ${(seconds / took).toFixed(1)} × real time, ` +
      `first sound after ${firstMs.toFixed(0)} ms`,
  );
  window.latest = { samples, firstMs, took }; // for whoever looks into the page from its console
}

const take = (files) => files[0] && resynthesise(files[0]).catch((error) => say(error.message));
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
