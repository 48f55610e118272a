// Time where [clock] is optional: asked of the host when a plugin asks, which may refuse.

import { monotonic, nanoseconds } from "../src/clock.js";
import { install } from "./time.js";

install(() => Number(nanoseconds() / 1_000_000n), monotonic);
