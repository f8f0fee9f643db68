// What a function may import from 'nango', for editors. Nothing checks types when a function runs.
//
// The names are those of Nango's functions, so that files written for it run here; the sentences say what each means in Syncline.
// Await every call: an error of one that is not awaited is lost.

import type { z } from 'zod';

// ---- What a file exports ------------------------------------------------------------------------------------------------------

/** A model describes one record. Its field `id` identifies the record and is at most 255 characters long. */
export type Model = z.ZodType<{ id: string | number }>;

/** A schema that a file may leave out. */
type Schema = z.ZodType | undefined;
type Infer<Given extends Schema, Absent> = Given extends z.ZodType ? z.infer<Given> : Absent;
type InferModels<Models extends Record<string, Model>> = { [Name in keyof Models]: z.infer<Models[Name]> };

/** Where an older file announced its own route. Shown, without effect: records are read at `/records`, actions at `/action/trigger`. */
export interface Endpoint {
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
    path: string;
    group?: string | undefined;
}

interface About {
    /** One sentence about what the function does. */
    description?: string | undefined;
    /** Shown, without effect: a run stores the hash of its code. */
    version?: string | undefined;
    /** What the provider's account must allow. Shown, without effect. */
    scopes?: string[] | undefined;
}

type SyncOf<Models extends Record<string, Model>, Metadata extends Schema, Checkpoint extends Schema> = NangoSync<
    InferModels<Models>,
    Infer<Metadata, any>,
    Infer<Checkpoint, never>
>;

export interface SyncDefinition<
    Models extends Record<string, Model>,
    Metadata extends Schema,
    Checkpoint extends Schema
> extends About {
    /** How often `exec` runs: `every 30s`, `every 5m`, `every half hour`, `every day`, or a cron expression. */
    frequency?: string | undefined;
    /** `false`: the sync is created paused. */
    autoStart?: boolean | undefined;
    /** The kinds of records, by name. Each name begins with a capital, and each model belongs to one sync of its source. */
    models: Models;
    /** What `getMetadata` returns. */
    metadata?: Metadata | undefined;
    /** What `saveCheckpoint` takes: a flat object of at most 16 fields: text, numbers, true or false, `null`. */
    checkpoint?: Checkpoint | undefined;
    /**
     * `true`: records that a successful run did not save are deleted at its end, but only if it began without a checkpoint.
     * `trackDeletesStart` and `trackDeletesEnd` say the same more exactly.
     */
    trackDeletes?: boolean | undefined;
    /** Event types that `onWebhook` gets; `*` is all of them. */
    webhookSubscriptions?: string[] | undefined;
    /** Shown, without effect: a sync with a checkpoint is incremental. */
    syncType?: 'full' | 'incremental' | undefined;
    endpoints?: Endpoint[] | undefined;
    /** Fetches and saves. A throw fails the run; what was saved before stays. */
    exec: (nango: SyncOf<Models, Metadata, Checkpoint>) => Promise<void>;
    /** Handles one event of a provider's webhook. All that it saves is committed at once, or with its next attempt. */
    onWebhook?: ((nango: SyncOf<Models, Metadata, Checkpoint>, payload: any) => Promise<void>) | undefined;
}

export interface ActionDefinition<
    Input extends z.ZodType,
    Output extends z.ZodType,
    Metadata extends Schema
> extends About {
    /** What a caller has to send; checked before `exec`. */
    input: Input;
    /** What `exec` returns; checked after it. At most 2 MiB. */
    output: Output;
    /** What `getMetadata` returns. */
    metadata?: Metadata | undefined;
    endpoint?: Endpoint | undefined;
    /** Does one thing at the provider and answers. Not repeated after a failure unless the caller asks for that. */
    exec: (nango: NangoAction<Infer<Metadata, any>>, input: z.infer<Input>) => Promise<z.infer<Output>> | z.infer<Output>;
}

export interface OnEventDefinition<Metadata extends Schema> extends About {
    /** When it runs. A throw in `validate-connection` refuses the connection. */
    event: 'post-connection-creation' | 'pre-connection-deletion' | 'validate-connection';
    /** What `getMetadata` returns. */
    metadata?: Metadata | undefined;
    exec: (nango: NangoAction<Infer<Metadata, any>>) => Promise<void>;
}

/** Defines a sync: it copies records of a provider. A file in `syncs/` exports the result as its default. */
export function createSync<
    Models extends Record<string, Model>,
    Metadata extends Schema = undefined,
    Checkpoint extends Schema = undefined
>(definition: SyncDefinition<Models, Metadata, Checkpoint>): SyncDefinition<Models, Metadata, Checkpoint> & { type: 'sync' };

/** Defines an action: something to do at the provider when a caller asks. A file in `actions/` exports the result as its default. */
export function createAction<Input extends z.ZodType, Output extends z.ZodType, Metadata extends Schema = undefined>(
    definition: ActionDefinition<Input, Output, Metadata>
): ActionDefinition<Input, Output, Metadata> & { type: 'action' };

/** Defines what happens when a connection comes or goes. A file in `on-events/` exports the result as its default. */
export function createOnEvent<Metadata extends Schema = undefined>(
    definition: OnEventDefinition<Metadata>
): OnEventDefinition<Metadata> & { type: 'onEvent' };

/** An error that the caller of an action gets as it is: what it is made with is the answer's `payload`. */
export class ActionError<Payload extends object | string = Record<string, unknown>> extends Error {
    constructor(payload?: Payload);
    readonly type: string;
    readonly payload: Payload;
}

// ---- Requests -----------------------------------------------------------------------------------------------------------------

/** `URLSearchParams`. */
interface Form {
    getAll(name: string): string[];
    toString(): string;
}

/** One request to the provider. The source's base URL, sign-in and headers are added to it, and its limits hold. */
export interface ProxyConfiguration {
    /** The path behind the source's base URL, such as `/v1/contacts`. */
    endpoint: string;
    /** Only read by `proxy`, which sends GET without it. */
    method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'get' | 'post' | 'put' | 'patch' | 'delete' | undefined;
    /** The query, as an object or as text. A list repeats its name; `undefined` and `null` are left out. */
    params?: string | Form | Record<string, string | number | boolean | string[] | number[] | null | undefined> | undefined;
    headers?: Record<string, string> | undefined;
    /** The body: bytes and text are sent as they are, `URLSearchParams` as a form, other objects as JSON. */
    data?: unknown;
    /** Further tries: at least so many for GET, beside the rule of the source; exactly so many for writes. 0 if absent. */
    retries?: number | undefined;
    /** Further statuses that are worth another try, beside 429 and those from 500 on. */
    retryOn?: number[] | null | undefined;
    /** Another base URL for this request. Its host has to be in `functions.hosts` of the source. */
    baseUrlOverride?: string | null | undefined;
    /** `arraybuffer` gives bytes; otherwise `data` is JSON where it parses, and text where it does not. */
    responseType?: 'json' | 'text' | 'arraybuffer' | undefined;
    /** Bodies are decompressed in any case. */
    decompress?: boolean | undefined;
    /** How `paginate` goes on; what is absent comes from `functions.paginate` of the source. */
    paginate?: PaginateOptions | undefined;
    /** The connection is always that of the run; another is refused. */
    connectionId?: string | undefined;
    providerConfigKey?: string | undefined;
}

/** How a list goes on behind its first page. */
export type PaginateOptions = CursorPagination | LinkPagination | OffsetPagination;

interface Pagination {
    /** Where the records are in the answer, such as `data.items`; absent: the answer is the list. */
    response_path?: string | undefined;
    /** How many records to ask for in one page. */
    limit?: number | undefined;
    /** The parameter that carries `limit`. */
    limit_name_in_request?: string | undefined;
    /** `true`: cursor, offset and limit go into the body instead of the query. */
    in_body?: boolean | undefined;
    /**
     * Called when the loop is done with a page; `nextPageParam` is what the next request will carry, by offset what the last one
     * carried. Not called behind an empty page, nor by offset behind one shorter than `limit`.
     */
    on_page?: ((page: { nextPageParam?: string | number | undefined; response: ProxyResponse }) => Promise<void>) | undefined;
}

/** The answer names the next page by a cursor. Ends with an empty page, or without a cursor. */
export interface CursorPagination extends Pagination {
    type?: 'cursor' | undefined;
    /** Where the cursor is in the answer. */
    cursor_path_in_response?: string | undefined;
    /** The parameter that carries the cursor. */
    cursor_name_in_request?: string | undefined;
}

/** The answer holds the address of the next page. Ends without one, or with the same one twice. */
export interface LinkPagination extends Pagination {
    type?: 'link' | undefined;
    /** The relation in the header `Link`, mostly `next`. */
    link_rel_in_response_header?: string | undefined;
    /** Or where the address is in the answer's body. */
    link_path_in_response_body?: string | undefined;
}

/** The request says where to begin. Ends with a page that is empty or shorter than `limit`. */
export interface OffsetPagination extends Pagination {
    type?: 'offset' | undefined;
    /** The parameter that carries the offset or the page number. */
    offset_name_in_request?: string | undefined;
    /** The first offset; 0 if absent. */
    offset_start_value?: number | undefined;
    /** `by-response-size` (the default) adds the records of the page, `per-page` adds 1: for page numbers. */
    offset_calculation_method?: 'by-response-size' | 'per-page' | undefined;
}

/** An answer with a status of 2xx. */
export interface ProxyResponse<Data = any> {
    data: Data;
    status: number;
    statusText: string;
    /** Names are in lower case. */
    headers: Record<string, any>;
}

/** The answer to `uncontrolledFetch`; statuses other than 2xx do not throw. */
export interface FetchResponse {
    readonly status: number;
    readonly statusText: string;
    readonly ok: boolean;
    readonly headers: { get(name: string): string | null };
    json(): Promise<any>;
    text(): Promise<string>;
}

// ---- Connections --------------------------------------------------------------------------------------------------------------

/** An account at the provider. */
export interface Connection<Metadata = any> {
    id: number;
    connection_id: string;
    provider_config_key: string;
    provider: string;
    /** What differs from account to account, such as a subdomain. */
    connection_config: Record<string, any>;
    metadata: Metadata;
    /** Secrets are handles unless the source says `credentials: visible`. */
    credentials: Credentials;
    created_at: string;
    updated_at: string;
    [field: string]: any;
}

/** Which fields there are depends on `type`: `OAUTH2`, `API_KEY`, `BASIC` and others. A handle works in requests, and nowhere else. */
export interface Credentials {
    type?: string;
    access_token?: string;
    apiKey?: string;
    username?: string;
    password?: string;
    token?: any;
    raw?: any;
    [field: string]: any;
}

/** The source, as its definition describes it. */
export interface Integration {
    unique_key: string;
    provider: string;
    display_name?: string;
    [field: string]: any;
}

/** A sync, or a variant of one. */
export type SyncName = string | { name: string; variant?: string | undefined };

// ---- The object that functions work with --------------------------------------------------------------------------------------

/** What actions and event functions work with. */
export interface NangoAction<Metadata = any> {
    readonly connectionId: string;
    /** The name of the source. */
    readonly providerConfigKey: string;
    /** The kind of provider, where the source names one. */
    readonly provider?: string | undefined;
    readonly environmentName: string;

    /** Sends a GET request. A status other than 2xx throws an error with `response` (`status`, `headers`, `data`) and `code`. */
    get<Data = any>(config: ProxyConfiguration): Promise<ProxyResponse<Data>>;
    /** Sends a POST request. */
    post<Data = any>(config: ProxyConfiguration): Promise<ProxyResponse<Data>>;
    /** Sends a PUT request. */
    put<Data = any>(config: ProxyConfiguration): Promise<ProxyResponse<Data>>;
    /** Sends a PATCH request. */
    patch<Data = any>(config: ProxyConfiguration): Promise<ProxyResponse<Data>>;
    /** Sends a DELETE request. */
    delete<Data = any>(config: ProxyConfiguration): Promise<ProxyResponse<Data>>;
    /** Sends a request with the method in `config`. */
    proxy<Data = any>(config: ProxyConfiguration): Promise<ProxyResponse<Data>>;
    /** Reads a list page by page: `for await (const page of nango.paginate(config))`. Each page is an array of records. */
    paginate<Item = any>(config: ProxyConfiguration): AsyncGenerator<Item[], undefined, void>;
    /** Sends a request to any public address, without the connection's sign-in. Prefer `get` and its siblings: they know the limits. */
    uncontrolledFetch(options: {
        url: string | { readonly href: string };
        method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | undefined;
        headers?: Record<string, string> | undefined;
        body?: string | null | undefined;
    }): Promise<FetchResponse>;

    /** The connection, or another one of the same environment. */
    getConnection(
        providerConfigKey?: string,
        connectionId?: string,
        options?: { refreshToken?: boolean | undefined; forceRefresh?: boolean | undefined }
    ): Promise<Connection<Metadata>>;
    /** The connection's access token, or its credentials where there is none; a handle unless the source says `credentials: visible`. */
    getToken(): Promise<string | Credentials>;
    /** What the owner of the product stored with the connection. A write is seen by the next read. */
    getMetadata<T = Metadata>(): Promise<T>;
    /** Replaces the metadata. */
    setMetadata(metadata: Metadata): Promise<void>;
    /** Replaces the fields that are given, and leaves the others. */
    updateMetadata(metadata: Partial<Metadata>): Promise<void>;
    /** @deprecated Another name of `getMetadata`. */
    getFieldMapping(): Promise<Metadata>;
    /** @deprecated Another name of `setMetadata`. */
    setFieldMapping(metadata: Metadata): Promise<void>;
    /** @deprecated Another name of `updateMetadata`. */
    updateFieldMapping(metadata: Partial<Metadata>): Promise<void>;

    /** The source that the function belongs to. */
    getIntegration(options?: { include?: ('credentials' | 'webhook')[] | undefined }): Promise<Integration>;
    /** The URL to which the provider sends webhooks, or `null` where the source takes none. */
    getWebhookURL(): Promise<string | null>;
    /** What `functions.env` of the source sets; `null` if nothing. */
    getEnvironmentVariables(): Promise<{ name: string; value: string }[] | null>;

    /** Writes a line to the log of the run; secrets are masked. */
    log(message: any, options?: { level?: 'debug' | 'info' | 'warn' | 'error' | undefined }): Promise<void>;
    /** Writes its arguments as one line; the last may be `{ level }`. */
    log(...parts: any[]): Promise<void>;

    /** Checks `input`. If it does not fit, logs each issue and throws an `ActionError`. */
    zodValidateInput<Input extends z.ZodType>(check: { zodSchema: Input; input: unknown }): Promise<z.ZodSafeParseSuccess<z.infer<Input>>>;
    /** The error to throw when the caller should see why an action failed: `throw new nango.ActionError({ message: '…' })`. */
    readonly ActionError: typeof ActionError;

    /** Runs another action and returns its output; actions nest at most 4 deep. */
    triggerAction<Output = any>(providerConfigKey: string, connectionId: string, name: string, input?: unknown): Promise<Output>;
    /** Starts a run of a sync now; `true` lists everything again. */
    triggerSync(providerConfigKey: string, connectionId: string, sync: SyncName, fullResync?: boolean): Promise<void>;
    /** Puts paused syncs on their schedules again. */
    startSync(providerConfigKey: string, syncs: SyncName[], connectionId?: string): Promise<void>;

    /** Takes a lock of this environment, or returns `false` if another function holds it. It is freed at the end of this one. */
    tryAcquireLock(lock: { key: string; ttlMs?: number | undefined }): Promise<boolean>;
    /** Frees a lock; `false` if this function does not hold it. */
    releaseLock(lock: { key: string }): Promise<boolean>;
    /** Frees all locks that this function holds. */
    releaseAllLocks(): Promise<void>;
}

type Records = Record<string, { id: string | number }>;

/** A patch: objects are merged, lists and everything else replaced. */
type Patch<Value> = Value extends readonly unknown[]
    ? Value
    : Value extends object
      ? { [Field in keyof Value]?: Patch<Value[Field]> | undefined }
      : Value;

/** What syncs work with: the members of actions, and records. */
export interface NangoSync<Models extends Records = any, Metadata = any, Checkpoint = any> extends NangoAction<Metadata> {
    /** When the last successful run began. A checkpoint is safer: it says how far the records are saved. */
    readonly lastSyncDate?: Date | undefined;
    /** `base`, or the name of another configuration of this sync. */
    readonly variant: string;

    /**
     * Saves records. Each is the whole record: fields that are absent are gone. A record that is as before is no change. A record
     * without an id throws, and then nothing of the call is saved.
     */
    batchSave<Name extends keyof Models & string>(records: Models[Name][], model: Name): Promise<boolean>;
    /** @deprecated Another name of `batchSave`. */
    batchSend<Name extends keyof Models & string>(records: Models[Name][], model: Name): Promise<boolean>;
    /** Changes some fields of records. Ids that are not known are left out and counted. */
    batchUpdate<Name extends keyof Models & string>(
        records: (Patch<Models[Name]> & Pick<Models[Name], 'id'>)[],
        model: Name
    ): Promise<boolean>;
    /** Deletes records by id. Ids that are not known change nothing; `deletedAt` is taken as the time. */
    batchDelete<Name extends keyof Models & string>(
        records: (Partial<Models[Name]> & Pick<Models[Name], 'id'> & { deletedAt?: string | undefined })[],
        model: Name
    ): Promise<boolean>;

    /** The last saved checkpoint, or `null`. `onWebhook` has its own. */
    getCheckpoint(): Promise<Checkpoint | null>;
    /** Saves how far the run is, together with the records before it: after a crash, the next run begins here. */
    saveCheckpoint(checkpoint: Checkpoint): Promise<void>;
    /** Removes the checkpoint: the next run begins from the start. */
    clearCheckpoint(): Promise<void>;

    /** Begins a full listing of a model. No effect while one is open, so it may stand at the start of each `exec`. */
    trackDeletesStart(model: keyof Models & string): Promise<void>;
    /**
     * Ends the full listing: records that were not saved since its start are deleted, in one commit. Call it only when everything was
     * read. After a failed request, deletes beyond the guard wait for approval, and `deletedKeys` is empty.
     */
    trackDeletesEnd(model: keyof Models & string): Promise<{ deletedKeys: string[] }>;
    /** @deprecated Use `trackDeletesStart` and `trackDeletesEnd`: the listing begins with the run here, whatever it reads. */
    deleteRecordsFromPreviousExecutions(model: keyof Models & string): Promise<{ deletedKeys: string[] }>;

    /**
     * Which save wins when a webhook changed the record meanwhile. `override` (the default): the later save. `ignore_if_modified_after`:
     * a save is left out if the record was changed after its data was requested. The first call of a run counts.
     */
    setMergingStrategy(merging: { strategy: 'override' | 'ignore_if_modified_after' }, model: keyof Models & string): Promise<void>;

    /** Reads saved records, this run's included; the keys are the ids as given. Ids without a record are not in the map. */
    getRecordsByIds<Name extends keyof Models & string>(ids: (string | number)[], model: Name): Promise<Map<string | number, Models[Name]>>;
    /** Reads all saved records of a model, one by one: `for await (const record of nango.listRecords('Contact'))`. */
    listRecords<Name extends keyof Models & string>(
        model: Name,
        options?: { cursor?: string | undefined }
    ): AsyncGenerator<Models[Name], undefined, void>;
}
