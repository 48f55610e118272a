import * as log from "capwasm:log/log@0.1.0";

const text = (value) => (typeof value === "string" ? value : String(value));

export function write(level, message, fields = {}) {
  log.write(
    level,
    text(message),
    Object.entries(fields).map(([key, value]) => ({ key, value: text(value) })),
  );
}

export const debug = (message, fields) => write("debug", message, fields);
export const info = (message, fields) => write("info", message, fields);
export const warn = (message, fields) => write("warn", message, fields);
export const error = (message, fields) => write("error", message, fields);
