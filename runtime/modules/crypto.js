// `crypto`: hashes, signatures and chance, done by the host.

import { Buffer } from 'buffer';

const host = globalThis.__host;

const algorithms = ['md5', 'sha1', 'sha256', 'sha384', 'sha512'];
const algorithm = (name) => {
    const known = String(name).toLowerCase().replace('-', '');
    if (!algorithms.includes(known)) {
        throw new Error(`Digest method not supported: ${name}; there are ${algorithms.join(', ')}`);
    }
    return known;
};
const bytes = (data, encoding) => (typeof data === 'string' ? Buffer.from(data, encoding) : Buffer.from(data));

class Digest {
    #finish;
    #pieces = [];
    constructor(finish) {
        this.#finish = finish;
    }
    update(data, encoding) {
        this.#pieces.push(bytes(data, encoding));
        return this;
    }
    digest(encoding) {
        const result = new Buffer(this.#finish(Buffer.concat(this.#pieces).buffer));
        return encoding === undefined ? result : result.toString(encoding);
    }
}

export const createHash = (name) => {
    const known = algorithm(name);
    return new Digest((data) => host.digest(known, data));
};
export const createHmac = (name, key) => {
    const known = algorithm(name);
    const secret = bytes(key).buffer;
    return new Digest((data) => host.hmac(known, secret, data));
};
export const randomBytes = (size) => new Buffer(host.chance(size));
export const randomUUID = () => {
    const b = randomBytes(16);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    const text = b.toString('hex');
    return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-');
};
export const timingSafeEqual = (a, b) => {
    if (a.byteLength !== b.byteLength) {
        throw new RangeError('Input buffers must have the same byte length');
    }
    let difference = 0;
    for (let index = 0; index < a.byteLength; index += 1) {
        difference |= a[index] ^ b[index];
    }
    return difference === 0;
};

export default { createHash, createHmac, randomBytes, randomUUID, timingSafeEqual };
