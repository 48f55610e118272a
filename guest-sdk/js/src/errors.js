// What can go wrong: a capability said no, or the plugin itself fails.

/** A capability said no; `word` is the word of its WIT interface, such as `too-large`. */
export class CapabilityError extends Error {
  constructor(word, action = "") {
    super(action ? `${action}: ${word}` : word);
    this.name = "CapabilityError";
    this.word = word;
    this.action = action;
  }
}

/** The `err` of your function: `throw new Failure("no such city")`. */
export class Failure extends Error {
  constructor(value) {
    super(typeof value === "string" ? value : "the function failed");
    this.name = "Failure";
    // What the bindings hand to the caller.
    Object.defineProperty(this, "payload", { value, enumerable: true });
  }
}

/** What `call` gives; its error, which the bindings throw, as a CapabilityError. */
export function said(action, call) {
  try {
    return call();
  } catch (error) {
    if (typeof error?.payload === "string") throw new CapabilityError(error.payload, action);
    throw error;
  }
}
