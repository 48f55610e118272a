// `console` writes to the plugin's log, each call with its level.

import { write } from "../src/log.js";

const LEVELS = { debug: "debug", error: "error", info: "info", log: "info", trace: "debug", warn: "warn" };
const shown = (value) => {
  if (typeof value === "string") return value;
  if (typeof value === "bigint") return `${value}n`;
  if (Object.prototype.toString.call(value) === "[object Error]") {
    return `${value.name}: ${value.message}`;
  }
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value, (_, inner) => (typeof inner === "bigint" ? `${inner}n` : inner));
  } catch {
    return String(value);
  }
};

for (const [name, level] of Object.entries(LEVELS)) {
  console[name] = (...values) => write(level, values.map(shown).join(" "));
}
console.assert = (holds, ...values) => {
  if (!holds) console.error("assertion failed:", ...values);
};
