// node build.mjs TOOLS REQUEST: a component of a project, or why not, as JSON on standard output.

import { readFile, writeFile } from "node:fs/promises";
import { builtinModules, createRequire } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [tools, requestPath] = process.argv.slice(2);
const { project, source, sdk, scratch, wit, world, declared, tables, features } = JSON.parse(
  await readFile(requestPath, "utf8"),
);
const esbuild = createRequire(join(tools, "package.json"))("esbuild");
const componentizer = join(tools, "node_modules/@bytecodealliance/componentize-js");

const WIT = /^[a-z][a-z0-9-]*:[a-z0-9-]+\/[a-z0-9-]+(@[0-9.a-z-]+)?$/;
// What the SDK uses besides a module's own table; without it, what needs it says so when it is called.
const WEAK = {
  "capwasm:secrets/store": ["get", "[[secret]]"],
  "capwasm:secrets/reveal": ["reveal", 'a [[secret]] with use = "reveal"'],
};
const IDENTIFIER = /^[A-Za-z_$][\w$]*$/;

class Failed extends Error {
  constructor(faults) {
    super("failed");
    this.faults = faults;
  }
}

const inProject = (path) => relative(project, path);
const ofSdk = (path) => path.startsWith(`${sdk}/`);

const capwasm = {
  name: "capwasm",
  setup(build) {
    build.onResolve({ filter: /^@capwasm\/guest$/ }, () => ({ path: join(sdk, "src/index.js") }));
    build.onResolve({ filter: WIT }, ({ path, importer }) => {
      const name = path.split("@")[0];
      if (name in declared) return { path: declared[name], external: true };
      if (!name.startsWith("capwasm:")) return { path, external: true };
      if (ofSdk(importer)) return { path: name, namespace: "undeclared", sideEffects: false };
      return { errors: [{ text: `${name} is used, and plugin.toml does not declare it` }] };
    });
    build.onLoad({ filter: /./, namespace: "undeclared" }, ({ path }) => {
      if (!(path in WEAK)) return { contents: "export {}" };
      const [name, table] = WEAK[path];
      const text = JSON.stringify(`plugin.toml does not declare ${table}`);
      return { contents: `export const ${name} = () => { throw new TypeError(${text}); };` };
    });
  },
};

const common = {
  bundle: true,
  write: false,
  metafile: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  charset: "utf8",
  logLevel: "silent",
  legalComments: "none",
  absWorkingDir: project,
  outfile: join(scratch, "bundle.js"),
  define: { "process.env.NODE_ENV": '"production"' },
  plugins: [capwasm],
};

async function bundled(options) {
  try {
    return await esbuild.build({ ...common, ...options });
  } catch (error) {
    if (!error.errors) throw error;
    throw new Failed(error.errors.map(fault));
  }
}

function fault({ text, location }) {
  const wanted = /^Could not resolve "([^"]+)"/.exec(text)?.[1];
  const place = location ? `${location.file}:${location.line}` : "";
  if (!wanted || wanted.startsWith(".")) return { place, text };
  const base = wanted.replace(/^node:/, "");
  return builtinModules.includes(base.split("/")[0])
    ? { place, text: `${wanted} is of Node.js, which a plugin does not run in`, fix: "use @capwasm/guest" }
    : { place, text: `the package ${wanted} is not there`, fix: "npm install, in the project" };
}

/** The functions and objects that the author's module exports. */
async function exportsOf() {
  const { metafile } = await bundled({ entryPoints: [source], sourcemap: false });
  return Object.values(metafile.outputs)[0].exports;
}

/** What stands in place of globals of the engine's that can't do, or should not do, what they seem to. */
function globals() {
  const has = (name) => name in declared;
  const found = [has("capwasm:fetch/client") ? "tools/fetch.js" : "tools/nofetch.js"];
  if (has("capwasm:log/log")) found.push("tools/console.js");
  if (!features.includes("random")) found.push("tools/norandom.js");
  if (features.includes("clocks")) return found;
  return [...found, has("capwasm:clock/clock") ? "tools/hostclock.js" : "tools/noclock.js"];
}

function entry(names) {
  const from = (path) => JSON.stringify(join(sdk, path));
  const given = names.map((name, i) => {
    const value = `guard(plugin${IDENTIFIER.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`})`;
    const as = IDENTIFIER.test(name) ? name : JSON.stringify(name);
    return `const given${i} = ${value}; export { given${i} as ${as} };`;
  });
  return [
    ...globals().map((path) => `import ${from(path)};`),
    `import { guard, lines } from ${from("tools/glue.js")};`,
    `import * as plugin from ${JSON.stringify(source)};`,
    ...given,
    "export { lines as $lines };",
  ].join("\n");
}

/** Fail if the SDK's part for a table is used that plugin.toml does not have. */
async function checkTables(metafile) {
  const output = Object.entries(metafile.outputs).find(([path]) => path.endsWith(".js"))[1];
  const used = Object.entries(output.inputs)
    .filter(([path, { bytesInOutput }]) => bytesInOutput && ofSdk(resolve(project, path)))
    .map(([path]) => resolve(project, path).slice(sdk.length + 1));
  const faults = [];
  for (const [module, { table, needs }] of Object.entries(tables)) {
    if (needs in declared || !used.includes(`src/${module}.js`)) continue;
    faults.push({
      place: await mention(metafile, module),
      text: `${module} is used, and plugin.toml does not declare it`,
      fix: table,
    });
  }
  if (faults.length) throw new Failed(faults);
}

async function mention(metafile, name) {
  for (const path of Object.keys(metafile.inputs)) {
    const full = resolve(project, path);
    if (path.includes(":") || ofSdk(full) || path.includes("node_modules")) continue;
    const text = (await readFile(full, "utf8")).split("\n");
    const line = text.findIndex((one) => new RegExp(`\\b${name}\\b`).test(one));
    if (line >= 0) return `${path}:${line + 1}`;
  }
  return "";
}

/** For each line of the bundle that comes from the author: `[first, how many, file, line]`. */
function linesOf(map) {
  const files = [];
  const rows = [];
  let [original, line] = [0, 0];
  for (const [at, segments] of map.mappings.split(";").entries()) {
    let first;
    for (const segment of segments.split(",").filter(Boolean)) {
      const [, file = 0, lines = 0] = decoded(segment);
      original += file;
      line += lines;
      first ??= [original, line + 1];
    }
    if (!first) continue;
    const path = resolve(scratch, map.sources[first[0]]);
    if (ofSdk(path) || map.sources[first[0]].includes(":")) continue;
    const name = inProject(path);
    if (!files.includes(name)) files.push(name);
    const index = files.indexOf(name);
    const last = rows.at(-1);
    const next = last && last[0] + last[1] === at + 1 && last[2] === index;
    if (next && last[3] + last[1] === first[1]) last[1] += 1;
    else rows.push([at + 1, 1, index, first[1]]);
  }
  return { files, rows };
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The numbers of one segment of a source map (base64 VLQ). */
function decoded(segment) {
  const numbers = [];
  let [value, shift] = [0, 0];
  for (const digit of segment) {
    const bits = DIGITS.indexOf(digit);
    value += (bits & 31) << shift;
    shift += 5;
    if (bits & 32) continue;
    numbers.push(value & 1 ? -(value >>> 1) : value >>> 1);
    [value, shift] = [0, 0];
  }
  return numbers;
}

/** What componentize-js said, by file and line of the author's. */
function spoken(message, { files, rows }) {
  const place = (_, line) => {
    const row = rows.find(([first, count]) => first <= line && line < first + count);
    return row ? `${files[row[2]]}:${row[3] + Number(line) - row[0]}` : "(capwasm)";
  };
  return message
    .replace(/^(Failed to initialize component|Unable to extract expected exports).*\n/, "")
    .replace(/^Error: "source\.js" does not/m, `${inProject(source)} does not`)
    .split("\n")
    .filter((line) => !/initializer\.js|entry\.js|Redirecting call to abort|^"?"?$/.test(line.trim()))
    .map((line) => line.replace(/bundle\.js:(\d+)(:\d+)?/g, place))
    .filter((line) => !line.includes("(capwasm)"))
    .join("\n");
}

// componentize-js reads a whole number that is given to WebAssembly as if it were small and positive:
// numbers from 2**31 on and negative `s64` come out wrong, or end the call.  The same bits as what it
// takes are right.  And it counts a text's bytes a character at a time.
const MENDED = [
  ["toUint32", /(function toUint32\(val\) \{\s*)return val >>> 0;/, "$1return val | 0;"],
  ["toInt64", /(function toInt64\(val\) \{[^}]*)BigInt\.asIntN\(/, "$1BigInt.asUintN("],
  [
    "_utf8AllocateAndEncode",
    /(function _utf8AllocateAndEncode\(s, realloc, memory\) \{)(\s*if \(typeof s !== 'string'[^}]*\})/,
    `$1$2
  const bytes = TEXT_ENCODER_UTF8.encode(s);
  const at = bytes.length ? realloc(0, 0, 1, bytes.length) : 1;
  if (bytes.length) new Uint8Array(memory.buffer, at, bytes.length).set(bytes);
  return { ptr: at, len: bytes.length };`,
  ],
];

function mended(bindings) {
  for (const [name, found, put] of MENDED) {
    if (!bindings.includes(`function ${name}(`)) continue;
    if (!found.test(bindings)) throw new Error(`componentize-js has another ${name}`);
    bindings = bindings.replace(found, put);
  }
  return bindings;
}

async function main() {
  const names = await exportsOf();
  if (!names.length) throw new Failed([{ place: inProject(source), text: "it exports nothing" }]);
  const built = await bundled({
    stdin: { contents: entry(names), resolveDir: project, sourcefile: "entry:", loader: "js" },
    sourcemap: "external",
    sourcesContent: false,
  });
  await checkTables(built.metafile);
  const text = (ending) => built.outputFiles.find((file) => file.path.endsWith(ending)).text;
  const map = linesOf(JSON.parse(text(".map")));
  await writeFile(join(scratch, "bundle.js"), text("bundle.js"));
  const shown = names.map((n) => (IDENTIFIER.test(n) ? n : JSON.stringify(n))).join(", ");
  const start = join(scratch, "entry.js");
  await writeFile(
    start,
    `import { $lines } from "./bundle.js";\n$lines(${JSON.stringify(map)});\nexport { ${shown} } from "./bundle.js";\n`,
  );
  const { componentize, version } = await import(pathToFileURL(join(componentizer, "src/componentize.js")));
  const { splicer } = await import(
    pathToFileURL(join(componentizer, "lib/spidermonkey-embedding-splicer.js"))
  );
  const splice = splicer.spliceBindings;
  splicer.spliceBindings = (...given) => {
    const spliced = splice(...given);
    return { ...spliced, jsBindings: mended(spliced.jsBindings) };
  };
  process.chdir(dirname(start));
  try {
    const { component } = await componentize({
      sourcePath: start,
      witPath: wit,
      worldName: world ?? undefined,
      disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"].filter(
        (feature) => !features.includes(feature),
      ),
    });
    await writeFile(join(scratch, "plugin.wasm"), component);
  } catch (error) {
    throw new Failed([{ place: "", text: spoken(String(error.message ?? error), map) }]);
  }
  return { tool: `componentize-js ${version}` };
}

try {
  process.stdout.write(JSON.stringify(await main()));
} catch (error) {
  const faults = error.faults ?? [{ place: "", text: String(error.stack ?? error) }];
  process.stdout.write(JSON.stringify({ faults }));
  process.exitCode = 1;
}
