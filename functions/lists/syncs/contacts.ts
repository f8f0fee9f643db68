// All contacts of an API that cannot say what changed or what is gone: every run lists everything, and what is no longer listed
// is deleted. The API is that of the demo's provider.
import { createSync } from 'nango';
import { z } from 'zod';

const Contact = z.object({
    id: z.string(),
    name: z.string(),
    email: z.string(),
    company: z.string().optional(),
    updated_at: z.string()
});

interface ListedContact {
    id: string;
    name: string;
    email: string;
    company?: { name: string };
    updated_at: string;
}

export default createSync({
    description: 'All contacts, with deletes',
    frequency: 'every hour',
    models: { Contact },

    exec: async (nango) => {
        await nango.trackDeletesStart('Contact');

        const pages = nango.paginate<ListedContact>({
            endpoint: '/v1/contacts',
            paginate: {
                type: 'cursor',
                response_path: 'data',
                cursor_path_in_response: 'next',
                cursor_name_in_request: 'after',
                limit: 100,
                limit_name_in_request: 'limit'
            },
            retries: 3
        });
        for await (const page of pages) {
            const contacts = page.map(({ id, name, email, company, updated_at }) => ({
                id,
                name,
                email,
                company: company?.name,
                updated_at
            }));
            await nango.batchSave(contacts, 'Contact');
        }

        // Only here, where the whole list was read: a request that fails throws, and then nothing is deleted.
        const { deletedKeys } = await nango.trackDeletesEnd('Contact');
        await nango.log(`${deletedKeys.length} contacts are gone`);
    }
});
