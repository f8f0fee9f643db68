// What a file declares, as JSON: read once when functions are loaded.

import { toJSONSchema } from 'zod';
import 'syncline:globals';

const schema = (model) => (model === undefined || model === null ? undefined : toJSONSchema(model, { unrepresentable: 'any', io: 'output' }));

export const describe = async (file) => {
    const { default: definition } = await import(file);
    if (definition === null || typeof definition !== 'object' || !['sync', 'action', 'onEvent'].includes(definition.type)) {
        const old = typeof definition === 'function';
        return JSON.stringify({ problem: old ? 'old_format' : 'no_definition' });
    }
    const models = Object.fromEntries(Object.entries(definition.models ?? {}).map(([name, model]) => [name, schema(model)]));
    return JSON.stringify({
        type: definition.type,
        description: definition.description,
        version: definition.version,
        frequency: definition.frequency,
        autoStart: definition.autoStart,
        syncType: definition.syncType,
        trackDeletes: definition.trackDeletes,
        webhookSubscriptions: definition.webhookSubscriptions,
        event: definition.event,
        scopes: definition.scopes,
        models,
        checkpoint: schema(definition.checkpoint),
        metadata: schema(definition.metadata),
        input: schema(definition.input),
        output: schema(definition.output),
        exec: typeof definition.exec === 'function',
        onWebhook: typeof definition.onWebhook === 'function',
    });
};
