// Uses that the declarations have to refuse: a line without an error fails the check.
import { createAction, createOnEvent, createSync } from 'nango';
import type { PaginateOptions } from 'nango';
import { z } from 'zod';

createSync({
    // @ts-expect-error a model needs an id
    models: { Task: z.object({ name: z.string() }) },
    exec: async () => {}
});

// @ts-expect-error a sync needs `exec`
createSync({ models: {} });

createSync({
    models: { Task: z.object({ id: z.string(), title: z.string(), due: z.object({ day: z.string() }) }) },
    checkpoint: z.object({ since: z.string() }),
    metadata: z.object({ site: z.string() }),
    exec: async (nango) => {
        const task = { id: '1', title: 'a', due: { day: 'Monday' } };
        // @ts-expect-error no such model
        await nango.batchSave([task], 'Tasks');
        // @ts-expect-error a save is the whole record
        await nango.batchSave([{ id: '1', title: 'a' }], 'Task');
        // @ts-expect-error a title is text
        await nango.batchSave([{ ...task, title: 1 }], 'Task');
        // @ts-expect-error one record is not a list of records
        await nango.batchSave(task, 'Task');
        // @ts-expect-error a patch needs the id
        await nango.batchUpdate([{ title: 'b' }], 'Task');
        // @ts-expect-error a patch has the types of the model
        await nango.batchUpdate([{ id: '1', due: { day: 1 } }], 'Task');
        // @ts-expect-error a delete needs the id
        await nango.batchDelete([{ title: 'a' }], 'Task');
        // @ts-expect-error the checkpoint is `since`
        await nango.saveCheckpoint({ page: 1 });
        // @ts-expect-error there may be no checkpoint yet
        (await nango.getCheckpoint()).since;
        // @ts-expect-error the metadata is `site`
        (await nango.getMetadata()).page;
        // @ts-expect-error no such strategy
        await nango.setMergingStrategy({ strategy: 'newest' }, 'Task');
        // @ts-expect-error no such model
        await nango.trackDeletesStart('Tasks');
        // @ts-expect-error the endpoint is missing
        await nango.get({ params: {} });
        // @ts-expect-error no such member
        await nango.fetch('https://example.com');
        // @ts-expect-error functions have no fetch
        await fetch('https://example.com');
        // @ts-expect-error functions have no process
        process.exit(1);
    }
});

createSync({
    models: { Task: z.object({ id: z.string() }) },
    exec: async (nango) => {
        // @ts-expect-error no checkpoint is declared
        await nango.saveCheckpoint({ since: 'a' });
    },
    // @ts-expect-error event types are text
    webhookSubscriptions: [1]
});

createAction({
    input: z.object({ id: z.string() }),
    output: z.object({ done: z.boolean() }),
    // @ts-expect-error the output is `done`
    exec: async (nango, input) => {
        // @ts-expect-error the input is `id`
        await nango.post({ endpoint: `/tasks/${input.name}` });
        // @ts-expect-error actions save no records
        await nango.batchSave([], 'Task');
        return { ok: true };
    }
});

createOnEvent({
    // @ts-expect-error no such event
    event: 'connection-renamed',
    exec: async () => {}
});

// @ts-expect-error a cursor has no offset
export const paginate: PaginateOptions = { type: 'cursor', offset_name_in_request: 'page' };
