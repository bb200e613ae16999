/** Node.js client for the `nudenet` ensemble: JPEG files in, detections out. */

import { readFile } from 'node:fs/promises';

import { groups } from './canvas.js';
import { ClientError, PictureError, RequestRefused, ServerUnavailable } from './errors.js';
import { uprightSize } from './jpeg.js';
import { Connection, output, packBytes, reading } from './triton.js';

export { Connection } from './triton.js';
export * from './errors.js';

export const MAX_BATCH = 8;
const OUTPUTS = ['detections', 'num_detections', 'labels', 'error'];
const POLICY_OUTPUTS = ['verdict', 'reasons'];

/**
 * @typedef {object} Detection
 * @property {string} label
 * @property {number} class_id
 * @property {number} confidence in [0,1]
 * @property {[number, number, number, number]} box x1, y1, x2, y2 in pixels of the upright picture
 *
 * @typedef {object} Answer what was found in one picture, best first
 * @property {number} width of the upright picture in pixels; 0 where it is unreadable
 * @property {number} height
 * @property {Detection[]} detections
 * @property {string} [error] why the picture was refused
 * @property {'allow' | 'review' | 'block' | 'error'} [verdict] with a policy; `error` for a picture that was refused or
 *   could not be judged
 * @property {Reasons} [reasons] with a policy, unless the request failed as a whole
 *
 * @typedef {object} Reasons
 * @property {string} policy
 * @property {number} version
 * @property {string} policy_sha256
 * @property {string} network_sha256
 * @property {Finding[]} findings what reached a threshold; what blocks first, then by confidence
 * @property {string} [error] why there is no verdict
 *
 * @typedef {object} Finding
 * @property {string} class
 * @property {'review' | 'block'} verdict
 * @property {number} confidence
 * @property {number} threshold
 * @property {number} area share of the picture
 * @property {[number, number, number, number]} box
 *
 * @typedef {object} Parameters what is left out is the server's default
 * @property {number} [confidence_threshold] least confidence in [0,1]; 0.25
 * @property {number} [iou_threshold] overlap in [0,1] above which the weaker box is dropped; 0.45
 * @property {number} [max_detections] per picture; 100
 * @property {string[]} [classes] labels to keep; all
 * @property {string} [policy] judge by this policy of the server; `default`: the one that its file names; no verdict
 * @property {number} [priority] 1 is the most urgent; counts only where the server has levels
 *
 * @typedef {Buffer | string} Picture a JPEG file's bytes, or its path
 */

/** Calls the ensemble. One client serves any number of calls at once. */
export class Client {
  #connection;
  #model;

  /**
   * @param {string} [url] host and port
   * @param {import('./triton.js').ConnectionOptions & {model?: string}} [options] model: the ensemble's name
   */
  constructor(url = '127.0.0.1:8001', { model = 'nudenet', ...options } = {}) {
    this.#connection = new Connection(url, options);
    this.#model = model;
  }

  close() {
    this.#connection.close();
  }

  /**
   * Detect in one picture.
   *
   * @param {Picture} picture
   * @param {Parameters} [parameters]
   * @returns {Promise<Answer>}
   * @throws {PictureError} it cannot be read or decoded
   * @throws {ClientError} the request failed
   */
  async detect(picture, parameters = {}) {
    const [answer] = await this.#batch([picture], parameters, 'fail');
    if (answer.error !== undefined) throw new PictureError(answer.error);
    return answer;
  }

  /**
   * Detect in any number of pictures, several requests in flight; answers come in order.
   *
   * @param {Iterable<Picture> | AsyncIterable<Picture>} pictures read as they are needed
   * @param {Parameters} [parameters]
   * @param {object} [options]
   * @param {number} [options.batchSize] most pictures a request, 1 to 8; what has another shape goes in one of its own
   * @param {number} [options.concurrency] requests in flight
   * @param {'fail' | 'report'} [options.onError] throw at the first refused picture, or go on and say why in its
   *   `error`, also where a whole request failed while the server was there
   * @returns {AsyncGenerator<Answer, void, void>}
   */
  async *detectMany(pictures, parameters = {}, { batchSize = MAX_BATCH, concurrency = 4, onError = 'fail' } = {}) {
    if (!(Number.isInteger(batchSize) && batchSize >= 1 && batchSize <= MAX_BATCH)) {
      throw new RangeError(`batchSize must be a whole number in 1..${MAX_BATCH}, got ${batchSize}`);
    }
    if (!(Number.isInteger(concurrency) && concurrency >= 1)) {
      throw new RangeError(`concurrency must be a whole number, 1 or more, got ${concurrency}`);
    }
    const source = batches(pictures, batchSize);
    const pending = [];
    let done = 0;
    try {
      for (let more = true; ; ) {
        while (more && pending.length < concurrency) {
          const { value, done: ended } = await source.next();
          more = !ended;
          if (more) {
            const batch = this.#batch(value, parameters, onError);
            batch.catch(() => {}); // thrown when its turn comes, not before
            pending.push(batch);
          }
        }
        if (pending.length === 0) return;
        for (const answer of await pending.shift()) {
          if (answer.error !== undefined && onError === 'fail') throw new PictureError(answer.error, done);
          yield answer;
          done += 1;
        }
      }
    } finally {
      await source.return();
      await Promise.allSettled(pending);
    }
  }

  async #batch(pictures, parameters, onError) {
    const answers = new Array(pictures.length);
    const files = new Map();
    await Promise.all(
      pictures.map(async (picture, i) => {
        try {
          files.set(i, typeof picture === 'string' ? await readFile(picture) : picture);
        } catch (error) {
          answers[i] = failed(`cannot be read: ${error.message}`, parameters.policy !== undefined);
        }
      }),
    );
    for (const places of groups(files)) {
      const found = await this.#request(
        places.map((i) => files.get(i)),
        parameters,
        onError,
      );
      places.forEach((place, i) => (answers[place] = found[i]));
    }
    return answers;
  }

  async #request(files, parameters, onError) {
    const { priority = 0, ...settings } = parameters;
    const judged = settings.policy !== undefined;
    const wanted = judged ? [...OUTPUTS, ...POLICY_OUTPUTS] : OUTPUTS;
    const image = { name: 'image', datatype: 'BYTES', shape: [files.length, 1], data: packBytes(files) };
    // A refused picture must not cost its neighbours their answers, so it is always reported by the server.
    const values = { on_error: 'report' };
    for (const [name, value] of Object.entries(settings)) if (value !== undefined) values[name] = String(value);
    try {
      const outputs = await this.#connection.infer(this.#model, [image], wanted, { parameters: values, priority });
      return reading(this.#connection.url, () => read(outputs, files, judged));
    } catch (error) {
      const hopeless = error instanceof RequestRefused || error instanceof ServerUnavailable;
      if (onError === 'fail' || hopeless || !(error instanceof ClientError)) throw error;
      return files.map(() => failed(error.message, judged));
    }
  }
}

/** @param {string} error @param {boolean} judged @returns {Answer} */
function failed(error, judged, size = { width: 0, height: 0 }) {
  return { ...size, detections: [], error, ...(judged && { verdict: 'error' }) };
}

/** The answers in the output tensors; within `reading`. */
function read(outputs, files, judged) {
  const each = [files.length, 1];
  const { data: rows, shape } = output(outputs, 'detections', 'FP32', [files.length, undefined, 6]);
  const most = shape[1];
  const counts = output(outputs, 'num_detections', 'INT32', each).data;
  const labels = output(outputs, 'labels', 'BYTES', [files.length, most]).elements;
  const errors = output(outputs, 'error', 'BYTES', each).elements;
  const [verdicts, reasons] = POLICY_OUTPUTS.map((name) => (judged ? output(outputs, name, 'BYTES', each).elements : []));
  return files.map((file, i) => {
    const count = counts.readInt32LE(4 * i);
    if (count < -1 || count > most) throw new RangeError(`num_detections is ${count} beside ${most} rows a picture`);
    const size = uprightSize(file);
    const judgement = judged && { verdict: verdicts[i], reasons: JSON.parse(reasons[i] || '{}') };
    if (count < 0) return { ...failed(errors[i] || 'no reason given', false, size), ...judgement };
    const detections = Array.from({ length: count }, (_, k) => {
      const at = i * most + k;
      const value = (column) => rows.readFloatLE(4 * (6 * at + column));
      return {
        label: labels[at],
        class_id: value(4),
        confidence: value(5),
        box: [value(0), value(1), value(2), value(3)],
      };
    });
    return { ...size, detections, ...judgement };
  });
}

/** Groups of `size`, the last one smaller. */
async function* batches(items, size) {
  let batch = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length === size) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}
