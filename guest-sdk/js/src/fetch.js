import * as client from "capwasm:fetch/client@0.1.0";
import * as store from "capwasm:secrets/store@0.1.0";
import { PIECE, ours, toBytes, toText } from "./bytes.js";
import { CapabilityError, said } from "./errors.js";

const MAX_BODY = 16 * 1024 * 1024;
const REDIRECTS = { follow: "follow", manual: "manual", error: "refuse" };

/** Headers by name, in any case.  One that stands more than once is joined with `, `. */
export class Headers {
  #pairs = [];

  constructor(init = []) {
    const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
    for (const [name, value] of pairs) this.append(name, value);
  }

  append(name, value) {
    this.#pairs.push([String(name).toLowerCase(), String(value)]);
  }

  set(name, value) {
    this.delete(name);
    this.append(name, value);
  }

  delete(name) {
    const wanted = String(name).toLowerCase();
    this.#pairs = this.#pairs.filter(([known]) => known !== wanted);
  }

  get(name) {
    const values = this.#values(name);
    return values.length ? values.join(", ") : null;
  }

  has(name) {
    return this.#values(name).length > 0;
  }

  getSetCookie() {
    return this.#values("set-cookie");
  }

  *entries() {
    const names = [...new Set(this.#pairs.map(([name]) => name))].sort();
    for (const name of names) yield [name, this.get(name)];
  }

  *keys() {
    for (const [name] of this.entries()) yield name;
  }

  *values() {
    for (const [, value] of this.entries()) yield value;
  }

  forEach(call, self) {
    for (const [name, value] of this.entries()) call.call(self, value, name, this);
  }

  [Symbol.iterator]() {
    return this.entries();
  }

  #values(name) {
    const wanted = String(name).toLowerCase();
    return this.#pairs.filter(([known]) => known === wanted).map(([, value]) => value);
  }
}

/** An answer whose body is read when it is asked for. */
export class Response {
  #resource;
  #body;
  #used = false;

  constructor(resource, asked) {
    this.#resource = resource;
    this.status = resource.status();
    this.url = resource.url();
    this.headers = new Headers(resource.headers().map(({ name, value }) => [name, value]));
    this.redirected = this.url !== asked;
    this.statusText = "";
    this.type = "basic";
  }

  get ok() {
    return this.status >= 200 && this.status < 300;
  }

  get bodyUsed() {
    return this.#used;
  }

  /** The body as a stream; what was read before is not in it. */
  get body() {
    this.#body ??= iterable(
      new ReadableStream({
        pull: async (controller) => {
          const piece = await this.read(64 * 1024);
          if (piece.length) controller.enqueue(piece);
          else controller.close();
        },
        cancel: () => this.close(),
      }),
    );
    return this.#body;
  }

  async read(length = PIECE) {
    this.#used = true;
    const resource = this.#open();
    return ours(said("fetch: read", () => resource.read(Math.min(length, PIECE))));
  }

  async bytes({ limit = MAX_BODY } = {}) {
    if (this.#used) throw new TypeError("the body was read already");
    this.#used = true;
    const resource = this.#open();
    const all = ours(said("fetch: read", () => resource.readAll(limit)));
    this.close();
    return all;
  }

  async arrayBuffer(options) {
    return (await this.bytes(options)).slice().buffer;
  }

  async text(options) {
    return toText(await this.bytes(options));
  }

  async json(options) {
    return JSON.parse(await this.text(options));
  }

  close() {
    this.#resource?.[Symbol.dispose]();
    this.#resource = undefined;
  }

  [Symbol.dispose]() {
    this.close();
  }

  #open() {
    if (!this.#resource) throw new TypeError("the response is closed");
    return this.#resource;
  }
}

/** Sends a request; resolves when the headers of the answer are here. */
export async function fetch(input, init = {}) {
  // A standard `Request` is taken, too.
  const request = typeof input === "object" && input !== null && "method" in input ? input : null;
  const url = String(request ? request.url : input);
  const method = (init.method ?? request?.method ?? "GET").toUpperCase();
  const headers = new Headers(init.headers ?? request?.headers ?? []);
  // The engine's `Request` says how long its body is; that is the host's to say.
  if (request) headers.delete("content-length");
  // The engine's own `throwIfAborted` ends the call.
  if (init.signal?.aborted) throw init.signal.reason;
  const redirects = REDIRECTS[init.redirect ?? "follow"];
  if (!redirects) throw new TypeError(`redirect is follow, manual or error, not ${init.redirect}`);
  const body = await bodyOf(init.body ?? (request?.body ? request : undefined), headers);
  const message = {
    method,
    url,
    headers: [...headers].map(([name, value]) => ({ name, value })),
    body,
    timeoutMs: init.timeout === undefined ? undefined : Math.max(1, Math.round(init.timeout)),
    redirects,
  };
  const names = init.secret === undefined ? [] : [init.secret].flat();
  const action = `fetch ${method} ${url}`;
  const taken = [];
  try {
    const credentials = names.map((secret) => {
      if (typeof secret !== "string") return secret.resource;
      const handle = said(`secret ${secret}`, () => store.get(secret));
      taken.push(handle);
      return handle;
    });
    return new Response(said(action, () => client.send(message, credentials)), url);
  } finally {
    for (const handle of taken) handle[Symbol.dispose]();
  }
}

async function bodyOf(body, headers) {
  if (body === undefined || body === null) return undefined;
  const kind = (type) => headers.has("content-type") || headers.set("content-type", type);
  if (typeof body === "string") {
    kind("text/plain;charset=UTF-8");
    return toBytes(body);
  }
  if (body instanceof URLSearchParams) {
    kind("application/x-www-form-urlencoded;charset=UTF-8");
    return toBytes(String(body));
  }
  if (typeof body.arrayBuffer === "function") {
    if (body.type) kind(body.type);
    return new Uint8Array(await body.arrayBuffer());
  }
  if (typeof body.getReader === "function") {
    throw new CapabilityError("invalid", "fetch: a request's body is sent whole, not as a stream");
  }
  return toBytes(body);
}

// The engine's streams can't be iterated yet.
function iterable(stream) {
  stream[Symbol.asyncIterator] ??= async function* () {
    const reader = stream.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        yield value;
      }
    } finally {
      await reader.cancel();
    }
  };
  return stream;
}
