/** One Triton server over gRPC: tensors in, tensors out, with deadline, retries, TLS and load balancing. */

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

import { isLoopback, parseUrl } from './endpoint.js';
import { ClientError, ServerUnavailable, fromGrpc } from './errors.js';

const DESCRIPTORS = fileURLToPath(new URL('triton.binpb', import.meta.url));
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2000;
const LONGEST_DEADLINE_MS = 2 ** 31 - 1; // of Node's timers
// A busy server answers what has waited nearly as long as it may, and the rest of the way takes time, too. So a request
// asks to be refused from a queue after this share of the time that is left: a late answer only costs others theirs.
const QUEUE_SHARE = 1 / 3;
const UTF_8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * @typedef {object} Tls PEM files; without `rootCertificates` the well-known authorities are trusted.
 * @property {string} [rootCertificates]
 * @property {string} [privateKey] for servers that ask who calls, together with `certificateChain`
 * @property {string} [certificateChain]
 *
 * @typedef {object} ConnectionOptions
 * @property {number} [deadlineMs] time a request may take, its retries included; 30000
 * @property {number} [retries] further tries while the server is unavailable, nothing else is tried again; 4
 * @property {Tls} [tls] encrypt
 * @property {boolean} [roundRobin] over all addresses that the host name has, instead of the first one only
 * @property {string} [apiKey] for a proxy that asks for one, sent as `api-key`; encrypt with it
 *
 * @typedef {object} Tensor
 * @property {string} name
 * @property {'FP32' | 'INT32' | 'BYTES'} datatype
 * @property {number[]} shape
 * @property {Buffer} data raw, little-endian; BYTES elements are a 4-byte length and the bytes
 */

/** The gRPC service, as the installed tritonclient knows it. */
export function loadService() {
  let descriptors;
  try {
    descriptors = readFileSync(DESCRIPTORS);
  } catch (error) {
    throw new ClientError(`${DESCRIPTORS} is missing: run python clients/node/write_descriptors.py`, { cause: error });
  }
  const definition = protoLoader.loadFileDescriptorSetFromBuffer(descriptors, {
    keepCase: true,
    longs: Number,
    defaults: true,
  });
  return grpc.loadPackageDefinition(definition).inference.GRPCInferenceService;
}

/** @param {Tls} tls */
function secure({ rootCertificates, privateKey, certificateChain }) {
  if ((privateKey === undefined) !== (certificateChain === undefined)) {
    throw new ClientError('privateKey and certificateChain belong together, got one of them; name a file that holds both twice');
  }
  const read = (path) => (path === undefined ? null : readFileSync(path));
  try {
    const [roots, key, chain] = [read(rootCertificates), read(privateKey), read(certificateChain)];
    // gRPC finds out only when it connects.
    if (roots !== null) new X509Certificate(roots);
    createSecureContext({ key, cert: chain });
    return grpc.credentials.createSsl(roots, key, chain);
  } catch (error) {
    const paths = [rootCertificates, privateKey, certificateChain].filter((path) => path !== undefined);
    throw new ClientError(`${paths.join(', ')} cannot be used, PEM files are expected: ${error.message}`, { cause: error });
  }
}

export class Connection {
  #stub;
  #deadlineMs;
  #retries;
  #metadata = new grpc.Metadata();

  /**
   * @param {string} url host and port, e.g. `127.0.0.1:8001`
   * @param {ConnectionOptions} [options]
   */
  constructor(url, { deadlineMs = 30_000, retries = 4, tls, roundRobin = false, apiKey } = {}) {
    if (!(deadlineMs > 0 && deadlineMs <= LONGEST_DEADLINE_MS)) {
      throw new RangeError(`deadlineMs must be above 0 and at most ${LONGEST_DEADLINE_MS}, got ${deadlineMs}`);
    }
    if (!(retries >= 0)) throw new RangeError(`retries must be 0 or more, got ${retries}`);
    this.url = url;
    this.#deadlineMs = deadlineMs;
    this.#retries = retries;
    if (apiKey !== undefined) this.#metadata.set('api-key', apiKey);
    const server = parseUrl(url);
    if (server.tls) tls ??= {};
    const Service = loadService();
    this.#stub = new Service(server.target, tls ? secure(tls) : grpc.credentials.createInsecure(), {
      ...(isLoopback(server.target) && { 'grpc.enable_http_proxy': 0 }), // else even 127.0.0.1 goes through http_proxy
      'grpc.max_send_message_length': -1,
      'grpc.max_receive_message_length': -1, // 4 MB otherwise
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2000, // two minutes otherwise, longer than any restart
      'grpc.service_config_disable_resolution': 1,
      ...(roundRobin && { 'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }) }),
    });
  }

  close() {
    this.#stub.close();
  }

  /**
   * One inference.
   *
   * @param {string} model
   * @param {Tensor[]} inputs
   * @param {string[]} outputs names of the tensors to answer
   * @param {{parameters?: Record<string, string>, priority?: number}} [options]
   * @returns {Promise<Map<string, Tensor>>}
   */
  async infer(model, inputs, outputs, { parameters = {}, priority = 0 } = {}) {
    const end = Date.now() + this.#deadlineMs;
    if (!(Number.isInteger(priority) && priority >= 0)) {
      throw new RangeError(`priority must be a whole number, 0 or more, got ${priority}`);
    }
    const settings = Object.entries(parameters).map(([key, value]) => ({ key, value: { string_param: value } }));
    if (priority > 0) settings.push({ key: 'priority', value: { uint64_param: priority } });
    const request = {
      model_name: model,
      // All data travels in raw_input_contents, so `contents` stays empty on every input.
      inputs: inputs.map(({ name, datatype, shape }) => ({ name, datatype, shape })),
      outputs: outputs.map((name) => ({ name })),
      raw_input_contents: inputs.map(({ data }) => data),
    };
    for (let made = 0; ; made += 1) {
      const microseconds = Math.max(Math.floor((end - Date.now()) * QUEUE_SHARE * 1000), 1);
      const timeout = { key: 'timeout', value: { int64_param: microseconds } };
      // A map field read from a descriptor set is, as on the wire, a list of entries.
      request.parameters = [...settings, timeout];
      try {
        return tensors(await this.#call(request, end));
      } catch (error) {
        const failure = fromGrpc(error, this.url);
        const pause = Math.min(FIRST_PAUSE_MS * 2 ** made, LONGEST_PAUSE_MS) * (0.5 + Math.random() / 2);
        const again = failure instanceof ServerUnavailable && made < this.#retries && Date.now() + pause < end;
        if (!again) throw failure;
        await sleep(pause);
      }
    }
  }

  #call(request, deadline) {
    return new Promise((resolve, reject) => {
      this.#stub.ModelInfer(request, this.#metadata, { deadline }, (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
  }
}

/**
 * What `read` makes of an answer. Whatever is wrong with that becomes an error that names the server.
 *
 * @template T
 * @param {string} url
 * @param {() => T} read
 * @returns {T}
 */
export function reading(url, read) {
  try {
    return read();
  } catch (error) {
    throw new ClientError(`${url}: not an answer of nudenet: ${error.message}`, { cause: error });
  }
}

/**
 * The elements of one output, checked; within `reading`.
 *
 * @param {Map<string, Tensor>} outputs
 * @param {string} name
 * @param {'FP32' | 'INT32' | 'BYTES'} datatype
 * @param {(number | undefined)[]} shape undefined: any length
 * @returns {{shape: number[], data: Buffer, elements: string[]}} `elements` of BYTES, as text
 */
export function output(outputs, name, datatype, shape) {
  const found = outputs.get(name);
  if (found === undefined) throw new TypeError(`there is no ${name}`);
  const fits = found.shape.length === shape.length && shape.every((length, i) => [undefined, found.shape[i]].includes(length));
  if (!fits || found.datatype !== datatype) {
    const wanted = shape.map((length) => length ?? 'K');
    throw new TypeError(`${name} is ${found.datatype} [${found.shape}], expected ${datatype} [${wanted}]`);
  }
  const data = found.data ?? Buffer.alloc(0);
  const elements = datatype === 'BYTES' ? unpackBytes(data).map((element) => UTF_8.decode(element)) : [];
  const count = datatype === 'BYTES' ? elements.length : data.length / 4;
  const expected = found.shape.reduce((product, length) => product * length, 1);
  if (count !== expected) throw new RangeError(`${name} has ${count} elements, expected ${expected}`);
  return { shape: found.shape, data, elements };
}

/** The output tensors of an answer, by name. */
function tensors(answer) {
  return new Map(
    answer.outputs.map(({ name, datatype, shape }, i) => [
      name,
      { name, datatype, shape, data: answer.raw_output_contents[i] },
    ]),
  );
}

/** @param {Buffer[]} elements */
export function packBytes(elements) {
  return Buffer.concat(
    elements.flatMap((element) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(element.length);
      return [length, element];
    }),
  );
}

/** @param {Buffer} data of a BYTES tensor @returns {Buffer[]} */
export function unpackBytes(data) {
  const elements = [];
  for (let at = 0; at < data.length; ) {
    const end = at + 4 + data.readUInt32LE(at);
    if (end > data.length) throw new RangeError(`an element ends at byte ${end} of ${data.length}`);
    elements.push(data.subarray(at + 4, end));
    at = end;
  }
  return elements;
}
