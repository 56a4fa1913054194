// Mel files: a .npy with a mel, or an .npz with the definition of the mel beside it.

/** The parts of a .npy file: its type, its shape, whether columns are side by side, and the bytes of the values. */
function parsed(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(buffer);
  if (String.fromCharCode(...bytes.slice(1, 6)) !== "NUMPY") throw new Error("This is not a .npy file.");
  const [from, length] = bytes[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const header = new TextDecoder().decode(bytes.slice(from, from + length));
  const [, type] = header.match(/'descr': '([^']*)'/) ?? [];
  const [, sizes] = header.match(/'shape': \(([^)]*)\)/) ?? [];
  const shape = (sizes ?? "").split(",").filter((size) => size.trim()).map(Number);
  return { type, shape, byColumns: header.includes("'fortran_order': True"), data: buffer.slice(from + length) };
}

/** A mel `{ frames, values }` of the bytes of a .npy file with two axes [n_mels, frames]. */
export function readNpy(buffer) {
  const { type, shape, byColumns, data } = parsed(buffer);
  if (!["<f4", "<f8"].includes(type) || shape.length !== 2) {
    throw new Error("The array is not float32 or float64 with the axes [n_mels, frames].");
  }
  const [rows, columns] = shape;
  const size = type === "<f4" ? 4 : 8;
  if (data.byteLength !== rows * columns * size) throw new Error("The file is cut short.");
  const stored = size === 4 ? new Float32Array(data) : new Float64Array(data);
  const values = new Float32Array(stored.length);
  for (let i = 0; i < values.length; i++) {
    values[i] = stored[byColumns ? (i % columns) * rows + Math.floor(i / columns) : i];
  }
  return { frames: columns, values };
}

/** The bytes of the files in a zip archive, by name: stored as they are, or deflated. */
async function unzipped(buffer) {
  const view = new DataView(buffer);
  const files = {};
  let end = buffer.byteLength - 22; // of the directory's end, if no comment follows it
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error("The file is not a whole .npz file.");
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const [method, size] = [view.getUint16(at + 10, true), view.getUint32(at + 20, true)];
    const [name, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    const local = view.getUint32(at + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const stored = new Blob([buffer.slice(start, start + size)]);
    const plain = method ? stored.stream().pipeThrough(new DecompressionStream("deflate-raw")) : stored.stream();
    files[new TextDecoder().decode(buffer.slice(at + 46, at + 46 + name))] = await new Response(plain).arrayBuffer();
    at += 46 + name + extra + comment;
  }
  return files;
}

/** A mel `{ frames, values }` of the bytes of an .npz file of wavegen; refused unless its definition is `spec`. */
export async function readNpz(buffer, spec) {
  const files = await unzipped(buffer).catch(() => {
    throw new Error("The file is not a whole .npz file.");
  });
  if (!files["mel.npy"] || !files["spec.npy"]) throw new Error("The file has no mel with its definition.");
  const letters = new Uint32Array(parsed(files["spec.npy"]).data);
  const definition = JSON.parse(Array.from(letters, (letter) => String.fromCodePoint(letter)).join(""));
  const same = (name) => JSON.stringify(definition[name]) === JSON.stringify(spec[name]);
  const other = [...new Set([...Object.keys(spec), ...Object.keys(definition)])].filter((name) => !same(name)).sort();
  if (other.length) {
    const found = other.map((name) => `${name} is ${definition[name]}, not ${spec[name]}`);
    throw new Error(`The mel has another definition: ${found.join(", ")}.`);
  }
  return readNpy(files["mel.npy"]);
}
