/** An event as the wire contract has it. */
export interface Event {
    event: string;
    data: Record<string, any>;
}

export interface Options {
    /** `SATWATCH_TOKEN` in the environment without it. */
    token?: string;
    /** Hears what happens to the connection; `console.error` without it. */
    note?: (text: string) => void;
}

/**
 * Every event about addresses and wallets (descriptors, or their ids), each once and in order, over
 * breaks of the connection and restarts of the daemon.
 *
 * With one exception: a `subscribed` with a `code` (`cursor_unknown`, `cursor_expired`) says that
 * events before it cannot be told any more: compare its balances, or `GET /transactions`, with your
 * books. In order are the events of all addresses, and those of each wallet; where several have to
 * catch up, one does so after the other.
 *
 * With `cursorFile` over the end of this program, too: the place is kept there once the next event
 * is asked for, so that the work with the last one comes again at most. Who has a database keeps
 * the cursor there instead, in the transaction that does the work.
 *
 * What has come and was not asked for yet waits in memory, without a bound: a program that works
 * slowly on much reads a consumer by webhook or `GET /events` instead.
 *
 * @throws {Refused} when the daemon refuses any of it for good
 */
export function follow(
    url: string,
    watched: string[],
    options?: Options & {
        cursorFile?: string;
        /** Depths to be told about. */
        confirmations?: number[];
    },
): AsyncGenerator<Event, never, void>;

/** What a consumer wants: the body of `PUT /consumers/{name}`. */
export interface Definition {
    addresses?: string[];
    descriptors?: string[] | "all";
    blocks?: boolean;
    /** Depths to be told about, for listed addresses. */
    confirmations?: number[];
    /** The cursor to begin after; on a consumer that is there, the way back. */
    after?: string;
}

/**
 * What a named consumer is to work on, in order. The daemon keeps its place: an event is
 * acknowledged once the next one is asked for, and what was not comes again, so that doing it twice
 * must do no harm. A `subscribed_consumer` among them says that events are lost, and why.
 *
 * What has come and was not asked for yet waits in memory, without a bound.
 *
 * @throws {Refused} also when another program takes the consumer over
 */
export function consume(
    url: string,
    name: string,
    definition: Definition,
    options?: Options,
): AsyncGenerator<Event, never, void>;

/**
 * Reads webhooks: the message of a request that satwatch has signed with the secret.
 *
 * Its `id` is always the same for the same event. Throws when the request is another's.
 */
export function webhook(
    secret: string,
): (
    body: string,
    headers: Record<string, string | string[] | undefined>,
) => Event & { id: string };

/** The daemon refuses; what passes by itself is tried again instead. */
export class Refused extends Error {
    constructor(refusal: { error: string; code: string });
    /** As the wire contract has it. */
    code: string;
}
