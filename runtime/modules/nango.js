// The module `nango` that functions import: what declares them, and the error that carries a payload.

const declare = (type) => (definition) => {
    if (definition === null || typeof definition !== 'object') {
        throw new TypeError(`create${type.name} takes one object`);
    }
    return { ...definition, type: type.word };
};

export const createSync = declare({ name: 'Sync', word: 'sync' });
export const createAction = declare({ name: 'Action', word: 'action' });
export const createOnEvent = declare({ name: 'OnEvent', word: 'onEvent' });

export class ActionError extends Error {
    constructor(payload) {
        super(typeof payload?.message === 'string' ? payload.message : 'the function ended with an ActionError');
        this.name = 'ActionError';
        this.type = 'action_script_runtime_error';
        this.payload = payload ?? {};
    }
}
