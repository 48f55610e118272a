// node build.mjs TOOLS HERE OUT: the component, as anybody makes it with componentize-js.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [tools, here, out] = process.argv.slice(2);
const js = join(tools, "node_modules/@bytecodealliance/componentize-js/src/componentize.js");
const { componentize } = await import(pathToFileURL(js));
const source = await readFile(join(here, "courier.js"), "utf8");
const { component } = await componentize(source, {
  witPath: join(here, "wit"),
  worldName: "courier",
});
await writeFile(out, component);
