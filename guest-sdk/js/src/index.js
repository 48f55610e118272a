// What a plugin can do, each capability under its name; plugin.toml must ask for what is used.

export * as clock from "./clock.js";
export * as config from "./config.js";
export * as exec from "./exec.js";
export * as fs from "./fs.js";
export * as kv from "./kv.js";
export * as log from "./log.js";
export * as random from "./random.js";
export * as secrets from "./secrets.js";
export { CapabilityError, Failure } from "./errors.js";
export { Headers, Response, fetch } from "./fetch.js";
