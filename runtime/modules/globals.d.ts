// What functions find without an import, and the three modules beside 'nango' and 'zod', for editors. It is less than a browser or
// Node has: no fetch, no process, no require. Use it with `"lib": ["ES2023"]` and `"types": []`.

declare class URLSearchParams {
    constructor(init?: string | Record<string, string> | Iterable<[string, string]> | URLSearchParams);
    readonly size: number;
    append(name: string, value: string): void;
    delete(name: string, value?: string): void;
    get(name: string): string | null;
    getAll(name: string): string[];
    has(name: string, value?: string): boolean;
    set(name: string, value: string): void;
    sort(): void;
    forEach(each: (value: string, name: string, all: URLSearchParams) => void): void;
    keys(): IterableIterator<string>;
    values(): IterableIterator<string>;
    entries(): IterableIterator<[string, string]>;
    [Symbol.iterator](): IterableIterator<[string, string]>;
    toString(): string;
}

declare class URL {
    constructor(url: string | URL, base?: string | URL);
    static canParse(url: string | URL, base?: string | URL): boolean;
    hash: string;
    host: string;
    hostname: string;
    href: string;
    readonly origin: string;
    password: string;
    pathname: string;
    port: string;
    protocol: string;
    search: string;
    readonly searchParams: URLSearchParams;
    username: string;
    toString(): string;
    toJSON(): string;
}

type BufferEncoding = 'utf8' | 'utf-8' | 'hex' | 'base64' | 'base64url' | 'ascii' | 'latin1' | 'binary';

declare class Buffer extends Uint8Array {
    static from(text: string, encoding?: BufferEncoding): Buffer;
    static from(bytes: ArrayBuffer | ArrayLike<number> | Iterable<number>): Buffer;
    static alloc(size: number): Buffer;
    static concat(parts: readonly Uint8Array[], length?: number): Buffer;
    static isBuffer(value: unknown): value is Buffer;
    static byteLength(text: string | Uint8Array, encoding?: BufferEncoding): number;
    toString(encoding?: BufferEncoding, from?: number, to?: number): string;
    equals(other: Uint8Array): boolean;
}

declare class TextEncoder {
    encode(text?: string): Uint8Array;
}

declare class TextDecoder {
    constructor(encoding?: 'utf-8' | 'utf8');
    decode(bytes?: ArrayBuffer | Uint8Array): string;
}

declare function atob(text: string): string;
declare function btoa(text: string): string;
declare function setTimeout(call: (...args: any[]) => void, milliseconds?: number, ...args: any[]): number;
declare function clearTimeout(timer: number | undefined): void;
declare function setInterval(call: (...args: any[]) => void, milliseconds?: number, ...args: any[]): number;
declare function clearInterval(timer: number | undefined): void;
declare function structuredClone<Value>(value: Value): Value;

/** Lines of the run's log, as `nango.log` writes them. */
declare const console: Record<'log' | 'debug' | 'info' | 'warn' | 'error', (...parts: unknown[]) => void>;

declare module 'crypto' {
    interface Digest {
        update(data: string | Uint8Array, encoding?: BufferEncoding): this;
        digest(): Buffer;
        digest(encoding: BufferEncoding): string;
    }
    export function randomUUID(): string;
    export function randomBytes(size: number): Buffer;
    export function createHash(algorithm: string): Digest;
    export function createHmac(algorithm: string, key: string | Uint8Array): Digest;
    export function timingSafeEqual(one: Uint8Array, other: Uint8Array): boolean;
}
declare module 'node:crypto' {
    export * from 'crypto';
}
declare module 'url' {
    const url: typeof URL;
    const parameters: typeof URLSearchParams;
    export { url as URL, parameters as URLSearchParams };
}
declare module 'node:url' {
    export * from 'url';
}
declare module 'buffer' {
    const buffer: typeof Buffer;
    export { buffer as Buffer };
}
declare module 'node:buffer' {
    export * from 'buffer';
}
