import * as clock from "capwasm:clock/clock@0.1.0";

export const now = () => new Date(Number(clock.now() / 1_000_000n));
export const nanoseconds = () => clock.now();
export const monotonic = () => Number(clock.monotonic()) / 1e6;

export async function sleep(milliseconds) {
  clock.sleep(BigInt(Math.max(0, Math.round(milliseconds * 1e6))));
}
