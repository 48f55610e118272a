// Time where plugin.toml does not ask for it: none, rather than that of the build.

import { install } from "./time.js";

const none = () => {
  throw new TypeError("the time: plugin.toml does not declare [clock]");
};
install(none, none);
