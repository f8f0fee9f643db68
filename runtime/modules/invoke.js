// One invocation: the `nango` object a function is given, and what is made of its end.

import { host, log } from 'syncline:globals';
import { at, paginate, request } from 'syncline:request';
import { ActionError } from 'nango';

const CHECKPOINT_FIELDS = 16;

const checked = (value, problem) => {
    if (!value) {
        throw new Error(problem);
    }
};

// A call that the host answers with a value; its errors name the line of the caller.
const ask = (member, ...args) => {
    const here = new Error();
    return host.member(member, JSON.stringify(args)).catch((failed) => {
        const error = failed.payload === undefined ? new Error(failed.message) : new ActionError(failed.payload);
        error.code = failed.code;
        throw at(here, error);
    });
};

// After a write: at once, or when the host has taken the step that is full.
const paced = (full, result) => (full ? host.flush().then(() => result) : Promise.resolve(result));

const records = (write) => (given, model) => {
    if (given === undefined || given === null || given.length === 0) {
        return Promise.resolve(true);
    }
    checked(Array.isArray(given), 'the records must be an array');
    checked(typeof model === 'string', 'the second argument is the name of the model');
    return paced(write(model, given), true);
};

const flat = (checkpoint) => {
    checked(checkpoint !== null && typeof checkpoint === 'object' && !Array.isArray(checkpoint), 'a checkpoint is an object');
    const fields = Object.entries(checkpoint);
    checked(fields.length <= CHECKPOINT_FIELDS, `a checkpoint has at most ${CHECKPOINT_FIELDS} fields`);
    for (const [name, value] of fields) {
        const simple = value === null || ['string', 'number', 'boolean'].includes(typeof value) || value instanceof Date;
        checked(simple, `the field \`${name}\` of the checkpoint is neither text, number, true or false, date nor null`);
    }
    return JSON.stringify(checkpoint);
};

const fits = (schema, value, what) => {
    const result = schema?.safeParse?.(value);
    if (result !== undefined && !result.success) {
        const issues = result.error.issues.map((issue) => `${issue.path.join('.') || '(whole)'}: ${issue.message}`);
        throw new Error(`${what} does not fit its schema: ${issues.join('; ')}`);
    }
};

const members = (about, definition) => {
    let checkpoint = about.checkpoint ?? null;
    const send = (config, here) => request(config, here);
    const method = (name) => (config) => send({ ...config, method: name });
    const metadata = (name) => async (given) => {
        await ask(name, given);
    };
    const save = records((model, given) => host.save(model, given));

    const requests = {
        proxy: (config) => send(config),
        get: method('GET'),
        post: method('POST'),
        put: method('PUT'),
        patch: method('PATCH'),
        delete: method('DELETE'),
        paginate: (config) => paginate(config, about.paginate ?? {}, send),
        uncontrolledFetch: async ({ url, method: verb, headers, body }) => {
            const config = { endpoint: String(url), method: verb, headers, data: body, responseType: 'text', bare: true };
            const answer = await request(config).catch((error) => error.response ?? Promise.reject(error));
            return {
                ok: answer.status >= 200 && answer.status < 300,
                status: answer.status,
                statusText: answer.statusText,
                headers: { get: (name) => answer.headers[String(name).toLowerCase()] ?? null },
                text: async () => answer.data,
                json: async () => JSON.parse(answer.data),
            };
        },
    };

    const account = {
        getConnection: (source, connection, options) => ask('getConnection', source, connection, options),
        getMetadata: () => ask('getMetadata'),
        getFieldMapping: () => ask('getMetadata'),
        setMetadata: metadata('setMetadata'),
        setFieldMapping: metadata('setMetadata'),
        updateMetadata: metadata('updateMetadata'),
        updateFieldMapping: metadata('updateMetadata'),
        getToken: () => ask('getToken'),
        getIntegration: (options) => ask('getIntegration', options),
        getWebhookURL: () => ask('getWebhookURL'),
        getEnvironmentVariables: () => ask('getEnvironmentVariables'),
        triggerAction: (source, connection, name, input) => ask('triggerAction', source, connection, name, input),
        triggerSync: (...given) => ask('triggerSync', ...given),
        startSync: (...given) => ask('startSync', ...given),
        tryAcquireLock: (lock) => ask('tryAcquireLock', lock),
        releaseLock: (lock) => ask('releaseLock', lock),
        releaseAllLocks: () => ask('releaseAllLocks'),
    };

    const help = {
        log: (...given) => {
            const last = given.at(-1);
            const options = last !== null && typeof last === 'object' && Object.keys(last).length === 1 && typeof last.level === 'string';
            log(options ? last.level : 'info', options ? given.slice(0, -1) : given);
            return Promise.resolve();
        },
        ActionError,
        zodValidateInput: async ({ zodSchema, input }) => {
            const result = zodSchema.safeParse(input);
            if (!result.success) {
                const issues = result.error.issues.map(({ path, code, message }) => ({ path, code, message }));
                log('error', ['the input does not fit its schema:', issues]);
                throw new ActionError({ type: 'invalid_input', message: 'the input does not fit its schema', validation_errors: issues });
            }
            return result;
        },
        connectionId: about.connectionId,
        providerConfigKey: about.providerConfigKey,
        provider: about.provider,
        environmentName: about.environmentName,
        variant: about.variant,
        syncName: about.syncName,
        lastSyncDate: about.lastSyncDate === undefined ? undefined : new Date(about.lastSyncDate),
        isCLI: about.dry === true,
    };

    const sync = {
        batchSave: save,
        batchSend: save,
        batchUpdate: records((model, given) => host.patch(model, given)),
        batchDelete: records((model, given) => host.gone(model, given)),
        getCheckpoint: async () => (checkpoint === null ? null : { ...checkpoint }),
        saveCheckpoint: async (given) => {
            const text = flat(given);
            fits(definition.checkpoint, given, 'the checkpoint');
            await host.checkpoint(text);
            checkpoint = JSON.parse(text);
        },
        clearCheckpoint: async () => {
            await host.checkpoint(undefined);
            checkpoint = null;
        },
        trackDeletesStart: (model) => Promise.resolve(host.openWindow(String(model))),
        trackDeletesEnd: async (model) => ({ deletedKeys: await host.closeWindow(String(model)) }),
        deleteRecordsFromPreviousExecutions: async (model) => ({ deletedKeys: await host.closeWindow(String(model)) }),
        setMergingStrategy: async (strategy, model) => host.strategy(String(model), String(strategy?.strategy)),
        getRecordsByIds: async (ids, model) => {
            const keys = new Map(ids.map((id) => [String(id), id]));
            const found = await host.records(String(model), JSON.stringify([...keys.keys()]));
            return new Map(found.map((record) => [keys.get(String(record.id)), record]));
        },
        listRecords: async function* (model, { cursor } = {}) {
            for (let after = cursor; ; ) {
                const page = await host.list(String(model), after);
                yield* page.records;
                if (page.next === null) {
                    return;
                }
                after = page.next;
            }
        },
    };
    const common = { ...requests, ...account, ...help };
    if (about.kind === 'webhook') {
        // What an event does not name is not gone.
        const refused = (name) => async () => {
            const why = `unsupported: nango.${name} in onWebhook: an event is no listing`;
            throw Object.assign(new Error(why), { code: 'unsupported' });
        };
        for (const name of ['trackDeletesStart', 'trackDeletesEnd', 'deleteRecordsFromPreviousExecutions']) {
            sync[name] = refused(name);
        }
    }
    return about.kind === 'exec' || about.kind === 'webhook' ? { ...common, ...sync } : common;
};

// What is not there says so, with the line that asked for it, instead of `undefined is not a function`.
const closed = (object) =>
    new Proxy(object, {
        get(target, name) {
            if (name in target || typeof name === 'symbol' || name === 'then' || name === 'toJSON') {
                return target[name];
            }
            throw Object.assign(new Error(`unsupported: nango.${name}`), { code: 'unsupported' });
        },
        set(_, name) {
            throw new TypeError(`nango.${String(name)} cannot be set`);
        },
    });

const call = {
    exec: (definition, nango) => definition.exec(nango),
    webhook: (definition, nango, input) => definition.onWebhook(nango, input),
    action: (definition, nango, input) => definition.exec(nango, input),
    event: (definition, nango) => definition.exec(nango),
};

// Runs the function of a file. Resolves to its output as JSON, or to nothing.
export const start = async (file, text) => {
    const about = JSON.parse(text);
    const { default: definition } = await import(file);
    const run = about.kind === 'webhook' ? definition?.onWebhook : definition?.exec;
    checked(typeof run === 'function', `the file has no ${about.kind === 'webhook' ? 'onWebhook' : 'exec'}`);
    const nango = closed(members(about, definition));
    const input = about.kind === 'action' ? given(definition.input, about.input) : about.input;
    if (about.kind === 'action') {
        fitsAs(definition.input, input, 'invalid_input');
    }
    const output = await call[about.kind](definition, nango, input);
    if (about.kind !== 'action') {
        return undefined;
    }
    fitsAs(definition.output, output, 'invalid_output');
    return JSON.stringify(output);
};

// JSON has no `undefined`: `null` is that where the schema takes nothing else.
const given = (schema, input) => {
    const fit = (value) => schema?.safeParse?.(value).success === true;
    return input === null && !fit(null) && fit(undefined) ? undefined : input;
};

const fitsAs = (schema, value, code) => {
    try {
        fits(schema, value, code === 'invalid_input' ? 'the input' : 'the output');
    } catch (error) {
        error.code = code;
        throw error;
    }
};

const text = (value) => (typeof value === 'string' ? value : undefined);

// What an error says, for the host.
export const explain = (error) => {
    if (error === null || typeof error !== 'object') {
        return JSON.stringify({ name: 'Error', message: `thrown: ${String(error)}` });
    }
    const told = {
        name: text(error.name) ?? 'Error',
        message: text(error.message) ?? '',
        stack: text(error.stack),
        code: text(error.code),
        status: typeof error.response?.status === 'number' ? error.response.status : undefined,
    };
    if (error instanceof ActionError) {
        Object.assign(told, { type: error.type, payload: error.payload });
    } else if (error.isAxiosError === true) {
        told.answer = error.response?.data;
    }
    try {
        return JSON.stringify(told);
    } catch {
        return JSON.stringify({ ...told, payload: undefined, answer: undefined });
    }
};
