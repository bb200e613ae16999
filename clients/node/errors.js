/** What goes wrong, by what a caller can do about it. All are {@link ClientError}. */

import { status } from '@grpc/grpc-js';

/** A call failed; as this very class, the server failed inside. */
export class ClientError extends Error {
  /**
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** Nobody answers at the address, the server is not ready, or its queue is full. Worth another try. */
export class ServerUnavailable extends ClientError {}

/** No answer within the deadline. */
export class DeadlineExceeded extends ClientError {}

/** The server refused the request as a whole: a parameter out of range, an unknown label or model. */
export class RequestRefused extends ClientError {}

/** The server, or the proxy before it, refuses whoever asks: the key is missing or wrong. */
export class AccessRefused extends RequestRefused {}

/** One picture was refused; `index` is its place in the call, `reason` what is wrong with it. */
export class PictureError extends ClientError {
  /**
   * @param {string} reason
   * @param {number} [index]
   */
  constructor(reason, index = 0) {
    super(`picture ${index}: ${reason}`);
    this.reason = reason;
    this.index = index;
  }
}

/**
 * @param {import('@grpc/grpc-js').ServiceError} error
 * @param {string} url
 * @returns {ClientError}
 */
export function fromGrpc(error, url) {
  const message = (error.details || error.message).replace(/\s*Resolution note: *$/, '');
  if (message.includes('is not healthy')) {
    // INTERNAL to Triton: a Python process died; supervision replaces the server
    return new ServerUnavailable(`${url}: ${message}`, { cause: error });
  }
  switch (error.code) {
    case status.UNAVAILABLE:
      return new ServerUnavailable(`${url}: ${message}`, { cause: error });
    case status.DEADLINE_EXCEEDED:
      return new DeadlineExceeded(`${url}: ${message}`, { cause: error });
    case status.INVALID_ARGUMENT:
    case status.NOT_FOUND:
      return new RequestRefused(message, { cause: error }); // about the request, not about the server
    case status.UNAUTHENTICATED:
    case status.PERMISSION_DENIED:
      return new AccessRefused(`${url}: ${message}`, { cause: error });
    default:
      return new ClientError(`${url}: ${message}`, { cause: error });
  }
}
