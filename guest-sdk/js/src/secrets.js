import * as revealing from "capwasm:secrets/reveal@0.1.0";
import * as store from "capwasm:secrets/store@0.1.0";
import { ours } from "./bytes.js";
import { said } from "./errors.js";

export class Secret {
  #resource;

  constructor(resource) {
    this.#resource = resource;
    this.name = resource.name();
  }

  /** The handle itself, for `fetch`. */
  get resource() {
    if (!this.#resource) throw new TypeError(`the secret ${this.name} was let go`);
    return this.#resource;
  }

  get lease() {
    return Number(this.resource.leaseMs());
  }

  async reveal() {
    return ours(said(`reveal ${this.name}`, () => revealing.reveal(this.resource)));
  }

  close() {
    this.#resource?.[Symbol.dispose]();
    this.#resource = undefined;
  }

  [Symbol.dispose]() {
    this.close();
  }
}

export async function get(name) {
  return new Secret(said(`secret ${name}`, () => store.get(name)));
}
