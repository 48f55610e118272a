import * as files from "capwasm:fs/files@0.1.0";
import { PIECE, joined, ours, toBytes, toText } from "./bytes.js";
import { said } from "./errors.js";

const MODES = { r: "read", w: "write", a: "append", "r+": "update", wx: "create" };

/** An open file. */
export class FileHandle {
  #resource;
  #at = 0n;

  constructor(resource, path) {
    this.#resource = resource;
    this.path = path;
  }

  async read(length = PIECE, position) {
    const at = position === undefined ? this.#at : BigInt(position);
    const piece = this.#said("read", (file) => ours(file.read(at, Math.min(length, PIECE))));
    if (position === undefined) this.#at += BigInt(piece.length);
    return piece;
  }

  async readFile(options) {
    const pieces = [];
    for (;;) {
      const piece = await this.read();
      if (!piece.length) return decoded(joined(pieces), options);
      pieces.push(piece);
    }
  }

  async write(data, position) {
    const bytes = toBytes(data);
    let at = position === undefined ? this.#at : BigInt(position);
    for (let from = 0; from < bytes.length; from += PIECE) {
      const piece = bytes.subarray(from, from + PIECE);
      this.#said("write", (file) => file.write(at, piece));
      at += BigInt(piece.length);
      if (position === undefined) this.#at = at;
    }
    return bytes.length;
  }

  async size() {
    return Number(this.#said("size", (file) => file.size()));
  }

  async truncate(size = 0) {
    this.#said("truncate", (file) => file.setSize(BigInt(size)));
  }

  async sync() {
    this.#said("sync", (file) => file.sync());
  }

  async close() {
    this[Symbol.dispose]();
  }

  [Symbol.dispose]() {
    this.#resource?.[Symbol.dispose]();
    this.#resource = undefined;
  }

  async [Symbol.asyncDispose]() {
    this[Symbol.dispose]();
  }

  #said(what, call) {
    const file = this.#resource;
    if (!file) throw new TypeError(`${this.path} is closed`);
    return said(`fs.${what} ${this.path}`, () => call(file));
  }
}

export function mounts() {
  return files.mounts().map((mount) => ({
    path: mount.path,
    access: mount.access,
    quota: mount.quotaBytes === undefined ? null : Number(mount.quotaBytes),
    used: Number(mount.usedBytes),
  }));
}

export async function open(path, flags = "r") {
  const mode = MODES[flags];
  if (!mode) throw new TypeError(`flags are ${Object.keys(MODES).join(", ")}; not ${flags}`);
  return new FileHandle(
    said(`fs.open ${path}`, () => files.open(path, mode)),
    path,
  );
}

export async function readFile(path, options) {
  const file = await open(path);
  try {
    return await file.readFile(options);
  } finally {
    await file.close();
  }
}

export async function writeFile(path, data, { flag = "w" } = {}) {
  const file = await open(path, flag);
  try {
    await file.write(data);
  } finally {
    await file.close();
  }
}

export const appendFile = (path, data) => writeFile(path, data, { flag: "a" });

const info = (found) => ({
  name: found.name,
  kind: found.kind,
  size: Number(found.size),
  modified: new Date(Number(found.modifiedNs / 1_000_000n)),
  isFile: () => found.kind === "file",
  isDirectory: () => found.kind === "directory",
});

export async function stat(path) {
  return info(said(`fs.stat ${path}`, () => files.stat(path)));
}

export async function exists(path) {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (error.word === "not-found" || error.word === "not-directory") return false;
    throw error;
  }
}

/** The entries of a directory, as `stat` tells them, sorted by name. */
export async function* entries(path) {
  let after;
  for (;;) {
    const page = said(`fs.readdir ${path}`, () => files.list(path, after));
    yield* page.map(info);
    if (page.length < 1000) return;
    after = page[page.length - 1].name;
  }
}

export async function readdir(path, { withFileTypes = false } = {}) {
  const found = [];
  for await (const entry of entries(path)) found.push(withFileTypes ? entry : entry.name);
  return found;
}

export async function mkdir(path) {
  said(`fs.mkdir ${path}`, () => files.makeDirectory(path));
}

export async function rm(path) {
  said(`fs.rm ${path}`, () => files.remove(path));
}
export { rm as rmdir, rm as unlink };

export async function rename(from, to) {
  said(`fs.rename ${from}`, () => files.rename(from, to));
}

function decoded(bytes, options) {
  const encoding = typeof options === "string" ? options : options?.encoding;
  if (encoding === undefined || encoding === null) return bytes;
  if (!/^utf-?8$/i.test(encoding)) throw new TypeError(`the encoding is utf8, not ${encoding}`);
  return toText(bytes);
}
