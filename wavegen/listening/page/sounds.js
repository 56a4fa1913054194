"use strict";
// The sounds of the clips, from the page itself or from scripts beside it; decoded when first played.

const encodedSounds = new Map(); // clip -> JSON text or list of base64 FLACs
const decodedSounds = new Map(); // clip -> promise of AudioBuffers; only the most recently played
const MOST_DECODED = 4; // one minute of five systems takes 58 MB at 48 kHz

/** Called by the scripts in audio/. */
function receiveSounds(clip, encoded) {
  encodedSounds.set(clip, encoded);
}

/** Move the sounds out of the document. */
function takeSoundsInside() {
  document.querySelectorAll("script.sounds").forEach((node, clip) => {
    encodedSounds.set(clip, node.textContent);
    node.remove();
  });
}

let sharedContext = null;

/** The page's audio context, created when first used: browsers require a click or a key press before. */
function audioContext() {
  sharedContext ??= new AudioContext({ latencyHint: "interactive" });
  return sharedContext;
}

/** AudioBuffers of `clip`, in the order of its sounds. `file` is the script that holds them; null if the page does. */
function soundsOf(context, clip, file) {
  const known = decodedSounds.get(clip);
  decodedSounds.delete(clip); // and insert it last: the first in the map is the least recently used
  const sounds = known ?? fetchAndDecode(context, clip, file);
  decodedSounds.set(clip, sounds);
  sounds.catch(() => decodedSounds.delete(clip));
  if (decodedSounds.size > MOST_DECODED) decodedSounds.delete(decodedSounds.keys().next().value);
  return sounds;
}

async function fetchAndDecode(context, clip, file) {
  if (!encodedSounds.has(clip)) await runScript(file);
  const encoded = encodedSounds.get(clip);
  const list = typeof encoded === "string" ? JSON.parse(encoded) : encoded;
  return Promise.all(list.map((flac) => context.decodeAudioData(bytesOf(flac).buffer)));
}

/** Load a script: the only kind of file that a page opened from a disk may read. */
function runScript(file) {
  return new Promise((resolve, reject) => {
    const script = element("script", { src: file });
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${file} is missing; keep the folder “audio” beside this page`));
    document.head.append(script);
  }).finally(() => document.head.querySelector(`script[src="${file}"]`)?.remove());
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** `buffer` cut or padded with silence to `length` samples; a cut end is faded out over 5 ms. */
function fitted(buffer, length) {
  if (buffer.length === length) return buffer;
  const result = new AudioBuffer({ length, sampleRate: buffer.sampleRate, numberOfChannels: 1 });
  const samples = buffer.getChannelData(0).slice(0, length);
  if (buffer.length > length) {
    const fade = Math.min(length, Math.round(0.005 * buffer.sampleRate));
    for (let i = 1; i <= fade; i += 1) samples[length - i] *= (i - 1) / fade;
  }
  result.copyToChannel(samples, 0);
  return result;
}

/** `buffer` after a low-pass at `hertz`: a Butterworth filter of order 8. */
async function lowPassed(buffer, hertz) {
  const context = new OfflineAudioContext(1, buffer.length, buffer.sampleRate);
  const source = new AudioBufferSourceNode(context, { buffer });
  let last = source;
  for (let pair = 0; pair < 4; pair += 1) {
    const quality = 1 / (2 * Math.cos((Math.PI * (2 * pair + 1)) / 16));
    const filter = new BiquadFilterNode(context, { type: "lowpass", frequency: hertz, Q: 20 * Math.log10(quality) });
    last = last.connect(filter);
  }
  last.connect(context.destination);
  source.start();
  return context.startRendering();
}
