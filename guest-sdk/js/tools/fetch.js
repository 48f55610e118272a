// The global `fetch` is the SDK's: the engine's own needs wasi:http, which no plugin gets.

import { fetch } from "../src/fetch.js";

globalThis.fetch = fetch;
