// The issues of one repository. Each run reads what changed since the last one; metadata says which repository:
// {"owner": "octo", "repo": "hello"}
import { createSync } from 'nango';
import { z } from 'zod';

const Issue = z.object({
    id: z.string(),
    number: z.number(),
    title: z.string(),
    body: z.string().nullable(),
    state: z.enum(['open', 'closed']),
    author: z.string().nullable(),
    labels: z.array(z.string()),
    created_at: z.iso.datetime(),
    updated_at: z.iso.datetime()
});

// The fields of GitHub's answer that are used here.
interface GitHubIssue {
    id: number;
    number: number;
    title: string;
    body: string | null;
    state: 'open' | 'closed';
    user: { login: string } | null;
    labels: { name: string }[];
    created_at: string;
    updated_at: string;
    pull_request?: object;
}

export default createSync({
    description: 'Issues of a repository',
    frequency: 'every 5m',
    models: { Issue },
    metadata: z.object({ owner: z.string(), repo: z.string() }),
    checkpoint: z.object({ updated_at: z.string() }),

    exec: async (nango) => {
        const { owner, repo } = await nango.getMetadata();
        const checkpoint = await nango.getCheckpoint();

        // https://docs.github.com/en/rest/issues/issues#list-repository-issues
        const pages = nango.paginate<GitHubIssue>({
            endpoint: `/repos/${encodeURIComponent(owner)}/${encodeURIComponent(repo)}/issues`,
            params: {
                state: 'all',
                sort: 'updated',
                direction: 'asc',
                ...(checkpoint && { since: checkpoint.updated_at })
            },
            paginate: { type: 'link', link_rel_in_response_header: 'next', limit: 100, limit_name_in_request: 'per_page' },
            retries: 5
        });

        for await (const page of pages) {
            // GitHub lists pull requests as issues too.
            const issues = page.filter((item) => !item.pull_request);
            await nango.batchSave(issues.map(toIssue), 'Issue');

            // Oldest change first: everything up to the last one of the page is saved.
            const last = page.at(-1);
            if (last) {
                await nango.saveCheckpoint({ updated_at: last.updated_at });
            }
        }
    }
});

function toIssue(issue: GitHubIssue): z.infer<typeof Issue> {
    return {
        id: String(issue.id),
        number: issue.number,
        title: issue.title,
        body: issue.body,
        state: issue.state,
        author: issue.user?.login ?? null,
        labels: issue.labels.map((label) => label.name),
        created_at: issue.created_at,
        updated_at: issue.updated_at
    };
}
