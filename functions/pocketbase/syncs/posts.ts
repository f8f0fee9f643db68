// The collection `posts` of a PocketBase. Its hooks tell each change at once, and an hourly listing finds what they missed.
// A hook posts {"action": "created", "record": {…}}: pocketbase.yaml says how that is proven, and that `action` is its type.
import { createSync } from 'nango';
import { z } from 'zod';

const Post = z.object({
    id: z.string(),
    title: z.string(),
    text: z.string(),
    published: z.boolean(),
    created: z.string(),
    updated: z.string()
});
type Post = z.infer<typeof Post>;

export default createSync({
    description: 'Posts, at once by webhooks and every hour by a listing',
    frequency: 'every hour',
    models: { Post },
    webhookSubscriptions: ['created', 'changed', 'deleted'],

    exec: async (nango) => {
        // A webhook may bring a newer post while a page is on its way: that one stays.
        await nango.setMergingStrategy({ strategy: 'ignore_if_modified_after' }, 'Post');
        await nango.trackDeletesStart('Post');

        // By id instead of by page: posts that are deleted meanwhile move no others to a page that was read already.
        let last = '';
        for (;;) {
            // https://pocketbase.io/docs/api-records/#listsearch-records
            const { data } = await nango.get<{ items: Post[] }>({
                endpoint: '/api/collections/posts/records',
                params: { sort: 'id', filter: `id > '${last}'`, perPage: 200, skipTotal: true },
                retries: 3
            });
            const end = data.items.at(-1);
            if (!end) break;
            await nango.batchSave(data.items.map(toPost), 'Post');
            last = end.id;
        }

        // Posts that were not in the listing are deleted.
        await nango.trackDeletesEnd('Post');
    },

    onWebhook: async (nango, payload: { action: string; record: Post }) => {
        if (payload.action === 'deleted') {
            await nango.batchDelete([{ id: payload.record.id }], 'Post');
        } else {
            await nango.batchSave([toPost(payload.record)], 'Post');
        }
    }
});

// PocketBase adds fields of its own, such as `collectionId`.
function toPost({ id, title, text, published, created, updated }: Post): Post {
    return { id, title, text, published, created, updated };
}
