/** What a capwasm plugin can do; plugin.toml must ask for what is used. */

/** A capability said no. */
export class CapabilityError extends Error {
  constructor(word: string, action?: string);
  /** The word of the WIT interface, such as `denied`, `not-found` or `too-large`. */
  readonly word: string;
  /** What was tried, such as `kv.set greeting`. */
  readonly action: string;
}

/** The `err` of your function: `throw new Failure("no such city")`. */
export class Failure<T = unknown> extends Error {
  /** @param value Text where WIT says `result<…, string>`; else a value of the type it says. */
  constructor(value?: T);
  readonly payload: T | undefined;
}

/** Text (sent as UTF-8) or bytes. */
export type Data = string | ArrayBuffer | ArrayBufferView;

// -- [[net]] ------------------------------------------------------------------------------------

export type HeadersInit = Record<string, string> | Iterable<readonly [string, string]> | Headers;

/** Headers by name, in any case. */
export class Headers implements Iterable<[string, string]> {
  constructor(init?: HeadersInit);
  append(name: string, value: string): void;
  delete(name: string): void;
  get(name: string): string | null;
  getSetCookie(): string[];
  has(name: string): boolean;
  set(name: string, value: string): void;
  forEach(call: (value: string, name: string, headers: Headers) => void, self?: unknown): void;
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  [Symbol.iterator](): IterableIterator<[string, string]>;
}

export interface RequestInit {
  /** `GET` if none is given. */
  method?: string;
  headers?: HeadersInit;
  /** Sent whole. */
  body?: Data | URLSearchParams | Blob | null;
  redirect?: "follow" | "manual" | "error";
  /** Looked at before the request is sent. */
  signal?: AbortSignal | null;
  /** Milliseconds for the whole exchange; none: what the limits allow. */
  timeout?: number;
  /** Names (or handles) of granted secrets that the host is to put in. */
  secret?: string | secrets.Secret | readonly (string | secrets.Secret)[];
}

export interface BodyOptions {
  /** The most bytes that the body may have; 16 MiB if none is given. */
  limit?: number;
}

/** An answer whose body is read when it is asked for. */
export class Response {
  private constructor();
  readonly status: number;
  /** Whether the status is from 200 to 299. */
  readonly ok: boolean;
  /** Always empty: the status says it. */
  readonly statusText: string;
  readonly headers: Headers;
  /** The URL that answered, after redirects. */
  readonly url: string;
  readonly redirected: boolean;
  readonly type: "basic";
  readonly body: ReadableStream<Uint8Array> & AsyncIterable<Uint8Array>;
  readonly bodyUsed: boolean;
  /** The next bytes of the body, at most `length` (and at most 1 MiB); none at its end. */
  read(length?: number): Promise<Uint8Array>;
  bytes(options?: BodyOptions): Promise<Uint8Array>;
  arrayBuffer(options?: BodyOptions): Promise<ArrayBuffer>;
  text(options?: BodyOptions): Promise<string>;
  json(options?: BodyOptions): Promise<any>;
  /** Close the connection.  Called again, does nothing. */
  close(): void;
  [Symbol.dispose](): void;
}

/**
 * Send a request; resolves when the headers of the answer are here.
 *
 * Rejects with a CapabilityError: `denied` if the origin, the path, the method, a redirect's target
 * or a secret is not granted.  The global `fetch` of a plugin is this function.
 */
export function fetch(input: string | URL | Request, init?: RequestInit): Promise<Response>;

// -- [[secret]] ---------------------------------------------------------------------------------

export namespace secrets {
  /** A secret that can be used, not seen. */
  class Secret {
    private constructor();
    readonly name: string;
    /** Milliseconds until the handle runs out; 0 when it has, or when the secret was revoked. */
    readonly lease: number;
    /** The secret itself: needs `use = "reveal"`, and is recorded. */
    reveal(): Promise<Uint8Array>;
    close(): void;
    [Symbol.dispose](): void;
  }
  function get(name: string): Promise<Secret>;
}

// -- [kv] ---------------------------------------------------------------------------------------

export namespace kv {
  interface SetOptions {
    /** Milliseconds that the value is kept. */
    ttl?: number;
  }
  function get(key: string): Promise<Uint8Array | undefined>;
  function getText(key: string): Promise<string | undefined>;
  function getJSON(key: string): Promise<any>;
  function set(key: string, value: Data, options?: SetOptions): Promise<void>;
  function setJSON(key: string, value: unknown, options?: SetOptions): Promise<void>;
  /** Store `value` if the key's value is `expected` (undefined: no value); whether it did. */
  function compareAndSet(key: string, expected: Data | undefined, value: Data): Promise<boolean>;
  /** Add to the whole number at `key`; the sum, as a bigint if `delta` is one. */
  function increment(key: string, delta?: number): Promise<number>;
  function increment(key: string, delta: bigint): Promise<bigint>;
  /** Remove the key; whether it was there. */
  function remove(key: string): Promise<boolean>;
  export { remove as delete };
  function keys(prefix?: string): AsyncGenerator<string, void, void>;
}

// -- [log] --------------------------------------------------------------------------------------

export namespace log {
  type Level = "debug" | "info" | "warn" | "error";
  type Fields = Record<string, unknown>;
  function write(level: Level, message: unknown, fields?: Fields): void;
  function debug(message: unknown, fields?: Fields): void;
  function info(message: unknown, fields?: Fields): void;
  function warn(message: unknown, fields?: Fields): void;
  function error(message: unknown, fields?: Fields): void;
}

// -- [[fs]] -------------------------------------------------------------------------------------

export namespace fs {
  /** Read, write from the start, append, read and write, or write where nothing is yet. */
  type Flags = "r" | "w" | "a" | "r+" | "wx";
  type Encoding = "utf8" | "utf-8" | { encoding: "utf8" | "utf-8" };

  interface Mount {
    path: string;
    access: "read" | "read-write";
    /** Bytes that may be stored there; null: no bound but the disk. */
    quota: number | null;
    /** Bytes stored there now. */
    used: number;
  }
  interface Info {
    name: string;
    kind: "file" | "directory" | "link" | "other";
    /** In bytes; 0 for all but regular files. */
    size: number;
    modified: Date;
    isFile(): boolean;
    isDirectory(): boolean;
  }
  class FileHandle {
    private constructor();
    readonly path: string;
    /** The next bytes, or those at `position`; none at the end. */
    read(length?: number, position?: number): Promise<Uint8Array>;
    readFile(): Promise<Uint8Array>;
    readFile(encoding: Encoding): Promise<string>;
    /** Write all; gives how many bytes. */
    write(data: Data, position?: number): Promise<number>;
    size(): Promise<number>;
    truncate(size?: number): Promise<void>;
    /** Resolves once the bytes are on the device. */
    sync(): Promise<void>;
    close(): Promise<void>;
    [Symbol.dispose](): void;
    [Symbol.asyncDispose](): Promise<void>;
  }

  /** The granted directories. */
  function mounts(): Mount[];
  function open(path: string, flags?: Flags): Promise<FileHandle>;
  function readFile(path: string): Promise<Uint8Array>;
  function readFile(path: string, encoding: Encoding): Promise<string>;
  function writeFile(path: string, data: Data, options?: { flag?: Flags }): Promise<void>;
  function appendFile(path: string, data: Data): Promise<void>;
  function stat(path: string): Promise<Info>;
  /** Whether something is there, inside a granted mount. */
  function exists(path: string): Promise<boolean>;
  function readdir(path: string): Promise<string[]>;
  function readdir(path: string, options: { withFileTypes: true }): Promise<Info[]>;
  function entries(path: string): AsyncGenerator<Info, void, void>;
  function mkdir(path: string): Promise<void>;
  /** Remove a file, a link or an empty directory. */
  function rm(path: string): Promise<void>;
  export { rm as rmdir, rm as unlink };
  /** Rename within one mount, replacing a file that is there. */
  function rename(from: string, to: string): Promise<void>;
}

// -- [clock], [random], [config] ------------------------------------------------------------------

export namespace clock {
  function now(): Date;
  /** Nanoseconds since 1970. */
  function nanoseconds(): bigint;
  /** Milliseconds since some moment; never goes back. */
  function monotonic(): number;
  /** Wait, at most as long as a host call may take (`limits.host-call-ms`). */
  function sleep(milliseconds: number): Promise<void>;
}

export namespace random {
  /** At most 64 KiB, fit for keys. */
  function bytes(length: number): Uint8Array;
  /** A whole number from 0 to `below` - 1, each as likely as the others. */
  function integer(below: number): number;
  function uuid(): string;
}

export namespace config {
  function get(key: string): string | undefined;
  function get<T>(key: string, fallback: T): string | T;
  function all(): Record<string, string>;
}

// -- [[exec]] -----------------------------------------------------------------------------------

export namespace exec {
  interface Output {
    readonly command: string;
    /** Its exit code; null if a signal ended it: a crash, or one of its limits. */
    readonly code: number | null;
    readonly stdout: Uint8Array;
    readonly stderr: Uint8Array;
    /** Whether it would have written more than was granted. */
    readonly truncated: boolean;
    /** Whether it ended with 0, and all that it wrote is here. */
    readonly ok: boolean;
    /** Its standard output as text. */
    text(): string;
    /** Passes if all went well, else throws a CapabilityError. */
    check(): this;
  }
  /** Run a command that the operator named; `args` fill its open places, in order. */
  function run(command: string, args?: Iterable<string>, options?: { input?: Data }): Promise<Output>;
}
