// Copies the contacts of an API, page by page, and deletes those that are no longer listed.
// What `nango` has is in nango.d.ts; docs/functions.md of Syncline says more.
import { createSync } from 'nango';
import { z } from 'zod';

// One record as it is kept. `id` identifies it.
const Contact = z.object({
    id: z.string(),
    name: z.string(),
    updated_at: z.string()
});

export default createSync({
    description: 'All contacts',
    frequency: 'every hour',
    models: { Contact },

    exec: async (nango) => {
        await nango.trackDeletesStart('Contact');

        // The path is that behind the source's base URL, which signs the request too.
        const pages = nango.paginate<z.infer<typeof Contact>>({
            endpoint: '/contacts',
            paginate: {
                type: 'cursor',
                response_path: 'data',
                cursor_path_in_response: 'next',
                cursor_name_in_request: 'cursor',
                limit: 100,
                limit_name_in_request: 'limit'
            },
            retries: 3
        });
        for await (const page of pages) {
            // Name the fields to keep: the API may send more.
            await nango.batchSave(
                page.map(({ id, name, updated_at }) => ({ id, name, updated_at })),
                'Contact'
            );
        }

        // Only here, where everything was read: a request that fails throws, and then nothing is deleted.
        await nango.trackDeletesEnd('Contact');
    }
});
