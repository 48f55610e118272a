// The engine's time, where it has none of the host's, is that of the build: another takes its place.

/** Have `Date` and `performance` ask `now` and `monotonic`, both in milliseconds; no timers. */
export function install(now, monotonic) {
  const given = Date;
  given.now = now;
  globalThis.Date = new Proxy(given, {
    construct: (target, given, as) => Reflect.construct(target, given.length ? given : [now()], as),
    apply: () => new given(now()).toString(),
  });
  given.prototype.constructor = globalThis.Date;
  performance.now = monotonic;
  for (const name of ["setTimeout", "setInterval"]) {
    globalThis[name] = () => {
      throw new TypeError(`${name}: timers need [clock] in plugin.toml, not optional`);
    };
  }
}
