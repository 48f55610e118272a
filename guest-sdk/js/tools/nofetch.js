// The global `fetch` where plugin.toml asks for no origin: the engine's own would end the call.

globalThis.fetch = async () => {
  throw new TypeError("fetch: plugin.toml does not declare [[net]]");
};
