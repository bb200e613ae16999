/**
 * Which pictures may share a request without changing each other's answers.
 *
 * The pictures of one request share one input size of the network, the smallest that holds them all; see
 * docs/canvases.md of the server. A picture on a larger one has more black around it, which moves its boxes a little.
 */

import { uprightSize } from './jpeg.js';

const LONGER_SIDE = 320;
export const CANVASES = [[180, 320], [320, 180], [256, 320], [320, 256], [320, 320]]; // height, width; the server's own

/** @param {number} value @returns {number} the nearest whole number, halves to the even one, as the server rounds */
function round(value) {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 === 1 ? up - 1 : up;
}

/** @param {{ width: number, height: number }} size of a picture @returns {number} index in CANVASES */
export function canvasOf({ width, height }) {
  const scale = LONGER_SIDE / Math.max(width, height, 1);
  const [rows, columns] = [round(height * scale), round(width * scale)];
  let best = CANVASES.length - 1;
  CANVASES.forEach(([h, w], i) => {
    if (h >= rows && w >= columns && h * w < CANVASES[best][0] * CANVASES[best][1]) best = i;
  });
  return best;
}

/**
 * @param {Map<number, Uint8Array>} files JPEG files
 * @returns {number[][]} keys of files that may share a request
 */
export function groups(files) {
  const found = new Map();
  for (const [key, data] of [...files].sort(([a], [b]) => a - b)) {
    const canvas = canvasOf(uprightSize(data));
    found.set(canvas, [...(found.get(canvas) ?? []), key]);
  }
  return [...found.values()];
}
