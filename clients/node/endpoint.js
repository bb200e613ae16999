/** A server's address as people write it. */

import { ClientError } from './errors.js';

const SCHEMES = { 'http:': false, 'grpc:': false, 'https:': true, 'grpcs:': true };
const GRPC_TARGET = /^(dns|ipv4|ipv6|unix|unix-abstract|xds):/;

/**
 * Reads `host:port`, `http://host:port/` (also https, grpc, grpcs) or another target of gRPC.
 *
 * @param {string} url
 * @returns {{target: string, tls: boolean}} what gRPC connects to, and whether the address asked for encryption
 * @throws {ClientError} no host, no usable port, or a path, query or password behind it
 */
export function parseUrl(url) {
  if (GRPC_TARGET.test(url)) return { target: url, tls: false };
  const [, scheme = '', place] = /^(?:([^/]*:)\/\/)?(.*?)\/*$/s.exec(url);
  const known = scheme === '' ? false : SCHEMES[scheme.toLowerCase()];
  const match = /^(\[[0-9a-fA-F:.]+\]|[^\s/?#@:[\]]+)(?::(\d+))?$/.exec(place);
  const port = match?.[2] === undefined ? (known ? 443 : 0) : Number(match[2]);
  if (known === undefined || !match || port < 1 || port > 65535) {
    throw new ClientError(
      `${url.replace(/\/\/.*@/s, '//')}: expected HOST:PORT, http://HOST:PORT or https://HOST:PORT, without path, user or query`,
    );
  }
  return { target: `${match[1]}:${port}`, tls: known };
}

/**
 * @param {string} target as `parseUrl` gives it
 * @returns {boolean} whether the server runs on this machine, where no proxy can help
 */
export function isLoopback(target) {
  if (target.startsWith('unix')) return true;
  const places = target.replace(GRPC_TARGET, '').replace(/^.*\//, '').split(',');
  return places.every((place) =>
    /^(localhost\.?|127\.\d+\.\d+\.\d+|\[::1\]|::1)(:\d+)?$/i.test(place),
  );
}
