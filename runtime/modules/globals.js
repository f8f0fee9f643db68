// What every function finds without an import: time and chance of the host, timers, text, addresses, bytes, console.

import { Buffer } from 'buffer';
import 'crypto'; // takes the host before it is hidden
import { URL, URLSearchParams } from 'url';

const host = globalThis.__host;
delete globalThis.__host;

const define = (name, value) => Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });

// Time is the host's: `new Date()` and `Date.now()` never read the machine's clock.
const MachineDate = Date;
const HostDate = function Date(...given) {
    if (new.target === undefined) {
        return new MachineDate(host.now()).toString();
    }
    const values = given.length === 0 ? [host.now()] : given;
    return Reflect.construct(MachineDate, values, new.target);
};
HostDate.prototype = MachineDate.prototype;
HostDate.prototype.constructor = HostDate;
HostDate.parse = MachineDate.parse;
HostDate.UTC = MachineDate.UTC;
HostDate.now = () => host.now();
Object.defineProperty(HostDate, 'length', { value: 7 });
define('Date', HostDate);
define('performance', {
    now: () => host.now() - host.began(),
    get timeOrigin() {
        return host.began();
    },
});

Math.random = () => host.random();

let timers = new Map();
let lastTimer = 0;
const start = (callback, delay, again, args) => {
    if (typeof callback !== 'function') {
        throw new TypeError('a timer takes a function');
    }
    const timer = ++lastTimer;
    const wait = () =>
        host.sleep(Math.max(0, Number(delay) || 0)).then(() => {
            if (!timers.has(timer)) {
                return;
            }
            if (!again) {
                timers.delete(timer);
            } else {
                wait();
            }
            callback(...args);
        });
    timers.set(timer, true);
    wait();
    return timer;
};
define('setTimeout', (callback, delay, ...args) => start(callback, delay, false, args));
define('setInterval', (callback, delay, ...args) => start(callback, delay, true, args));
define('setImmediate', (callback, ...args) => start(callback, 0, false, args));
for (const name of ['clearTimeout', 'clearInterval', 'clearImmediate']) {
    define(name, (timer) => void timers.delete(timer));
}
define('structuredClone', (value) => JSON.parse(JSON.stringify(value)));

define(
    'TextEncoder',
    class TextEncoder {
        get encoding() {
            return 'utf-8';
        }
        encode(text = '') {
            return new Uint8Array(host.encode(String(text)));
        }
    },
);
define(
    'TextDecoder',
    class TextDecoder {
        get encoding() {
            return 'utf-8';
        }
        decode(bytes) {
            return bytes === undefined ? '' : Buffer.from(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength).toString('utf8');
        }
    },
);
define('btoa', (text) => Buffer.from(String(text), 'latin1').toString('base64'));
define('atob', (text) => Buffer.from(String(text), 'base64').toString('latin1'));
define('Buffer', Buffer);
define('URL', URL);
define('URLSearchParams', URLSearchParams);
define('global', globalThis);

// What is written to the console is a log line of the invocation.
const levels = { log: 'info', info: 'info', debug: 'debug', trace: 'debug', warn: 'warn', error: 'error' };
const shown = (value) => {
    if (typeof value === 'string') {
        return value;
    }
    if (value instanceof Error) {
        return value.stack ? `${value}\n${value.stack}` : String(value);
    }
    try {
        return JSON.stringify(value) ?? String(value);
    } catch {
        return String(value);
    }
};
const log = (level, values) => host.log(level, values.map(shown).join(' '));
const console = {};
for (const [name, level] of Object.entries(levels)) {
    console[name] = (...values) => log(level, values);
}
define('console', console);

export { host, log };
