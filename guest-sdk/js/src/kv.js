import * as store from "capwasm:kv/store@0.1.0";
import { ours, toBytes, toText } from "./bytes.js";
import { said } from "./errors.js";

export async function get(key) {
  const value = said(`kv.get ${key}`, () => store.get(key));
  return value === undefined ? undefined : ours(value);
}

export async function getText(key) {
  const value = await get(key);
  return value === undefined ? undefined : toText(value);
}

export async function getJSON(key) {
  const value = await getText(key);
  return value === undefined ? undefined : JSON.parse(value);
}

export async function set(key, value, { ttl } = {}) {
  const milliseconds = ttl === undefined ? undefined : BigInt(Math.max(1, Math.round(ttl)));
  said(`kv.set ${key}`, () => store.set(key, toBytes(value), milliseconds));
}

export async function setJSON(key, value, options) {
  await set(key, JSON.stringify(value), options);
}

export async function compareAndSet(key, expected, value) {
  const before = expected === undefined ? undefined : toBytes(expected);
  return said(`kv.compareAndSet ${key}`, () => store.compareAndSet(key, before, toBytes(value)));
}

export async function increment(key, delta = 1) {
  const sum = said(`kv.increment ${key}`, () => store.increment(key, BigInt(delta)));
  return typeof delta === "bigint" ? sum : Number(sum);
}

// Not `delete`: that is no name for a function of a module; the namespace has it under both.
export async function remove(key) {
  return said(`kv.delete ${key}`, () => store.delete(key));
}
export { remove as delete };

export async function* keys(prefix = "") {
  let after;
  for (;;) {
    const page = said(`kv.keys ${prefix}`, () => store.keys(prefix, after));
    yield* page;
    if (page.length < 1000) return;
    after = page[page.length - 1];
  }
}
