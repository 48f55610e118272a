import * as random from "capwasm:random/random@0.1.0";
import { ours } from "./bytes.js";
import { said } from "./errors.js";

export const bytes = (length) => ours(said(`random.bytes ${length}`, () => random.bytes(length)));

export function integer(below) {
  if (!Number.isSafeInteger(below) || below < 1) {
    throw new RangeError("below must be a whole number from 1 to 2**53 - 1");
  }
  const size = BigInt(below);
  // What is left over at the top would make the small numbers more likely: draw again.
  const limit = 2n ** 64n - (2n ** 64n % size);
  for (;;) {
    const value = random.nextU64();
    if (value < limit) return Number(value % size);
  }
}

export function uuid() {
  const b = bytes(16);
  b[6] = (b[6] & 0x0f) | 0x40;
  b[8] = (b[8] & 0x3f) | 0x80;
  const hex = Array.from(b, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
