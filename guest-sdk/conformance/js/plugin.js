// The conformance plugin: everything that a plugin can do, through this SDK.

import {
  CapabilityError,
  Failure,
  clock,
  config,
  exec,
  fetch,
  fs,
  kv,
  log,
  random,
  secrets,
} from "@capwasm/guest";

const NONE = "(none)";
const MIB = 2 ** 20;

// -- types ----------------------------------------------------------------------------------------

const same = (value) => value;

export const types = {
  echoBool: same,
  echoU8: same,
  echoU16: same,
  echoU32: same,
  echoU64: same,
  echoS8: same,
  echoS16: same,
  echoS32: same,
  echoS64: same,
  echoF32: same,
  echoF64: same,
  echoChar: same,
  echoString: same,
  echoBytes: same,
  echoStrings: same,
  echoNumbers: same,
  echoPoint: same,
  echoShape: same,
  echoTuple: same,
  echoAmount: same,
  echoColour: same,
  echoRights: same,
  echoOption: same,
  echoOptionOption: same,

  echoResult(value) {
    if (value.tag === "err") throw new Failure(value.val);
    return value.val;
  },

  checked(value, fail) {
    if (fail !== undefined) throw new Failure(fail);
    return value;
  },

  describe: (name, count, colour) => `${name} ${count} ${colour}`,

  nothing() {},
};

export const probe = {
  async run(operation, given) {
    const does = Object.hasOwn(operations, operation) && operations[operation];
    if (!does) throw new Failure(`no operation ${operation}`);
    try {
      return String((await does(...given)) ?? "");
    } catch (error) {
      if (error instanceof CapabilityError) throw new Failure(error.word);
      throw error;
    }
  },
};

// -- capabilities ---------------------------------------------------------------------------------

const yes = (holds) => (holds ? "yes" : "no");
const text = (bytes) => new TextDecoder().decode(bytes);

/** What `use` gives of an open file, which is closed then. */
async function withFile(path, flags, use) {
  const file = await fs.open(path, flags);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

/** The answer to a request whose parts are told by how they begin. */
function send(method, url, ...parts) {
  const init = { method, headers: {}, secret: [] };
  for (const part of parts) {
    if (part.startsWith("secret:")) init.secret.push(part.slice(7));
    else if (part.startsWith("body:")) init.body = part.slice(5);
    else {
      const at = part.indexOf("=");
      init.headers[part.slice(0, at)] = part.slice(at + 1);
    }
  }
  return fetch(url, init);
}

async function listed(items) {
  const found = [];
  for await (const item of items) found.push(item);
  return found.join("\n");
}

const deep = () => `${deep()}x`;

const operations = {
  "fs.mounts": () =>
    fs
      .mounts()
      .map(({ path, access, quota, used }) => `${path} ${access} ${quota ?? "-"} ${used}`)
      .join("\n"),
  "fs.read": (path) =>
    withFile(path, "r", async (file) => {
      const pieces = new TextDecoder();
      let all = "";
      for (;;) {
        const piece = await file.read(65536);
        if (!piece.length) return all + pieces.decode();
        all += pieces.decode(piece, { stream: true });
      }
    }),
  "fs.write": (path, data) => fs.writeFile(path, data),
  "fs.append": (path, data) => fs.appendFile(path, data),
  "fs.create": (path, data) => fs.writeFile(path, data, { flag: "wx" }),
  async "fs.hold"(path, n) {
    const held = [];
    for (let i = 0; i < Number(n); i++) held.push(await fs.open(path));
    for (const file of held) await file.close();
    return held.length;
  },
  "fs.size": (path) => withFile(path, "r", (file) => file.size()),
  "fs.truncate": (path, size) => withFile(path, "r+", (file) => file.truncate(Number(size))),
  "fs.list": async (path) => (await fs.readdir(path)).join("\n"),
  async "fs.stat"(path) {
    const { kind, size } = await fs.stat(path);
    return `${kind} ${size}`;
  },
  "fs.mkdir": (path) => fs.mkdir(path),
  "fs.remove": (path) => fs.rm(path),
  "fs.rename": (from, to) => fs.rename(from, to),

  async fetch(...request) {
    const answer = await send(...request);
    return `${answer.status} ${await answer.text()}`;
  },
  async "fetch.header"(method, url, name) {
    return (await send(method, url)).headers.get(name) ?? NONE;
  },
  async "fetch.stream"(method, url) {
    const answer = await send(method, url);
    let length = 0;
    for (;;) {
      const piece = await answer.read(1000);
      if (!piece.length) return length;
      length += piece.length;
    }
  },

  "secret.get": async (name) => (await secrets.get(name)).name,
  "secret.lease": async (name) => yes((await secrets.get(name)).lease > 0),
  "secret.reveal": async (name) => text(await (await secrets.get(name)).reveal()),

  "kv.get": async (key) => (await kv.getText(key)) ?? NONE,
  "kv.set": (key, value, ms) => kv.set(key, value, ms === undefined ? {} : { ttl: Number(ms) }),
  "kv.cas": async (key, expected, value) =>
    yes(await kv.compareAndSet(key, expected === NONE ? undefined : expected, value)),
  "kv.increment": (key, delta) => kv.increment(key, BigInt(delta)),
  "kv.delete": async (key) => yes(await kv.delete(key)),
  "kv.keys": (prefix) => listed(kv.keys(prefix)),

  log: (level, message) => log.write(level, message, { from: "guest" }),
  "log.flood"(n) {
    for (let i = 0; i < Number(n); i++) log.info("x".repeat(1000));
  },

  "clock.now": () => clock.nanoseconds(),
  "clock.monotonic"() {
    const before = clock.monotonic();
    return yes(clock.monotonic() >= before);
  },
  "clock.sleep": (nanoseconds) => clock.sleep(Number(nanoseconds) / 1e6),
  "clock.loop"(n) {
    for (let i = 0; i < Number(n); i++) clock.now();
  },

  random: (n) => random.bytes(Number(n)).length,
  "random.differ": () => yes(String(random.bytes(16)) !== String(random.bytes(16))),

  "config.get": (key) => config.get(key, NONE),
  "config.all": () =>
    Object.entries(config.all())
      .map(([key, value]) => `${key}=${value}`)
      .join("\n"),

  async exec(command, input, ...given) {
    const out = await exec.run(command, given, { input });
    return `${out.code ?? "-"}\n${out.text()}`;
  },

  // -- limits -------------------------------------------------------------------------------------

  "std.print": (line) => console.log(line),
  alloc(n) {
    const held = [];
    for (let i = 0; i < Number(n); i++) held.push(new Uint8Array(MIB).fill(1));
    return held.length;
  },
  spin() {
    for (;;);
  },
  recurse: () => deep(),
  panic(message) {
    throw new Error(message);
  },
};
