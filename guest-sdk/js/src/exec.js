import * as commands from "capwasm:exec/commands@0.1.0";
import { ours, toBytes, toText } from "./bytes.js";
import { CapabilityError, said } from "./errors.js";

export class Output {
  constructor(command, out) {
    this.command = command;
    this.code = out.code ?? null;
    this.stdout = ours(out.stdout);
    this.stderr = ours(out.stderr);
    this.truncated = out.stdoutTruncated || out.stderrTruncated;
  }

  get ok() {
    return this.code === 0 && !this.truncated;
  }

  text() {
    return toText(this.stdout);
  }

  check() {
    if (this.ok) return this;
    let what = this.code === null ? "was ended by a signal" : `ended with ${this.code}`;
    if (this.truncated) what = "wrote more than it may";
    throw new CapabilityError("unavailable", `exec.run ${this.command}: it ${what}`);
  }
}

export async function run(command, args = [], { input = "" } = {}) {
  const out = said(`exec.run ${command}`, () => commands.run(command, [...args], toBytes(input)));
  return new Output(command, out);
}
