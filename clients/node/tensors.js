#!/usr/bin/env node
/**
 * The detector without the ensemble around it: a batch of FP32 [n,3,180,320] to `nudenet_trt`, candidates back.
 *
 * Reads raw 320x180 RGB pictures, e.g. from ffmpeg -i clip.mp4 -vf scale=320:180 -pix_fmt rgb24 -f rawvideo frames.rgb,
 * and prints the best candidate of each, before non-maximum suppression, in 320x180 pixels:
 * node tensors.js frames.rgb
 */

import { realpathSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { Connection } from './nudenet.js';
import { output, reading } from './triton.js';

const [HEIGHT, WIDTH, CHANNELS] = [180, 320, 3];
const PIXELS = HEIGHT * WIDTH;
const MAX_BATCH = 8;

/**
 * @param {Buffer} rgb n pictures, interleaved RGB bytes
 * @returns {Float32Array} [n,3,180,320], RGB planes in [0,1]
 */
export function toTensor(rgb) {
  const tensor = new Float32Array(rgb.length);
  const unit = Math.fround(1 / 255);
  for (let picture = 0; picture < rgb.length; picture += CHANNELS * PIXELS) {
    for (let pixel = 0; pixel < PIXELS; pixel += 1) {
      for (let channel = 0; channel < CHANNELS; channel += 1) {
        tensor[picture + channel * PIXELS + pixel] = rgb[picture + pixel * CHANNELS + channel] * unit;
      }
    }
  }
  return tensor;
}

/**
 * @param {Connection} connection
 * @param {Float32Array} tensor [n,3,180,320], n up to 8
 * @returns {Promise<Float32Array>} [n,candidates,6]: x1, y1, x2, y2, class id, confidence
 */
export async function infer(connection, tensor) {
  const shape = [tensor.length / (CHANNELS * PIXELS), CHANNELS, HEIGHT, WIDTH];
  const data = Buffer.from(tensor.buffer, tensor.byteOffset, tensor.byteLength); // little-endian, as Triton wants it
  const outputs = await connection.infer('nudenet_trt', [{ name: 'input', datatype: 'FP32', shape, data }], ['output']);
  const raw = reading(connection.url, () => output(outputs, 'output', 'FP32', [shape[0], undefined, 6])).data;
  return new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length)); // a copy is aligned
}

async function main() {
  if (process.argv.length < 3) throw new TypeError('usage: node tensors.js frames.rgb [host:port]');
  const [, , file, url = `127.0.0.1:${process.env.GRPC_PORT ?? 8001}`] = process.argv;
  const rgb = await readFile(file);
  const count = rgb.length / (CHANNELS * PIXELS);
  if (!Number.isInteger(count) || count === 0) {
    throw new RangeError(`${file}: ${rgb.length} bytes are no whole number of ${WIDTH}x${HEIGHT} RGB pictures`);
  }
  const connection = new Connection(url);
  try {
    const tensor = toTensor(rgb);
    for (let start = 0; start < count; start += MAX_BATCH) {
      const size = Math.min(MAX_BATCH, count - start);
      const batch = tensor.subarray(start * CHANNELS * PIXELS, (start + size) * CHANNELS * PIXELS);
      const output = await infer(connection, batch);
      const length = output.length / size;
      for (let i = 0; i < size; i += 1) {
        const candidates = output.subarray(i * length, (i + 1) * length);
        let best = 0;
        for (let at = 6; at < length; at += 6) if (candidates[at + 5] > candidates[best + 5]) best = at;
        const [x1, y1, x2, y2, class_id, confidence] = candidates.subarray(best, best + 6);
        console.log(JSON.stringify({ frame: start + i, class_id, confidence, box: [x1, y1, x2, y2] }));
      }
    }
  } finally {
    connection.close();
  }
}

// Run, not imported. The path may lead over a link, import.meta.url never does.
if (realpathSync(process.argv[1] ?? '.') === fileURLToPath(import.meta.url)) {
  process.stdout.on('error', (error) => process.exit(error.code === 'EPIPE' ? 0 : 1)); // who read has what it wanted
  await main().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
