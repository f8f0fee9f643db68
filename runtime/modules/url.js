// `url`: addresses, parsed by the host's library.

const host = globalThis.__host;

const decode = (text) => {
    try {
        return decodeURIComponent(text.replaceAll('+', ' '));
    } catch {
        return text;
    }
};
const encode = (text) =>
    encodeURIComponent(text)
        .replaceAll('%20', '+')
        .replace(/[!'()~]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());

export class URLSearchParams {
    #pairs = [];
    #changed = () => {};

    constructor(from = '') {
        if (typeof from === 'string') {
            this.#pairs = parse(from.startsWith('?') ? from.slice(1) : from);
        } else if (from !== null && typeof from === 'object') {
            const pairs = typeof from[Symbol.iterator] === 'function' ? [...from] : Object.entries(from);
            this.#pairs = pairs.map(([name, value]) => [String(name), String(value)]);
        }
    }

    static bound(text, changed) {
        const params = new URLSearchParams(text);
        params.#changed = () => changed(params.toString());
        return params;
    }

    get size() {
        return this.#pairs.length;
    }
    append(name, value) {
        this.#pairs.push([String(name), String(value)]);
        this.#changed();
    }
    delete(name, value) {
        this.#pairs = this.#pairs.filter(([n, v]) => n !== String(name) || (value !== undefined && v !== String(value)));
        this.#changed();
    }
    get(name) {
        const pair = this.#pairs.find(([n]) => n === String(name));
        return pair === undefined ? null : pair[1];
    }
    getAll(name) {
        return this.#pairs.filter(([n]) => n === String(name)).map(([, value]) => value);
    }
    has(name, value) {
        return this.#pairs.some(([n, v]) => n === String(name) && (value === undefined || v === String(value)));
    }
    set(name, value) {
        const at = this.#pairs.findIndex(([n]) => n === String(name));
        if (at < 0) {
            this.#pairs.push([String(name), String(value)]);
        } else {
            this.#pairs = this.#pairs.filter(([n], index) => index <= at || n !== String(name));
            this.#pairs[at] = [String(name), String(value)];
        }
        this.#changed();
    }
    sort() {
        this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
        this.#changed();
    }
    forEach(callback, self) {
        for (const [name, value] of this.#pairs) {
            callback.call(self, value, name, this);
        }
    }
    *entries() {
        yield* this.#pairs.map(([name, value]) => [name, value]);
    }
    *keys() {
        yield* this.#pairs.map(([name]) => name);
    }
    *values() {
        yield* this.#pairs.map(([, value]) => value);
    }
    [Symbol.iterator]() {
        return this.entries();
    }
    toString() {
        return this.#pairs.map(([name, value]) => `${encode(name)}=${encode(value)}`).join('&');
    }
}

const parse = (text) =>
    text
        .split('&')
        .filter((piece) => piece !== '')
        .map((piece) => {
            const at = piece.indexOf('=');
            return at < 0 ? [decode(piece), ''] : [decode(piece.slice(0, at)), decode(piece.slice(at + 1))];
        });

export class URL {
    #parts;
    #params;

    constructor(text, base) {
        const parts = host.url(String(text), base === undefined ? undefined : String(base));
        if (parts === undefined) {
            throw new TypeError(`Invalid URL: ${text}`);
        }
        this.#take(parts);
    }

    #take(parts) {
        this.#parts = JSON.parse(parts);
        this.#params = undefined;
    }

    #set(part, value) {
        const parts = host.urlWith(this.#parts.href, part, String(value));
        if (parts !== undefined) {
            this.#take(parts);
        }
    }

    static canParse(text, base) {
        return host.url(String(text), base === undefined ? undefined : String(base)) !== undefined;
    }
    get searchParams() {
        this.#params ??= URLSearchParams.bound(this.#parts.search, (text) => {
            const params = this.#params;
            this.#set('search', text);
            this.#params = params;
        });
        return this.#params;
    }
    get origin() {
        return this.#parts.origin;
    }
    toString() {
        return this.#parts.href;
    }
    toJSON() {
        return this.#parts.href;
    }

    static {
        for (const part of ['href', 'protocol', 'username', 'password', 'host', 'hostname', 'port', 'pathname', 'search', 'hash']) {
            Object.defineProperty(URL.prototype, part, {
                get() {
                    return this.#parts[part];
                },
                set(value) {
                    this.#set(part, value);
                },
                enumerable: true,
                configurable: true,
            });
        }
    }
}

export default { URL, URLSearchParams };
