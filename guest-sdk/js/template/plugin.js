// What __NAME__ does: each function is one of the interface `api` in wit/world.wit.

import { Failure, kv, log } from "@capwasm/guest";

export const api = {
  async greet(name) {
    if (!name) throw new Failure("a name, please");
    const count = await kv.increment(`seen/${name}`);
    log.info("greeted", { name });
    return { text: `Hello, ${name}!`, before: count - 1 };
  },
};
