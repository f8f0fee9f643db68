// Opens an issue. The next run of the sync `issues` brings it as a record.
import { createAction } from 'nango';
import { z } from 'zod';

const Input = z.object({
    owner: z.string().min(1),
    repo: z.string().min(1),
    title: z.string().min(1),
    body: z.string().optional(),
    labels: z.array(z.string()).optional()
});

const Output = z.object({
    id: z.string(),
    number: z.number(),
    url: z.url()
});

export default createAction({
    description: 'Opens an issue in a repository',
    scopes: ['repo'],
    input: Input,
    output: Output,

    exec: async (nango, { owner, repo, ...issue }) => {
        try {
            // https://docs.github.com/en/rest/issues/issues#create-an-issue
            const { data } = await nango.post<{ id: number; number: number; html_url: string }>({
                endpoint: `/repos/${encodeURIComponent(owner)}/${encodeURIComponent(repo)}/issues`,
                data: issue
            });
            return { id: String(data.id), number: data.number, url: data.html_url };
        } catch (error: any) {
            if (error.response?.status === 410) {
                throw new nango.ActionError({ type: 'issues_disabled', message: `${owner}/${repo} has no issues: they are switched off` });
            }
            throw error;
        }
    }
});
