// Requests to the provider, as functions write them: `nango.get`, `proxy`, `paginate`.

import { host } from 'syncline:globals';
import { URL, URLSearchParams } from 'url';

const pairs = (params) => {
    if (params === undefined || params === null) {
        return [];
    }
    if (typeof params === 'string') {
        return [...new URLSearchParams(params)];
    }
    if (params instanceof URLSearchParams) {
        return [...params];
    }
    return Object.entries(params).flatMap(([name, value]) => {
        const values = Array.isArray(value) ? value : [value];
        return values.filter((one) => one !== undefined && one !== null).map((one) => [name, text(one)]);
    });
};
const text = (value) => (value instanceof Date ? value.toISOString() : typeof value === 'object' ? JSON.stringify(value) : String(value));

// The body as text or bytes, and the content type it implies.
const body = (data) => {
    if (data === undefined || data === null) {
        return [undefined, undefined];
    }
    if (data instanceof ArrayBuffer) {
        return [data, 'application/octet-stream'];
    }
    if (ArrayBuffer.isView(data)) {
        return [data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength), 'application/octet-stream'];
    }
    if (data instanceof URLSearchParams) {
        return [data.toString(), 'application/x-www-form-urlencoded'];
    }
    if (typeof data === 'string') {
        return [data, undefined];
    }
    return [JSON.stringify(data), 'application/json'];
};

class RequestError extends Error {
    constructor(message, code, response, config) {
        super(message);
        this.name = 'AxiosError';
        this.isAxiosError = true;
        this.code = code;
        this.config = config;
        if (response !== undefined) {
            this.response = response;
            this.status = response.status;
        }
    }
    toJSON() {
        return { name: this.name, message: this.message, code: this.code, status: this.status };
    }
}

const statusText = new Map([[200, 'OK'], [201, 'Created'], [202, 'Accepted'], [204, 'No Content'], [400, 'Bad Request'], [401, 'Unauthorized'], [403, 'Forbidden'], [404, 'Not Found'], [409, 'Conflict'], [410, 'Gone'], [422, 'Unprocessable Entity'], [429, 'Too Many Requests'], [500, 'Internal Server Error'], [502, 'Bad Gateway'], [503, 'Service Unavailable']]);

// One request. Resolves to an answer of 2xx; anything else rejects with the answer in `response`. Errors name the line of `here`.
export const request = (config, here = new Error()) => {
    if (typeof config?.endpoint !== 'string') {
        throw new TypeError('a request needs an `endpoint`');
    }
    const [data, type] = body(config.data);
    const headers = Object.entries(config.headers ?? {}).map(([name, value]) => [name.toLowerCase(), String(value)]);
    if (type !== undefined && !headers.some(([name]) => name === 'content-type')) {
        headers.push(['content-type', type]);
    }
    const draft = {
        method: String(config.method ?? 'GET').toUpperCase(),
        endpoint: config.endpoint,
        params: pairs(config.params),
        headers,
        base: config.baseUrlOverride,
        retries: config.retries,
        retry_on: config.retryOn ?? [],
        source: config.providerConfigKey,
        connection: config.connectionId,
        bare: config.bare === true,
    };
    const form = config.responseType === 'arraybuffer' || config.responseType === 'stream' ? 'bytes' : config.responseType === 'text' ? 'text' : 'json';
    return host.request(JSON.stringify(draft), data, form).then(
        ([status, given, content]) => {
            const response = { data: content, status, statusText: statusText.get(status) ?? '', headers: JSON.parse(given), config };
            if (status >= 200 && status < 300) {
                return response;
            }
            const code = status < 500 ? 'ERR_BAD_REQUEST' : 'ERR_BAD_RESPONSE';
            throw at(here, new RequestError(`Request failed with status code ${status}`, code, response, config));
        },
        (failed) => {
            throw at(here, new RequestError(failed.message, failed.code, undefined, config));
        },
    );
};

// The error as if it were thrown where the function called: behind an `await` nothing else would name its line.
export const at = (here, error) => {
    Object.defineProperty(error, 'stack', { value: here.stack, configurable: true, writable: true });
    return error;
};

// A name with dots may be that of a member, such as `@odata.nextLink`, or the way to one: `data.items[0].next`.
const way = (path, from) => (Object.hasOwn(Object(from), path) ? [path] : path.split(/[.[\]]+/).filter((name) => name !== ''));
const within = (value, path) =>
    path === undefined || path === '' ? value : way(path, value).reduce((inner, name) => inner?.[name], value);

// A copy of an object with one member set; the steps lead to it.
const withMember = (object, [name, ...rest], value) => ({ ...object, [name]: rest.length === 0 ? value : withMember(object?.[name], rest, value) });

const linkOf = (headers, rel) => {
    for (const piece of String(headers.link ?? '').split(/,\s*(?=<)/)) {
        const [, address, params] = /^\s*<([^>]*)>(.*)$/.exec(piece) ?? [];
        if (address !== undefined && new RegExp(`;\\s*rel="?${rel}"?(\\s|;|$)`).test(params)) {
            return address;
        }
    }
    return undefined;
};

// How each kind of paging finds its next page: `begin` sets the first request up, `next` gives undefined at the end. A page that
// `ends` the listing is yielded, and nothing is told of it. What `told` of a page is what `on_page` gets, else what is next.
const kinds = {
    cursor: {
        begin() {},
        next({ paging, set, response }) {
            const found = within(response.data, paging.cursor_path_in_response);
            const cursor = typeof found === 'string' ? found.trim() : found;
            if ((typeof cursor !== 'string' && typeof cursor !== 'number') || cursor === '') {
                return undefined;
            }
            set(paging.cursor_name_in_request, cursor);
            return cursor;
        },
        yieldsEmpty: false,
    },
    link: {
        begin() {},
        next({ paging, config, response, before }) {
            const header = paging.link_rel_in_response_header && linkOf(response.headers, paging.link_rel_in_response_header);
            const link = header || (paging.link_path_in_response_body && within(response.data, paging.link_path_in_response_body));
            if (typeof link !== 'string' || link === '' || link === before) {
                return undefined;
            }
            const url = URL.canParse(link) ? new URL(link) : undefined;
            if (url !== undefined) {
                // It names the whole path, and not what is below the source's base.
                config.baseUrlOverride = url.origin;
            }
            config.endpoint = url === undefined ? link : url.pathname + url.search;
            delete config.params;
            return link;
        },
        yieldsEmpty: true,
    },
    offset: {
        begin({ paging, set }) {
            const offset = paging.offset_start_value ?? 0;
            set(paging.offset_name_in_request, offset);
            return offset;
        },
        ends: ({ paging, items }) => paging.limit !== undefined && items.length < Number(paging.limit),
        // Functions add to it what makes their own next request.
        told: ({ before }) => before,
        next({ paging, set, items, before }) {
            const step = paging.offset_calculation_method === 'per-page' ? 1 : items.length;
            const offset = Number(before) + step;
            set(paging.offset_name_in_request, offset);
            return offset;
        },
        yieldsEmpty: false,
    },
};

const needed = {
    cursor: ['cursor_path_in_response', 'cursor_name_in_request'],
    link: [],
    offset: ['offset_name_in_request'],
};

// Pages of a listing, as an async generator of arrays of items.
export async function* paginate(given, defaults, send) {
    const paging = { ...defaults, ...given.paginate };
    const kind = kinds[paging.type];
    if (kind === undefined) {
        throw new Error(`paginate: the type is ${JSON.stringify(paging.type)}; expected cursor, link or offset, in the call or as functions.paginate of the source`);
    }
    const missing = needed[paging.type].filter((name) => paging[name] === undefined);
    if (paging.type === 'link' && !paging.link_rel_in_response_header && !paging.link_path_in_response_body) {
        missing.push('link_rel_in_response_header or link_path_in_response_body');
    }
    if (missing.length > 0) {
        throw new Error(`paginate: ${paging.type} needs ${missing.join(', ')}`);
    }
    const { paginate: _, ...config } = given;
    config.method = String(config.method ?? 'GET').toUpperCase();
    const inBody = paging.in_body ?? ['POST', 'PUT', 'PATCH'].includes(config.method);
    const set = (name, value) => {
        if (inBody) {
            config.data = withMember(config.data, way(name, config.data), value);
        } else if (typeof config.params === 'string' || config.params instanceof URLSearchParams) {
            const params = new URLSearchParams(config.params);
            params.set(name, String(value));
            config.params = params;
        } else {
            config.params = { ...config.params, [name]: value };
        }
    };
    if (paging.limit !== undefined && paging.limit_name_in_request !== undefined) {
        set(paging.limit_name_in_request, paging.limit);
    }
    let before = kind.begin({ paging, set });
    // The line that asks for a page; behind `on_page` nothing else would name it.
    let here = new Error();
    for (;;) {
        const response = await send(config, here);
        const items = within(response.data, paging.response_path) ?? [];
        // A link needs no items: without a place for them, functions take each answer apart by themselves.
        if (!Array.isArray(items) && (paging.type !== 'link' || paging.response_path)) {
            throw new Error(`paginate: ${paging.response_path ? `\`${paging.response_path}\` of the answer` : 'the answer'} is no array; set response_path to where the items are`);
        }
        if (items.length === 0 && !kind.yieldsEmpty) {
            return;
        }
        yield items;
        here = new Error();
        const page = { paging, config, set, items, response, before };
        if (kind.ends?.(page)) {
            return;
        }
        const next = kind.next(page);
        await paging.on_page?.({ nextPageParam: kind.told === undefined ? next : kind.told(page), response });
        if (next === undefined) {
            return;
        }
        before = next;
    }
}
