/** The client against a scripted server: requests, retries, deadlines, order, TLS, load balancing. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { parseUrl } from '../endpoint.js';
import {
  AccessRefused,
  Client,
  ClientError,
  DeadlineExceeded,
  PictureError,
  RequestRefused,
  ServerUnavailable,
} from '../nudenet.js';
import { uprightSize } from '../jpeg.js';
import { parameters, pictures, scripted } from './scripted.js';

const { status } = grpc;
const names = (count) => Array.from({ length: count }, (_, i) => Buffer.from(`picture${i}`));

/** A test with a scripted server and a client of it, both closed at its end. */
function withServer(name, behave, options, body) {
  test(name, async (t) => {
    const server = await scripted(behave);
    const client = new Client(server.url, options);
    t.after(() => {
      client.close();
      server.close();
    });
    await body(client, server);
  });
}

async function collect(answers) {
  const all = [];
  for await (const answer of answers) all.push(answer);
  return all;
}

const options = { model: 'nudenet_bulk', deadlineMs: 20_000 };
withServer('model, parameters, priority and deadline travel', undefined, options, async (client, server) => {
  await client.detect(Buffer.from('picture1'), {
    confidence_threshold: 0.5,
    iou_threshold: 0.25,
    max_detections: 7,
    classes: ['FACE_MALE', 'FACE_FEMALE'],
    priority: 2,
  });
  const { timeout, ...sent } = parameters(server.requests[0]);
  assert.deepEqual(sent, {
    on_error: 'report',
    confidence_threshold: '0.5',
    iou_threshold: '0.25',
    max_detections: '7',
    classes: 'FACE_MALE,FACE_FEMALE',
    priority: 2,
  });
  assert.equal(server.requests[0].model_name, 'nudenet_bulk');
  assert.ok(timeout > 3_000_000 && timeout <= 20_000_000 / 3, `${timeout} microseconds`); // a third of the deadline
  assert.ok(server.deadlines[0] > 10_000 && server.deadlines[0] <= 21_000, `${server.deadlines[0]} ms`);
  assert.ok(server.requests[0].inputs.every(({ contents }) => contents === null));
});

withServer('what is not asked for is not sent', undefined, {}, async (client, server) => {
  await client.detect(Buffer.from('picture1'), { classes: undefined });
  assert.deepEqual(Object.keys(parameters(server.requests[0])).sort(), ['on_error', 'timeout']);
  assert.equal(server.requests[0].model_name, 'nudenet');
});

withServer('a policy asks for a verdict and its reasons', undefined, {}, async (client, server) => {
  const pictures = [Buffer.from('picture1'), Buffer.from('no picture'), '/no/such.jpg'];
  const answers = await collect(client.detectMany(pictures, { policy: 'mine' }, { onError: 'report' }));
  assert.deepEqual(
    answers.map(({ verdict, reasons }) => [verdict, reasons?.policy]),
    [
      ['review', 'mine'],
      ['error', 'mine'],
      ['error', undefined],
    ],
  );
  assert.equal(parameters(server.requests[0]).policy, 'mine');
  const [plain] = await collect(client.detectMany(pictures.slice(0, 1)));
  assert.ok(!('verdict' in plain || 'reasons' in plain));
  const asked = server.requests.map(({ outputs }) => outputs.some(({ name }) => name === 'verdict'));
  assert.deepEqual(asked, [true, false]);
});

withServer('unavailable is tried again', (n) => n < 2 && status.UNAVAILABLE, { retries: 2 }, async (client, server) => {
  assert.equal((await client.detect(Buffer.from('picture1'))).detections[0].label, 'FACE_MALE');
  assert.equal(server.requests.length, 3);
});

withServer('retries end', () => status.UNAVAILABLE, { retries: 1 }, async (client, server) => {
  await assert.rejects(client.detect(Buffer.from('picture1')), ServerUnavailable);
  assert.equal(server.requests.length, 2);
});

// The same table is tested against the Python client.
const RETRIES = JSON.parse(readFileSync(new URL('../../../tests/data/retries.json', import.meta.url)));
for (const { grpc: code, message, error: kind, retried } of RETRIES.filter((row) => row.grpc)) {
  const told = { code: status[code], details: message };
  withServer(`${code} "${message}": ${kind}`, () => told, { retries: 1 }, async (client, server) => {
    await assert.rejects(client.detect(Buffer.from('picture1')), (error) => {
      assert.equal(error.constructor.name, kind);
      assert.ok(error.message.includes(message), error.message);
      return true;
    });
    assert.equal(server.requests.length, retried ? 2 : 1);
  });
}

withServer('a silent server meets the deadline', () => sleep(400), { deadlineMs: 100 }, async (client, server) => {
  await assert.rejects(client.detect(Buffer.from('picture1')), DeadlineExceeded);
  assert.equal(server.requests.length, 1);
});

test('addresses are read as people write them', () => {
  for (const [url, target, tls = false] of [
    ['127.0.0.1:8001', '127.0.0.1:8001'],
    ['http://127.0.0.1:8001/', '127.0.0.1:8001'],
    ['https://host/', 'host:443', true],
    ['grpcs://[::1]:8001', '[::1]:8001', true],
    ['dns:///host:8001', 'dns:///host:8001'],
  ]) {
    assert.deepEqual(parseUrl(url), { target, tls });
  }
  for (const url of ['', 'host', ':8001', 'host:port', 'host:70000', 'http://host', 'ftp://host:1', 'http://host:1/v2']) {
    assert.throws(() => parseUrl(url), ClientError, url);
  }
  assert.throws(() => parseUrl('http://user:secret@host:1'), (error) => !error.message.includes('secret'));
});

test('loopback never goes through a proxy, other addresses follow the environment', async (t) => {
  const server = await scripted();
  const asked = [];
  const proxy = createServer();
  proxy.on('connect', ({ url }, socket) => {
    asked.push(url);
    socket.end('HTTP/1.1 503 Unavailable\r\n\r\n');
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const before = { ...process.env };
  t.after(() => {
    process.env = before;
    proxy.close();
    server.close();
  });
  process.env.http_proxy = process.env.grpc_proxy = `http://127.0.0.1:${proxy.address().port}`;
  process.env.no_proxy = process.env.no_grpc_proxy = '';
  for (const host of ['127.0.0.1', 'localhost']) {
    const client = new Client(`${host}:${server.port}`, { retries: 0 });
    assert.equal((await client.detect(Buffer.from('picture1'))).detections.length, 1);
    client.close();
  }
  assert.deepEqual(asked, []);
  const client = new Client('triton.invalid:8001', { retries: 0 });
  await assert.rejects(client.detect(Buffer.from('picture1')), ServerUnavailable);
  client.close();
  assert.ok(asked.includes('triton.invalid:8001'), asked);
});

test('nobody there', async () => {
  const client = new Client('127.0.0.1:1', { retries: 0 });
  await assert.rejects(client.detect(Buffer.from('picture1')), {
    name: 'ServerUnavailable',
    message: /127\.0\.0\.1:1\b/,
  });
  client.close();
});

// The first batch is overtaken by the others.
withServer('answers come in order from full batches', (n) => sleep(n === 0 ? 100 : 0), {}, async (client, server) => {
  const answers = await collect(client.detectMany(names(35)));
  assert.deepEqual(answers.map((answer) => answer.detections[0].box[0]), [...Array(35).keys()]);
  assert.deepEqual(server.requests.map((request) => pictures(request).length).sort(), [3, 8, 8, 8, 8]);
});

test('concurrency is reached and bounded', async (t) => {
  const waiting = [];
  const together = () =>
    new Promise((resolve) => {
      waiting.push(resolve);
      if (waiting.length === 3) for (const go of waiting.splice(0)) go();
    });
  const server = await scripted(together);
  const client = new Client(server.url);
  t.after(() => {
    client.close();
    server.close();
  });
  const answers = await collect(client.detectMany(names(12), {}, { batchSize: 2, concurrency: 3 }));
  assert.equal(answers.length, 12);
  assert.equal(server.busiest, 3);
});

withServer('bad pictures are reported in their places', undefined, {}, async (client) => {
  const mixed = [...names(1), Buffer.from('broken'), '/no/such/file', ...names(1)];
  const answers = await collect(client.detectMany(mixed, {}, { onError: 'report' }));
  assert.deepEqual(answers.map(({ detections }) => detections.length), [1, 0, 0, 1]);
  assert.equal(answers[1].error, 'not a picture');
  assert.match(answers[2].error, /no such file/);
  assert.ok(!('error' in answers[0]));
});

withServer('a bad picture throws with its place', undefined, {}, async (client) => {
  const mixed = [...names(10), Buffer.from('broken')];
  await assert.rejects(collect(client.detectMany(mixed)), { name: 'PictureError', index: 10 });
  await assert.rejects(client.detect(Buffer.from('broken')), PictureError);
  await assert.rejects(client.detect('/no/such/file'), PictureError);
});

withServer('one failed request costs only its own pictures', (n) => n === 0 && status.INTERNAL, {}, async (client) => {
  const answers = await collect(client.detectMany(names(6), {}, { batchSize: 2, concurrency: 1, onError: 'report' }));
  assert.deepEqual(answers.map(({ error }) => error !== undefined), [true, true, false, false, false, false]);
});

withServer('pictures are read as they are needed', undefined, {}, async (client) => {
  let read = 0;
  async function* endless() {
    for (;;) yield Buffer.from(`picture${read++}`);
  }
  for await (const answer of client.detectMany(endless(), {}, { batchSize: 4, concurrency: 2 })) {
    if (answer.detections[0].box[0] === 5) break;
  }
  assert.ok(read <= 5 + 4 * 4, `${read} read`);
});

test('settings that cannot work are refused', async () => {
  assert.throws(() => new Client('127.0.0.1:1', { deadlineMs: 0 }), RangeError);
  assert.throws(() => new Client('127.0.0.1:1', { retries: -1 }), RangeError);
  assert.throws(() => new Client('127.0.0.1:1', { deadlineMs: 2 ** 31 }), RangeError);
  for (const wrong of [{ batchSize: 9 }, { batchSize: 2.5 }, { batchSize: '3' }, { concurrency: 0.5 }]) {
    await assert.rejects(collect(new Client('127.0.0.1:1').detectMany([], {}, wrong)), RangeError);
  }
  for (const priority of [NaN, 1.5, -1, 'abc']) {
    await assert.rejects(new Client('127.0.0.1:1').detect(Buffer.from('picture1'), { priority }), RangeError);
  }
});

const noKey = () => ({ code: status.UNAUTHENTICATED, details: 'no key' });
withServer('who may not ask learns where, and once', noKey, {}, async (client, server) => {
  const many = client.detectMany(names(20), {}, { batchSize: 1, concurrency: 1, onError: 'report' });
  await assert.rejects(collect(many), (error) => {
    assert.ok(error instanceof AccessRefused && error instanceof RequestRefused);
    assert.ok(error.message.startsWith(`${server.url}: `), error.message);
    return true;
  });
  assert.ok(server.requests.length < 4, `${server.requests.length} requests`);
});

const put = (name, index, value) => (tensors) => (tensors[name][index] = value);
const WRONG = {
  'no outputs': [(tensors) => Object.keys(tensors).forEach((name) => delete tensors[name]), /there is no detections/],
  'no picture': [put('detections', 1, [0, 1, 6]), /detections is FP32 \[0,1,6\], expected FP32 \[1,K,6\]/],
  'seven columns': [put('detections', 1, [1, 1, 7]), /detections is FP32 \[1,1,7\]/],
  'another type': [put('detections', 0, 'FP16'), /detections is FP16/],
  'too few bytes': [put('detections', 2, Buffer.alloc(23)), /detections has 5.75 elements, expected 6/],
  'more than there are': [put('num_detections', 2, Buffer.from([99, 0, 0, 0])), /num_detections is 99 beside 1 rows/],
  'less than none': [put('num_detections', 2, Buffer.from([254, 255, 255, 255])), /num_detections is -2/],
  'text that is none': [put('labels', 2, Buffer.from([2, 0, 0, 0, 255, 254])), /utf-8/],
  'text cut short': [put('labels', 2, Buffer.from([32, 0, 0, 0, 65])), /an element ends at byte 36 of 5/],
  'half a length': [put('labels', 2, Buffer.from([32, 0])), /not an answer/],
  'labels missing': [put('labels', 2, Buffer.alloc(0)), /labels has 0 elements, expected 1/],
  'reasons that are no JSON': [put('reasons', 2, Buffer.from([1, 0, 0, 0, 123])), /JSON/],
};
for (const [name, [change, message]] of Object.entries(WRONG)) {
  test(`a wrong answer is the server's error: ${name}`, async (t) => {
    const server = await scripted(undefined, undefined, change);
    const client = new Client(server.url);
    t.after(() => {
      client.close();
      server.close();
    });
    await assert.rejects(client.detect(Buffer.from('picture1'), { policy: 'mine' }), (error) => {
      assert.equal(error.constructor, ClientError);
      assert.ok(error.message.startsWith(`${server.url}: not an answer of nudenet: `), error.message);
      assert.match(error.message, message);
      return true;
    });
  });
}

test('round robin uses every address', async (t) => {
  const servers = [await scripted(), await scripted()];
  const addresses = `ipv4:${servers.map(({ url }) => url).join(',')}`;
  const client = new Client(addresses, { roundRobin: true });
  t.after(() => {
    client.close();
    for (const server of servers) server.close();
  });
  await client.detect(Buffer.from('picture0'));
  await sleep(100); // until both are connected
  for (const picture of names(8)) await client.detect(picture);
  for (const server of servers) assert.ok(server.requests.length >= 3, `${server.requests.length} requests`);
});

test('TLS needs a trusted certificate', async (t) => {
  const { NUDENET_TEST_CERTIFICATE: certificate, NUDENET_TEST_KEY: key } = process.env;
  const pair = { private_key: readFileSync(key), cert_chain: readFileSync(certificate) };
  const server = await scripted(undefined, grpc.ServerCredentials.createSsl(null, [pair]));
  t.after(() => server.close());
  for (const [tls, works] of [[{ rootCertificates: certificate }, true], [{}, false], [undefined, false]]) {
    const client = new Client(server.url, { tls, retries: 0 });
    const answer = client.detect(Buffer.from('picture1'));
    if (works) assert.equal((await answer).detections.length, 1);
    else await assert.rejects(answer, ServerUnavailable);
    client.close();
  }
});

test('TLS files that cannot be used are refused', () => {
  const { NUDENET_TEST_CERTIFICATE: certificateChain, NUDENET_TEST_KEY: privateKey } = process.env;
  const source = new URL(import.meta.url).pathname;
  for (const [tls, message] of [
    [{ rootCertificates: '/no/such.pem' }, /such\.pem cannot be used/],
    [{ rootCertificates: '/' }, /cannot be used/],
    [{ rootCertificates: source }, /client\.test\.js cannot be used/],
    [{ privateKey: source, certificateChain }, /cannot be used/],
    [{ privateKey }, /belong together/],
    [{ certificateChain }, /belong together/],
  ]) {
    assert.throws(() => new Client('127.0.0.1:1', { tls }), (error) => error instanceof ClientError && message.test(error.message));
  }
  new Client('127.0.0.1:1', { tls: { rootCertificates: certificateChain, privateKey, certificateChain } }).close();
});

// Made by tests/data/vectors, with what Chromium shows; the server and the Python client are held to the same files.
const { NUDENET_TEST_VECTORS: vectors } = process.env;
for (const { name, file, width, height } of JSON.parse(readFileSync(join(vectors, 'index.json')))) {
  test(`size: ${name}`, () => assert.deepEqual(uprightSize(readFileSync(join(vectors, file))), { width, height }));
}

test('files without readable headers have no size', () => {
  for (const broken of ['', 'ff', 'ffd8', 'ffd8ffe1', 'ffd8ffc0', 'ffd8ffe1ffff', 'ffd8ffffff', 'hello']) {
    assert.deepEqual(uprightSize(Buffer.from(broken, 'hex')), { width: 0, height: 0 });
  }
});
