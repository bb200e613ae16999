#!/usr/bin/env node
/** Send JPEG files to a running server: node detect.js photo.jpg */

import { parseArgs } from 'node:util';

import { Client, ClientError, ServerUnavailable } from './nudenet.js';

const USAGE = `usage: node detect.js [options] photo.jpg...
  --url HOST:PORT           default: 127.0.0.1 and GRPC_PORT or 8001
  --json                    one line of JSON a picture
  --confidence-threshold N  --iou-threshold N  --max-detections N  --classes A,B  --priority N
  --policy NAME             a verdict by this policy of the server
  --batch-size N            pictures a request, 1 to 8
  --deadline SECONDS        a request may take; default 30
  --tls, --ca FILE          encrypt; trust this PEM file
  --round-robin             over all addresses of the host name`;

const text = { type: 'string' };
const flag = { type: 'boolean' };

function parse() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      url: text,
      json: flag,
      'confidence-threshold': text,
      'iou-threshold': text,
      'max-detections': text,
      classes: text,
      priority: text,
      policy: text,
      'batch-size': text,
      deadline: text,
      tls: flag,
      ca: text,
      'round-robin': flag,
      help: flag,
    },
  });
  if (!values.help && positionals.length === 0) throw new TypeError('no pictures given');
  return { values, positionals };
}

function show(name, answer) {
  console.log(`${name}  ${answer.width}x${answer.height}${answer.verdict ? `  ${answer.verdict}` : ''}`);
  for (const { label, confidence, box } of answer.detections) {
    console.log(`  ${label.padEnd(26)} ${confidence.toFixed(3)}  ${box.map((value) => value.toFixed(0)).join(', ')}`);
  }
  if (answer.detections.length === 0) console.log('  nothing found');
}

/** The verdict of a refused picture, where one was asked for. */
function judgement({ verdict, reasons }) {
  return verdict === undefined ? {} : { verdict, reasons: reasons ?? {} };
}

async function main() {
  let values, positionals;
  try {
    ({ values, positionals } = parse());
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    return 2;
  }
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  let failures = 0;
  let client;
  try {
    client = new Client(values.url ?? `127.0.0.1:${process.env.GRPC_PORT ?? 8001}`, {
      deadlineMs: Number(values.deadline ?? 30) * 1000,
      roundRobin: values['round-robin'],
      tls: values.tls || values.ca ? { rootCertificates: values.ca } : undefined,
    });
    const answers = client.detectMany(
      positionals,
      {
        confidence_threshold: values['confidence-threshold'],
        iou_threshold: values['iou-threshold'],
        max_detections: values['max-detections'],
        classes: values.classes,
        priority: Number(values.priority ?? 0),
        policy: values.policy,
      },
      { batchSize: Number(values['batch-size'] ?? 8), onError: 'report' },
    );
    let i = 0;
    for await (const answer of answers) {
      const image = positionals[i++];
      const { error } = answer;
      if (values.json) console.log(JSON.stringify(error === undefined ? { image, ...answer } : { image, error, ...judgement(answer) }));
      else if (error === undefined) show(image, answer);
      if (error !== undefined) {
        failures += 1;
        console.error(`${image}: ${error}`);
      }
    }
  } catch (error) {
    if (!(error instanceof ClientError || error instanceof RangeError)) throw error;
    console.error(error.message + (error instanceof ServerUnavailable ? '\nis the server running? make serve' : ''));
    return 1;
  } finally {
    client?.close();
  }
  return failures > 0 ? 1 : 0;
}

// Whoever read has what it wanted.
process.stdout.on('error', (error) => process.exit(error.code === 'EPIPE' ? 0 : 1));
process.exitCode = await main();
