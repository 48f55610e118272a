// Between a plugin's functions and the bindings: how an error ends, and where in the author's
// sources it came from.

import { CapabilityError } from "../src/errors.js";

const ENDED = "the error is told above";
let files = [];
let rows = [];

/** Where lines of the bundle come from: `[first line, how many, file, its line]`, in order. */
export function lines(map) {
  ({ files, rows } = map);
}

/** An export of the plugin's, with functions that tell their errors. */
export function guard(value) {
  if (typeof value === "function") return guarded(value);
  if (value === null || typeof value !== "object") return value;
  return new Proxy(value, {
    get(target, name) {
      const found = Reflect.get(target, name);
      return typeof found === "function" ? guarded(found, target) : found;
    },
  });
}

function guarded(call, self) {
  // The class of a resource.
  if (/^class\b/.test(Function.prototype.toString.call(call))) return call;
  return (...given) => {
    try {
      const result = call.apply(self, given.map(own));
      if (typeof result?.then !== "function") return result;
      return result.then(undefined, (error) => {
        throw told(error);
      });
    } catch (error) {
      throw told(error);
    }
  };
}

// The bindings' bytes are of another realm, where they are no `Uint8Array` of the plugin's.
function own(value) {
  if (!ArrayBuffer.isView(value)) return value;
  const known = globalThis[Object.prototype.toString.call(value).slice(8, -1)];
  return new known(value.buffer, value.byteOffset, value.length);
}

/** What to throw: the bindings take the `payload` of an error for the function's `err`. */
function told(error) {
  if (error instanceof CapabilityError && !Object.hasOwn(error, "payload")) {
    Object.defineProperty(error, "payload", { value: error.message });
  }
  const broken = error === "out of memory" || (isError(error) && !Object.hasOwn(error, "payload"));
  if (!broken) return error;
  try {
    console.error(trace(error));
  } catch {
    // No memory is left, or no stack: what ends the call is told all the same.
  }
  // Not an `err` of the function but the end of the call, whatever type its errors have.
  return {
    get payload() {
      throw ENDED;
    },
    toSource: () => ENDED, // what the engine shows of it
  };
}

const isError = (value) => Object.prototype.toString.call(value) === "[object Error]";

function trace(error) {
  const told = [];
  for (let at = error, lead = ""; at !== undefined && told.length < 60; at = at?.cause) {
    told.push(`${lead}${isError(at) ? `${at.name}: ${at.message}` : at}`, ...frames(at?.stack));
    lead = "caused by ";
  }
  return told.join("\n");
}

function frames(stack) {
  const found = [];
  for (const frame of String(stack ?? "").split("\n")) {
    const parts = /^(.*)@(.*):(\d+):\d+$/.exec(frame);
    if (!parts || parts[2] !== "bundle.js") continue;
    const place = source(Number(parts[3]));
    if (place) found.push(`    at ${parts[1].replace(/.*[/<*]/, "") || "(top)"} (${place})`);
  }
  return found.length > 20 ? [...found.slice(0, 19), "    …"] : found;
}

function source(line) {
  const row = rows.find(([first, count]) => first <= line && line < first + count);
  return row && `${files[row[2]]}:${row[3] + line - row[0]}`;
}
