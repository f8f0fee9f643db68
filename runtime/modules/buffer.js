// `buffer`: bytes with encodings. The host does the encodings themselves.

const host = globalThis.__host;

const encodings = new Map([
    ['utf8', 'utf8'],
    ['utf-8', 'utf8'],
    ['hex', 'hex'],
    ['base64', 'base64'],
    ['base64url', 'base64url'],
    ['latin1', 'latin1'],
    ['binary', 'latin1'],
    ['ascii', 'latin1'],
]);
const encoding = (name = 'utf8') => {
    const known = encodings.get(String(name).toLowerCase());
    if (known === undefined) {
        throw new TypeError(`Unknown encoding: ${name}`);
    }
    return known;
};

export class Buffer extends Uint8Array {
    static from(value, second, third) {
        if (typeof value === 'string') {
            return new Buffer(host.bytesOf(value, encoding(second)));
        }
        if (value instanceof ArrayBuffer) {
            return new Buffer(value, second, third);
        }
        return new Buffer(value?.type === 'Buffer' && Array.isArray(value.data) ? value.data : value);
    }
    static alloc(size, fill = 0) {
        return new Buffer(size).fill(fill);
    }
    static allocUnsafe(size) {
        return new Buffer(size);
    }
    static isBuffer(value) {
        return value instanceof Buffer;
    }
    static byteLength(value, name) {
        return typeof value === 'string' ? Buffer.from(value, name).length : value.byteLength;
    }
    static concat(list, length = list.reduce((sum, item) => sum + item.length, 0)) {
        const all = new Buffer(length);
        let at = 0;
        for (const item of list) {
            const piece = item.subarray(0, Math.max(0, length - at));
            all.set(piece, at);
            at += piece.length;
        }
        return all;
    }
    toString(name, from = 0, to = this.length) {
        return host.textOf(this.slice(from, to).buffer, encoding(name));
    }
    toJSON() {
        return { type: 'Buffer', data: [...this] };
    }
    equals(other) {
        return this.length === other.length && this.every((byte, index) => byte === other[index]);
    }
    slice(from, to) {
        return new Buffer(Uint8Array.prototype.slice.call(this, from, to));
    }
    static get [Symbol.species]() {
        return Uint8Array;
    }
}

export default { Buffer };
