// Uses of the declarations that have to pass, beside those of the examples and fixtures.
import { ActionError, createAction, createOnEvent, createSync } from 'nango';
import type { NangoAction, NangoSync, PaginateOptions, ProxyConfiguration } from 'nango';
import { createHmac, timingSafeEqual } from 'node:crypto';
import { Buffer } from 'buffer';
import * as z from 'zod';

type Same<One, Other> = (<T>() => T extends One ? 1 : 2) extends <T>() => T extends Other ? 1 : 2 ? true : false;
function same<One, Other>(_: Same<One, Other>): void {}

const Task = z.object({
    id: z.string(),
    title: z.string(),
    done: z.boolean().optional(),
    due: z.object({ day: z.string(), note: z.string().nullable() }).nullable()
});

const sync = createSync({
    models: { Task, Person: z.object({ id: z.number(), name: z.string() }) },
    metadata: z.object({ workspace: z.string() }),
    checkpoint: z.object({ page: z.number() }),
    webhookSubscriptions: ['*'],
    exec: async (nango) => {
        same<Awaited<ReturnType<typeof nango.getCheckpoint>>, { page: number } | null>(true);
        const metadata = await nango.getMetadata();
        same<typeof metadata, { workspace: string }>(true);
        await helper(nango);
        await nango.batchSave([{ id: '1', title: 'a', due: null }], 'Task');
        await nango.batchUpdate([{ id: '1', due: { note: 'soon' } }], 'Task');
        await nango.batchDelete([{ id: '1', deletedAt: '2024-05-01T10:00:00Z' }], 'Task');
        for await (const task of nango.listRecords('Task')) {
            same<typeof task, z.infer<typeof Task>>(true);
        }
        const known = await nango.getRecordsByIds([1, 2], 'Person');
        same<typeof known, Map<string | number, { id: number; name: string }>>(true);
        await nango.updateMetadata({ workspace: 'w' });
        await nango.log('a', { level: 'warn' });
        await nango.log('a', 1, { any: 'thing' });
        await nango.clearCheckpoint();
    },
    onWebhook: async (nango, payload: { id: string }) => {
        await nango.batchDelete([{ id: payload.id }], 'Task');
    }
});
type TaskSync = Parameters<(typeof sync)['exec']>[0];
same<TaskSync['batchSave'], Parameters<NonNullable<(typeof sync)['onWebhook']>>[0]['batchSave']>(true);

// A helper may ask for any sync, for any action, or for that of its file.
async function helper(nango: NangoSync): Promise<unknown> {
    return helpAny(nango);
}
async function helpAny(nango: NangoAction): Promise<unknown> {
    return (await nango.proxy({ endpoint: '/me', method: 'GET' })).data;
}
export async function saveOne(nango: TaskSync): Promise<void> {
    await nango.batchSave([{ id: '1', title: 'a', due: null }], 'Task');
}

export const action = createAction({
    input: z.object({ id: z.string(), sign: z.string() }),
    output: z.void(),
    exec: async (nango, input) => {
        const checked = await nango.zodValidateInput({ zodSchema: z.object({ id: z.string() }), input });
        same<typeof checked.data, { id: string }>(true);
        const mac = createHmac('sha256', 'key').update(checked.data.id).digest();
        if (!timingSafeEqual(mac, Buffer.from(input.sign, 'hex'))) {
            throw new nango.ActionError({ type: 'bad_signature' });
        }
        const paginate: PaginateOptions = { type: 'offset', offset_name_in_request: 'page', offset_calculation_method: 'per-page' };
        const config: ProxyConfiguration = { endpoint: new URL('https://a.example/b?c=d').pathname, paginate };
        for await (const page of nango.paginate<{ id: string }>(config)) {
            same<typeof page, { id: string }[]>(true);
        }
        if (!(await nango.tryAcquireLock({ key: 'k', ttlMs: 1000 }))) {
            throw new ActionError({ message: 'busy' });
        }
    }
});

export const event = createOnEvent({
    event: 'post-connection-creation',
    exec: async (nango) => {
        const connection = await nango.getConnection();
        await nango.setMetadata({ site: connection.connection_config['site'], token: connection.credentials.access_token });
    }
});

export default sync;
