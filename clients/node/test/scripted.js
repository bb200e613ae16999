/** A gRPC server that speaks Triton's protocol and misbehaves as told. */

import grpc from '@grpc/grpc-js';

import { loadService, packBytes, unpackBytes } from '../triton.js';

/**
 * Finds in every picture one FACE_MALE whose x1 is the picture's number, as in `picture7`.
 *
 * @param {(number: number, request: object) => Promise<number | void> | number | void} behave gets the number of the
 *   request, from 0; a returned gRPC status refuses it, also as `{code, details}`
 * @param {(tensors: Record<string, [string, number[], Buffer]>) => void} change changes an answer before it is sent
 */
export async function scripted(
  behave = () => {},
  credentials = grpc.ServerCredentials.createInsecure(),
  change = () => {},
) {
  const state = { requests: [], active: 0, busiest: 0, deadlines: [] };
  const server = new grpc.Server();
  server.addService(loadService().service, {
    ModelInfer: async (call, respond) => {
      const number = state.requests.length;
      state.requests.push(call.request);
      state.deadlines.push(Number(call.getDeadline()) - Date.now());
      state.active += 1;
      state.busiest = Math.max(state.busiest, state.active);
      const code = await behave(number, call.request);
      state.active -= 1;
      if (code) respond(typeof code === 'object' ? code : { code, details: 'as told' });
      else respond(null, answer(call.request, change));
    },
  });
  const port = await new Promise((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', credentials, (error, found) => (error ? reject(error) : resolve(found))),
  );
  return Object.assign(state, { url: `127.0.0.1:${port}`, port, close: () => server.forceShutdown() });
}

export function pictures(request) {
  return unpackBytes(request.raw_input_contents[0]).map(String);
}

/** A request's parameters by name. */
export function parameters(request) {
  return Object.fromEntries(
    request.parameters.map(({ key, value }) => [key, value.string_param || value.int64_param || value.uint64_param]),
  );
}

function answer(request, change) {
  const names = pictures(request);
  const good = names.map((name) => name.startsWith('picture'));
  const row = (name) => [Number(name.slice(7)), 0, 10, 10, 12, 0.5];
  const floats = names.flatMap((name, i) => (good[i] ? row(name) : Array(6).fill(0)));
  const counts = Buffer.from(new Int32Array(good.map((fine) => (fine ? 1 : -1))).buffer);
  const tensors = {
    detections: ['FP32', [names.length, 1, 6], Buffer.from(new Float32Array(floats).buffer)],
    num_detections: ['INT32', [names.length, 1], counts],
    labels: ['BYTES', [names.length, 1], packBytes(names.map(() => Buffer.from('FACE_MALE')))],
    error: ['BYTES', [names.length, 1], packBytes(good.map((fine) => Buffer.from(fine ? '' : 'not a picture')))],
  };
  if (request.outputs.some(({ name }) => name === 'verdict')) {
    const { policy } = parameters(request);
    const texts = {
      verdict: (fine) => (fine ? 'review' : 'error'),
      reasons: () => JSON.stringify({ policy, findings: [] }),
    };
    for (const [name, text] of Object.entries(texts)) {
      tensors[name] = ['BYTES', [names.length, 1], packBytes(good.map((fine) => Buffer.from(text(fine))))];
    }
  }
  change(tensors);
  return {
    model_name: request.model_name,
    outputs: Object.entries(tensors).map(([name, [datatype, shape]]) => ({ name, datatype, shape })),
    raw_output_contents: Object.values(tensors).map(([, , data]) => data),
  };
}
