#!/usr/bin/env node
// /// agent
// about = "@NAME@: say in one line what it does"
// handles = ["@KIND@"]
// timeout = "10m"
// ///
// One process a task. Its payload is on standard input; its result goes to $NIGHTCREW_OUTPUT.
// Exit 0: done. 75: not now, try later. 65: the payload is bad, do not retry. Any other: failed, retried.
import { readFileSync, writeFileSync } from "node:fs";

let payload;
try {
  payload = JSON.parse(readFileSync(0, "utf8"));
} catch (error) {
  console.error(`the payload is no JSON: ${error.message}`);
  process.exit(65);
}

// The work goes here. What is printed is in `nightcrew logs @NAME@`.
console.log("handling a task of kind @KIND@");
writeFileSync(process.env.NIGHTCREW_OUTPUT, JSON.stringify({ received: payload }));
