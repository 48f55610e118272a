// A guest that runs the JavaScript it is sent, with the whole SDK at hand.

import {
  CapabilityError,
  Failure,
  Headers,
  Response,
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
import { breaks, type Deep } from "./helper";

const given = {
  CapabilityError, Failure, Headers, Response, breaks,
  clock, config, exec, fetch, fs, kv, log, random, secrets,
};
const AsyncFunction = (async () => {}).constructor as FunctionConstructor;

async function run(source: string, print: (...values: unknown[]) => void): Promise<unknown> {
  const names = ["print", ...Object.keys(given)];
  return AsyncFunction(...names, source)(print, ...Object.values(given));
}

enum Kind {
  Quiet,
}

export const api = {
  async run(source: string): Promise<string> {
    const out: string[] = [];
    await run(source, (...values) => out.push(values.join(" ")));
    return out.join("\n");
  },
  async bare(source: string): Promise<void> {
    if (source === "deep") breaks({ text: `broken ${Kind[0]}` } satisfies Deep);
    await run(source, () => {});
  },
  give: (source: string) => run(source, () => {}),
  ownBytes: (bytes: unknown) => bytes instanceof Uint8Array,
};
