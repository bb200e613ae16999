/** The client against the real server, whose address comes by environment. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';

import { Client, Connection, PictureError, RequestRefused } from '../nudenet.js';
import { infer, toTensor } from '../tensors.js';

const { NUDENET_TEST_URL: url, NUDENET_TEST_PICTURE: path } = process.env;
const picture = readFileSync(path);
const client = new Client(url);
after(() => client.close());

test('one picture, as bytes and as a path', async () => {
  const answer = await client.detect(picture);
  assert.deepEqual([answer.width, answer.height], [1280, 720]);
  assert.deepEqual(answer.detections.map(({ label }) => label), ['FACE_FEMALE']);
  assert.ok(answer.detections[0].confidence > 0.8);
  assert.deepEqual(await client.detect(path), answer);
});

test('parameters reach the model', async () => {
  const many = await client.detect(picture, { confidence_threshold: 0.01, iou_threshold: 1 });
  assert.ok(many.detections.length > 3);
  const three = await client.detect(picture, { confidence_threshold: 0.01, iou_threshold: 1, max_detections: 3 });
  assert.deepEqual(three.detections, many.detections.slice(0, 3));
  assert.deepEqual((await client.detect(picture, { classes: ['FACE_MALE'] })).detections, []);
});

test('a refused request says why', async () => {
  await assert.rejects(client.detect(picture, { confidence_threshold: 3 }), (error) => {
    assert.ok(error instanceof RequestRefused);
    assert.match(error.message, /confidence_threshold must be in \[0,1\], got 3/);
    return true;
  });
});

test('bad pictures do not cost their neighbours', async () => {
  const batch = [picture, Buffer.from('89504e470d0a1a0a', 'hex'), Buffer.alloc(0), picture];
  const answers = [];
  for await (const answer of client.detectMany(batch, {}, { onError: 'report' })) answers.push(answer);
  assert.deepEqual(answers.map(({ error }) => error === undefined), [true, false, false, true]);
  assert.match(answers[1].error, /PNG/);
  await assert.rejects(client.detect(batch[1]), PictureError);
});

test('tensors straight to the detector', async () => {
  const connection = new Connection(url);
  try {
    const output = await infer(connection, toTensor(Buffer.alloc(3 * 320 * 180 * 3, 128)));
    assert.equal(output.length, 3 * 1260 * 6);
    assert.deepEqual(output.subarray(0, 1260 * 6), output.subarray(1260 * 6, 2 * 1260 * 6));
  } finally {
    connection.close();
  }
});
