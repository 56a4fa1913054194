// Sound from the microphone, in blocks. This module is also the audio worklet that hands them over.

if (globalThis.AudioWorkletProcessor) {
  class Tap extends AudioWorkletProcessor {
    process([[block]]) {
      if (block) this.port.postMessage(block.slice());
      return true;
    }
  }
  registerProcessor("tap", Tap);
}

/** Hand blocks of mono samples at the sample rate of an AudioContext to `take`; returns what ends it. */
export async function listen(context, take) {
  const media = await navigator.mediaDevices
    .getUserMedia({ audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false } })
    .catch((error) => {
      throw new Error(`The microphone cannot be used: ${error.message}.`);
    });
  await context.audioWorklet.addModule("microphone.js");
  const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  tap.port.onmessage = ({ data }) => take(data);
  context.createMediaStreamSource(media).connect(tap);
  return () => {
    media.getTracks().forEach((track) => track.stop());
    tap.port.onmessage = null;
  };
}
