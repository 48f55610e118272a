// Chance where plugin.toml does not ask for it: none.  The engine's own would be the same in each call.

const none = (name) => () => {
  throw new TypeError(`${name}: plugin.toml does not declare [random]`);
};
Math.random = none("Math.random");
for (const name of ["getRandomValues", "randomUUID"]) {
  Object.defineProperty(crypto, name, { value: none(`crypto.${name}`) });
}
for (const name of ["generateKey", "encrypt", "sign"]) {
  if (crypto.subtle?.[name]) {
    Object.defineProperty(crypto.subtle, name, { value: none(`crypto.subtle.${name}`) });
  }
}
