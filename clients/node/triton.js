/** One Triton server over gRPC: tensors in, tensors out, with deadline, retries, TLS and load balancing. */

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

import { isLoopback, parseUrl } from './endpoint.js';
import { ClientError, ServerUnavailable, fromGrpc } from './errors.js';

const DESCRIPTORS = fileURLToPath(new URL('triton.binpb', import.meta.url));
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2000;
// A busy server answers what has waited nearly as long as it may, and the rest of the way takes time, too. So a request
// asks to be refused from a queue after this share of the time that is left: a late answer only costs others theirs.
const QUEUE_SHARE = 1 / 3;

/**
 * @typedef {object} Tls PEM files; without `rootCertificates` the well-known authorities are trusted.
 * @property {string} [rootCertificates]
 * @property {string} [privateKey] for servers that ask who calls, with `certificateChain`
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
function secure(tls) {
  const read = (path) => (path === undefined ? null : readFileSync(path));
  return grpc.credentials.createSsl(read(tls.rootCertificates), read(tls.privateKey), read(tls.certificateChain));
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
    if (!(deadlineMs > 0)) throw new RangeError(`deadlineMs must be above 0, got ${deadlineMs}`);
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
    elements.push(data.subarray(at + 4, end));
    at = end;
  }
  return elements;
}
